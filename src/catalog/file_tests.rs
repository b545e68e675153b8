use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode as ClientSslMode};

use super::super::definition::*;
use super::super::demo::read_demo;
use super::super::keys::{KEYS, Key, Kind};
use super::*;
use crate::lookup::policy::{
    BreakerPolicy, CachePolicy, FullCache, LookupPolicy, OnFailure, Ordering, PartialCache, RetryPolicy,
};
use crate::pg_type::PgType;
use crate::store::simulated::{Behaviour, Latency, SimulatedError};

pub(super) fn environment(name: &str) -> Option<String> {
    match name {
        "URL" => Some("postgres://ana:s3cret@db.example.com/shop".to_string()),
        "BAD" => Some("s3cret".to_string()),
        _ => None,
    }
}

pub(super) fn read(text: &str) -> Result<CatalogDefinition, Vec<Problem>> {
    read_text(&[(PathBuf::from("conf/a.toml"), text.to_string())], &environment)
}

fn read_valid(text: &str) -> CatalogDefinition {
    read(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

pub(super) const SHOP: &str = "[connection.shop]\ntype = \"postgres\"\nurl = \"postgres://me@localhost/shop\"\n";

/// A lookup table in the connection `shop`, with `lines` beginning in line 3.
pub(super) fn customers(lines: &str) -> String {
    format!("[lookup.customers]\nconnection = \"shop\"\n{lines}\ntable = \"customers\"\n{SHOP}")
}

/// A connection by parts, with `lines` beginning in line 3.
pub(super) fn shop(lines: &str) -> String {
    format!("[connection.shop]\ntype = \"postgres\"\n{lines}\n")
}

fn only_policy(text: &str) -> LookupPolicy {
    read_valid(text).lookups.remove(0).policy
}

fn only_postgres(text: &str) -> PostgresConnection {
    match read_valid(text).connections.remove(0).kind {
        ConnectionKind::Postgres(postgres) => postgres,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connections_to_mysql_have_their_defaults() {
    let only = |lines: &str| {
        let text = format!("[connection.erp]\ntype = \"mysql\"\n{lines}\n");
        match read_valid(&text).connections.remove(0).kind {
            ConnectionKind::Mysql(config) => config,
            other => panic!("{other:?}"),
        }
    };
    let config = only("url = \"mysql://me:p%40ss@db.example.com/erp\"");
    assert_eq!((config.host.as_str(), config.port, config.user.as_str()), ("db.example.com", 3306, "me"));
    assert_eq!((config.password.as_deref(), config.database.as_deref()), (Some("p@ss"), Some("erp")));
    assert_eq!((config.sslmode, config.max_connections.get()), (SslMode::VerifyFull, 8));
    let config = only("url = \"mysql://me@[::1]:3307\"");
    assert_eq!(
        (config.host.as_str(), config.port, config.database, config.sslmode),
        ("::1", 3307, None, SslMode::Disable)
    );
    let config = only("host = \"/run/mysqld.sock\"\nuser = \"me\"\npassword = \"p\"");
    assert_eq!(
        (config.host.as_str(), config.password.as_deref(), config.sslmode),
        ("/run/mysqld.sock", Some("p"), SslMode::Disable)
    );
}

/// A catalog in which `key` has the value `value`; other keys may be missing.
fn catalog_with(key: &Key, value: &str) -> String {
    let declared = match (key.section.split('.').next(), key.of.first()) {
        (Some("lookup"), Some(&("file" | "simulated"))) if key.name == "columns" && key.of == ["file"] => {
            "type = \"file\"\nformat = \"json\"".to_string()
        }
        (Some("lookup"), Some(of @ &("file" | "simulated"))) => format!("type = \"{of}\""),
        (Some("lookup"), Some(_)) => "connection = \"c\"".to_string(),
        (Some("lookup"), None) if key.name != "type" => "type = \"file\"".to_string(),
        (Some("connection"), None) if key.name == "comment" => "type = \"postgres\"\nhost = \"db\"".to_string(),
        (Some("connection"), Some(of)) if ["token_url", "client_id", "client_secret", "scope"].contains(&key.name) => {
            format!("type = \"{of}\"\nsasl_mechanism = \"OAUTHBEARER\"")
        }
        (Some("connection"), Some(of)) => format!("type = \"{of}\""),
        (Some("stream"), Some(&"kafka")) => "connection = \"c\"".to_string(),
        (Some("stream"), Some(of @ &("generator" | "file"))) => format!("type = \"{of}\""),
        (Some("stream"), _) if key.name != "type" => "type = \"push\"".to_string(),
        _ => String::new(),
    };
    let declared = if declared.starts_with(key.name) { String::new() } else { declared };
    let path: Vec<&str> = key.section.split('.').collect();
    let text = match path.as_slice() {
        [""] => format!("{} = {value}", key.name),
        // Only documents have columns that are tables.
        ["stream", "X", "columns", "Y"] => {
            let table = "[stream.X]\nconnection = \"c\"\nformat = \"json\"\n[connection.c]\ntype = \"kafka\"";
            format!("{table}\n[{}]\n{} = {value}", key.section, key.name)
        }
        ["lookup", "X", "columns", "Y"] => {
            let table = "[lookup.X]\nconnection = \"c\"\n[connection.c]\ntype = \"http\"";
            format!("{table}\n[{}]\n{} = {value}", key.section, key.name)
        }
        [kind, name, inner] => {
            let mode = match (*inner, key.name) {
                ("cache", "mode") => "",
                ("cache", "reload_every" | "load_timeout") => "mode = \"full\"",
                ("cache", _) => "mode = \"partial\"",
                _ => "",
            };
            format!("[{kind}.{name}]\n{declared}\n[{}]\n{mode}\n{} = {value}", key.section, key.name)
        }
        _ => format!("[{}]\n{declared}\n{} = {value}", key.section, key.name),
    };
    // What a table may have depends on the type of its connection.
    match key.of.first() {
        Some(of) if declared == "connection = \"c\"" => format!("{text}\n[connection.c]\ntype = \"{of}\"\n"),
        _ => text,
    }
}

#[test]
fn every_key_is_read_as_the_kind_that_the_table_says() {
    // A file's cache holds nothing but one mode, and says so whatever else is in it.
    for key in KEYS.iter().filter(|key| (key.section, key.of) != ("lookup.X.cache", &["file"])) {
        let expected = match key.kind {
            Kind::Flag => "must be true or false",
            Kind::Whole { .. } => "must be a whole number",
            Kind::Number | Kind::Share => "must be a number",
            Kind::TextList => "must be a list of strings",
            Kind::Section => "must be a table",
            Kind::Later => "is not available yet",
            _ => "must be a string",
        };
        let text = catalog_with(key, "2026-11-01");
        let problems = read(&text).expect_err(&text);
        let told = |problem: &&Problem| problem.message.contains(key.name) && problem.message.contains(expected);
        assert_eq!(problems.iter().filter(told).count(), 1, "{text}\n{problems:#?}");
    }
}

#[test]
fn every_word_of_the_table_is_accepted_or_refused_as_it_says() {
    for key in KEYS {
        let Kind::Word { now, later } = key.kind else { continue };
        for (words, expected) in [(now, None), (later, Some("is not available yet"))] {
            for word in words {
                let text = catalog_with(key, &format!("\"{word}\""));
                let problems = read(&text).err().unwrap_or_default();
                let told = problems.iter().find(|problem| problem.message.contains(&format!("\"{word}\"")));
                let told = told.filter(|problem| problem.message.contains(key.name)).map(|problem| &problem.message);
                assert_eq!(told.is_some(), expected.is_some(), "{text}\n{problems:#?}");
                assert!(told.is_none_or(|told| expected.is_some_and(|expected| told.ends_with(expected))), "{told:?}");
            }
        }
    }
}

#[test]
fn every_file_in_catalogs_can_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalogs");
    for name in [
        "demo.toml",
        "postgres.toml",
        "mysql.toml",
        "sqlite.toml",
        "redis.toml",
        "secured.toml",
        "simulated.toml",
        "http.toml",
        "files.toml",
        "kafka.toml",
    ] {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let catalog = read_text(&[(path, text)], &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert!(catalog.streams.iter().any(|stream| stream.name == "orders"), "{name}");
        let has_customers = catalog.lookups.iter().any(|lookup| lookup.name == "customers");
        assert!(has_customers || matches!(name, "secured.toml" | "http.toml" | "files.toml"), "{name}");
        for lookup in catalog.lookups {
            if let LookupKind::File { data: FileData::Path(path), .. } = lookup.kind {
                assert!(path.is_file(), "{}", path.display());
            }
        }
    }
}

#[test]
fn the_demo_has_its_files_inside() {
    let catalog = read_demo().unwrap();
    assert_eq!(catalog.lookups.len(), 2);
    for lookup in &catalog.lookups {
        let LookupKind::File { data: FileData::Embedded(contents), .. } = &lookup.kind else { panic!("{lookup:?}") };
        assert!(contents.lines().count() > 10, "{}", lookup.name);
    }
    let problems = read_embedded(
        Path::new("x.toml"),
        "[lookup.c]\ntype = \"file\"\npath = \"c.parquet\"\nformat = \"parquet\"",
        &[],
    );
    assert_eq!(problems.unwrap_err()[0].to_string(), "x.toml:3:8: no file \"c.parquet\" is embedded");
}

#[test]
fn streams_are_read_with_their_defaults_and_the_order_of_their_columns() {
    let catalog = read_valid(
        "[stream.z]\ntype = \"generator\"\nrows_per_second = 0.5\n[stream.z.columns]\nb = \"n\"\na = \"now()\"\n\
         [stream.orders]\ntype = \"push\"\n[stream.orders.columns]\nid = \"bigint NOT  NULL\"\namount = \"numeric(12,2)\"\n\
         [stream.clicks]\ntype = \"file\"\npath = \"data/c.json\"\nformat = \"json\"\non_malformed = \"skip\"\nfollow = false\n\
         columns = { at = \"timestamptz\" }",
    );
    let [generator, push, file] = catalog.streams.as_slice() else { panic!("{catalog:?}") };
    let StreamKind::Generator { rows_per_second, rows, seed, columns } = &generator.kind else {
        panic!("{generator:?}")
    };
    assert_eq!((*rows_per_second, *rows, *seed), (0.5, 0, 0));
    let expressions: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.expression.as_str(), c.origin.line)).collect();
    assert_eq!(expressions, [("b", "n", 5), ("a", "now()", 6)]);

    let StreamKind::Push { columns, retain_rows, retain_bytes, slow_reader } = &push.kind else { panic!("{push:?}") };
    assert_eq!((retain_rows.get(), *retain_bytes, *slow_reader), (10_000, 64 << 20, SlowReader::Fail));
    assert_eq!(push.on_malformed, OnMalformed::Fail);
    assert_eq!(push.origin.to_string(), "conf/a.toml:7:9");
    let types: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.pg_type.to_string(), c.nullable)).collect();
    assert_eq!(types, [("id", "bigint".to_string(), false), ("amount", "numeric(12,2)".to_string(), true)]);

    assert_eq!(file.on_malformed, OnMalformed::Skip);
    let StreamKind::File { path, rows: FileStreamRows::Messages(payload, metadata), follow: false } = &file.kind else {
        panic!("{file:?}")
    };
    assert_eq!((path.as_path(), &payload.format), (Path::new("conf/data/c.json"), &PayloadFormat::Json));
    assert_eq!((payload.columns.len(), metadata.len()), (1, 0));
}

#[test]
fn every_option_of_a_push_stream_and_a_generator_is_kept() {
    let catalog = read_valid(
        "[stream.p]\ntype = \"push\"\nretain_rows = 5\nretain_bytes = \"1KiB\"\nslow_reader = \"wait\"\ncolumns = { a = \"text\" }\n\
         [stream.g]\ntype = \"generator\"\nrows_per_second = 0\nrows = 3\nseed = 9\ncolumns = { a = \"n\" }",
    );
    let StreamKind::Push { retain_rows, retain_bytes, slow_reader, .. } = &catalog.streams[0].kind else { panic!() };
    assert_eq!((retain_rows.get(), *retain_bytes, *slow_reader), (5, 1024, SlowReader::Wait));
    let StreamKind::Generator { rows_per_second, rows, seed, .. } = &catalog.streams[1].kind else { panic!() };
    assert_eq!((*rows_per_second, *rows, *seed), (0.0, 3, 9));
}

#[test]
fn lookup_tables_begin_with_the_default_policy() {
    assert_eq!(only_policy(&customers("")), LookupPolicy::default());
    assert_eq!(only_policy(&customers("cache = { mode = \"none\" }")), LookupPolicy::default());
    let partial = CachePolicy::Partial(PartialCache {
        max_rows: NonZeroU64::new(100_000),
        expire_misses_after: Some(Duration::from_secs(10)),
        ..PartialCache::default()
    });
    assert_eq!(only_policy(&customers("cache = { mode = \"partial\" }")).cache, partial);
}

#[test]
fn every_option_of_a_lookup_table_is_kept() {
    let catalog = read_valid(&customers(
        "columns = [\"id\", \"credit\"]\ntypes = { credit = \"numeric(20,4)\" }\nordering = \"key_ordered\"\ntimeout = \"0s\"\n\
         on_failure = \"skip\"\ncapacity = 1\ncapacity_bytes = \"1KiB\"\nbatch_size = 2\nbatch_delay = \"7s\"\nmax_in_flight = 3\n\
         max_answer_bytes = \"2KiB\"\nrate_limit = 9\n\
         retry = { max_attempts = 1, delay = \"1s\", max_delay = \"2s\", on_miss = true }\n\
         circuit_breaker = { failures = 8, open_for = \"3s\" }\n\
         cache = { mode = \"partial\", max_rows = 4, max_bytes = \"5B\", expire_after_write = \"6s\", expire_after_access = \"4s\", \
         expire_misses_after = \"0s\", refresh_after = \"5s\", serve_stale_for = \"1h\" }",
    ));
    let lookup = &catalog.lookups[0];
    let number = |n| NonZeroUsize::new(n).unwrap();
    let small = |n| NonZeroU32::new(n).unwrap();
    let bytes = |n| NonZeroU64::new(n).unwrap();
    let seconds = Duration::from_secs;
    let cache = CachePolicy::Partial(PartialCache {
        max_rows: NonZeroU64::new(4),
        max_bytes: NonZeroU64::new(5),
        expire_after_write: Some(seconds(6)),
        expire_after_access: Some(seconds(4)),
        expire_misses_after: None,
        refresh_after: Some(seconds(5)),
        serve_stale_for: seconds(3600),
        told_by: None,
    });
    let policy = LookupPolicy {
        ordering: Ordering::KeyOrdered,
        timeout: None,
        on_failure: OnFailure::Skip,
        capacity: number(1),
        capacity_bytes: bytes(1024),
        batch_size: number(2),
        batch_delay: seconds(7),
        max_in_flight: number(3),
        max_answer_bytes: bytes(2048),
        rate_limit: Some(small(9)),
        retry: RetryPolicy { max_attempts: small(1), delay: seconds(1), max_delay: seconds(2), on_miss: true },
        circuit_breaker: Some(BreakerPolicy { failures: small(8), open_for: seconds(3) }),
        cache,
    };
    assert_eq!(lookup.policy, policy);
    assert_eq!(lookup.connection.as_deref(), Some("shop"));
    let kind = LookupKind::Postgres(SqlTable {
        table: "customers".to_string(),
        columns: Some(vec!["id".to_string(), "credit".to_string()]),
        types: vec![("credit".to_string(), PgType::Numeric { precision: 20, scale: 4 })],
    });
    assert_eq!(lookup.kind, kind);
    assert_eq!(catalog.connection("shop").unwrap().origin.to_string(), "conf/a.toml:19:13");
}

#[test]
fn sections_of_a_policy_begin_with_their_defaults() {
    let none = only_policy(&customers("retry = {}\nrate_limit = 0\ncache = { mode = \"full\" }"));
    assert_eq!((none.retry, none.rate_limit), (RetryPolicy::default(), None));
    assert_eq!(none.cache, CachePolicy::Full(FullCache::default()));
    let breaker = only_policy(&customers("circuit_breaker = {}")).circuit_breaker.unwrap();
    assert_eq!((breaker.failures.get(), breaker.open_for), (5, Duration::from_secs(10)));
    let breaker = only_policy(&customers("circuit_breaker = { open_for = \"2s\" }")).circuit_breaker.unwrap();
    assert_eq!((breaker.failures.get(), breaker.open_for), (5, Duration::from_secs(2)));
    // As a section of its own, and with one delay that the other's default would contradict.
    let sections = format!(
        "{}[lookup.customers.retry]\ndelay = \"5s\"\n[lookup.customers.circuit_breaker]\nfailures = 1\n",
        customers("")
    );
    let policy = only_policy(&sections);
    assert_eq!((policy.retry.delay, policy.retry.max_delay), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!(policy.circuit_breaker.unwrap().failures.get(), 1);
    let retry = only_policy(&customers("retry = { max_delay = \"10ms\" }")).retry;
    assert_eq!((retry.delay, retry.max_delay), (Duration::from_millis(10), Duration::from_millis(10)));
}

#[test]
fn one_bound_of_a_partial_cache_is_enough() {
    let cache = |keys: &str| match only_policy(&customers(&format!("cache = {{ mode = \"partial\", {keys} }}"))).cache {
        CachePolicy::Partial(cache) => (cache.max_rows.map(NonZeroU64::get), cache.max_bytes.map(NonZeroU64::get)),
        other => panic!("{other:?}"),
    };
    assert_eq!(cache("max_bytes = \"1KiB\""), (None, Some(1024)));
    assert_eq!(cache("max_rows = 5"), (Some(5), None));
    assert_eq!(cache("refresh_after = \"1s\""), (Some(100_000), None));
}

#[test]
fn every_option_of_a_full_cache_is_kept() {
    let text = customers(
        "cache = { mode = \"full\", max_rows = 4, max_bytes = \"5B\", reload_every = \"6m\", load_timeout = \"7s\" }",
    );
    let full = FullCache {
        reload_every: Some(Duration::from_secs(360)),
        load_timeout: Duration::from_secs(7),
        max_rows: NonZeroU64::new(4),
        max_bytes: NonZeroU64::new(5),
    };
    assert_eq!(only_policy(&text).cache, CachePolicy::Full(full));
}

#[test]
fn a_file_lookup_table_needs_no_columns_if_it_is_parquet() {
    let text =
        "[lookup.c]\ntype = \"file\"\npath = \"/data/c.parquet\"\nformat = \"parquet\"\ncache = { mode = \"full\" }";
    let LookupKind::File { data, format, columns } = read_valid(text).lookups.remove(0).kind else { panic!() };
    assert_eq!((data, format), (FileData::Path(PathBuf::from("/data/c.parquet")), FileFormat::Parquet));
    assert!(columns.is_empty());
}

/// A simulated table with `lines` beginning in line 3.
pub(super) fn simulated(lines: &str) -> String {
    format!("[lookup.made]\ntype = \"simulated\"\n{lines}\nkey = {{ id = \"bigint\" }}\n")
}

fn only_simulated(lines: &str) -> SimulatedConfig {
    match read_valid(&simulated(lines)).lookups.remove(0).kind {
        LookupKind::Simulated(config) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_option_of_a_simulated_table_is_kept() {
    let plain = SimulatedConfig {
        seed: 0,
        key: vec![("id".to_string(), PgType::Int8)],
        columns: vec![],
        behaviour: Behaviour::default(),
    };
    assert_eq!(only_simulated(""), plain);
    let all = only_simulated(
        "seed = 7\nlatency = \"5ms\"\nerrors = 0.1\nerror = \"failed\"\nstalls = 0.2\nmisses = 1\nbad_keys = 0.4\nrows_per_key = 2\n\
         duplicates = 0.5\noutages = [\"1s..2s\", \"1m..1h\"]\ncolumns = { b = \"id\", a = \"n\" }",
    );
    let seconds = Duration::from_secs;
    let behaviour = Behaviour {
        latency: Latency::Fixed(Duration::from_millis(5)),
        errors: 0.1,
        error: SimulatedError::Failed,
        stalls: 0.2,
        misses: 1.0,
        bad_keys: 0.4,
        rows_per_key: NonZeroUsize::new(2).unwrap(),
        duplicates: 0.5,
        outages: vec![seconds(1)..seconds(2), seconds(60)..seconds(3600)],
    };
    let columns = [("b", "id"), ("a", "n")].map(|(name, sql)| (name.to_string(), sql.to_string())).to_vec();
    assert_eq!(all, SimulatedConfig { seed: 7, columns, behaviour, ..plain });
    for (latency, expected) in [
        ("{ p50 = \"1s\", p99 = \"3s\" }", Latency::LogNormal { p50: seconds(1), p99: seconds(3) }),
        ("{ from = \"0s\", to = \"3s\" }", Latency::Uniform { from: seconds(0), to: seconds(3) }),
        ("{ mean = \"2s\" }", Latency::Exponential { mean: seconds(2) }),
    ] {
        assert_eq!(only_simulated(&format!("latency = {latency}")).behaviour.latency, expected);
    }
    let cached = read_valid(&simulated("cache = { mode = \"partial\", max_rows = 5 }")).lookups.remove(0).policy.cache;
    assert_eq!(cached.name(), "partial");
}

#[test]
fn connections_use_tls_unless_they_stay_on_this_machine() {
    for (address, sslmode) in [
        ("url = \"postgres://me@localhost/shop\"", SslMode::Disable),
        ("url = \"postgres://me@127.3.2.1:5433/shop\"", SslMode::Disable),
        ("url = \"postgresql://me@%2Frun%2Fpostgresql/shop\"", SslMode::Disable),
        ("host = \"/run/postgresql\"", SslMode::Disable),
        ("host = \"::1\"", SslMode::Disable),
        ("url = \"postgres://me@localhost,db.example.com/shop\"", SslMode::VerifyFull),
        ("url = \"${URL}\"", SslMode::VerifyFull),
        ("host = \"10.0.0.5\"", SslMode::VerifyFull),
        ("host = \"10.0.0.5\"\nsslmode = \"disable\"", SslMode::Disable),
        ("host = \"localhost\"\nsslmode = \"verify-full\"", SslMode::VerifyFull),
    ] {
        let postgres = only_postgres(&shop(address));
        assert_eq!(postgres.sslmode, sslmode, "{address}");
        let client = if sslmode == SslMode::Disable { ClientSslMode::Disable } else { ClientSslMode::Require };
        assert_eq!(postgres.config.get_ssl_mode(), client, "{address}");
    }
}

#[test]
fn every_option_of_a_connection_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password.txt"), "s3cret\n").unwrap();
    let text = shop(
        "host = \"db\"\nport = 5433\ndatabase = \"shop\"\nuser = \"me\"\npassword_file = \"password.txt\"\n\
         sslrootcert = \"ca.pem\"\nmax_connections = 2\nprepare = false",
    );
    let path = folder.path().join("a.toml");
    let catalog = read_text(&[(path, text)], &|_| None).unwrap();
    let ConnectionKind::Postgres(postgres) = &catalog.connections[0].kind else { panic!("{catalog:?}") };
    assert_eq!(postgres.config.get_hosts(), [Host::Tcp("db".to_string())]);
    assert_eq!(postgres.config.get_ports(), [5433]);
    assert_eq!((postgres.config.get_dbname(), postgres.config.get_user()), (Some("shop"), Some("me")));
    assert_eq!(postgres.config.get_password(), Some(b"s3cret".as_slice()));
    assert_eq!(postgres.sslrootcert, Some(folder.path().join("ca.pem")));
    assert_eq!((postgres.max_connections.get(), postgres.prepare), (2, false));
    assert!(!format!("{catalog:?}").contains("s3cret"), "{catalog:?}");

    let defaults = only_postgres(SHOP);
    assert_eq!((defaults.max_connections.get(), defaults.prepare), (8, true));
}
