//! Values of every type under every setting that changes how they look: the bytes of the answers, in text and in binary
//! form, are those of a real PostgreSQL.

use crate::support::lookaside::Lookaside;
use crate::support::postgres::PostgresServer;
use crate::support::raw::{Messages, RawClient};

/// A type, and texts that both read.
const VALUES: [(&str, &[&str]); 21] = [
    ("boolean", &["t", "off", " TRUE "]),
    ("smallint", &["-32768", "32767", " +5 "]),
    ("integer", &["-2147483648", "2147483647", "0"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("real", &["0", "-0", "1.5", "3.4028235e38", "1e-45", "0.1", "123456789", "NaN", "inf", "-Infinity", "1e10"]),
    (
        "double precision",
        &[
            "0",
            "-0",
            "0.1",
            "1e300",
            "5e-324",
            "1.7976931348623157e308",
            "NaN",
            "Infinity",
            "-inf",
            "1e15",
            "1e16",
            "12345.678",
        ],
    ),
    ("numeric(12,2)", &["0", "-0.01", "9999999999.99", "12.50"]),
    ("numeric(38,0)", &["99999999999999999999999999999999999999", "-1"]),
    (
        "numeric(60,20)",
        &["1234567890123456789012345678901234567890.12345678901234567890", "-0.00000000000000000001", "10000"],
    ),
    ("numeric(76,0)", &["9999999999999999999999999999999999999999999999999999999999999999999999999999"]),
    ("text", &["", "plain", "é\tü", "with \"quotes\" and \\", "NULL"]),
    ("bytea", &["", "\\x00ff10", "a\\\\b\\001z", "\\x20417e7f80"]),
    (
        "date",
        &[
            "2024-02-29",
            "0044-03-15 BC",
            "0001-01-01",
            "10000-01-01",
            "5874897-12-31",
            "4714-11-24 BC",
            "20240103",
            "1999-12-31",
        ],
    ),
    ("time", &["00:00:00", "23:59:59.999999", "12:34:56.7", "04:05 PM"]),
    (
        "timestamp",
        &[
            "2024-02-29 12:34:56.789012",
            "0044-03-15 00:00:00.5 BC",
            "294246-12-31 23:59:59.999999",
            "2024-01-01",
            "1969-12-31 23:59:59.9",
        ],
    ),
    (
        "timestamptz",
        &[
            "2024-02-29 12:34:56.789012+00",
            "2024-07-01 12:00:00",
            "2024-01-01 10:11 Europe/Berlin",
            "2024-03-10 02:30",
            "1800-01-01 00:00:00Z",
            "2024-06-01 00:00 PST",
            "0044-03-15 00:00:00+00 BC",
            "12000-06-01 00:00:00+00",
        ],
    ),
    (
        "interval",
        &[
            "0",
            "1 year 2 mons -3 days 04:05:06.789",
            "-1 mons -2 days -00:00:00.000001",
            "1.5 years",
            "@ 1 day 2 hours ago",
            "P1Y2M3DT4H5M6.7S",
            "1-2",
            "100:00:00",
            "-00:00:01",
            "1 day",
            "-1 day",
            "2.5 weeks",
            "1 sec",
        ],
    ),
    ("uuid", &["{A0EEBC999C0B4EF8BB6D6BB9BD380A11}"]),
    ("json", &["{\"a\": [1, 2.0]}", "null"]),
    ("name", &["a name", "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"]),
    ("oid", &["0", "4294967295"]),
];

/// Arrays are written with the forms of their elements.
const ARRAYS: [(&str, &str); 8] = [
    ("bigint[]", "{1,NULL,-3}"),
    ("text[]", "{a b,\"c,d\",NULL,\"null\",\"\",\"q\\\"q\"}"),
    ("boolean[]", "{t,f}"),
    ("timestamptz[]", "{2024-02-29 12:34:56+00,NULL}"),
    ("double precision[]", "{0.1,NaN,1e300}"),
    ("bytea[]", "{\"\\\\x00ff\",NULL}"),
    ("interval[]", "{1 day,\"-1 mons 04:05:06\"}"),
    ("integer[]", "{}"),
];

/// Each is set on both sides before all values are asked for again.
const SETTINGS: [&str; 12] = [
    "SELECT 1",
    "SET TimeZone = 'America/New_York'",
    "SET DateStyle = 'SQL, DMY'",
    "SET DateStyle = 'SQL, MDY'",
    "SET DateStyle = 'Postgres, DMY'; SET TimeZone = 'Asia/Kolkata'",
    "SET DateStyle = 'Postgres, MDY'; SET IntervalStyle = 'postgres_verbose'",
    "SET DateStyle = 'German'; SET TimeZone = 'Europe/Berlin'; SET IntervalStyle = 'sql_standard'",
    "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'America/Sao_Paulo'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = 0",
    "SET extra_float_digits = -5",
    "SET extra_float_digits = 3",
];

/// Texts that mean different things, or nothing, under different settings; and what nobody reads.
const INPUTS: [(&str, &str); 22] = [
    ("date", "01/02/2003"),
    ("date", "13/02/2003"),
    ("date", "02/13/2003"),
    ("date", "29.02.2024"),
    ("date", "Jan 2, 2003"),
    ("date", "2-jan-03"),
    ("date", "99-01-08"),
    ("timestamp", "Thu Jan 02 12:34:56.5 2003"),
    ("timestamptz", "02.01.2003 12:34:56 CET"),
    ("timestamptz", "2024-11-03 01:30"),
    ("date", "2024-02-30"),
    ("date", "x"),
    ("time", "25:00"),
    ("timestamptz", "2024-01-01 10:11 Foo/Bar"),
    ("timestamptz", "2024-01-01 10:11+16"),
    ("interval", "1 fortnight"),
    ("interval", "3000000000 days"),
    ("integer", "2147483648"),
    ("smallint", "1.5"),
    ("uuid", "x"),
    ("bytea", "\\xzz"),
    ("double precision", "1e400"),
];

/// Every row, or the SQLSTATE of the error.
async fn answer(client: &mut RawClient, messages: Messages) -> Vec<String> {
    client.send(messages).await;
    let mut answer = vec![];
    loop {
        let (letter, body) = client.next_message().await.expect("an answer");
        match letter {
            b'D' => answer.push(body.escape_ascii().to_string()),
            b'E' => {
                let code = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C'));
                answer.push(String::from_utf8_lossy(code.unwrap_or_default()).into_owned());
            }
            b'Z' => return answer,
            _ => {}
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn values_look_as_postgresql_shows_them() {
    let lookaside = Lookaside::start("").await;
    let postgres = PostgresServer::start();
    let mut wrong = vec![];
    let arrays = ARRAYS.iter().map(|(type_name, text)| (*type_name, std::slice::from_ref(text)));
    for setting in SETTINGS {
        let mut ours = RawClient::connect(lookaside.port).await;
        let mut theirs = RawClient::open(postgres.port()).await;
        theirs.log_in(&[("user", "postgres"), ("TimeZone", "UTC")]).await;
        for client in [&mut ours, &mut theirs] {
            let answers = client.query(setting).await;
            assert!(!answers.iter().any(|answer| answer.starts_with('E')), "{setting}: {answers:?}");
        }
        for (type_name, texts) in VALUES.iter().map(|(name, texts)| (*name, *texts)).chain(arrays.clone()) {
            let columns: Vec<_> = texts
                .iter()
                .enumerate()
                .map(|(n, text)| format!("CAST({} AS {type_name}) AS v{n}", quoted(text)))
                .collect();
            let sql = format!("SELECT {}", columns.join(", "));
            let text = || Messages::default().query(&sql);
            let binary = || Messages::default().parse("", &sql).bind("", "", &[], &[1]).execute("", 0).sync();
            let found = [answer(&mut ours, text()).await, answer(&mut ours, binary()).await];
            let expected = [answer(&mut theirs, text()).await, answer(&mut theirs, binary()).await];
            if found != expected {
                wrong.push(format!("{setting}: {sql}\n  ours   {found:?}\n  theirs {expected:?}"));
            }
        }
        for (type_name, text) in INPUTS {
            let sql = format!("SELECT CAST({} AS {type_name}) AS v", quoted(text));
            let found = answer(&mut ours, Messages::default().query(&sql)).await;
            let expected = answer(&mut theirs, Messages::default().query(&sql)).await;
            if found != expected {
                wrong.push(format!("{setting}: {sql}\n  ours   {found:?}\n  theirs {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn parameters_are_read_as_postgresql_reads_them() {
    let lookaside = Lookaside::start("").await;
    let postgres = PostgresServer::start();
    let mut ours = RawClient::connect(lookaside.port).await;
    let mut theirs = RawClient::open(postgres.port()).await;
    theirs.log_in(&[("user", "postgres")]).await;
    let setting = "SET TimeZone = 'America/New_York'; SET DateStyle = 'SQL, DMY'";
    for client in [&mut ours, &mut theirs] {
        client.query(setting).await;
    }
    let mut wrong = vec![];
    let values = VALUES.iter().flat_map(|(name, texts)| texts.iter().map(|text| (*name, *text)));
    let arrays = ARRAYS.iter().copied();
    for (type_name, text) in values.chain(arrays).chain(INPUTS) {
        let sql = format!("SELECT CAST($1 AS {type_name}) AS v");
        let bound = |messages: Messages| messages.parse("", &sql).bind("", "", &[text], &[]).execute("", 0).sync();
        let found = answer(&mut ours, bound(Messages::default())).await;
        let expected = answer(&mut theirs, bound(Messages::default())).await;
        if found != expected {
            wrong.push(format!("{sql} {text:?}\n  ours   {found:?}\n  theirs {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}
