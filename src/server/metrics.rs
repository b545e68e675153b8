//! What `/metrics` tells, in the text format of Prometheus: the numbers of `lookaside.lookups` and its likes under the
//! same words, and distributions as histograms.

use std::fmt::{Display, Write};
use std::sync::Arc;

use crate::catalog::system::lag_of;
use crate::catalog::{Catalog, Relation, Rights, Stream};
use crate::lookup::{LookupCounters, LookupTable};
use crate::source::progress::Progress;
use crate::telemetry::Distribution;

/// Powers of two up to which latencies have a bucket: from 64 microseconds to 67 seconds.
const LATENCY_POWERS: std::ops::RangeInclusive<u32> = 6..=26;
/// And keys of a request: from 1 to 65,535.
const KEYS_POWERS: std::ops::RangeInclusive<u32> = 1..=16;

/// All metrics of a server as of now; of streams and lookup tables those that somebody with these rights may see.
pub(super) fn metrics_text(catalog: &Catalog, connections: usize, rights: &Rights) -> String {
    let mut page = Page::default();
    page.family("lookaside_build_info", "gauge", "The version that runs.");
    page.sample("lookaside_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("lookaside_connections", "gauge", "Clients that have logged in.");
    page.sample("lookaside_connections", &[], connections);
    page.family("lookaside_queries_running", "gauge", "Queries that run, those of open cursors among them.");
    page.sample("lookaside_queries_running", &[], catalog.running().snapshot().len());
    page.family("lookaside_tasks", "gauge", "Tasks of the server that have begun and not ended.");
    page.sample("lookaside_tasks", &[], tokio::runtime::Handle::current().metrics().num_alive_tasks());
    streams(&mut page, catalog, rights);
    lookups(&mut page, catalog, rights);
    page.text
}

fn streams(page: &mut Page, catalog: &Catalog, rights: &Rights) {
    let streams: Vec<(&str, &Stream)> = catalog
        .relations()
        .filter(|(name, _)| rights.may_see(name))
        .filter_map(|(name, relation)| match relation {
            Relation::Stream(stream) => Some((name, stream.as_ref())),
            Relation::Lookup(_) => None,
        })
        .collect();
    for (name, kind, meaning, of) in STREAM_METRICS {
        page.family(name, kind, meaning);
        for (stream_name, stream) in &streams {
            page.sample(name, &[("stream", stream_name)], stream.progress().map_or(0, |progress| of(progress)));
        }
    }
    page.family("lookaside_stream_lag", "gauge", "Messages that the reader who is furthest behind has not come to.");
    for (name, lag) in streams.iter().filter_map(|(name, stream)| Some((*name, lag_of(stream)?))) {
        page.sample("lookaside_stream_lag", &[("stream", name)], lag);
    }
    page.family("lookaside_stream_retained_rows", "gauge", "Rows of a push stream that can still be read.");
    for (name, push) in streams.iter().filter_map(|(name, stream)| Some((*name, stream.push.as_ref()?))) {
        page.sample("lookaside_stream_retained_rows", &[("stream", name)], push.retained_rows());
    }
}

/// Name, kind, meaning and value of a number of each stream.
type StreamMetric = (&'static str, &'static str, &'static str, fn(&Progress) -> u64);

const STREAM_METRICS: [StreamMetric; 3] = [
    ("lookaside_stream_rows_read_total", "counter", "Rows that queries have read.", Progress::rows_read),
    ("lookaside_stream_rows_skipped_total", "counter", "Malformed rows that were left out.", Progress::rows_skipped),
    ("lookaside_stream_readers", "gauge", "Queries that read the stream.", Progress::readers),
];

/// Name, kind, meaning and value of a number of each lookup table.
type LookupMetric = (&'static str, &'static str, &'static str, fn(&LookupCounters) -> u64);

#[rustfmt::skip]
const LOOKUP_METRICS: [LookupMetric; 14] = [
    ("lookaside_lookup_rows_total", "counter", "Rows that had a key to look up.", |c| c.rows),
    ("lookaside_lookup_hits_total", "counter", "Rows that the cache answered.", |c| c.hits),
    ("lookaside_lookup_misses_total", "counter", "Rows that waited for the store.", |c| c.misses),
    ("lookaside_lookup_requests_total", "counter", "Requests sent to the store.", |c| c.requests),
    ("lookaside_lookup_keys_total", "counter", "Keys in these requests.", |c| c.keys),
    ("lookaside_lookup_failures_total", "counter", "Requests that failed.", |c| c.failures),
    ("lookaside_lookup_timeouts_total", "counter", "Rows whose wait was longer than the time-out.", |c| c.timeouts),
    ("lookaside_lookup_retries_total", "counter", "Attempts beyond the first, in keys.", |c| c.retries),
    ("lookaside_lookup_skipped_total", "counter", "Rows that on_failure = 'skip' dropped.", |c| c.skipped),
    ("lookaside_lookup_stale_total", "counter", "Rows that an expired answer served.", |c| c.stale),
    ("lookaside_lookup_refreshes_total", "counter", "Keys that were refreshed behind their old answer.", |c| c.refreshes),
    ("lookaside_lookup_cached_rows", "gauge", "Rows in the cache.", |c| c.cached_rows),
    ("lookaside_lookup_cached_bytes", "gauge", "Bytes of the cache.", |c| c.cached_bytes),
    ("lookaside_lookup_in_flight", "gauge", "Requests at the store now.", |c| c.in_flight),
];

fn lookups(page: &mut Page, catalog: &Catalog, rights: &Rights) {
    let tables: Vec<(&str, Option<&Arc<LookupTable>>)> = catalog
        .lookups()
        .map(|lookup| (lookup.definition().name.as_str(), lookup.connected_table()))
        .filter(|(name, _)| rights.may_see(name))
        .collect();
    page.family("lookaside_lookup_connected", "gauge", "Whether the store has been reached.");
    for (name, table) in &tables {
        page.sample("lookaside_lookup_connected", &[("lookup", name)], u8::from(table.is_some()));
    }
    page.family("lookaside_lookup_breaker", "gauge", "1 for the state that the circuit breaker is in.");
    for (name, table) in &tables {
        if let Some(state) = table.and_then(|table| table.breaker_state()) {
            page.sample("lookaside_lookup_breaker", &[("lookup", name), ("state", state)], 1);
        }
    }
    let counters: Vec<_> =
        tables.iter().map(|(_, table)| table.map_or_else(LookupCounters::default, |table| table.counters())).collect();
    for (metric, kind, help, value) in LOOKUP_METRICS {
        page.family(metric, kind, help);
        for ((name, _), counters) in tables.iter().zip(&counters) {
            page.sample(metric, &[("lookup", name)], value(counters));
        }
    }
    page.family("lookaside_lookup_latency_seconds", "histogram", "How long requests to the store took.");
    for (name, table) in &tables {
        let seen = table.map(|table| table.latency()).unwrap_or_default();
        // A count of whole microseconds below a power of two is a time below that many.
        let bounds = LATENCY_POWERS.map(|power| (f64::from(1_u32 << power) / 1e6, (1 << power) - 1));
        page.histogram("lookaside_lookup_latency_seconds", name, &seen, bounds, 1e6);
    }
    page.family("lookaside_lookup_request_keys", "histogram", "Keys of a request.");
    for (name, table) in &tables {
        let seen = table.map(|table| table.batch_keys()).unwrap_or_default();
        let bounds = KEYS_POWERS.map(|power| (f64::from((1_u32 << power) - 1), (1 << power) - 1));
        page.histogram("lookaside_lookup_request_keys", name, &seen, bounds, 1.0);
    }
}

/// The text so far.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// What comes before the samples of a metric.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escape(text))).collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.text, "{name} {value}"),
            false => writeln!(self.text, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    /// `bounds` holds each bucket's bound as shown and as counted; the sum is shown in units of `unit`.
    fn histogram(
        &mut self,
        name: &str,
        lookup: &str,
        seen: &Distribution,
        bounds: impl Iterator<Item = (f64, u64)>,
        unit: f64,
    ) {
        let bucket = format!("{name}_bucket");
        for (shown, counted) in bounds {
            self.sample(&bucket, &[("lookup", lookup), ("le", &shown.to_string())], seen.count_up_to(counted));
        }
        self.sample(&bucket, &[("lookup", lookup), ("le", "+Inf")], seen.count());
        self.sample(&format!("{name}_sum"), &[("lookup", lookup)], seen.sum as f64 / unit);
        self.sample(&format!("{name}_count"), &[("lookup", lookup)], seen.count());
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Histogram;

    #[test]
    fn histograms_are_cumulative_and_exact_at_their_bounds() {
        let seen = Histogram::default();
        [1, 3, 4, 100].into_iter().for_each(|keys| seen.observe(keys));
        let mut page = Page::default();
        page.histogram("keys", "a", &seen.distribution(), [(1.0, 1), (3.0, 3), (7.0, 7)].into_iter(), 1.0);
        let expected = "keys_bucket{lookup=\"a\",le=\"1\"} 1\nkeys_bucket{lookup=\"a\",le=\"3\"} 2\n\
            keys_bucket{lookup=\"a\",le=\"7\"} 3\nkeys_bucket{lookup=\"a\",le=\"+Inf\"} 4\n\
            keys_sum{lookup=\"a\"} 108\nkeys_count{lookup=\"a\"} 4\n";
        assert_eq!(page.text, expected);
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.sample("rows", &[("lookup", "a\"b\\c\nd")], 1);
        assert_eq!(page.text, "rows{lookup=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
