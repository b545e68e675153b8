//! The PostgreSQL store against a PostgreSQL.

use std::ops::Not;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use lookaside::error::Code;
use lookaside::pg_type::PgType;
use lookaside::store::contract;
use lookaside::store::postgres::{PostgresConfig, PostgresConnection, PostgresStore, SslMode};
use lookaside::store::{Answer, LookupRequest, LookupShape, SqlTable, Store};

use crate::support::postgres::PostgresServer;

#[derive(Clone, Copy)]
pub struct Options {
    pub max_connections: usize,
    pub prepare: bool,
}

pub const OPTIONS: Options = Options { max_connections: 4, prepare: true };

pub fn connection(server: &PostgresServer, options: Options) -> Arc<PostgresConnection> {
    let config = PostgresConfig {
        config: server.url().parse().unwrap(),
        sslmode: SslMode::Disable,
        sslrootcert: None,
        max_connections: options.max_connections,
        prepare: options.prepare,
    };
    PostgresConnection::try_new("shop".to_string(), config).unwrap()
}

pub fn table(name: &str) -> SqlTable {
    SqlTable { table: name.to_string(), columns: None, types: Vec::new() }
}

pub async fn store(server: &PostgresServer, name: &str) -> PostgresStore {
    PostgresStore::connect(connection(server, OPTIONS), &table(name)).await.unwrap()
}

/// The statement that inserts `rows`, each value as a quoted text.
fn insert(name: &str, rows: &RecordBatch) -> String {
    let options = FormatOptions::default();
    let columns =
        rows.columns().iter().map(|column| (column, ArrayFormatter::try_new(column.as_ref(), &options).unwrap()));
    let columns = columns.collect::<Vec<_>>();
    let value = |row: usize| {
        let values = columns.iter().map(|(column, formatter)| match column.is_null(row) {
            true => "NULL".to_string(),
            false => format!("'{}'", formatter.value(row).to_string().replace('\'', "''")),
        });
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    format!("INSERT INTO {name} VALUES {}", (0..rows.num_rows()).map(value).collect::<Vec<_>>().join(",\n"))
}

#[tokio::test]
async fn contract_holds_prepared_and_not_with_an_index_and_without() {
    let server = PostgresServer::shared();
    let columns = "id bigint, region text, name text, note text";
    server.execute(&format!("CREATE TABLE contract ({columns}); CREATE TABLE contract_indexed ({columns}); CREATE INDEX ON contract_indexed (id, region)")).await;
    let rows = contract::table().unwrap();
    server.execute(&insert("contract", &rows)).await;
    server.execute(&insert("contract_indexed", &rows)).await;
    for prepare in [true, false] {
        for name in ["contract", "contract_indexed"] {
            let connection = connection(server, Options { prepare, ..OPTIONS });
            let store = PostgresStore::connect(connection, &table(name)).await.unwrap();
            contract::check(&store, contract::RowOrder::Any).await.unwrap();
        }
    }
}

pub fn request(key_columns: &[usize], columns: &[usize], filters: &[Expr], keys: Vec<ArrayRef>) -> LookupRequest {
    let shape =
        LookupShape { key_columns: key_columns.to_vec(), columns: columns.to_vec(), filters: filters.to_vec().into() };
    LookupRequest { shape: Arc::new(shape), keys, max_answer_bytes: u64::MAX }
}

/// The rows of an answer as text, sorted, each behind the position of its key.
pub fn texts(answer: &Answer) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns =
        answer.rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap());
    let columns = columns.collect::<Vec<_>>();
    let row = |row: usize| {
        let values = columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>();
        format!("{}: {}", answer.key_of_row.value(row), values.join(" | "))
    };
    let mut rows = (0..answer.rows.num_rows()).map(row).collect::<Vec<_>>();
    rows.sort();
    rows
}

pub fn ints(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

/// A type, values of it as PostgreSQL reads them, and as Arrow shows them.
const TYPES: [(&str, &[(&str, &str)]); 24] = [
    ("boolean", &[("t", "true"), ("f", "false")]),
    ("smallint", &[("-32768", "-32768"), ("32767", "32767")]),
    ("integer", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    ("bigint", &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")]),
    (
        "real",
        &[("1.5", "1.5"), ("-Infinity", "-inf"), ("NaN", "NaN"), ("-0", "-0.0"), ("3.4028235e38", "3.4028235e38")],
    ),
    ("double precision", &[("-2.5", "-2.5"), ("Infinity", "inf"), ("NaN", "NaN"), ("5e-324", "5e-324")]),
    ("numeric(12,2)", &[("9999999999.99", "9999999999.99"), ("-0.01", "-0.01"), ("0", "0.00"), ("10000", "10000.00")]),
    ("numeric(5,5)", &[("0.00001", "0.00001"), ("-0.99999", "-0.99999")]),
    ("numeric(4,-2)", &[("123400", "123400"), ("-999900", "-999900")]),
    (
        "numeric",
        &[
            ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
            ("1e19", "10000000000000000000.000000000000000000"),
        ],
    ),
    ("numeric(38,1)", &[("9999999999999999999999999999999999999.9", "9999999999999999999999999999999999999.9")]),
    (
        "numeric(76,38)",
        &[
            (
                "99999999999999999999999999999999999999.99999999999999999999999999999999999999",
                "99999999999999999999999999999999999999.99999999999999999999999999999999999999",
            ),
            ("-1e-38", "-0.00000000000000000000000000000000000001"),
        ],
    ),
    (
        "text",
        &[
            ("", ""),
            ("O'Brien \\ \"x\" 漢字 🦀", "O'Brien \\ \"x\" 漢字 🦀"),
            ("longer than a view holds inline", "longer than a view holds inline"),
        ],
    ),
    ("varchar(5)", &[("abcde", "abcde"), ("a ", "a ")]),
    ("char(5)", &[("ab", "ab   ")]),
    ("name", &[("pg_class", "pg_class")]),
    ("\"char\"", &[("x", "x")]),
    ("bytea", &[("\\x00ff5c", "00ff5c"), ("", "")]),
    ("date", &[("4713-01-01 BC", "-4712-01-01"), ("1969-12-31", "1969-12-31"), ("9999-12-31", "9999-12-31")]),
    ("time", &[("00:00:00", "00:00:00"), ("23:59:59.999999", "23:59:59.999999")]),
    (
        "timestamp",
        &[
            ("4713-01-01 00:00:00 BC", "-4712-01-01T00:00:00"),
            ("1969-12-31 23:59:59.999999", "1969-12-31T23:59:59.999999"),
        ],
    ),
    ("timestamptz", &[("2024-02-29 12:00:00.000001+02", "2024-02-29T10:00:00.000001Z")]),
    ("interval", &[("1 year -2 days 03:04:05.000006", "12 mons -2 days 3 hours 4 mins 5.000006000 secs")]),
    ("uuid", &[("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]),
];

/// Every value comes as it is, and finds its own row when it is asked for as a key.
#[tokio::test]
async fn values_of_every_type_survive_as_column_and_as_key() {
    let server = PostgresServer::shared();
    for (i, (name, values)) in TYPES.iter().enumerate() {
        let table_name = format!("types_{i}");
        server
            .execute(&format!(
                "CREATE TABLE {table_name} (id int4, value {name}); INSERT INTO {table_name} VALUES (-1, NULL)"
            ))
            .await;
        for (id, (literal, _)) in values.iter().enumerate() {
            let literal = literal.replace('\'', "''");
            server.execute(&format!("INSERT INTO {table_name} VALUES ({id}, '{literal}')")).await;
        }
        let store = store(server, &table_name).await;
        let ids = (-1..values.len() as i32).collect::<Vec<_>>();
        let answer = store.lookup(&request(&[0], &[1], &[], vec![ints(&ids)])).await.unwrap();
        let mut expected = vec!["0: NULL".to_string()];
        expected.extend(values.iter().enumerate().map(|(id, (_, shown))| format!("{}: {shown}", id + 1)));
        assert_eq!(texts(&answer), expected, "{name}");

        let mut order = answer.key_of_row.values().iter().enumerate().collect::<Vec<_>>();
        order.sort_by_key(|(_, key)| **key);
        let order = Int64Array::from_iter_values(order.iter().skip(1).map(|(row, _)| *row as i64));
        let keys = datafusion::arrow::compute::take(answer.rows.column(0), &order, None).unwrap();
        let by_value = store.lookup(&request(&[1], &[0], &[], vec![keys])).await.unwrap();
        let expected = (0..values.len()).map(|id| format!("{id}: {id}")).collect::<Vec<_>>();
        assert_eq!(texts(&by_value), expected, "{name} as a key");
    }
}

#[tokio::test]
async fn json_arrays_and_domains_are_read() {
    let server = PostgresServer::shared();
    server
        .execute(
            "CREATE DOMAIN price AS numeric(8,3) NOT NULL; CREATE DOMAIN high_price AS price CHECK (VALUE > 1);
             CREATE TYPE colour AS ENUM ('red', 'green');
             CREATE TABLE special (id int4 NOT NULL PRIMARY KEY, j json, b jsonb, price high_price, counts int8[], names text[],
               ids uuid[], colours colour[], amounts numeric(5,2)[], prices price[]);
             INSERT INTO special VALUES (1, '{\"a\" : 1}', '{\"a\" : 1}', 2.5, '{1,NULL,3}', '{}', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}',
               '{red,green}', '{1.5}', '{7}'), (2, NULL, NULL, 3, NULL, '{\"\"}', '{NULL}', NULL, NULL, NULL);
             CREATE VIEW special_view AS SELECT * FROM special",
        )
        .await;
    for name in ["special", "public.special_view", "\"special\""] {
        let store = store(server, name).await;
        assert_eq!(store.schema().field(0).is_nullable(), name.contains("view"), "{name}");
        let types =
            store.schema().fields().iter().map(|f| PgType::of_field(f).unwrap().to_string()).collect::<Vec<_>>();
        assert_eq!(
            types.join(", "),
            "integer, json, jsonb, numeric(8,3), bigint[], text[], uuid[], text[], numeric(5,2)[], numeric(8,3)[]"
        );
        let columns = (1..10).collect::<Vec<_>>();
        let answer = store.lookup(&request(&[0], &columns, &[], vec![ints(&[1, 2])])).await.unwrap();
        assert_eq!(
            texts(&answer),
            [
                "0: {\"a\" : 1} | {\"a\": 1} | 2.500 | [1, NULL, 3] | [] | [a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11] | [red, green] | [1.50] | [7.000]",
                "1: NULL | NULL | 3.000 | NULL | [] | [NULL] | NULL | NULL | NULL",
            ]
        );
    }
}

#[tokio::test]
async fn keys_compare_as_the_columns_own_equality() {
    let server = PostgresServer::shared();
    server
        .execute(
            "CREATE SCHEMA elsewhere; CREATE EXTENSION citext SCHEMA elsewhere; CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s');
             CREATE TABLE equality (id int4, folded elsewhere.citext, padded char(5), short varchar(3), feeling mood, f float8, n numeric);
             CREATE INDEX ON equality (feeling);
             INSERT INTO equality VALUES (1, 'Straße', 'ab', 'abc', 'sad', '-0', 1.50), (2, 'ann', 'b c', 'abd', 'it''s', 'NaN', 2)",
        )
        .await;
    let store = store(server, "equality").await;
    let cases: [(usize, ArrayRef, &[&str]); 4] = [
        (1, strings(&["STRASSE", "strAße", "ANN", "Ann"]), &["1: 1", "2: 2", "3: 2"]),
        (2, strings(&["ab", "ab   ", "ab       ", "b", "b c "]), &["0: 1", "1: 1", "2: 1", "4: 2"]),
        // Longer than the column allows, a key is not cut to fit.
        (3, strings(&["abc", "abcd", "abd "]), &["0: 1"]),
        (4, strings(&["no mood", "it's", "sad", "SAD"]), &["1: 2", "2: 1"]),
    ];
    for (column, keys, expected) in cases {
        let answer = store.lookup(&request(&[column], &[0], &[], vec![keys])).await.unwrap();
        assert_eq!(texts(&answer), expected, "column {column}");
    }
    let floats: ArrayRef = Arc::new(datafusion::arrow::array::Float64Array::from(vec![0.0, f64::NAN, -f64::NAN, 1.0]));
    let answer = store.lookup(&request(&[5], &[0], &[], vec![floats])).await.unwrap();
    assert_eq!(texts(&answer), ["0: 1", "1: 2", "2: 2"]);
}

/// In PostgreSQL's format the least number stands for -infinity, and must not be sent for a moment.
#[tokio::test]
async fn keys_outside_of_the_calendar_find_nothing_and_harm_nobody() {
    const EPOCH_MICROS: i64 = 946_684_800_000_000;
    let server = PostgresServer::shared();
    server
        .execute(
            "CREATE TABLE calendar (id int4, ts timestamp, d date);
             INSERT INTO calendar VALUES (1, '-infinity', '-infinity'), (2, 'infinity', 'infinity'), (3, '1970-01-01', '1970-01-01')",
        )
        .await;
    let store = store(server, "calendar").await;
    let moments: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, i64::MIN + EPOCH_MICROS, i64::MAX, 0]));
    let answer = store.lookup(&request(&[1], &[0], &[], vec![moments])).await.unwrap();
    assert_eq!(texts(&answer), ["3: 3"]);
    let days: ArrayRef = Arc::new(Date32Array::from(vec![i32::MIN, i32::MIN + 10_957, i32::MAX, 0]));
    let answer = store.lookup(&request(&[2], &[0], &[], vec![days])).await.unwrap();
    assert_eq!(texts(&answer), ["3: 3"]);
}

#[tokio::test]
async fn values_that_arrow_cannot_hold_are_errors_that_name_the_column() {
    let server = PostgresServer::shared();
    let cases = [
        (
            "numeric",
            "1.0000000000000000001",
            "22003",
            "a value with more digits behind the point, which numeric(38,18) cannot hold",
        ),
        ("numeric", "100000000000000000000", "22003", "a value, which numeric(38,18) cannot hold"),
        ("numeric", "1e130000", "22003", "a value, which numeric(38,18) cannot hold"),
        ("numeric", "NaN", "22003", "NaN, which numeric(38,18) cannot hold"),
        ("numeric", "-Infinity", "22003", "an infinite value, which numeric(38,18) cannot hold"),
        ("date", "infinity", "22008", "an infinite date, which cannot be represented"),
        ("timestamp", "-infinity", "22008", "an infinite timestamp, which cannot be represented"),
        (
            "timestamptz",
            "294276-12-31 00:00:00+00",
            "22008",
            "a timestamp that is too late, which cannot be represented",
        ),
        ("time", "24:00:00", "22008", "the time 24:00:00, which cannot be represented"),
        ("interval", "1000000000 hours", "22008", "an interval that is too long, which cannot be represented"),
        ("int8[]", "{{1,2},{3,4}}", "0A000", "an array of 2 dimensions, which is not supported"),
    ];
    for (i, (name, literal, sqlstate, reason)) in cases.into_iter().enumerate() {
        let table_name = format!("misfits_{i}");
        server.execute(&format!("CREATE TABLE {table_name} (id int4, v {name}); INSERT INTO {table_name} VALUES (1, '{literal}'), (2, NULL)")).await;
        let store = store(server, &table_name).await;
        let error = store.lookup(&request(&[0], &[1], &[], vec![ints(&[1])])).await.unwrap_err().into_error("t");
        assert_eq!(error.sqlstate(), sqlstate, "{name} {literal}");
        assert_eq!(error.message(), format!("column \"v\" holds {reason}"), "{name} {literal}");
        let answer = store.lookup(&request(&[0], &[1], &[], vec![ints(&[2])])).await.unwrap();
        assert_eq!(texts(&answer), ["0: NULL"], "the store goes on after {name} {literal}");
    }
}

#[tokio::test]
async fn tables_are_refused_or_narrowed_by_name_and_type() {
    let server = PostgresServer::shared();
    server
        .execute("CREATE TABLE peculiar (id int4, address point, \"Größe \"\"x\" text, amount numeric(90,2)); INSERT INTO peculiar VALUES (1, '(1,2)', 'big', 1); CREATE SEQUENCE counter")
        .await;
    let connect = async |table: SqlTable| PostgresStore::connect(connection(server, OPTIONS), &table).await;
    let refused = async |table: SqlTable| connect(table).await.unwrap_err().into_error("t");

    let error = refused(table("nowhere.at_all")).await;
    assert_eq!(
        (error.code(), error.message()),
        (Code::UndefinedTable, "relation \"nowhere.at_all\" does not exist in the store")
    );
    let error = refused(table("counter")).await;
    assert_eq!(error.message(), "\"counter\" is not a table or view");
    let error = refused(table("peculiar")).await;
    assert_eq!(
        (error.code(), error.message()),
        (Code::FeatureNotSupported, "column \"address\" has the type point, which is not supported")
    );
    assert!(error.hint().unwrap().contains("\"columns\""));

    let columns = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
    let error = refused(SqlTable { columns: columns(&["id", "adress"]), ..table("peculiar") }).await;
    assert_eq!(
        (error.code(), error.message()),
        (Code::UndefinedColumn, "column \"adress\" of relation \"public.peculiar\" does not exist")
    );
    assert_eq!(error.hint(), Some("Perhaps you meant \"address\"."));
    let error = refused(SqlTable { types: vec![("ids".to_string(), PgType::Text)], ..table("peculiar") }).await;
    assert_eq!(error.code(), Code::UndefinedColumn);

    let types = vec![
        ("address".to_string(), PgType::Text),
        ("amount".to_string(), PgType::Numeric { precision: 20, scale: 4 }),
    ];
    let narrowed = SqlTable { columns: columns(&["Größe \"x", "amount", "address"]), types, ..table("peculiar") };
    let store = connect(narrowed).await.unwrap();
    let answer = store.lookup(&request(&[2], &[1, 0], &[], vec![strings(&["(1,2)"])])).await.unwrap();
    assert_eq!(texts(&answer), ["0: 1.0000 | big"]);
    let error = store.lookup(&request(&[0], &[], &[], vec![ints(&[1])])).await.unwrap_err().into_error("t");
    assert_eq!(error.code(), Code::Internal, "keys of a wrong type are noticed: {error}");
}

#[tokio::test]
async fn indexes_that_lead_with_the_key_are_found() {
    let server = PostgresServer::shared();
    server
        .execute(
            "CREATE TABLE indexed (a int4 PRIMARY KEY, b text, c int4, d int4); CREATE INDEX ON indexed (b, c, d);
             CREATE INDEX ON indexed (d) WHERE d > 0; CREATE INDEX ON indexed (c) INCLUDE (d); CREATE VIEW indexed_view AS TABLE indexed",
        )
        .await;
    let store = store(server, "indexed").await;
    let cases: [(&[usize], bool); 8] = [
        (&[0], true),
        (&[1], true),
        (&[2], true),
        (&[3], false),
        (&[2, 1], true),
        (&[2, 3], false),
        (&[3, 0], true),
        (&[1, 3], false),
    ];
    for (columns, exists) in cases {
        assert_eq!(store.key_index_exists(columns).await.unwrap(), exists, "{columns:?}");
    }
    let view = PostgresStore::connect(connection(server, OPTIONS), &table("indexed_view")).await.unwrap();
    assert!(view.key_index_exists(&[3]).await.unwrap(), "of a view that cannot be told");
}

fn decimal(value: i128) -> Expr {
    lit(ScalarValue::Decimal128(Some(value), 12, 2))
}

/// Conditions that go to PostgreSQL, and what its users would write for them.
fn pushed_filters() -> Vec<(Expr, &'static str)> {
    let hostile = "'; DROP TABLE filtered; -- \\' $1 \\";
    let moment = |micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), None));
    let instant = |micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("+00:00".into())));
    vec![
        (col("n").gt(lit(5_i32)), "n > 5"),
        (col("n").lt_eq(lit(-1_i32)).or(col("b")), "n <= -1 OR b"),
        (col("n").eq(lit(i32::MIN)), "n = -2147483648"),
        (lit(3_i32).not_eq(col("n")), "3 <> n"),
        (col("n").in_list(vec![lit(1_i32), lit(-2_i32), lit(99_i32)], false), "n IN (1, -2, 99)"),
        (col("n").in_list(vec![lit(1_i32), lit(7_i32)], true), "n NOT IN (1, 7)"),
        (col("n").between(lit(-2_i32), lit(7_i32)), "n BETWEEN -2 AND 7"),
        (col("n").not_between(lit(-2_i32), lit(7_i32)), "n NOT BETWEEN -2 AND 7"),
        (col("b").not().is_not_true(), "(NOT b) IS NOT TRUE"),
        (col("b").eq(lit(false)), "b = false"),
        (col("b").is_unknown(), "b IS UNKNOWN"),
        (col("t").is_null(), "t IS NULL"),
        (col("f").is_not_null(), "f IS NOT NULL"),
        (col("t").eq(lit("O'Brien")), "t = 'O''Brien'"),
        (col("t").not_eq(lit(hostile)), r"t <> '''; DROP TABLE filtered; -- \'' $1 \'"),
        (col("t").eq(lit(hostile)), r"t = '''; DROP TABLE filtered; -- \'' $1 \'"),
        (col("t").in_list(vec![lit(""), lit("back\\slash"), lit("漢字")], false), r"t IN ('', 'back\slash', '漢字')"),
        (col("u").eq(lit("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")), "u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
        (col("m").gt_eq(decimal(-150)), "m >= -1.50"),
        (col("m").eq(decimal(150)), "m = 1.5"),
        (col("d").lt(lit(ScalarValue::Date32(Some(0)))), "d < '1970-01-01'"),
        (col("ts").gt(moment(1)), "ts > '1970-01-01 00:00:00.000001'"),
        (col("tz").lt_eq(instant(-1)), "tz <= '1969-12-31 23:59:59.999999+00'"),
        (
            col("n").gt(lit(0_i32)).and(col("t").eq(lit("漢字")).or(col("t").is_null())).not(),
            "NOT (n > 0 AND (t = '漢字' OR t IS NULL))",
        ),
    ]
}

#[tokio::test]
async fn pushed_filters_mean_here_what_they_mean_in_postgresql() {
    let server = PostgresServer::shared();
    server
        .execute(
            r"CREATE TABLE filtered (id int4, n int4, b bool, t text, f float8, u uuid, m numeric(12,2), d date, ts timestamp, tz timestamptz, p char(4));
            INSERT INTO filtered VALUES
            (1, 1, true, 'O''Brien', 1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 1.5, '1970-01-01', '1970-01-01', '1970-01-01 00:00:00+00', 'a'),
            (2, -2, false, '', 'NaN', NULL, -1.5, '1969-12-31', '1970-01-01 00:00:00.000001', '1969-12-31 23:59:59.999999+00', 'b'),
            (3, 7, NULL, 'back\slash', NULL, NULL, -1.51, '2024-01-01', '1970-01-01 00:00:00.000002', '2024-01-01 00:00:00+00', 'c'),
            (4, NULL, true, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL),
            (5, -2147483648, false, '漢字', 2, NULL, 0, '9999-12-31', '9999-12-31', '9999-12-31 00:00:00+00', ''),
            (6, 8, NULL, '''; DROP TABLE filtered; -- \'' $1 \', 3, NULL, 9999999999.99, '0001-01-01', '0001-01-01', '0001-01-01 00:00:00+00', 'd')",
        )
        .await;
    let store = store(server, "filtered").await;
    let keys = || vec![ints(&[1, 2, 3, 4, 5, 6])];
    let columns = (0..store.schema().fields().len()).collect::<Vec<_>>();
    let all = store.lookup(&request(&[0], &columns, &[], keys())).await.unwrap().rows;
    for (filter, sql) in pushed_filters() {
        assert!(store.can_filter(&filter), "{filter}");
        let own = server.query(&format!("SELECT id FROM filtered WHERE {sql} ORDER BY id")).await;
        let own = own.iter().map(|row| row[0].clone().unwrap()).collect::<Vec<_>>();
        assert!(own.len() < 6, "{sql} filters something");

        let pushed = store.lookup(&request(&[0], &[0], std::slice::from_ref(&filter), keys())).await.unwrap();
        let pushed = texts(&pushed).iter().map(|row| row.split_once(": ").unwrap().1.to_string()).collect::<Vec<_>>();
        assert_eq!(pushed, own, "pushed: {filter}");

        let frame = SessionContext::new().read_batch(all.clone()).unwrap().filter(filter.clone()).unwrap();
        let kept = frame.select_columns(&["id"]).unwrap().collect().await.unwrap();
        let ids = kept.iter().flat_map(|batch| {
            batch
                .column(0)
                .as_any()
                .downcast_ref::<Int32Array>()
                .unwrap()
                .values()
                .iter()
                .map(i32::to_string)
                .collect::<Vec<_>>()
        });
        assert_eq!(ids.collect::<Vec<_>>(), own, "applied here: {filter}");
    }
    let both = [col("n").gt(lit(0_i32)), col("t").not_eq(lit("x"))];
    let answer = store.lookup(&request(&[0], &[0], &both, keys())).await.unwrap();
    assert_eq!(texts(&answer), ["0: 1", "2: 3", "5: 6"], "several filters must all hold");
}

#[tokio::test]
async fn filters_of_doubtful_meaning_are_applied_here() {
    let server = PostgresServer::shared();
    server
        .execute("CREATE TABLE doubtful (t text, f float8, p char(4), n int4, d date, j jsonb, m numeric(9,2))")
        .await;
    let store = store(server, "doubtful").await;
    let doubtful = [
        col("t").lt(lit("x")),
        col("t").like(lit("x%")),
        col("t").eq(lit("zero\0byte")),
        col("f").gt(lit(1.0)),
        col("p").eq(lit("a")),
        col("j").eq(lit("{}")),
        col("unknown").eq(lit(1)),
        (col("n") + lit(1)).eq(lit(2)),
        col("n").eq(lit("1")),
        col("m").eq(lit(1)),
        col("d").eq(lit(ScalarValue::Date32(Some(i32::MAX)))),
        col("n").gt(lit(1)).and(col("f").gt(lit(1.0))),
        col("n").in_list(vec![], false),
    ];
    for filter in doubtful {
        assert!(!store.can_filter(&filter), "{filter}");
    }
}
