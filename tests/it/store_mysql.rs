//! The MySQL store against a MariaDB.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array, RecordBatch,
    StringViewArray, TimestampMicrosecondArray,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use lookaside::error::Code;
use lookaside::pg_type::PgType;
use lookaside::store::contract;
use lookaside::store::mysql::{MysqlConfig, MysqlConnection, MysqlStore};
use lookaside::store::postgres::SslMode;
use lookaside::store::{KeyEquality, SqlTable, Store};

use crate::store_postgres::{ints, request, table, texts};
use crate::support::mariadb::{MariadbServer, PASSWORD};

pub fn config(server: &MariadbServer, max_connections: usize) -> MysqlConfig {
    MysqlConfig {
        host: "127.0.0.1".to_string(),
        port: server.port(),
        database: Some("shop".to_string()),
        user: "tests".to_string(),
        password: Some(PASSWORD.to_string()),
        sslmode: SslMode::Disable,
        sslrootcert: None,
        max_connections: NonZeroUsize::new(max_connections).unwrap(),
    }
}

pub fn connection(server: &MariadbServer, max_connections: usize) -> Arc<MysqlConnection> {
    MysqlConnection::try_new("erp".to_string(), &config(server, max_connections)).unwrap()
}

pub async fn store(server: &MariadbServer, name: &str) -> MysqlStore {
    MysqlStore::connect(connection(server, 4), &table(name)).await.unwrap()
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

/// A text as MariaDB reads it between quotes.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The statements that insert `rows`, each value as a quoted text.
fn inserts(name: &str, rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default();
    let columns =
        rows.columns().iter().map(|column| (column, ArrayFormatter::try_new(column.as_ref(), &options).unwrap()));
    let columns = columns.collect::<Vec<_>>();
    let value = |row: usize| {
        let values = columns.iter().map(|(column, formatter)| match column.is_null(row) {
            true => "NULL".to_string(),
            false => quoted(&formatter.value(row).to_string()),
        });
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    let rows = (0..rows.num_rows()).map(value).collect::<Vec<_>>();
    rows.chunks(2000).map(|rows| format!("INSERT INTO {name} VALUES {}", rows.join(",\n"))).collect()
}

#[tokio::test]
async fn contract_holds_with_an_index_and_without() {
    let server = MariadbServer::shared();
    let rows = contract::table().unwrap();
    let indexes = [
        ("contract", ""),
        ("contract_indexed", ", KEY (id, region(40))"),
        ("contract_texts", ", KEY (region(40), id)"),
    ];
    for (name, index) in indexes {
        let create = format!("CREATE TABLE {name} (id bigint, region text, name text, note mediumtext{index})");
        server.execute(&[&create]).await;
        for insert in inserts(name, &rows) {
            server.execute(&[&insert]).await;
        }
        let store = store(server, name).await;
        contract::check(&store, contract::RowOrder::Any).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    server.execute(&["CREATE VIEW contract_view AS SELECT * FROM contract_indexed"]).await;
    contract::check(&store(server, "shop.contract_view").await, contract::RowOrder::Any).await.unwrap();
}

type Samples = &'static [(&'static str, &'static str)];

/// A type, values of it as MariaDB reads them, and as Arrow shows them; and the type that holds it here.
const TYPES: [(&str, &str, Samples); 38] = [
    ("boolean", "smallint", &[("0", "0"), ("1", "1"), ("-128", "-128")]),
    ("tinyint unsigned", "smallint", &[("255", "255")]),
    ("smallint", "smallint", &[("-32768", "-32768"), ("32767", "32767")]),
    ("smallint unsigned", "integer", &[("65535", "65535")]),
    ("mediumint", "integer", &[("-8388608", "-8388608")]),
    ("mediumint unsigned", "integer", &[("16777215", "16777215")]),
    ("int", "integer", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    ("int unsigned", "bigint", &[("4294967295", "4294967295"), ("0", "0")]),
    (
        "bigint",
        "bigint",
        &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")],
    ),
    ("bigint unsigned", "numeric(20,0)", &[("18446744073709551615", "18446744073709551615"), ("0", "0")]),
    ("bit(1)", "boolean", &[("b'0'", "false"), ("b'1'", "true")]),
    ("bit(9)", "bytea", &[("b'100000001'", "0101"), ("b'0'", "0000")]),
    ("bit(64)", "bytea", &[("0xfedcba9876543210", "fedcba9876543210")]),
    ("decimal(12,2)", "numeric(12,2)", &[("9999999999.99", "9999999999.99"), ("-0.01", "-0.01"), ("0", "0.00")]),
    ("decimal(5,5)", "numeric(5,5)", &[("0.00001", "0.00001"), ("-0.99999", "-0.99999")]),
    (
        "decimal(65,30)",
        "numeric(65,30)",
        &[
            (
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "99999999999999999999999999999999999.999999999999999999999999999999",
            ),
            ("-1e-30", "-0.000000000000000000000000000001"),
        ],
    ),
    ("float", "real", &[("1.5", "1.5"), ("0.1", "0.1"), ("-3.4028234e38", "-3.4028235e38")]),
    (
        "double",
        "double precision",
        &[("-2.5", "-2.5"), ("0.1", "0.1"), ("1.7976931348623157e308", "1.7976931348623157e308")],
    ),
    (
        "text",
        "text",
        &[
            ("''", ""),
            ("'O\\'Brien \\\\ \"x\" 漢字 🦀'", "O'Brien \\ \"x\" 漢字 🦀"),
            ("'longer than a view holds inline'", "longer than a view holds inline"),
            ("'blank '", "blank "),
        ],
    ),
    ("varchar(5)", "text", &[("'abcde'", "abcde"), ("'a '", "a ")]),
    ("varchar(200) CHARACTER SET latin1 COLLATE latin1_nopad_bin", "text", &[("'é ÿ'", "é ÿ"), ("'?'", "?")]),
    ("varchar(9) CHARACTER SET utf8mb3 COLLATE utf8mb3_nopad_bin", "text", &[("'漢'", "漢")]),
    ("char(5)", "text", &[("'ab'", "ab")]),
    ("longtext", "text", &[("repeat('x', 3)", "xxx")]),
    ("enum('red','it''s')", "text", &[("'red'", "red"), ("'it\\'s'", "it's")]),
    ("set('a','b')", "text", &[("'a,b'", "a,b"), ("''", "")]),
    ("binary(4)", "bytea", &[("0x00ff5c", "00ff5c00")]),
    ("varbinary(9)", "bytea", &[("0x00ff5c", "00ff5c"), ("''", ""), ("0x0020", "0020")]),
    ("blob", "bytea", &[("0x00ff", "00ff")]),
    ("date", "date", &[("'0001-01-01'", "0001-01-01"), ("'1969-12-31'", "1969-12-31"), ("'9999-12-31'", "9999-12-31")]),
    ("time(6)", "time without time zone", &[("'00:00:00'", "00:00:00"), ("'23:59:59.999999'", "23:59:59.999999")]),
    (
        "datetime(6)",
        "timestamp without time zone",
        &[
            ("'0001-01-01 00:00:00'", "0001-01-01T00:00:00"),
            ("'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.999999"),
        ],
    ),
    (
        "timestamp(6) NULL",
        "timestamp with time zone",
        &[
            ("'2024-02-29 10:00:00.000001'", "2024-02-29T10:00:00.000001Z"),
            ("'2038-01-19 03:14:07.999999'", "2038-01-19T03:14:07.999999Z"),
        ],
    ),
    ("year", "integer", &[("1901", "1901"), ("2155", "2155")]),
    ("uuid", "uuid", &[("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")]),
    ("inet6", "text", &[("'::1'", "::1"), ("'2001:DB8::1'", "2001:db8::1")]),
    ("inet4", "text", &[("'10.0.0.1'", "10.0.0.1")]),
    ("varchar(3) COLLATE utf8mb4_general_ci", "text", &[("'aBc'", "aBc")]),
];

/// Every value comes as it is, and finds its own row when it is asked for as a key, with an index and without.
#[tokio::test]
async fn values_of_every_type_survive_as_column_and_as_key() {
    let server = MariadbServer::shared();
    for (i, (name, expected_type, values)) in TYPES.iter().enumerate() {
        for indexed in [false, true] {
            let table_name = format!("types_{i}_{indexed}");
            let index = match (indexed, *name) {
                (false, _) => "",
                (true, "text" | "longtext" | "blob") => ", KEY (value(9))",
                (true, _) => ", KEY (value)",
            };
            let create = format!("CREATE TABLE {table_name} (id int, value {name}{index})");
            let insert = format!("INSERT INTO {table_name} VALUES (-1, NULL)");
            server.execute(&[&create, &insert]).await;
            for (id, (literal, _)) in values.iter().enumerate() {
                server.execute(&[&format!("INSERT INTO {table_name} VALUES ({id}, {literal})")]).await;
            }
            let store = store(server, &table_name).await;
            let found = PgType::of_field(store.schema().field(1)).unwrap();
            assert_eq!(found, PgType::parse(expected_type).unwrap(), "{name}");
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
            assert_eq!(texts(&by_value), expected, "{name} as a key, indexed: {indexed}");
        }
    }
}

#[tokio::test]
async fn keys_compare_as_the_columns_own_equality_and_are_told_by_position() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE equality (id int, folded varchar(20) COLLATE utf8mb4_unicode_ci, padded varchar(5) COLLATE utf8mb4_bin,
               short varchar(3), feeling enum('sad','ok'), small tinyint, west varchar(9) CHARACTER SET latin1, y year,
               f float, b binary(3), KEY (folded), KEY (padded), KEY (short), KEY (feeling), KEY (small), KEY (west))",
            "INSERT INTO equality VALUES (1, 'Strasse', 'ab', 'abc', 'sad', 127, '?', 2005, 0.1, 'ab'),
               (2, 'ann', 'b c', 'abd', 'ok', -128, 'é', 1999, 16777216, 'abc')",
        ])
        .await;
    let store = store(server, "equality").await;
    let smalls = |values: &[i16]| Arc::new(datafusion::arrow::array::Int16Array::from(values.to_vec())) as ArrayRef;
    let bytes = |values: &[&[u8]]| Arc::new(BinaryArray::from_iter_values(values)) as ArrayRef;
    let cases: [(usize, ArrayRef, &[&str]); 9] = [
        // Several keys of a request find one row, and each has it.
        (1, strings(&["STRASSE", "Straße", "ANN", "Ánn ", "nobody"]), &["0: 1", "1: 1", "2: 2", "3: 2"]),
        (2, strings(&["ab", "ab   ", "AB", "b c "]), &["0: 1", "1: 1", "3: 2"]),
        // Longer than the column allows, a key is not cut to fit.
        (3, strings(&["abc", "abcd", "abd "]), &["0: 1"]),
        (4, strings(&["no mood", "ok", "sad", ""]), &["1: 2", "2: 1"]),
        // Nor is a number.
        (5, smalls(&[127, 300, -128, -129, 32767]), &["0: 1", "2: 2"]),
        // What the column's character set lacks equals nothing, not even a question mark.
        (6, strings(&["?", "漢", "é"]), &["0: 1", "2: 2"]),
        // Five is no year of this century.
        (7, ints(&[5, 2005, 99, 1999]), &["1: 1", "3: 2"]),
        (8, Arc::new(Float32Array::from(vec![0.1, 16_777_216.0, f32::NAN, f32::INFINITY])), &["0: 1", "1: 2"]),
        (9, bytes(&[b"ab", b"ab\0", b"abc", b"abc "]), &["1: 1", "2: 2"]),
    ];
    for (column, keys, expected) in cases {
        let answer = store.lookup(&request(&[column], &[0], &[], vec![keys])).await.unwrap();
        assert_eq!(texts(&answer), expected, "column {column}");
    }
    let kinds = (0..10).map(|column| match store.key_equality(column) {
        KeyEquality::ByValue => "value".to_string(),
        KeyEquality::OfStore { reason } => reason,
        KeyEquality::None { reason } => format!("none: {reason}"),
    });
    let folds = |collation: &str| format!("its collation {collation} holds different texts for equal");
    let expected = [
        "value".to_string(),
        folds("utf8mb4_unicode_ci"),
        folds("utf8mb4_bin"),
        "value".to_string(),
        "value".to_string(),
        "value".to_string(),
        folds("latin1_swedish_ci"),
        "value".to_string(),
        "value".to_string(),
        "value".to_string(),
    ];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn keys_that_a_column_cannot_hold_find_nothing_and_harm_nobody() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE calendar (id int, ts datetime(6), d date, n decimal(5,2), u bigint unsigned, f double, t text)",
            "INSERT INTO calendar VALUES (1, '1970-01-01', '1970-01-01', 1.5, 3, 0, 'a')",
            "SET sql_mode = ''",
            "INSERT INTO calendar VALUES (2, '9999-12-31', '0001-01-01', 0, 0, 1, '')",
        ])
        .await;
    let store = store(server, "calendar").await;
    let cases: [(usize, ArrayRef); 6] = [
        (1, Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, i64::MAX, 0]))),
        (2, Arc::new(Date32Array::from(vec![i32::MIN, i32::MAX, 0]))),
        (3, Arc::new(Decimal128Array::from(vec![99_999, -99_999, 150]).with_precision_and_scale(5, 2).unwrap())),
        (4, Arc::new(Decimal128Array::from(vec![-1, 10_i128.pow(19) * 9, 3]).with_precision_and_scale(20, 0).unwrap())),
        (5, Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY, -0.0]))),
        (6, strings(&["\0", "a\0", "a"])),
    ];
    for (column, keys) in cases {
        let answer = store.lookup(&request(&[column], &[0], &[], vec![keys])).await.unwrap();
        assert_eq!(texts(&answer), ["2: 1"], "column {column}");
    }
}

#[tokio::test]
async fn values_that_arrow_cannot_hold_are_errors_that_name_the_column() {
    let server = MariadbServer::shared();
    let cases = [
        ("date", "'0000-00-00'", "22008", "the date 0000-00-00, which cannot be represented"),
        ("datetime", "'0000-00-00 00:00:00'", "22008", "the date 0000-00-00, which cannot be represented"),
        ("date", "'2024-00-00'", "22008", "the date 2024-00-00, which cannot be represented"),
        ("time", "'24:00:00'", "22008", "the time 24:00:00, which cannot be represented"),
        ("time", "'-00:00:01'", "22008", "the time -00:00:01, which cannot be represented"),
        ("text", "'a\\0b'", "22021", "text with a zero byte, which text cannot hold"),
    ];
    for (i, (name, literal, sqlstate, reason)) in cases.into_iter().enumerate() {
        let table_name = format!("misfits_{i}");
        let statements = [
            "SET sql_mode = ''".to_string(),
            format!("CREATE TABLE {table_name} (id int, value {name})"),
            format!("INSERT INTO {table_name} VALUES (1, {literal}), (2, NULL)"),
        ];
        server.execute(&statements.each_ref().map(String::as_str)).await;
        let store = store(server, &table_name).await;
        let error = store.lookup(&request(&[0], &[1], &[], vec![ints(&[1])])).await.unwrap_err();
        assert!(error.is_about_keys(), "{name} {literal}");
        let error = error.into_error("misfits");
        assert_eq!(
            (error.sqlstate(), error.message()),
            (sqlstate, format!("column \"value\" holds {reason}").as_str())
        );
        let answer = store.lookup(&request(&[0], &[1], &[], vec![ints(&[2])])).await.unwrap();
        assert_eq!(texts(&answer), ["0: NULL"], "{name}");
    }
}

#[tokio::test]
async fn json_is_read_and_types_may_be_other_ones() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE special (id int NOT NULL PRIMARY KEY, doc json, free longtext, flag tinyint(1), ref char(36), raw binary(16),
               price decimal(12,4), written varchar(40), mask bit(3), big bigint unsigned)",
            "INSERT INTO special VALUES (1, '{\"a\" : 1}', 'x', 1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
               0xa0eebc999c0b4ef8bb6d6bb9bd380a11, 1.5, '2024-02-29 12:00', b'101', 7)",
        ])
        .await;
    let store = store(server, "special").await;
    let types = |store: &MysqlStore| {
        let types =
            store.schema().fields().iter().map(|f| PgType::of_field(f).unwrap().to_string()).collect::<Vec<_>>();
        types.join(", ")
    };
    assert_eq!(types(&store), "integer, jsonb, text, smallint, text, bytea, numeric(12,4), text, bytea, numeric(20,0)");
    assert!(!store.schema().field(0).is_nullable() && store.schema().field(1).is_nullable());
    assert!(matches!(store.key_equality(1), KeyEquality::None { .. }));
    assert_eq!(store.primary_key(), [0]);

    let wanted = [
        ("flag", "boolean"),
        ("ref", "uuid"),
        ("raw", "uuid"),
        ("price", "numeric(20,1)"),
        ("written", "timestamp"),
        ("mask", "int"),
        ("big", "bigint"),
        ("doc", "json"),
    ];
    let wanted = wanted.map(|(name, pg_type)| (name.to_string(), PgType::parse(pg_type).unwrap())).to_vec();
    let special = SqlTable { types: wanted, ..table("special") };
    let store = MysqlStore::connect(connection(server, 1), &special).await.unwrap();
    assert_eq!(
        types(&store),
        "integer, json, text, boolean, uuid, uuid, numeric(20,1), timestamp without time zone, integer, bigint"
    );
    let columns = (1..10).collect::<Vec<_>>();
    let answer = store.lookup(&request(&[0], &columns, &[], vec![ints(&[1])])).await.unwrap();
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    assert_eq!(
        texts(&answer),
        [format!("0: {{\"a\" : 1}} | x | true | {uuid} | {uuid} | 1.5 | 2024-02-29T12:00:00 | 5 | 7")]
    );
    let flags: ArrayRef = Arc::new(datafusion::arrow::array::BooleanArray::from(vec![false, true]));
    let prices: ArrayRef = Arc::new(Decimal128Array::from(vec![15, 16]).with_precision_and_scale(20, 1).unwrap());
    let bigs: ArrayRef = Arc::new(Int64Array::from(vec![-1, 7]));
    let cases: [(usize, ArrayRef, &[&str]); 5] = [
        (3, flags, &["1: 1"]),
        // A text is compared by its collation, which here tells capitals apart; bytes have none.
        (4, strings(&[uuid]), &[]),
        (5, strings(&[uuid]), &["0: 1"]),
        (6, prices, &["0: 1"]),
        (9, bigs, &["1: 1"]),
    ];
    for (column, keys, expected) in cases {
        let answer = store.lookup(&request(&[column], &[0], &[], vec![keys])).await.unwrap();
        assert_eq!(texts(&answer), expected, "column {column}");
    }
    let asked = request(&[7], &[0], &[], vec![Arc::new(TimestampMicrosecondArray::from(vec![0]))]);
    let error = store.lookup(&asked).await.unwrap_err().into_error("special");
    assert_eq!(
        (error.sqlstate(), error.message()),
        (
            "0A000",
            "column \"written\" cannot be the key of a lookup: its type in the store, varchar(40), does not compare with timestamp without time zone"
        )
    );
    server.execute(&["UPDATE special SET price = 1.25, flag = 5"]).await;
    for (column, expected) in [
        (6, "column \"price\" holds a value with more digits behind the point, which numeric(20,1) cannot hold"),
        (3, "column \"flag\" holds 5, which is no boolean"),
    ] {
        let error = store.lookup(&request(&[0], &[column], &[], vec![ints(&[1])])).await.unwrap_err();
        assert_eq!(error.into_error("special").message(), expected);
    }
}

#[tokio::test]
async fn unknown_tables_columns_and_types_are_refused_with_a_hint() {
    let server = MariadbServer::shared();
    server.execute(&["CREATE TABLE refused (id int, name text, place point)"]).await;
    let connect = async |table: SqlTable| {
        MysqlStore::connect(connection(server, 1), &table).await.unwrap_err().into_error("refused")
    };
    let error = connect(table("nowhere")).await;
    assert_eq!(
        (error.code(), error.message()),
        (Code::UndefinedTable, "table \"nowhere\" does not exist in the store")
    );
    let error = connect(table("a b")).await;
    assert_eq!((error.code(), error.message()), (Code::SyntaxError, "\"a b\" is not the name of a table"));
    let error = connect(table("refused")).await;
    let message = "column \"place\" has the type point, which is not supported";
    assert_eq!((error.code(), error.message()), (Code::FeatureNotSupported, message));
    let error = connect(SqlTable { columns: Some(vec!["nmae".to_string()]), ..table("refused") }).await;
    assert_eq!(error.message(), "column \"nmae\" of table \"shop.refused\" does not exist");
    assert_eq!(error.hint(), Some("Perhaps you meant \"name\"."));
    let exposed = SqlTable { columns: Some(vec!["name".to_string(), "id".to_string()]), ..table("shop.refused") };
    let store = MysqlStore::connect(connection(server, 1), &exposed).await.unwrap();
    assert_eq!(store.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["name", "id"]);
}

#[tokio::test]
async fn indexes_are_known_and_used() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE indexed (a int, b int, c varchar(20), d int, e text, PRIMARY KEY (b, a), KEY (c, d), FULLTEXT (e))",
            "INSERT INTO indexed SELECT seq, seq, concat('c', seq), seq, 'text' FROM seq_1_to_2000",
            "ANALYZE TABLE indexed",
            "CREATE VIEW indexed_view AS SELECT * FROM indexed",
        ])
        .await;
    let store = store(server, "indexed").await;
    assert_eq!(store.primary_key(), [1, 0]);
    assert_eq!(store.indexed_columns().await.unwrap(), Some(vec![1, 2]));
    let view = MysqlStore::connect(connection(server, 1), &table("indexed_view")).await.unwrap();
    assert_eq!((view.indexed_columns().await.unwrap(), view.primary_key()), (None, vec![]));

    let one = connection(server, 1);
    let store = MysqlStore::connect(Arc::clone(&one), &table("indexed")).await.unwrap();
    let read = "SELECT sum(ROWS_READ) FROM information_schema.TABLE_STATISTICS WHERE TABLE_NAME = 'indexed'";
    server.execute(&["SET GLOBAL userstat = 1"]).await;
    for (column, keys) in [(1, ints(&[5, 6])), (2, strings(&["c5", "c6"]))] {
        server.execute(&["FLUSH TABLE_STATISTICS"]).await;
        let answer = store.lookup(&request(&[column], &[0], &[], vec![keys])).await.unwrap();
        assert_eq!(texts(&answer), ["0: 5", "1: 6"]);
        let rows: f64 = server.query(read).await[0][0].as_ref().map_or(0.0, |rows| rows.parse().unwrap());
        assert!((1.0..10.0).contains(&rows), "column {column}: {rows} rows were read for 2 keys");
    }
}

#[tokio::test]
async fn wide_rows_come_whole_and_in_order() {
    const COLUMNS: usize = 500;
    let server = MariadbServer::shared();
    let declared = (1..=COLUMNS).map(|n| format!("c{n} {}", ["int", "text", "double"][n % 3])).collect::<Vec<_>>();
    let values = (1..=COLUMNS).map(|n| if n % 7 == 0 { "NULL".to_string() } else { n.to_string() }).collect::<Vec<_>>();
    let create = format!("CREATE TABLE wide_rows (id int PRIMARY KEY, {})", declared.join(", "));
    let insert = format!("INSERT INTO wide_rows VALUES (1, {})", values.join(", "));
    server.execute(&[&create, &insert]).await;
    let store = store(server, "wide_rows").await;
    let columns = (1..=COLUMNS).rev().collect::<Vec<_>>();
    let answer = store.lookup(&request(&[0], &columns, &[], vec![ints(&[1, 2])])).await.unwrap();
    let shown = |n: usize| match (n % 7, n % 3) {
        (0, _) => "NULL".to_string(),
        (_, 2) => format!("{n}.0"),
        (_, _) => n.to_string(),
    };
    let expected = columns.iter().map(|n| shown(*n)).collect::<Vec<_>>().join(" | ");
    assert_eq!(texts(&answer), [format!("0: {expected}")]);
}
