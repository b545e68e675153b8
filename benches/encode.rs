//! How many rows a second does one thread write for the wire, in each of its forms?
//!
//! The batch has 8192 rows of five columns: bigint, bigint, numeric(12,2), text and timestamptz.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use datafusion::arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::Schema;
use lookaside::error::Result;
use lookaside::format::copy_options::CopyOptions;
use lookaside::pg_type::{PgType, UTC};
use lookaside::server::encode::{Format, RowEncoder};
use lookaside::server::encode_copy::CopyEncoder;
use tokio::time::Instant;

const ROWS: usize = 8192;
const DURATION: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let batch = batch()?;
    let schema = batch.schema();
    for (name, format) in [("text", Format::Text), ("binary", Format::Binary)] {
        let mut encoder = RowEncoder::try_new(&schema, &[format; 5])?;
        measure(&format!("encode_{name}_rows_per_second"), |out| encoder.encode(&batch, 0..ROWS, out))?;
    }
    for format in ["text", "csv", "binary"] {
        let mut encoder = CopyEncoder::try_new(&schema, CopyOptions::try_new([("format", Some(format))])?)?;
        measure(&format!("copy_{format}_rows_per_second"), |out| encoder.encode(&batch, 0..ROWS, out))?;
    }
    Ok(())
}

/// Writes the batch again and again for [`DURATION`], after one round that brings the buffer to its size.
fn measure(name: &str, mut write: impl FnMut(&mut BytesMut) -> Result<()>) -> Result<()> {
    let mut out = BytesMut::new();
    write(&mut out)?;
    let bytes = out.len();
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < DURATION {
        out.clear();
        write(&mut out)?;
        rounds += 1;
    }
    let rows_per_second = (rounds * ROWS) as f64 / start.elapsed().as_secs_f64();
    println!("{name} {rows_per_second:.0} ({} bytes a row)", bytes / ROWS);
    Ok(())
}

fn batch() -> Result<RecordBatch> {
    let numbers = 0..ROWS as i64;
    let amounts = Decimal128Array::from_iter_values(numbers.clone().map(|n| i128::from(n * 7919 % 10_000_000)));
    let micros = numbers.clone().map(|n| 1_709_210_096_000_000 + n * 1_234_567);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| 1_000_000 + n))),
        Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| n * 31 % 1000))),
        Arc::new(amounts.with_precision_and_scale(12, 2)?),
        Arc::new(StringViewArray::from_iter_values(numbers.map(|n| format!("customer {n:07}")))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone(UTC)),
    ];
    let types = [
        ("order_id", PgType::Int8),
        ("customer_id", PgType::Int8),
        ("amount", PgType::Numeric { precision: 12, scale: 2 }),
        ("name", PgType::Text),
        ("placed_at", PgType::Timestamptz),
    ];
    let fields = types.map(|(name, pg_type)| pg_type.field(name, true)).to_vec();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
