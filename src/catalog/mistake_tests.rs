//! For each kind of mistake its place and its words.

use super::tests::{SHOP, customers, environment, read, shop, simulated};
use super::*;

/// The problems of `text` as they are shown, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let problems = read(text).expect_err(text);
    problems.iter().map(|problem| problem.to_string().replacen("conf/a.toml:", "", 1)).collect()
}

#[track_caller]
fn assert_problem(text: &str, expected: &str) {
    assert_eq!(problems(text), [expected], "{text}");
}

/// A push stream, with `lines` beginning in line 3.
fn orders(lines: &str) -> String {
    format!("[stream.orders]\ntype = \"push\"\n{lines}\ncolumns = {{ id = \"bigint\" }}\n")
}

#[test]
fn unknown_keys_get_the_nearest_known_one_or_all() {
    assert_problem(
        &customers("batchsize = 5"),
        "3:1: unknown key \"batchsize\" in [lookup.customers] (hint: Perhaps you meant \"batch_size\".)",
    );
    assert_problem(
        &customers("cache = { mode = \"partial\", max_row = 5 }"),
        "3:29: unknown key \"max_row\" in [lookup.customers.cache] (hint: Perhaps you meant \"max_rows\".)",
    );
    assert_problem(
        &orders("colour = 5"),
        "3:1: unknown key \"colour\" in [stream.orders] (hint: Keys here are \"type\", \"columns\", \"on_malformed\", \
         \"retain_rows\", \"retain_bytes\", \"slow_reader\", \"comment\".)",
    );
    assert_problem(
        "[lookups.x]\ntype = \"file\"",
        "1:2: unknown key \"lookups\" in the catalog (hint: Perhaps you meant \"lookup\".)",
    );
    assert_problem(
        "[role.r]\nwrites = []",
        "2:1: unknown key \"writes\" in [role.r] (hint: Perhaps you meant \"write\".)",
    );
    assert_problem(
        &shop("host = \"localhost\"\nschema = \"x\""),
        "4:1: unknown key \"schema\" in [connection.shop] (hint: Keys here are \"type\", \"url\", \"host\", \"port\", \
         \"database\", \"user\", \"password\", \"password_file\", \"sslmode\", \"sslrootcert\", \"max_connections\", \"prepare\", \"comment\".)",
    );
}

#[test]
fn keys_of_another_type_say_which() {
    assert_problem(
        &orders("rows = 5"),
        "3:1: \"rows\" in [stream.orders] does not go with type \"push\" (hint: It goes with type \"generator\".)",
    );
    assert_problem(
        &customers("format = \"csv\""),
        "3:1: \"format\" in [lookup.customers] does not go with type \"postgres\" (hint: It goes with type \"file\" or \"files\".)",
    );
}

#[test]
fn what_later_versions_bring_is_refused() {
    for (text, expected) in [
        (customers("comment = 7"), "3:11: \"comment\" in [lookup.customers] must be a string, not a whole number"),
        (
            "[connection.c]\ntype = \"simulated\"".to_string(),
            "2:8: type = \"simulated\" in [connection.c] is not available yet (hint: It may be \"postgres\", \"mysql\", \"sqlite\", \
             \"redis\", \"http\", \"files\" or \"kafka\".)",
        ),
        (
            shop("host = \"db\"\nsslmode = \"require\""),
            "4:11: sslmode = \"require\" in [connection.shop] is not available yet (hint: It may be \"disable\" or \"verify-full\".)",
        ),
        (
            "[stream.s]\ntype = \"file\"\npath = \"x\"\nformat = \"parquet\"\nfollow = true".to_string(),
            "5:10: follow = true in [stream.s] does not go with format = \"parquet\" (hint: Only lines are read as a file grows.)",
        ),
        (
            orders("metadata = { a = \"offset\" }"),
            "3:1: \"metadata\" in [stream.orders] does not go with type \"push\" (hint: It goes with type \"file\" or \"kafka\".)",
        ),
        (
            "[stream.s]\ntype = \"push\"\n[stream.s.columns]\na = { type = \"int\", path = \"$.a\" }".to_string(),
            "4:1: \"a\" in [stream.s.columns] is declared by a table, which does not go here (hint: Write a string: a = \"…\". \
             A path goes with columns of JSON documents.)",
        ),
    ] {
        assert_problem(&text, expected);
    }
}

#[test]
fn values_of_the_wrong_type_say_what_is_expected() {
    for (line, expected) in [
        ("capacity = \"5\"", "3:12: \"capacity\" in [lookup.customers] must be a whole number, not a string"),
        (
            "capacity = 1.5",
            "3:12: \"capacity\" in [lookup.customers] must be a whole number, not a number with a fraction",
        ),
        ("timeout = 5", "3:11: \"timeout\" in [lookup.customers] must be a string, not a whole number"),
        ("ordering = true", "3:12: \"ordering\" in [lookup.customers] must be a string, not a boolean"),
        ("columns = \"id\"", "3:11: \"columns\" in [lookup.customers] must be a list of strings, not a string"),
        ("columns = [1]", "3:12: each item of \"columns\" in [lookup.customers] must be a string, not a whole number"),
        ("types = []", "3:1: [lookup.customers.types] must be a table, not a list"),
        ("cache = 2026-01-01", "3:1: [lookup.customers.cache] must be a table, not a date or time"),
    ] {
        assert_problem(&customers(line), expected);
    }
    assert_problem(
        &shop("host = \"db\"\nprepare = 1"),
        "4:11: \"prepare\" in [connection.shop] must be true or false, not a whole number",
    );
    assert_problem("stream = 5", "1:1: [stream] must be a table, not a whole number");
    assert_problem("[[stream.orders]]\ntype = \"push\"", "1:10: [stream.orders] must be a table, not a list");
    assert_problem(
        "[stream.g]\ntype = \"generator\"\nrows_per_second = \"5\"\ncolumns = { a = \"n\" }",
        "3:19: \"rows_per_second\" in [stream.g] must be a number, not a string",
    );
}

#[test]
fn values_out_of_bounds_say_the_bounds() {
    for (line, expected) in [
        ("capacity = 0", "3:12: \"capacity\" in [lookup.customers] must be from 1 to 9223372036854775807, not 0"),
        ("batch_size = -1", "3:14: \"batch_size\" in [lookup.customers] must be from 1 to 9223372036854775807, not -1"),
        (
            "max_in_flight = 99999999999999999999",
            "3:17: \"max_in_flight\" in [lookup.customers] must be from 1 to 9223372036854775807, not 99999999999999999999",
        ),
        (
            "timeout = \"5\"",
            "3:11: \"timeout\" in [lookup.customers]: \"5\" is not a duration; write a whole number and a unit: \"250ms\", \"5s\", \"10m\", \"1h\"",
        ),
        (
            "cache = { mode = \"partial\", expire_after_write = \"0s\" }",
            "3:50: \"expire_after_write\" in [lookup.customers.cache] must not be zero (hint: Leave it out for its default.)",
        ),
        ("columns = []", "3:11: \"columns\" in [lookup.customers] is empty"),
        ("columns = [\"id\", \"id\"]", "3:18: \"id\" stands twice in \"columns\" in [lookup.customers]"),
        ("columns = [\"\"]", "3:12: \"columns\" in [lookup.customers] has an empty name"),
        (
            "columns = [\"id\"]\ntypes = { credit = \"int\" }",
            "4:20: \"credit\" in \"types\" of [lookup.customers] is not among its \"columns\"",
        ),
        (
            "ordering = \"orderd\"",
            "3:12: unknown value \"orderd\" for \"ordering\" in [lookup.customers] (hint: It may be \"ordered\", \"unordered\" or \"key_ordered\".)",
        ),
        ("capacity_bytes = \"0B\"", "3:18: \"capacity_bytes\" in [lookup.customers] must not be zero"),
        (
            "rate_limit = 4294967296",
            "3:14: \"rate_limit\" in [lookup.customers] must be at most 4294967295, not 4294967296",
        ),
        (
            "retry = { max_attempts = 0 }",
            "3:26: \"max_attempts\" in [lookup.customers.retry] must be from 1 to 9223372036854775807, not 0",
        ),
        (
            "circuit_breaker = { failures = 0 }",
            "3:32: \"failures\" in [lookup.customers.circuit_breaker] must be from 1 to 9223372036854775807, not 0",
        ),
        (
            "circuit_breaker = { open_for = \"0s\" }",
            "3:32: \"open_for\" in [lookup.customers.circuit_breaker] must not be zero (hint: Leave it out for its default.)",
        ),
        (
            "retry = { attempts = 5 }",
            "3:11: unknown key \"attempts\" in [lookup.customers.retry] (hint: Keys here are \"max_attempts\", \"delay\", \
             \"max_delay\", \"on_miss\".)",
        ),
    ] {
        assert_problem(&customers(line), expected);
    }
    assert_problem(
        &orders("retain_bytes = \"64\""),
        "3:16: \"retain_bytes\" in [stream.orders]: \"64\" is not a size; write a whole number and a unit: \"512KiB\", \"64MiB\", \"2GiB\"",
    );
    assert_problem(&orders("retain_bytes = \"0B\""), "3:16: \"retain_bytes\" in [stream.orders] must not be zero");
    assert_problem(
        &orders("retain_rows = 0"),
        "3:15: \"retain_rows\" in [stream.orders] must be from 1 to 9223372036854775807, not 0",
    );
    for rate in ["-1", "-0.5", "nan", "inf"] {
        assert_problem(
            &format!("[stream.g]\ntype = \"generator\"\nrows_per_second = {rate}\ncolumns = {{ a = \"n\" }}"),
            &format!("3:19: \"rows_per_second\" in [stream.g] must be a number from 0, not {rate}"),
        );
    }
    assert_problem(&shop("host = \"db\"\nport = 65536"), "4:8: port 65536 is beyond 65535");
    assert_problem(
        "[server]\nlisten = \"7432\"",
        "2:10: \"7432\" in [server] is not an address to listen on (hint: Write HOST:PORT, as \"127.0.0.1:7432\".)",
    );
}

#[test]
fn what_is_missing_is_named() {
    for (text, expected) in [
        (
            "[stream.s]\ncolumns = { a = \"text\" }",
            "1:9: [stream.s] lacks \"type\" (hint: Write connection = \"…\" for a topic of Kafka, or type = \"push\" and the like.)",
        ),
        ("[connection.c]\nhost = \"db\"", "1:13: [connection.c] lacks \"type\""),
        (
            "[connection.c]\ntype = \"postgres\"",
            "1:13: [connection.c] lacks \"url\" (hint: Write url = \"postgres://USER@HOST:PORT/DATABASE\", or host = \"…\".)",
        ),
        (
            "[lookup.l]\ntable = \"x\"",
            "1:9: [lookup.l] lacks \"connection\" (hint: Write connection = \"…\" for a table in a store, or type = \"file\" for a file.)",
        ),
        (
            "[stream.s]\ntype = \"push\"",
            "1:9: [stream.s] declares no columns (hint: Declare them in [stream.s.columns].)",
        ),
        ("[stream.s]\ntype = \"push\"\n[stream.s.columns]", "3:11: [stream.s.columns] is empty"),
        (
            "[stream.\"my orders\"]\ntype = \"push\"",
            "1:9: [stream.\"my orders\"] declares no columns (hint: Declare them in [stream.\"my orders\".columns].)",
        ),
        ("[stream.s]\ntype = \"generator\"\ncolumns = { a = \"n\" }", "1:9: [stream.s] lacks \"rows_per_second\""),
        ("[stream.s]\ntype = \"file\"\nformat = \"parquet\"", "1:9: [stream.s] lacks \"path\""),
        ("[lookup.l]\ntype = \"file\"\npath = \"x\"", "1:9: [lookup.l] lacks \"format\""),
        ("[stream.\"\"]\ntype = \"push\"", "1:9: a stream needs a name"),
        (
            "[stream.s]\ntype = \"push\"\ncolumns = { \"\" = \"text\" }",
            "3:13: a column in [stream.s.columns] has no name",
        ),
    ] {
        assert_problem(text, expected);
    }
    let without_table = "[lookup.l]\nconnection = \"shop\"\n";
    assert_problem(&format!("{without_table}{SHOP}"), "1:9: [lookup.l] lacks \"table\"");
    assert_problem(
        &format!("{without_table}table = \"x\"\ncache = {{ max_rows = 5 }}\n{SHOP}"),
        "4:1: [lookup.l.cache] lacks \"mode\"",
    );
}

#[test]
fn types_of_columns_are_postgresqls() {
    assert_problem(
        "[stream.s]\ntype = \"push\"\n[stream.s.columns]\n\"ä\" = \"bigit not null\"",
        "4:7: type \"bigit\" does not exist (hint: Perhaps you meant \"bigint\".)",
    );
    assert_problem(
        &customers("types = { credit = \"numeric(99)\" }"),
        "3:20: numeric precision 99 is outside of 1 to 76",
    );
    assert_problem(
        "[stream.s]\ntype = \"push\"\ncolumns = { \"ä\" = 5 }",
        "3:19: \"ä\" in [stream.s.columns] must be a string, not a whole number",
    );
}

#[test]
fn options_that_would_change_nothing_are_refused() {
    assert_problem(
        &customers("cache = { mode = \"none\", max_rows = 5 }"),
        "3:37: \"max_rows\" in [lookup.customers.cache] has no effect with mode = \"none\"",
    );
    let lifetimes = ["expire_after_access", "refresh_after", "serve_stale_for"];
    let of_partial = [lifetimes.as_slice(), &["expire_after_write", "expire_misses_after"]].concat();
    let of_full = ["reload_every", "load_timeout"];
    for (mode, keys) in
        [("none", lifetimes.as_slice()), ("none", &of_full), ("full", &of_partial), ("partial", &of_full)]
    {
        for key in keys {
            let column = 25 + mode.len() + key.len();
            assert_problem(
                &customers(&format!("cache = {{ mode = \"{mode}\", {key} = \"0s\" }}")),
                &format!("3:{column}: \"{key}\" in [lookup.customers.cache] has no effect with mode = \"{mode}\"",),
            );
        }
    }
    assert_problem(
        "[stream.g]\ntype = \"generator\"\nrows_per_second = 5\non_malformed = \"skip\"\ncolumns = { a = \"n\" }",
        "4:16: on_malformed = \"skip\" in [stream.g] has no effect (hint: A generator makes no malformed rows: leave it out.)",
    );
    assert_problem(
        &shop("host = \"localhost\"\nsslrootcert = \"ca.pem\""),
        "4:15: \"sslrootcert\" in [connection.shop] has no effect without TLS (hint: Write sslmode = \"verify-full\" as well.)",
    );
    for cache in ["mode = \"partial\"", "mode = \"full\", max_rows = 5", ""] {
        assert_problem(
            &format!("[lookup.l]\ntype = \"file\"\npath = \"x\"\nformat = \"parquet\"\ncache = {{ {cache} }}"),
            "5:1: [lookup.l.cache] does not go with type \"file\" (hint: A file is always held whole, as with \
             mode = \"full\", and read again when it changes: leave the section out.)",
        );
    }
    assert_problem(
        "[stream.s]\ntype = \"file\"\npath = \"x\"\nformat = \"avro\"\ncolumns = { a = \"text\" }",
        "5:11: [stream.s.columns] does not go with format = \"avro\" (hint: An avro file names its columns and \
         their types itself.)",
    );
    assert_problem(
        "[lookup.l]\ntype = \"file\"\npath = \"x\"\nformat = \"parquet\"\ncolumns = { a = \"text\" }",
        "5:11: [lookup.l.columns] does not go with format = \"parquet\" (hint: A parquet file names its columns and \
         their types itself.)",
    );
    assert_problem(
        &format!("[lookup.l]\ntype = \"file\"\nconnection = \"shop\"\n{SHOP}"),
        "2:8: [lookup.l] has both \"type\" and \"connection\" (hint: Write type = \"file\" for a file, or \
         connection = \"…\" for a table in a store.)",
    );
    assert_problem(
        &shop("url = \"postgres://localhost/x\"\nport = 5"),
        "4:8: \"port\" in [connection.shop] does not go with \"url\" (hint: Write it into the url, or leave the url out.)",
    );
    assert_problem(
        &shop("host = \"localhost\"\npassword = \"a\"\npassword_file = \"/dev/null\""),
        "5:17: \"password_file\" in [connection.shop] does not go with \"password\"",
    );
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (lines, expected) in [
        (
            "retry = { delay = \"2s\", max_delay = \"1s\" }",
            "3:19: delay (2s) in [lookup.customers.retry] is above max_delay (1s)",
        ),
        (
            "timeout = \"1s\"\nbatch_delay = \"1s\"",
            "4:15: batch_delay (1s) in [lookup.customers] is not below timeout (1s) (hint: A row that waits so long for \
             company has timed out before its key is asked for.)",
        ),
        (
            "batch_delay = \"6s\"",
            "3:15: batch_delay (6s) in [lookup.customers] is not below timeout (5s) (hint: A row that waits so long for \
             company has timed out before its key is asked for.)",
        ),
        (
            "cache = { mode = \"partial\", expire_after_write = \"5s\", refresh_after = \"5s\" }",
            "3:72: refresh_after (5s) in [lookup.customers.cache] is not below expire_after_write (5s) (hint: An expired \
             answer is not refreshed.)",
        ),
        (
            "cache = { mode = \"partial\", refresh_after = \"5s\", serve_stale_for = \"1s\" }",
            "3:69: \"serve_stale_for\" in [lookup.customers.cache] has no effect where answers do not expire (hint: Write \
             expire_after_write or expire_after_access as well.)",
        ),
    ] {
        assert_problem(&customers(lines), expected);
    }
    for lines in [
        "timeout = \"0s\"\nbatch_delay = \"1h\"",
        "retry = { delay = \"1s\", max_delay = \"1s\" }",
        "cache = { mode = \"partial\", serve_stale_for = \"0s\" }",
        "cache = { mode = \"partial\", expire_after_access = \"1s\", refresh_after = \"5s\", serve_stale_for = \"1s\" }",
    ] {
        assert!(read(&customers(lines)).is_ok(), "{lines}");
    }
}

#[test]
fn simulated_tables_say_what_is_wrong_with_them() {
    assert_problem(
        "[lookup.made]\ntype = \"simulated\"",
        "1:9: [lookup.made] declares no columns (hint: Declare them in [lookup.made.key].)",
    );
    let distribution = "is no distribution (hint: Write a duration, { p50 = \"…\", p99 = \"…\" }, { from = \"…\", \
                        to = \"…\" } or { mean = \"…\" }.)";
    for (lines, expected) in [
        ("misses = 1.5", "3:10: \"misses\" in [lookup.made] must be a number from 0 to 1, not 1.5".to_string()),
        ("stalls = -1", "3:10: \"stalls\" in [lookup.made] must be a number from 0, not -1".to_string()),
        ("latency = 5", "3:11: \"latency\" in [lookup.made] must be a string, not a whole number".to_string()),
        ("latency = {}", format!("3:1: [lookup.made.latency] {distribution}")),
        ("latency = { p50 = \"1s\" }", format!("3:1: [lookup.made.latency] {distribution}")),
        ("latency = { p50 = \"1s\", mean = \"1s\" }", format!("3:1: [lookup.made.latency] {distribution}")),
        (
            "latency = { p50 = \"2s\", p99 = \"1s\" }",
            "3:19: p50 (2s) in [lookup.made.latency] is above p99 (1s)".to_string(),
        ),
        (
            "latency = { from = \"2s\", to = \"1s\" }",
            "3:20: from (2s) in [lookup.made.latency] is above to (1s)".to_string(),
        ),
        (
            "error = \"failed\"",
            "3:9: \"error\" in [lookup.made] has no effect without \"errors\" (hint: Write the share of requests that fail: \
             errors = 0.01.)"
                .to_string(),
        ),
        (
            "outages = [\"1s..2s\", \"2s..2s\"]",
            "3:22: \"2s..2s\" in \"outages\" of [lookup.made] is no span of time (hint: Write when it begins and ends: \
             \"10s..40s\".)"
                .to_string(),
        ),
        (
            "cache = { mode = \"full\" }",
            "3:18: mode = \"full\" in [lookup.made.cache] does not go with type \"simulated\" (hint: What is found by keys alone \
             cannot be loaded whole: write mode = \"partial\".)"
                .to_string(),
        ),
        (
            "path = \"x\"",
            "3:1: \"path\" in [lookup.made] does not go with type \"simulated\" (hint: It goes with type \"file\" or \"files\".)".to_string(),
        ),
    ] {
        assert_problem(&simulated(lines), &expected);
    }
}

#[test]
fn references_lead_somewhere() {
    let lookup = "[lookup.l]\nconnection = \"shap\"\ntable = \"x\"\n";
    assert_problem(
        &format!("{lookup}{SHOP}"),
        "2:14: connection \"shap\" does not exist (hint: Perhaps you meant \"shop\".)",
    );
    assert_problem(lookup, "2:14: connection \"shap\" does not exist (hint: Declare it as [connection.NAME].)");
}

#[test]
fn a_wrong_connection_is_one_problem_and_not_two() {
    let text = "[lookup.l]\nconnection = \"c\"\ntable = \"x\"\n[connection.c]\ntype = \"mongodb\"\n";
    assert_eq!(problems(text).len(), 1);
}

#[test]
fn names_are_taken_once_over_all_files() {
    let push = "[stream.orders]\ntype = \"push\"\ncolumns = { id = \"bigint\" }\n";
    let parquet = "\n[lookup.orders]\ntype = \"file\"\npath = \"x\"\nformat = \"parquet\"\n";
    assert_problem(
        &format!("{push}{parquet}"),
        "5:9: name \"orders\" is already taken by the stream at conf/a.toml:1:9 (hint: Streams and lookup tables share \
         their names: rename one.)",
    );
    let listen = "[server]\nlisten = \"localhost:0\"\n";
    let files = [
        (PathBuf::from("a.toml"), format!("{push}{SHOP}{listen}")),
        (PathBuf::from("b.toml"), format!("{listen}{SHOP}{parquet}")),
    ];
    let shown: Vec<String> = read_text(&files, &environment).unwrap_err().iter().map(Problem::to_string).collect();
    let expected = [
        "b.toml:1:2: [server] is already declared at a.toml:7:2",
        "b.toml:3:13: name \"shop\" is already taken by the connection at a.toml:4:13",
        "b.toml:7:9: name \"orders\" is already taken by the stream at a.toml:1:9 (hint: Streams and lookup tables share \
         their names: rename one.)",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_key_declared_twice_in_a_file_names_both_places() {
    assert_problem(
        "[stream.a]\ntype = \"push\"\n[stream.b]\ntype = \"push\"\n[stream.\"a\"]\ntype = \"file\"",
        "5:9: \"a\" is already declared at conf/a.toml:1:9",
    );
    assert_problem(
        "[stream.a]\ntype = \"push\"\n[stream.b]\ncolumns = {}\ntype = \"push\"\n  type = \"file\"",
        "6:3: \"type\" is already declared at conf/a.toml:5:1",
    );
    assert_problem(
        "server.listen = \"a:1\"\nserver.listen = \"a:1\"",
        "2:8: \"listen\" is already declared at conf/a.toml:1:8",
    );
}

#[test]
fn text_that_is_not_toml_shows_where() {
    assert_problem(
        "[stream.a]\ntype = push\n",
        "2:8: this is not TOML: string values must be quoted, expected literal string",
    );
    assert_problem("[stream.a\ntype = \"push\"\n", "1:10: this is not TOML: unclosed table, expected `]`");
}

#[test]
fn a_file_that_is_not_toml_does_not_make_others_wrong() {
    let lookup = "[lookup.l]\nconnection = \"shop\"\ntable = \"x\"\n".to_string();
    let files = [(PathBuf::from("a.toml"), lookup), (PathBuf::from("b.toml"), format!("{SHOP}oops"))];
    let problems = read_text(&files, &environment).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.file.as_path()).collect::<Vec<_>>(), [Path::new("b.toml")]);
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let text = "[lookup.a]\nconnection = \"none\"\ntable = \"\"\ncapacity = 0\nfoo = 1\n[stream.s]\ntype = \"psh\"\n[server]\nlisten = 5";
    let shown = problems(text);
    let places: Vec<&str> = shown.iter().filter_map(|problem| problem.split(": ").next()).collect();
    // Without its connection it is not known what the table may have: only what no table has is told.
    assert_eq!(places, ["2:14", "5:1", "7:8", "9:10"], "{shown:#?}");
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    assert_problem(
        &shop("url = \"${SHOP_URL}\""),
        "3:7: \"url\" in [connection.shop]: environment variable \"SHOP_URL\" is not set (hint: Set it, or write a default: \
         ${SHOP_URL:-value}.)",
    );
}

#[test]
fn no_problem_shows_what_was_put_in_for_a_reference() {
    for text in [
        shop("url = \"${BAD}\""),
        shop("url = \"postgres://${BAD}\""),
        shop("url = \"postgres://me:${BAD}@db:port/x\""),
        shop("url = \"postgres://me:${BAD}@db/x?sslmode=prefer\""),
        shop("url = \"postgres:///${BAD}\""),
        shop("host = \"db\"\nsslmode = \"${BAD}\""),
        customers("timeout = \"${BAD}\""),
        customers("ordering = \"${BAD}\""),
        customers("types = { a = \"${BAD}\" }"),
        orders("retain_bytes = \"${BAD}\""),
        "[server]\nlisten = \"${BAD}\"".to_string(),
        "[user.u]\npassword = \"${BAD}\"".to_string(),
        "[user.u]\npassword = \"s3cret\"".to_string(),
        "[lookup.l]\nconnection = \"${BAD}\"\ntable = \"x\"".to_string(),
        "[lookup.l]\nconnection = \"${BAD}\"\ntable = \"x\"\ncolumns = [\"${BAD}\", \"${BAD}\"]".to_string(),
        "[stream.s]\ntype = \"push\"\ncolumns = { a = \"${BAD}\" }".to_string(),
    ] {
        // "postgres://s3cret" alone is a host, so nothing is wrong with it.
        let Err(problems) = read(&text) else { continue };
        let shown = format!("{problems:?}");
        assert!(!shown.contains("s3cret"), "{text}\n{shown}");
    }
}

#[test]
fn urls_that_no_client_could_use_are_refused_without_being_shown() {
    for (url, expected) in [
        (
            "mysql://a:s3cret@b/c",
            "3:7: \"url\" in [connection.shop] is not a url of PostgreSQL (hint: Write postgres://USER:PASSWORD@HOST:PORT/DATABASE.)",
        ),
        (
            "postgres://me:s3cret@db:port/x",
            "3:7: \"url\" in [connection.shop] cannot be read (hint: Write postgres://USER:PASSWORD@HOST:PORT/DATABASE, \
             with special characters of the password as %XX.)",
        ),
        (
            "postgres:///shop",
            "3:7: \"url\" in [connection.shop] names no host (hint: Write postgres://USER@HOST:PORT/DATABASE.)",
        ),
        (
            "postgres://db/shop?sslmode=require",
            "3:7: \"url\" in [connection.shop] sets how TLS is used (hint: Write sslmode and sslrootcert as keys beside the url.)",
        ),
    ] {
        assert_problem(&shop(&format!("url = \"{url}\"")), expected);
    }
}

#[test]
fn connections_to_mysql_are_held_to_their_form() {
    let mysql = |lines: &str| format!("[connection.erp]\ntype = \"mysql\"\n{lines}\n");
    const FORM: &str = "Write mysql://USER:PASSWORD@HOST:PORT/DATABASE";
    for (url, expected) in [
        ("postgres://a:s3cret@b/c", format!("is not a url of MariaDB or MySQL (hint: {FORM}.)")),
        (
            "mysql://a:s3cret@b:port/c",
            format!("cannot be read (hint: {FORM}, with special characters of the password as %XX.)"),
        ),
        ("mysql://b/c", format!("names no user (hint: {FORM}.)")),
        (
            "mysql://a:s3cret@b/c?require_ssl=false",
            "has options (hint: Write sslmode and sslrootcert as keys beside the url; there are no others.)"
                .to_string(),
        ),
    ] {
        let expected = format!("3:7: \"url\" in [connection.erp] {expected}");
        assert_problem(&mysql(&format!("url = \"{url}\"")), &expected);
    }
    assert_problem(&mysql("host = \"db\""), "1:13: [connection.erp] lacks \"user\"");
    assert_problem(
        &mysql("url = \"mysql://a@b/c\"\nport = 5"),
        "4:8: \"port\" in [connection.erp] does not go with \"url\" (hint: Write it into the url, or leave the url out.)",
    );
    assert_problem(
        &mysql("host = \"/run/mysqld.sock\"\nuser = \"a\"\nsslmode = \"verify-full\""),
        "5:11: \"sslmode\" in [connection.erp] does not go with a socket (hint: Nothing leaves this machine: leave it out.)",
    );
    assert_problem(
        &mysql("url = \"mysql://a@127.0.0.1/c\"\nsslrootcert = \"ca.crt\""),
        "4:15: \"sslrootcert\" in [connection.erp] has no effect without TLS (hint: Write sslmode = \"verify-full\" as well.)",
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let problems = read_files(&[PathBuf::from("/nowhere/a.toml")]).unwrap_err();
    let expected = "/nowhere/a.toml: cannot read the catalog file: No such file or directory (os error 2)";
    assert_eq!(problems[0].to_string(), expected);
    assert_problem(
        &shop("host = \"db\"\npassword_file = \"/nowhere/p\""),
        "4:17: cannot read \"password_file\" in [connection.shop]: No such file or directory (os error 2)",
    );
}
