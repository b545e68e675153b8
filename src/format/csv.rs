use crate::error::*;
use crate::pg_type::PgType;
use datafusion::arrow::array::RecordBatch;
pub struct CopyDecoder;
pub enum CopyInFormat {
    Text,
    Csv,
}
pub struct CopyInOptions {
    pub format: CopyInFormat,
    pub header: bool,
    pub delimiter: u8,
    pub null: String,
    pub quote: u8,
    pub escape: u8,
}
impl CopyDecoder {
    pub fn new(_: CopyInOptions, _: Vec<PgType>, _: Vec<String>, _: String) -> Self {
        CopyDecoder
    }
    pub fn push(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
    pub fn take_batch(&mut self) -> Option<RecordBatch> {
        None
    }
    pub fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
