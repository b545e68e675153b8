//! Random rows of the three tables: NULLs, duplicates, keys without a partner, and texts that are hard to quote.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// The stream; the first column is the order of arrival.
pub const ORDERS: [(&str, &str); 12] = [
    ("n", "bigint"),
    ("big", "bigint"),
    ("small", "int"),
    ("words", "text"),
    ("code", "varchar(20)"),
    ("price", "numeric(12,2)"),
    ("ratio", "double precision"),
    ("day", "date"),
    ("at", "timestamptz"),
    ("flag", "boolean"),
    ("ref", "uuid"),
    ("raw", "bytea"),
];

/// Names and PostgreSQL's types.
type Columns = &'static [(&'static str, &'static str)];

const PEOPLE: [(&str, &str); 14] = [
    ("id", "bigint"),
    ("raw", "bytea"),
    ("small", "int"),
    ("flag", "boolean"),
    ("big", "bigint"),
    ("words", "text"),
    ("code", "varchar(20)"),
    ("price", "numeric(14,3)"),
    ("ratio", "double precision"),
    ("day", "date"),
    ("at", "timestamptz"),
    ("ref", "uuid"),
    ("note", "text"),
    ("blank", "text"),
];

const PLACES: [(&str, &str); 7] = [
    ("id", "int"),
    ("name", "text"),
    ("code", "varchar(20)"),
    ("words", "text"),
    ("small", "int"),
    ("flag", "boolean"),
    ("big", "bigint"),
];

const BIGS: [&str; 14] = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "10",
    "-1",
    "-3",
    "2147483648",
    "4611686018427387903",
    "-4611686018427387904",
];
const SMALLS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "-3", "2147483647"];
const WORDS: [&str; 22] = [
    "a",
    "A",
    "a ",
    " a",
    "",
    "it's",
    "\"",
    "\\N",
    "\\",
    "C:\\new",
    "$1",
    "a_b%",
    "; DROP TABLE people; --",
    "NULL",
    "é",
    "e\u{301}",
    "É",
    "日本語",
    "🦀",
    "{1,2}",
    "tab\tand\nline",
    "/* */",
];
const CODES: [&str; 11] = ["a", "A", "a  ", "", "none", "\\N", "it's", "1", "2", "3", "É\u{1F980}"];
const PRICES: [&str; 10] = ["0", "0.50", "1", "1.5", "3", "10", "15", "-1.50", "9999999999.99", "12.34"];
/// Only the table's type has room for the last one.
const FINER_PRICES: [&str; 11] =
    ["0", "0.5", "1.000", "1.5", "3", "10", "15", "-1.5", "9999999999.99", "12.34", "12.345"];
const RATIOS: [&str; 10] = ["0", "-0", "NaN", "Infinity", "-Infinity", "0.1", "1.5", "5e-324", "1e+300", "-2.5"];
const DAYS: [&str; 7] =
    ["2024-02-29", "1970-01-01", "1969-12-31", "0001-01-01", "9999-12-31", "2000-01-01", "1582-10-10"];
const MOMENTS: [&str; 8] = [
    "2024-02-29 00:00:00+00",
    "2024-02-29 12:00:00+00",
    "1999-12-31 23:59:59.999999+00",
    "2024-03-31 02:30:00+02",
    "2024-03-31 00:30:00+00",
    "1969-12-31 23:59:59.5-03:30",
    "0001-01-01 00:00:00+00",
    "2000-01-01 00:00:00+00",
];
const REFS: [&str; 6] = [
    "00000000-0000-0000-0000-000000000001",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a14",
];
const RAWS: [&str; 8] = ["\\x", "\\x00", "\\xff", "\\xdeadbeef", "\\x27", "\\x5c4e", "\\xDEAD", "\\xc3a9"];

const ORDER_COUNT: usize = 150;
const PEOPLE_COUNT: usize = 60;
const PLACES_COUNT: usize = 40;

type Row = Vec<Option<String>>;

/// The rows of all tables, as PostgreSQL reads them.
pub struct Data {
    orders: Vec<Row>,
    people: Vec<Row>,
    places: Vec<Row>,
    /// How many rows each INSERT into the stream has.
    arrivals: Vec<usize>,
}

impl Data {
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut table = |columns: &[(&str, &str)], count| (1..=count).map(|n| row(columns, n, &mut random)).collect();
        let (orders, people, places) =
            (table(&ORDERS, ORDER_COUNT), table(&PEOPLE, PEOPLE_COUNT), table(&PLACES, PLACES_COUNT));
        let mut arrivals = vec![];
        while arrivals.iter().sum::<usize>() < ORDER_COUNT {
            arrivals.push(random.random_range(1..60).min(ORDER_COUNT - arrivals.iter().sum::<usize>()));
        }
        Data { orders, people, places, arrivals }
    }

    /// The same without what other stores' floats cannot be, in the tables: NULL instead of NaN and the infinities, and
    /// zero without a sign, which MariaDB does not keep.
    pub fn with_finite_tables(mut self) -> Self {
        let ratio = PEOPLE.iter().position(|(name, _)| *name == "ratio").unwrap();
        for row in &mut self.people {
            row[ratio] = match row[ratio].take().as_deref() {
                None | Some("NaN" | "Infinity" | "-Infinity") => None,
                Some("-0") => Some("0".to_string()),
                Some(text) => Some(text.to_string()),
            };
        }
        self
    }

    /// The statements that make the tables in PostgreSQL, in a schema of their own.
    pub fn postgres(&self, schema: &str) -> String {
        let mut sql = format!("CREATE SCHEMA {schema}; SET search_path = {schema};\n");
        for (name, columns, rows) in [("orders", &ORDERS[..], &self.orders)].into_iter().chain(self.tables()) {
            let columns: Vec<String> = columns.iter().map(|(name, pg_type)| format!("{name} {pg_type}")).collect();
            sql.push_str(&format!("CREATE TABLE {name} ({});\n{};\n", columns.join(", "), insert(name, rows)));
        }
        sql.push_str("CREATE INDEX ON people (big);\nCREATE VIEW late_orders AS SELECT * FROM orders WHERE n > 100");
        sql
    }

    /// The statements that make the lookup tables in MariaDB.
    pub fn mariadb(&self) -> Vec<String> {
        let mut statements = vec![];
        for (name, columns, rows) in self.tables() {
            let declared: Vec<String> =
                columns.iter().map(|(name, pg_type)| format!("{name} {}", mariadb_type(pg_type))).collect();
            statements.push(format!("CREATE TABLE {name} ({}, KEY (big))", declared.join(", ")));
            let value = |(value, (_, pg_type)): (&Option<String>, &(&str, &str))| match value {
                Some(text) => mariadb_literal(pg_type, text),
                None => "NULL".to_string(),
            };
            let row = |row: &Row| format!("({})", row.iter().zip(columns).map(value).collect::<Vec<_>>().join(", "));
            statements
                .push(format!("INSERT INTO {name} VALUES {}", rows.iter().map(row).collect::<Vec<_>>().join(",\n")));
        }
        statements
    }

    /// The statements that make a lookup table in SQLite, with these rows.
    pub fn sqlite(&self, name: &str, rows: &[Row]) -> String {
        let (_, columns, _) = self.tables().into_iter().find(|(table, _, _)| *table == name).unwrap();
        let declared: Vec<String> = columns.iter().map(|(name, pg_type)| format!("{name} {pg_type}")).collect();
        let value = |(value, (_, pg_type)): (&Option<String>, &(&str, &str))| match (value, *pg_type) {
            (None, _) => "NULL".to_string(),
            (Some(text), "boolean") => (if text == "t" { "1" } else { "0" }).to_string(),
            (Some(text), "bytea") => format!("x'{}'", text.trim_start_matches("\\x")),
            (Some(text), "int" | "bigint" | "double precision") => text.clone(),
            (Some(text), _) => format!("'{}'", text.replace('\'', "''")),
        };
        let row = |row: &Row| format!("({})", row.iter().zip(columns).map(value).collect::<Vec<_>>().join(", "));
        let rows = rows.iter().map(row).collect::<Vec<_>>().join(",\n");
        format!(
            "CREATE TABLE {name} ({}); CREATE INDEX {name}_big ON {name} (big); INSERT INTO {name} VALUES {rows}",
            declared.join(", ")
        )
    }

    /// The lookup tables with their columns, as PostgreSQL declares them.
    fn tables(&self) -> [(&'static str, Columns, &Vec<Row>); 2] {
        [("people", &PEOPLE, &self.people), ("places", &PLACES, &self.places)]
    }

    /// The statements that put the same orders into the push stream `arriving`, and make them an end.
    pub fn lookaside(&self) -> Vec<String> {
        let mut rest = self.orders.as_slice();
        let mut statements = vec![];
        for count in &self.arrivals {
            let (rows, later) = rest.split_at(*count);
            statements.push(insert("arriving", rows));
            rest = later;
        }
        let bounded = format!("SELECT * FROM arriving WITH (start = 'earliest') LIMIT {ORDER_COUNT}");
        statements.push(format!("CREATE VIEW orders AS {bounded}"));
        statements.push("CREATE VIEW late_orders AS SELECT * FROM orders WHERE n > 100".to_string());
        statements
    }
}

fn row(columns: &[(&str, &str)], n: usize, random: &mut StdRng) -> Row {
    let is_stream = columns.len() == ORDERS.len();
    columns.iter().map(|(name, _)| value(name, n, is_stream, random)).collect()
}

fn value(column: &str, n: usize, is_stream: bool, random: &mut StdRng) -> Option<String> {
    let pool: &[&str] = match column {
        "n" | "id" => return Some(n.to_string()),
        "blank" => return None,
        "big" => &BIGS,
        "small" => &SMALLS,
        "words" | "name" | "note" => &WORDS,
        "code" => &CODES,
        "price" if is_stream => &PRICES,
        "price" => &FINER_PRICES,
        "ratio" => &RATIOS,
        "day" => &DAYS,
        "at" => &MOMENTS,
        "flag" => &["t", "f"],
        "ref" => &REFS,
        "raw" => &RAWS,
        other => panic!("no values for column {other}"),
    };
    if random.random_bool(0.12) {
        return None;
    }
    // A long text now and then, of which there are only two.
    if column == "words" && random.random_bool(0.05) {
        return Some(["long 'text\\ ".repeat(250), "日本語 ".repeat(20)].choose(random)?.clone());
    }
    // Each side has values that the other one lacks.
    let pool = if is_stream { &pool[..pool.len().max(3) - 1] } else { &pool[usize::from(pool.len() > 2)..] };
    pool.choose(random).map(ToString::to_string)
}

/// One INSERT with all values as quoted texts.
fn insert(table: &str, rows: &[Row]) -> String {
    let quoted = |value: &Option<String>| match value {
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => "NULL".to_string(),
    };
    let row = |row: &Row| format!("({})", row.iter().map(quoted).collect::<Vec<_>>().join(", "));
    format!("INSERT INTO {table} VALUES {}", rows.iter().map(row).collect::<Vec<_>>().join(",\n"))
}

/// What holds the same values in MariaDB; its `timestamp` has the years from 1970 to 2038 alone.
fn mariadb_type(pg_type: &str) -> String {
    match pg_type {
        "boolean" => "bit(1)".to_string(),
        "bytea" => "varbinary(100)".to_string(),
        "double precision" => "double".to_string(),
        "timestamptz" => "datetime(6)".to_string(),
        pg_type => pg_type.replace("numeric", "decimal"),
    }
}

/// The value that PostgreSQL reads from `text`, as MariaDB's statements have it.
fn mariadb_literal(pg_type: &str, text: &str) -> String {
    match pg_type {
        "boolean" => (if text == "t" { "b'1'" } else { "b'0'" }).to_string(),
        "bytea" => format!("x'{}'", text.trim_start_matches("\\x")),
        "timestamptz" => {
            let text = if text[19..].contains(':') { text.to_string() } else { format!("{text}:00") };
            let moment = chrono::DateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f%:z").unwrap();
            format!("'{}'", moment.naive_utc().format("%Y-%m-%d %H:%M:%S%.6f"))
        }
        _ => crate::store_mysql::quoted(text),
    }
}
