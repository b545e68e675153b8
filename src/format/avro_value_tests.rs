use super::*;

fn numeric(bytes: &[u8], precision: u8, shift: u32) -> Result<Value<'static>, ValueError> {
    decimal(bytes, precision, shift)
}

#[test]
fn decimals_of_any_length_are_read() {
    for (bytes, expected) in [
        (&[0x7f][..], 127),
        (&[0x80], -128),
        (&[0, 0x80], 128),
        (&[0xff, 0x7f], -129),
        (&[0], 0),
        (&[0xff; 40], -1),
        (&[0; 40], 0),
    ] {
        assert_eq!(numeric(bytes, 9, 0).unwrap(), Value::Decimal128(expected), "{bytes:?}");
        assert_eq!(numeric(bytes, 40, 0).unwrap(), Value::Decimal256(i256::from_i128(expected)), "{bytes:?}");
    }
    assert_eq!(numeric(&[5], 9, 3).unwrap(), Value::Decimal128(5000));
}

#[test]
fn decimals_beyond_their_precision_are_refused() {
    let mut wide = vec![0; 33];
    wide[1] = 0x80;
    let mut negative = vec![0xff; 33];
    negative[1] = 0x7f;
    for (bytes, precision, shift) in
        [(&[100][..], 2, 0), (&[0x9c], 2, 0), (&[1; 33], 76, 0), (&[0x7f; 32], 76, 0), (&[1], 3, 3), (&[5], 76, 76)]
    {
        let error = numeric(bytes, precision, shift).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::NumericOutOfRange, "numeric field overflow"));
    }
    assert!(numeric(&wide, 76, 0).is_err());
    assert!(numeric(&negative, 76, 0).is_err());
    assert_eq!(numeric(&[99], 2, 0).unwrap(), Value::Decimal128(99));
    assert_eq!(numeric(&[], 2, 0).unwrap_err().message, "a decimal has no bytes");
}

#[test]
fn intervals_have_months_days_and_milliseconds() {
    let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(interval(&bytes), Some(Value::Interval(IntervalMonthDayNano::new(1, 2, 4_294_967_295_000_000))));
    assert_eq!(interval(&[0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(interval(&[]), None);
}
