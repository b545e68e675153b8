//! The Redis store against a Redis.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringViewArray};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use lookaside::error::Code;
use lookaside::format::json_path::JsonPath;
use lookaside::format::text::ColumnBuilder;
use lookaside::pg_type::PgType;
use lookaside::store::contract;
use lookaside::store::document::DocumentColumn;
use lookaside::store::postgres::SslMode;
use lookaside::store::redis::{
    Address, RedisConfig, RedisConnection, RedisServers, RedisStore, RedisTable, RedisValue,
};
use lookaside::store::{LookupRequest, Store, StoreError};
use redis::aio::ConnectionLike;
use redis::{Pipeline, Value};

use crate::store_postgres::{request, texts};
use crate::support::lookaside::{Lookaside, project};
use crate::support::redis::RedisServer;
use crate::support::redis_monitor::Monitor;

pub fn config(server: &RedisServer) -> RedisConfig {
    let address = Address { host: "127.0.0.1".to_string(), port: server.port() };
    RedisConfig {
        servers: RedisServers::One { address, database: 0 },
        user: None,
        password: None,
        sslmode: SslMode::Disable,
        sslrootcert: None,
        max_connections: 4,
    }
}

pub fn connection(server: &RedisServer) -> Arc<RedisConnection> {
    RedisConnection::try_new("cache".to_string(), config(server)).unwrap()
}

/// `columns` are names and types; ` not null` may follow.
pub fn table(template: &str, value: RedisValue, columns: &[(&str, &str)]) -> RedisTable {
    let column = |(name, of): &(&str, &str)| {
        let (of, nullable) = of.strip_suffix(" not null").map_or((*of, true), |of| (of, false));
        let path = JsonPath::member(name);
        DocumentColumn { name: name.to_string(), pg_type: PgType::parse(of).unwrap(), nullable, path }
    };
    let columns = columns.iter().map(column).collect::<Vec<_>>();
    let template = template.parse::<lookaside::store::redis::KeyTemplate>().unwrap();
    let position = |name: &String| columns.iter().position(|column| column.name == *name).unwrap();
    let key = template.columns().iter().map(position).collect();
    RedisTable { template, key, value, columns }
}

pub async fn store(server: &RedisServer, table: RedisTable) -> RedisStore {
    RedisStore::connect(connection(server), table).await.unwrap()
}

pub fn bigints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn strings<T: AsRef<str>>(values: &[T]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

/// Columns by their positions for keys of the first column.
pub async fn found(store: &RedisStore, columns: &[usize], keys: ArrayRef) -> Vec<String> {
    texts(&store.lookup(&request(&[0], columns, &[], vec![keys])).await.unwrap())
}

pub async fn failure(store: &RedisStore, columns: &[usize], keys: ArrayRef) -> StoreError {
    store.lookup(&request(&[0], columns, &[], vec![keys])).await.unwrap_err()
}

const PERSON: [(&str, &str); 4] = [("id", "bigint"), ("region", "text"), ("name", "text"), ("note", "text")];
/// Templates of keys over the suite's columns, and their positions.
const CONTRACTS: [(&str, &[usize]); 4] =
    [("{id}", &[0]), ("{{p}}{region}", &[1]), ("p:{id}:{region}:x", &[0, 1]), ("p:{region}:{id}", &[1, 0])];

/// Writes the suite's rows and holds a store to the suite, for each kind of key, as hashes and as documents.
pub async fn hold_to_contract(
    name: &str,
    connect: impl AsyncFn(RedisTable) -> RedisStore,
    server: &mut impl ConnectionLike,
) {
    for value in [RedisValue::Hash, RedisValue::Json] {
        for (template, key) in CONTRACTS {
            let table = table(&format!("{name}:{}:{template}", value.name()), value, &PERSON);
            let rows = contract::keyed_table(key).unwrap();
            let options = FormatOptions::default();
            let column = |column: usize| ArrayFormatter::try_new(rows.column(column).as_ref(), &options).unwrap();
            let shown = (0..4).map(column).collect::<Vec<_>>();
            let mut pipeline = Pipeline::new();
            for row in 0..rows.num_rows() {
                let values = key.iter().map(|&column| shown[column].value(row).to_string()).collect::<Vec<_>>();
                let values = values.iter().map(String::as_str).collect::<Vec<_>>();
                let text = table.template.write(&values).unwrap_or_else(|| panic!("{template} with {values:?}"));
                let there = (0..4).filter(|&column| !rows.column(column).is_null(row));
                let fields = there.map(|column| (PERSON[column].0, shown[column].value(row).to_string()));
                match value {
                    RedisValue::Hash => {
                        let fields = fields.chain([("of nobody's", "x".to_string())]).collect::<Vec<_>>();
                        pipeline.cmd("HSET").arg(text).arg(fields).ignore();
                    }
                    RedisValue::Json | RedisValue::Text => {
                        let json = |name: &str, value: String| match name {
                            "id" => serde_json::Value::from(value.parse::<i64>().unwrap()),
                            _ => value.into(),
                        };
                        let document = fields.map(|(name, value)| (name.to_string(), json(name, value))).collect();
                        pipeline.cmd("SET").arg(text).arg(serde_json::Value::Object(document).to_string()).ignore();
                    }
                }
            }
            pipeline.exec_async(server).await.unwrap();
            contract::check_keyed(&connect(table).await, key)
                .await
                .unwrap_or_else(|error| panic!("{template}: {error}"));
        }
    }
}

#[tokio::test]
async fn contract_holds_for_hashes_and_documents() {
    let server = RedisServer::shared();
    hold_to_contract("contract", async |table| store(server, table).await, &mut server.connect().await).await;
}

#[tokio::test]
async fn key_and_value_of_every_type_are_read() {
    let server = RedisServer::shared();
    // A value in PostgreSQL's input, its text in keys, and as Arrow shows it.
    let cases = [
        ("smallint", "-32768", "-32768", "-32768"),
        ("integer", "7", "7", "7"),
        ("bigint", "-9223372036854775808", "-9223372036854775808", "-9223372036854775808"),
        ("numeric(12,2)", "12.5", "12.50", "12.50"),
        (
            "numeric(40,0)",
            "1234567890123456789012345678901234567890",
            "1234567890123456789012345678901234567890",
            "1234567890123456789012345678901234567890",
        ),
        ("boolean", "t", "true", "true"),
        ("double precision", "0.1", "0.1", "0.1"),
        ("text", "Ω {x} ", "Ω {x} ", "Ω {x} "),
        (
            "uuid",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
        ("date", "2026-11-21", "2026-11-21", "2026-11-21"),
        ("timestamptz", "2026-11-21 12:00:00+02", "2026-11-21 10:00:00+00", "2026-11-21T10:00:00Z"),
        ("time", "10:00:00.5", "10:00:00.5", "10:00:00.500"),
    ];
    let mut wrong = Vec::new();
    for (of, input, text, shown) in cases {
        server.run(&["HSET", &format!("type:{of}:{text}"), "value", input, "list", "{1,NULL}"]).await;
        let columns = [("key", of), ("value", of), ("list", "bigint[]")];
        let store = store(server, table(&format!("type:{of}:{{key}}"), RedisValue::Hash, &columns)).await;
        let mut keys = ColumnBuilder::new(&PgType::parse(of).unwrap());
        keys.append(input).unwrap();
        let found = found(&store, &[0, 1, 2], keys.finish()).await;
        if found != [format!("0: {shown} | {shown} | [1, NULL]")] {
            wrong.push(format!("{of}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.run(&["SET", "type:raw:1", "\\x00 is no escape here"]).await;
    let raw = store(server, table("type:raw:{id}", RedisValue::Text, &[("id", "bigint"), ("raw", "bytea")])).await;
    let answer = raw.lookup(&request(&[0], &[1], &[], vec![bigints(&[1])])).await.unwrap();
    assert_eq!(answer.rows.column(0).as_binary::<i32>().value(0), b"\\x00 is no escape here");
}

#[tokio::test]
async fn missing_key_is_no_match_and_a_hash_without_the_fields_is_a_row_of_nulls() {
    let server = RedisServer::shared();
    server.run(&["HSET", "missing:1", "other", "x"]).await;
    server.run(&["SET", "missing:s:1", ""]).await;
    let hashes = store(server, table("missing:{id}", RedisValue::Hash, &[("id", "bigint"), ("name", "text")])).await;
    assert_eq!(found(&hashes, &[1], bigints(&[2, 1])).await, ["1: NULL"]);
    assert_eq!(found(&hashes, &[0], bigints(&[2, 1])).await, ["1: 1"]);
    let texts = store(server, table("missing:s:{id}", RedisValue::Text, &[("id", "bigint"), ("name", "text")])).await;
    assert_eq!(found(&texts, &[1], bigints(&[2, 1])).await, ["1: "]);
    assert_eq!(found(&texts, &[0, 0], bigints(&[2, 1])).await, ["1: 1 | 1"]);
    assert!(found(&texts, &[1], bigints(&[])).await.is_empty());
    let strict = table("missing:{id}", RedisValue::Hash, &[("id", "bigint"), ("name", "text not null")]);
    let error = failure(&store(server, strict).await, &[1], bigints(&[1])).await;
    let message = "lookup in \"t\" failed: key \"missing:1\": column \"name\" holds no value, but is declared not null";
    assert!(error.is_about_keys());
    assert_eq!(error.into_error("t").message(), message);
}

#[tokio::test]
async fn column_that_is_compared_beside_the_key_is_compared_here() {
    let server = RedisServer::shared();
    server.run(&["HSET", "beside:1", "tier", "gold"]).await;
    server.run(&["HSET", "beside:2", "tier", "silver"]).await;
    let store = store(server, table("beside:{id}", RedisValue::Hash, &[("id", "bigint"), ("tier", "text")])).await;
    let asked = request(&[1, 0], &[0], &[], vec![strings(&["gold", "gold"]), bigints(&[1, 2])]);
    assert_eq!(texts(&store.lookup(&asked).await.unwrap()), ["0: 1"]);
    let error = store.check_keys(&[1]).unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::FeatureNotSupported, "column \"id\" of the key is not compared")
    );
}

#[tokio::test]
async fn value_of_another_kind_is_an_error_that_names_the_key() {
    let server = RedisServer::shared();
    server.run(&["RPUSH", "kind:list", "x"]).await;
    server.run(&["SET", "kind:string", "{\"name\": 1}"]).await;
    server.run(&["HSET", "kind:hash", "name", "x", "number", "abc", "raw", "x"]).await;
    let columns = [("id", "text"), ("name", "text"), ("number", "bigint")];
    let refused = async |value: RedisValue, columns: &[(&str, &str)], read: &[usize], key: &str| {
        let error = failure(&store(server, table("kind:{id}", value, columns)).await, read, strings(&[key])).await;
        assert!(error.is_about_keys() && !error.is_transient(), "{error:?}");
        let error = error.into_error("t");
        format!("{} {}", error.sqlstate(), error.message())
    };
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    for read in [&[1][..], &[0]] {
        let message = refused(RedisValue::Hash, &columns, read, "list").await;
        assert_eq!(
            message,
            format!("HV000 lookup in \"t\" failed: the value of key \"kind:list\" is no hash: {wrong}")
        );
    }
    let message = refused(RedisValue::Json, &columns, &[1], "hash").await;
    assert_eq!(message, format!("HV000 lookup in \"t\" failed: the value of key \"kind:hash\" is no string: {wrong}"));
    let message = refused(RedisValue::Json, &columns, &[0], "hash").await;
    assert_eq!(
        message,
        "HV000 lookup in \"t\" failed: the value of key \"kind:hash\" is no string: it is of type hash"
    );
    let message = refused(RedisValue::Hash, &columns, &[2], "hash").await;
    assert_eq!(message, "22P02 key \"kind:hash\": column \"number\": invalid input syntax for type bigint: \"abc\"");
    let message = refused(RedisValue::Json, &columns, &[1], "string").await;
    assert_eq!(message, "22P02 key \"kind:string\": column \"name\": a JSON number cannot be read as type text: 1");
    let mut raw = server.connect().await;
    redis::cmd("SET").arg("kind:latin").arg(&b"caf\xe9"[..]).exec_async(&mut raw).await.unwrap();
    let message = refused(RedisValue::Text, &columns[..2], &[1], "latin").await;
    assert_eq!(message, "22021 key \"kind:latin\": column \"name\": invalid byte sequence for encoding \"UTF8\"");
}

#[tokio::test]
async fn only_the_fields_asked_for_leave_the_server_and_wide_hashes_come_whole() {
    let server = RedisServer::start();
    let names = (0..1000).map(|i| format!("field {i}")).collect::<Vec<_>>();
    let mut hset = redis::cmd("HSET");
    hset.arg("wide:1");
    names.iter().for_each(|name| {
        hset.arg(name).arg(format!("value of {name}"));
    });
    hset.exec_async(&mut server.connect().await).await.unwrap();
    let mut columns = vec![("id", "bigint")];
    columns.extend(names.iter().map(|name| (name.as_str(), "text")));
    let store = store(&server, table("wide:{id}", RedisValue::Hash, &columns)).await;
    let all = (1..=1000).collect::<Vec<_>>();
    let answer = store.lookup(&request(&[0], &all, &[], vec![bigints(&[1])])).await.unwrap();
    for (column, name) in answer.rows.columns().iter().zip(&names) {
        assert_eq!(column.as_string_view().value(0), format!("value of {name}"));
    }
    let monitor = Monitor::start(&server);
    assert_eq!(found(&store, &[2], bigints(&[1])).await, ["0: value of field 1"]);
    let commands = monitor.stop().await;
    assert_eq!(
        commands,
        [["HMGET", "wide:1", "field 1"].map(str::to_string).to_vec(), vec!["HLEN".to_string(), "wide:1".to_string()]]
    );
}

#[tokio::test]
async fn big_values_come_whole_or_are_too_large() {
    let server = RedisServer::start();
    let big = "x".repeat(10 << 20);
    server.run(&["SET", "big:1", &big]).await;
    let store = store(&server, table("big:{id}", RedisValue::Text, &[("id", "bigint"), ("value", "text")])).await;
    let mut asked: LookupRequest = request(&[0], &[1], &[], vec![bigints(&[1])]);
    let answer = store.lookup(&asked).await.unwrap();
    assert_eq!(answer.rows.column(0).as_string_view().value(0), big);
    asked.max_answer_bytes = 4 + 16 + (10 << 20);
    assert!(store.lookup(&asked).await.is_ok());
    asked.max_answer_bytes -= 1;
    assert!(matches!(store.lookup(&asked).await, Err(StoreError::TooLarge { .. })));
}

#[tokio::test]
async fn ten_thousand_hostile_keys_reach_the_server_as_plain_values() {
    let server = RedisServer::start();
    let parts = [
        "'",
        "\"",
        ";",
        "\r\n",
        "*3\r\n$3\r\nSET\r\n",
        "%s",
        "%00",
        "{id}",
        "{{",
        "}}",
        "*",
        "?",
        "[a]",
        "\\",
        "\n",
        "FLUSHALL",
        "Ω",
        " ",
    ];
    let hostile = (0..10_000).map(|i: usize| {
        let pieces = (0..4).map(|j| parts[(i * 7 + j * (i / 18 + 1)) % parts.len()]).collect::<String>();
        if i.is_multiple_of(1000) { format!("{i}{}", "x\r\n".repeat(22_000)) } else { format!("{i}{pieces}") }
    });
    let hostile = hostile.collect::<Vec<_>>();
    let template = "h:{a}:{b}";
    let columns = [("a", "text"), ("b", "text"), ("v", "text")];
    let store = store(&server, table(template, RedisValue::Hash, &columns)).await;
    let mut load = server.connect().await;
    let (odd, even): (Vec<_>, Vec<_>) = hostile.iter().enumerate().partition(|(i, _)| i % 2 == 1);
    let mut pipeline = Pipeline::new();
    for (i, text) in &odd {
        pipeline.cmd("HSET").arg(format!("h:{i}:{text}")).arg("v").arg(text.as_str()).ignore();
    }
    pipeline.exec_async(&mut load).await.unwrap();
    let monitor = Monitor::start(&server);
    let mut expected = BTreeSet::new();
    for chunk in odd.iter().chain(&even).collect::<Vec<_>>().chunks(2_000) {
        let numbers = strings(&chunk.iter().map(|(i, _)| i.to_string()).collect::<Vec<_>>());
        let values = strings(&chunk.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>());
        let answer = store.lookup(&request(&[0, 1], &[1, 2], &[], vec![numbers, Arc::clone(&values)])).await.unwrap();
        let there = chunk.iter().zip(0..).filter(|((i, _), _)| i % 2 == 1).map(|(_, position)| position);
        assert!(there.eq(answer.key_of_row.values().iter().copied()));
        assert_eq!(answer.rows.column(0), answer.rows.column(1));
        for (i, text) in chunk {
            expected.insert(vec!["HMGET".to_string(), format!("h:{i}:{text}"), "v".to_string()]);
            expected.insert(vec!["HLEN".to_string(), format!("h:{i}:{text}")]);
        }
    }
    // What leaves its place is no key, and what has a zero byte is no text.
    let outside = vec![strings(&["1:2", "1", "a\0b"]), strings(&["3", "2:3", "x"])];
    assert!(store.lookup(&request(&[0, 1], &[2], &[], outside)).await.unwrap().rows.num_rows() == 0);
    expected.insert(["HMGET", "h:1:2:3", "v"].map(str::to_string).to_vec());
    expected.insert(["HLEN", "h:1:2:3"].map(str::to_string).to_vec());
    let commands = monitor.stop().await.into_iter().collect::<BTreeSet<_>>();
    assert!(commands == expected, "{:?}", commands.symmetric_difference(&expected).take(3).collect::<Vec<_>>());
    assert_eq!(server.run(&["DBSIZE"]).await, Value::Int(odd.len() as i64));
}

/// A catalog over a server, with hashes, documents and strings.
pub fn catalog(server: &RedisServer, cache: &str) -> String {
    format!(
        "[connection.cache]
        type = \"redis\"
        url = \"{}\"
        [stream.orders]
        type = \"push\"
        [stream.orders.columns]
        customer = \"bigint\"
        [lookup.customers]
        connection = \"cache\"
        key = \"sql:customer:{{id}}\"
        value = \"hash\"
        {cache}
        [lookup.customers.columns]
        id = \"bigint\"
        name = \"text\"
        [lookup.plans]
        connection = \"cache\"
        key = \"sql:plan:{{id}}\"
        value = \"json\"
        [lookup.plans.columns]
        id = \"bigint\"
        tier = {{ type = \"int\", path = \"$.plan.tiers[1]\" }}
        [lookup.names]
        connection = \"cache\"
        key = \"sql:name:{{id}}\"
        value = \"string\"
        [lookup.names.columns]
        id = \"bigint\"
        name = \"text\"",
        server.url()
    )
}

#[tokio::test]
async fn lookup_join_reads_hashes_documents_and_strings() {
    let server = RedisServer::shared();
    server.run(&["HSET", "sql:customer:7", "name", "Ann"]).await;
    server.run(&["SET", "sql:customer:9", "no hash"]).await;
    server.run(&["SET", "sql:plan:7", "{\"plan\": {\"tiers\": [1, 2]}}"]).await;
    server.run(&["SET", "sql:name:7", "Ann's"]).await;
    let lookaside = Lookaside::start(&catalog(server, "")).await;
    let client = lookaside.connect().await;
    let values = "SELECT o.id, c.name, p.tier, n.name FROM (VALUES (7::bigint), (8), (NULL)) AS o (id)
        LEFT LOOKUP JOIN customers c ON o.id = c.id LEFT LOOKUP JOIN plans p ON o.id = p.id LEFT LOOKUP JOIN names n ON o.id = n.id";
    let rows = client.query(values, &[]).await.unwrap();
    let row = |row: &tokio_postgres::Row| {
        let (id, customer, tier, name) = (row.get(0), row.get(1), row.get(2), row.get(3));
        (id, customer, tier, name)
    };
    type Found = (Option<i64>, Option<String>, Option<i32>, Option<String>);
    let expected: [Found; 3] = [
        (Some(7), Some("Ann".into()), Some(2), Some("Ann's".into())),
        (Some(8), None, None, None),
        (None, None, None, None),
    ];
    assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), expected);
    // One key to blame spoils no other.
    let mixed = "SELECT o.id, c.name FROM (VALUES (9::bigint), (7)) AS o (id) LOOKUP JOIN customers c WITH (on_failure = 'no_match') ON o.id = c.id";
    let rows = client.query(mixed, &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [7]);
    let error = client.query("SELECT name FROM customers WHERE id = 9", &[]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "HV000");
    assert!(error.message().contains("the value of key \"sql:customer:9\" is no hash"), "{error}");
    let error = client.query("SELECT name FROM customers WHERE name = 'Ann'", &[]).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "0A000", "{error}");
    let rows = client.query("SELECT id FROM customers WHERE id IN (7, 8) AND name = 'Ann'", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    lookaside.stop().await;
}

#[tokio::test]
async fn example_query_runs_over_the_example_catalog() {
    let server = RedisServer::start();
    for id in 1..=10 {
        server.run(&["HSET", &format!("customer:{id}"), "name", &format!("name {id}"), "tier", "gold"]).await;
        server.run(&["SET", &format!("{{eu}}:plan:{id}"), "{\"plan\": {\"limits\": [10, 20]}}"]).await;
    }
    let read = |path: &str| std::fs::read_to_string(project().join(path)).unwrap();
    let lookaside =
        Lookaside::start(&read("catalogs/redis.toml").replace("redis://127.0.0.1:6379/0", &server.url())).await;
    let query =
        format!("SELECT * FROM (\n{}\n) AS q LIMIT 100", read("sql/redis.sql").trim_end().trim_end_matches(';'));
    let rows = lookaside.connect().await.query(&query, &[]).await.unwrap();
    assert_eq!(rows.len(), 100);
    for row in rows {
        assert!(row.get::<_, &str>(1).starts_with("name "));
        assert_eq!((row.get::<_, &str>(2), row.get::<_, i32>(3)), ("gold", 20));
    }
    lookaside.stop().await;
}
