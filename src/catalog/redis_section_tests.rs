use std::path::PathBuf;

use crate::catalog::definition::{ConnectionKind, LookupKind, RedisConfig, RedisTable, SslMode};
use crate::catalog::file::read_text;
use crate::lookup::policy::{CachePolicy, ToldBy};
use crate::store::redis::{Address, RedisServers, RedisValue};

fn problems(text: &str) -> Vec<String> {
    let read = read_text(&[(PathBuf::from("a.toml"), text.to_string())], &|_| None);
    let problems = read.err().unwrap_or_else(|| panic!("{text} is read"));
    problems.into_iter().map(|problem| problem.message).collect()
}

fn connection(lines: &str) -> String {
    format!("[connection.cache]\ntype = \"redis\"\n{lines}\n")
}

fn config(lines: &str) -> RedisConfig {
    let read = read_text(&[(PathBuf::from("a.toml"), connection(lines))], &|_| None);
    match read.unwrap_or_else(|problems| panic!("{problems:#?}")).connections.remove(0).kind {
        ConnectionKind::Redis(config) => config,
        other => panic!("{other:?}"),
    }
}

fn one(host: &str, port: u16, database: i64) -> RedisServers {
    RedisServers::One { address: Address { host: host.to_string(), port }, database }
}

#[test]
fn urls_say_where_as_whom_and_whether_with_tls() {
    let plain = config("url = \"redis://cache.example.com\"");
    assert_eq!((plain.servers, plain.sslmode), (one("cache.example.com", 6379, 0), SslMode::Disable));
    let full = config("url = \"rediss://me:p%40ss@[::1]:7000/3\"\nsslmode = \"verify-full\"\nmax_connections = 2");
    assert_eq!(
        (full.servers.clone(), full.sslmode, full.max_connections),
        (one("::1", 7000, 3), SslMode::VerifyFull, 2)
    );
    assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("me"), Some("p@ss")));
    assert!(!format!("{full:?}").contains("p@ss"));
    let default_user = config("url = \"redis://:secret@127.0.0.1\"");
    assert_eq!((default_user.user, default_user.password.as_deref()), (None, Some("secret")));
}

#[test]
fn clusters_verify_who_answers_unless_all_are_of_this_machine() {
    let local = config(
        "cluster = [\"127.0.0.1:7000\", \"localhost:7001\", \"[::1]:7002\"]\nuser = \"me\"\npassword = \"secret\"",
    );
    assert_eq!((local.sslmode, local.max_connections, local.user.as_deref()), (SslMode::Disable, 8, Some("me")));
    let RedisServers::Cluster(seeds) = local.servers else { panic!("{:?}", local.servers) };
    assert_eq!(
        seeds.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:7000", "localhost:7001", "::1:7002"]
    );
    assert_eq!(config("cluster = [\"127.0.0.1:7000\", \"10.0.0.1:7000\"]").sslmode, SslMode::VerifyFull);
}

#[test]
fn wrong_connections_are_told_without_their_secrets() {
    let cases = [
        ("", "[connection.cache] lacks \"url\""),
        ("url = \"http://s3cret\"", "\"url\" in [connection.cache] is not a url of Redis"),
        ("url = \"redis://:s3cret@\"", "\"url\" in [connection.cache] cannot be read"),
        ("url = \"redis://h/s3cret\"", "\"url\" in [connection.cache] has a database that is no number"),
        ("url = \"rediss://h/#insecure\"", "\"url\" in [connection.cache] has options, which are keys beside it here"),
        (
            "url = \"redis://h\"\nsslmode = \"verify-full\"",
            "\"sslmode\" in [connection.cache] does not agree with \"url\"",
        ),
        (
            "url = \"redis://h\"\nsslrootcert = \"ca\"",
            "\"sslrootcert\" in [connection.cache] has no effect without TLS",
        ),
        ("url = \"redis://h\"\npassword = \"s3cret\"", "\"password\" in [connection.cache] does not go with \"url\""),
        ("url = \"redis://me@h\"", "[connection.cache] has a user without a password"),
        ("url = \"redis://h\"\ncluster = [\"h:1\"]", "[connection.cache] has both \"url\" and \"cluster\""),
        ("cluster = [\"h\"]", "\"h\" in \"cluster\" of [connection.cache] is not HOST:PORT"),
        ("url = \"redis://h\"\nhost = \"h\"", "\"host\" in [connection.cache] does not go with type \"redis\""),
    ];
    for (lines, message) in cases {
        let found = problems(&connection(lines));
        assert_eq!(found, [message], "{lines}");
        assert!(!found.concat().contains("s3cret"));
    }
}

fn lookup(lines: &str, columns: &str) -> String {
    let lookup = format!("[lookup.t]\nconnection = \"cache\"\n{lines}\n[lookup.t.columns]\n{columns}\n");
    connection("url = \"redis://h\"") + &lookup
}

#[test]
fn tables_have_their_template_their_value_and_their_columns() {
    let text = lookup(
        "key = \"{{{region}}}:{id}\"\nvalue = \"json\"\ncache = { mode = \"partial\", tracking = true }",
        "id = \"bigint\"\nregion = \"text\"\ntier = { type = \"int not null\", path = \"$.plan.tier\" }\nname = \"text\"",
    );
    let read = read_text(&[(PathBuf::from("a.toml"), text)], &|_| None);
    let lookup = read.unwrap_or_else(|problems| panic!("{problems:#?}")).lookups.remove(0);
    let LookupKind::Redis(RedisTable { template, key, value, columns }) = lookup.kind else { panic!("{lookup:?}") };
    assert_eq!((template.to_string().as_str(), key, value), ("{{{region}}}:{id}", vec![1, 0], RedisValue::Json));
    let paths = columns.iter().map(|column| column.path.to_string()).collect::<Vec<_>>();
    assert_eq!(paths, ["$.id", "$.region", "$.plan.tier", "$.name"]);
    assert_eq!(columns.iter().map(|column| column.nullable).collect::<Vec<_>>(), [true, true, false, true]);
    let CachePolicy::Partial(cache) = lookup.policy.cache else { panic!("{:?}", lookup.policy) };
    assert_eq!(cache.told_by, Some(ToldBy::Tracking));
}

#[test]
fn wrong_tables_are_told() {
    let two = "id = \"bigint\"\nname = \"text\"";
    let hash = |key: &str| format!("key = \"{key}\"\nvalue = \"hash\"");
    let cases = [
        ("value = \"hash\"".to_string(), two, "[lookup.t] lacks \"key\""),
        ("key = \"c:{id}\"".to_string(), two, "[lookup.t] lacks \"value\""),
        (hash("c:{idd}"), two, "column \"idd\" in \"key\" of [lookup.t] is not declared"),
        (
            hash("c:id"),
            two,
            "\"key\" in [lookup.t]: \"c:id\" is not a template of keys: it names no column, as {id} does",
        ),
        (
            hash("{id}"),
            "id = \"jsonb\"",
            "column \"id\" cannot be part of a key: equal values of type jsonb need not have the same text",
        ),
        (
            hash("{id}"),
            "id = { type = \"int\", path = \"$.x\" }",
            "column \"id\" is part of the key, so it has no path",
        ),
        (
            hash("{id}"),
            "id = \"int\"\nx = { type = \"int\", path = \"$.x\" }",
            "column \"x\" has a path, which does not go with value = \"hash\"",
        ),
        (
            "key = \"{id}\"\nvalue = \"string\"".to_string(),
            "id = \"int\"",
            "[lookup.t] with value = \"string\" has one column beside the key, not 0",
        ),
        (hash("{id}") + "\ntable = \"t\"", two, "\"table\" in [lookup.t] does not go with type \"redis\""),
        (
            hash("{id}") + "\ncache = { mode = \"full\" }",
            two,
            "mode = \"full\" in [lookup.t.cache] does not go with type \"redis\"",
        ),
        (
            hash("{id}") + "\ncache = { mode = \"none\", tracking = true }",
            two,
            "\"tracking\" in [lookup.t.cache] has no effect with mode = \"none\"",
        ),
        (
            hash("{id}") + "\ncache = { mode = \"partial\", listen = \"x\" }",
            two,
            "\"listen\" in [lookup.t.cache] does not go with type \"redis\"",
        ),
    ];
    for (lines, columns, message) in cases {
        assert_eq!(problems(&lookup(&lines, columns)), [message], "{lines}\n{columns}");
    }
}
