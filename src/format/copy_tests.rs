use datafusion::arrow::util::display::array_value_to_string;

use super::*;

fn text() -> CopyOptions {
    CopyOptions {
        format: CopyFormat::Text,
        header: false,
        delimiter: b'\t',
        null: "\\N".to_string(),
        quote: b'"',
        escape: b'"',
    }
}

fn csv() -> CopyOptions {
    CopyOptions { format: CopyFormat::Csv, delimiter: b',', null: String::new(), ..text() }
}

fn decoder(options: CopyOptions) -> CopyDecoder {
    let names = vec!["id".to_string(), "name".to_string()];
    CopyDecoder::try_new(options, vec![PgType::Int8, PgType::Text], names, "orders".to_string()).unwrap()
}

/// Each row's values with `|` between them, NULL as `~`.
fn rows(decoder: &mut CopyDecoder) -> Vec<String> {
    let mut rows = Vec::new();
    while let Some(batch) = decoder.take_batch().unwrap() {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| match column.is_null(row) {
                true => "~".to_string(),
                false => array_value_to_string(column, row).unwrap(),
            });
            rows.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    rows
}

fn assert_rows(options: &CopyOptions, input: &[u8], expected: &[&str]) {
    for size in 1..=input.len() {
        let mut decoder = decoder(options.clone());
        let mut read = Vec::new();
        for piece in input.chunks(size) {
            decoder.push(piece).unwrap();
            read.extend(rows(&mut decoder));
        }
        decoder.finish().unwrap();
        read.extend(rows(&mut decoder));
        assert_eq!(read, expected, "in pieces of {size}");
    }
}

fn assert_refused(options: CopyOptions, input: &[u8], sqlstate: &str, message: &str, detail: &str) {
    let mut decoder = decoder(options);
    let error = decoder.push(input).and_then(|()| decoder.finish()).unwrap_err();
    assert_eq!((error.sqlstate(), error.message(), error.detail()), (sqlstate, message, Some(detail)));
}

#[test]
fn text_format_reads_escapes_nulls_and_its_end() {
    assert_rows(&text(), b"1\tone\n2\t\\N\n\\N\t\n", &["1|one", "2|~", "~|"]);
    assert_rows(&text(), b"1\ta\\tb\\n\\\\N\\q\\\tc\n", &["1|a\tb\n\\Nq\tc"]);
    assert_rows(&text(), b"1\t\\101\\x42\\x4g\\xyz\\303\\251\n", &["1|AB\u{4}gxyzé"]);
    assert_rows(&text(), b"1\ta\\\nb\n", &["1|a\nb"]);
    assert_rows(&text(), b"1\tone\r\n2\ttwo", &["1|one", "2|two"]);
    assert_rows(&text(), b"1\tone\n\\.\nnot read at all\n", &["1|one"]);
    assert_rows(&text(), b"1\tone\n\\.", &["1|one"]);
    assert_rows(&CopyOptions { header: true, ..text() }, b"id\tname\n1\tone\n", &["1|one"]);
    assert_rows(
        &CopyOptions { delimiter: b'|', null: "-".into(), ..text() },
        "1|ü\\|\n-|-".as_bytes(),
        &["1|ü|", "~|~"],
    );
}

#[test]
fn csv_format_reads_quotes_and_unquoted_nulls() {
    assert_rows(&csv(), b"1,one\n2,\n,\"\"\n", &["1|one", "2|~", "~|"]);
    assert_rows(&csv(), b"1,\"a,\"\"b\"\"\r\nc\"\r\n2,x\"y,\"z\r\n", &["1|a,\"b\"\r\nc", "2|xy,z"]);
    assert_rows(&csv(), b"1,\\.\n\"2\",\xc3\xa9", &["1|\\.", "2|é"]);
    let options = CopyOptions { header: true, quote: b'\'', escape: b'\\', null: "NULL".into(), ..csv() };
    assert_rows(&options, b"'a\nheader'\n1,'it\\'s'\n2,NULL\n3,'NULL'\n4,\n", &["1|it's", "2|~", "3|NULL", "4|"]);
}

#[test]
fn errors_say_the_line_and_the_column() {
    let value = "invalid input syntax for type bigint: \"abc\"";
    assert_refused(text(), b"1\ta\n2\tb\nabc\tc\n", "22P02", value, "COPY orders, line 3, column id: \"abc\"");
    assert_refused(csv(), b"1,\"a\nb\"\nabc,c\n", "22P02", value, "COPY orders, line 3, column id: \"abc\"");
    let header = CopyOptions { header: true, ..csv() };
    assert_refused(header, b"abc,abc\nabc,c\n", "22P02", value, "COPY orders, line 2, column id: \"abc\"");
    let range = "value \"9999999999999999999\" is out of range for type bigint";
    let detail = "COPY orders, line 1, column id: \"9999999999999999999\"";
    assert_refused(text(), b"9999999999999999999\t", "22003", range, detail);
}

#[test]
fn a_row_has_as_many_fields_as_there_are_columns() {
    assert_refused(text(), b"1\n", "22P04", "missing data for column \"name\"", "COPY orders, line 1: \"1\"");
    assert_refused(
        csv(),
        b"1,a\n1,a,\n",
        "22P04",
        "extra data after last expected column",
        "COPY orders, line 2: \"1,a,\"",
    );
    assert_refused(csv(), b"\n", "22P04", "missing data for column \"name\"", "COPY orders, line 1: \"\"");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let message = "invalid byte sequence for encoding \"UTF8\": 0xff";
    assert_refused(text(), b"1\ta\xffb\n", "22P04", message, "COPY orders, line 1: \"1\ta\u{fffd}b\"");
    assert_refused(text(), b"1\t\\xff\n", "22P04", message, "COPY orders, line 1: \"1\t\\xff\"");
    let zero = "invalid byte sequence for encoding \"UTF8\": 0x00";
    assert_refused(text(), b"1\t\\0\n", "22P02", zero, "COPY orders, line 1, column name: \"\0\"");
}

#[test]
fn broken_lines_are_refused() {
    let marker = "end-of-copy marker is not alone on its line";
    assert_refused(text(), b"1\ta\\.\n", "22P04", marker, "COPY orders, line 1: \"1\ta\\.\"");
    assert_refused(csv(), b"1,\"a\n", "22P04", "unterminated CSV quoted field", "COPY orders, line 2: \"1,\"a\n\"");
    assert_refused(text(), b"1\ta\n2\tb\r\n", "22P04", "literal carriage return found in data", "COPY orders, line 2");
}

#[test]
fn rows_before_an_error_can_be_taken() {
    let mut decoder = decoder(text());
    assert!(decoder.push(b"1\ta\n2\tb\nx\tc\n3\td\n").is_err());
    decoder.push(b"4\td\n").unwrap();
    decoder.finish().unwrap();
    assert_eq!(rows(&mut decoder), ["1|a", "2|b"]);
}

#[test]
fn a_batch_holds_at_most_8192_rows() {
    let mut decoder = decoder(csv());
    decoder.push("1,a\n".repeat(8193).as_bytes()).unwrap();
    let lengths: Vec<_> = std::iter::from_fn(|| decoder.take_batch().unwrap()).map(|batch| batch.num_rows()).collect();
    assert_eq!(lengths, [8192, 1]);
}
