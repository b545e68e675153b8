pub fn decode_parameter(
    _: Option<&[u8]>,
    _: super::encode::Format,
    _: &crate::pg_type::PgType,
) -> crate::error::Result<datafusion::common::ScalarValue> {
    Ok(datafusion::common::ScalarValue::Null)
}
