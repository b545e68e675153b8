//! What EXPLAIN ANALYZE shows of a lookup stage beside plain counts.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use datafusion::physical_plan::metrics::{CustomMetricValue, ExecutionPlanMetricsSet, MetricBuilder, MetricValue};

use crate::telemetry::Histogram;

/// Adds a metric of its own kind to those of an operator.
pub(super) fn register<M: CustomMetricValue + Default + 'static>(
    metrics: &ExecutionPlanMetricsSet,
    name: &'static str,
    partition: usize,
) -> Arc<M> {
    let value: Arc<M> = Arc::default();
    let metric = MetricValue::Custom { name: name.into(), value: Arc::clone(&value) as _ };
    MetricBuilder::new(metrics).with_partition(partition).build(metric);
    value
}

/// How long keys waited, from the moment at which rows took places to the store's answer.
#[derive(Debug, Default)]
pub(super) struct WaitTimes(Histogram);

impl WaitTimes {
    pub fn observe(&self, wait: Duration, keys: usize) {
        self.0.observe_many(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), keys as u64);
    }
}

impl fmt::Display for WaitTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.0.distribution();
        let quantile = |quantile| Duration::from_micros(seen.quantile(quantile).unwrap_or(0));
        write!(f, "p50 {:?} p99 {:?}", quantile(0.5), quantile(0.99))
    }
}

impl CustomMetricValue for WaitTimes {
    fn new_empty(&self) -> Arc<dyn CustomMetricValue> {
        Arc::new(WaitTimes::default())
    }

    fn aggregate(&self, other: Arc<dyn CustomMetricValue>) {
        if let Some(other) = other.as_any().downcast_ref::<WaitTimes>() {
            self.0.add(&other.0);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_eq(&self, other: &Arc<dyn CustomMetricValue>) -> bool {
        let other = other.as_any().downcast_ref::<WaitTimes>();
        other.is_some_and(|other| other.0.distribution() == self.0.distribution())
    }
}

/// How many keys the requests carried that brought answers, those of other queries among them.
#[derive(Debug, Default)]
pub(super) struct KeysPerRequest {
    keys: AtomicU64,
    requests: AtomicU64,
}

impl KeysPerRequest {
    pub fn count(&self, keys: u64, requests: u64) {
        self.keys.fetch_add(keys, Relaxed);
        self.requests.fetch_add(requests, Relaxed);
    }

    fn counts(&self) -> (u64, u64) {
        (self.keys.load(Relaxed), self.requests.load(Relaxed))
    }
}

impl fmt::Display for KeysPerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, requests) = self.counts();
        write!(f, "{:.1}", keys as f64 / requests.max(1) as f64)
    }
}

impl CustomMetricValue for KeysPerRequest {
    fn new_empty(&self) -> Arc<dyn CustomMetricValue> {
        Arc::new(KeysPerRequest::default())
    }

    fn aggregate(&self, other: Arc<dyn CustomMetricValue>) {
        if let Some(other) = other.as_any().downcast_ref::<KeysPerRequest>() {
            let (keys, requests) = other.counts();
            self.count(keys, requests);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_eq(&self, other: &Arc<dyn CustomMetricValue>) -> bool {
        other.as_any().downcast_ref::<KeysPerRequest>().is_some_and(|other| other.counts() == self.counts())
    }
}
