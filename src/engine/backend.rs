//! `pg_cancel_backend`, `pg_terminate_backend`, `pg_sleep` and `pg_advisory_unlock_all`: functions over the connections of
//! clients.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, AsArray, BooleanArray, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::catalog::backends::{Backends, Signal};
use crate::catalog::{Catalog, Viewer};
use crate::error::{Code, Error, Result};

/// Longer than anybody waits, and short enough for every clock.
const LONGEST_SLEEP_SECONDS: f64 = 3_000_000_000.0;

/// Cancels the statement of a connection, or ends the connection; false when there is no such connection.
#[derive(Debug)]
pub(super) struct SignalBackend {
    signal: Signal,
    backends: Arc<Backends>,
    signature: Signature,
}

impl SignalBackend {
    pub fn new(signal: Signal, catalog: &Catalog) -> Self {
        let signatures = match signal {
            Signal::Cancel => vec![TypeSignature::Any(1)],
            // The second is how long to wait for the end: it comes at once.
            Signal::Terminate => vec![TypeSignature::Any(1), TypeSignature::Any(2)],
        };
        SignalBackend {
            signal,
            backends: Arc::clone(catalog.backends()),
            signature: Signature::one_of(signatures, Volatility::Volatile),
        }
    }
}

/// There is one of each for each engine.
impl PartialEq for SignalBackend {
    fn eq(&self, other: &Self) -> bool {
        self.signal == other.signal && Arc::ptr_eq(&self.backends, &other.backends)
    }
}

impl Eq for SignalBackend {}

impl Hash for SignalBackend {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for SignalBackend {
    fn name(&self) -> &str {
        match self.signal {
            Signal::Cancel => "pg_cancel_backend",
            Signal::Terminate => "pg_terminate_backend",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let viewer = Viewer::of(&args.config_options).cloned().unwrap_or_else(Viewer::owner);
        let pids = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Int32)?;
        let pids = pids.as_primitive::<Int32Type>();
        let signal = |pid: Option<i32>| pid.map(|pid| self.backends.signal(pid, self.signal, &viewer)).transpose();
        let signalled = pids.iter().map(signal).collect::<Result<BooleanArray>>()?;
        Ok(ColumnarValue::Array(Arc::new(signalled)))
    }
}

/// Waits so many seconds, each row after the other.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Sleep {
    signature: Signature,
}

impl Sleep {
    pub fn new() -> Self {
        Sleep { signature: Signature::any(1, Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// PostgreSQL has the type void for it, whose one value is shown as an empty text.
    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Err(DataFusionError::Internal("pg_sleep is called asynchronously".into()))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let seconds = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Float64)?;
        let seconds = seconds.as_primitive::<Float64Type>();
        for seconds in seconds.iter().flatten() {
            if seconds.is_nan() {
                return Err(Error::new(Code::InvalidParameterValue, "pg_sleep cannot wait for NaN seconds").into());
            }
            tokio::time::sleep(Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_SLEEP_SECONDS))).await;
        }
        let slept = (0..seconds.len()).map(|row| seconds.is_valid(row).then_some("")).collect::<StringViewArray>();
        Ok(ColumnarValue::Array(Arc::new(slept)))
    }
}

/// Nobody can take an advisory lock, so there is none to release. Pools call it when a connection comes back to them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct UnlockAll {
    signature: Signature,
}

impl UnlockAll {
    pub fn new() -> Self {
        UnlockAll { signature: Signature::nullary(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for UnlockAll {
    fn name(&self) -> &str {
        "pg_advisory_unlock_all"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// As of `pg_sleep`: the type void, shown as an empty text.
    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(Some(String::new()))))
    }
}
