//! What psql asks of the catalogs: its commands answer as PostgreSQL's do for the same objects, and none of them fails.

use crate::support::lookaside::Lookaside;
use crate::support::postgres::PostgresServer;
use crate::support::process::{psql, run};

const CATALOG: &str = r#"
[stream.orders]
comment = "what was sold"
type = "push"
[stream.orders.columns]
order_id = "bigint not null"
customer_id = "bigint"
amount = "numeric(12,2)"
placed_at = "timestamptz"
tags = "text[]"

[lookup.customers]
type = "simulated"
[lookup.customers.key]
id = "bigint"
[lookup.customers.columns]
name = "concat('customer ', id)"
tier = "'gold'"
"#;

const VIEW: &str = "CREATE VIEW spending AS SELECT o.order_id, c.name FROM orders o LEFT LOOKUP JOIN customers c ON o.customer_id = c.id";

/// The same objects in PostgreSQL.
const TABLES: &str = "\
CREATE TABLE orders (order_id bigint NOT NULL, customer_id bigint, amount numeric(12,2), placed_at timestamptz, tags text[]);
COMMENT ON TABLE orders IS 'what was sold';
CREATE TABLE customers (id bigint PRIMARY KEY, name text, tier text NOT NULL);
CREATE VIEW spending AS SELECT o.order_id, c.name FROM orders o LEFT JOIN customers c ON o.customer_id = c.id;";

async fn server() -> Lookaside {
    let server = Lookaside::start(CATALOG).await;
    server.connect().await.batch_execute(VIEW).await.unwrap();
    server
}

/// What psql says to a command.
async fn answer(port: u16, arguments: &[&str]) -> String {
    let shown = run(psql(port, arguments)).await;
    assert!(shown.status.success(), "{arguments:?}: {}", shown.stderr);
    shown.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_are_described_as_postgres_describes_them() {
    let server = server().await;
    let postgres = PostgresServer::start();
    postgres.execute(TABLES).await;
    let url = postgres.url();
    for command in [
        "\\d orders",
        "\\d customers",
        "\\d spending",
        "\\d customers_pkey",
        "\\d public.ord*",
        "\\d pg_class",
        "\\d pg_catalog.pg_attribute",
        "\\dT bigint",
        "\\dT timestamp*",
        "\\dm",
        "\\ds",
        "\\dD",
        "\\dy",
        "\\dP",
        "\\dX",
        "\\dRp",
        "\\dx no_such",
        "\\df no_such",
    ] {
        let mut of_postgres = tokio::process::Command::new("psql");
        of_postgres.args(["-X", "-d", &url, "-c", command]).env("LC_ALL", "C.UTF-8");
        let expected = run(of_postgres).await;
        assert!(expected.status.success(), "{command}: {}", expected.stderr);
        let shown = run(psql(server.port, &["-c", command])).await;
        // The indexes of PostgreSQL's own tables are none of ours.
        let is_own = command.contains("pg_");
        let of_table = |text: &str| match text.split_once("Indexes:\n") {
            Some((columns, _)) if is_own => columns.trim_end().to_string(),
            _ if is_own => text.trim_end().to_string(),
            _ => text.to_string(),
        };
        let seen = (of_table(&shown.stdout), shown.stderr);
        assert_eq!(seen, (of_table(&expected.stdout), expected.stderr), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_name_what_the_catalog_holds() {
    let server = server().await;
    for (command, expected) in [
        ("\\d", "public|customers|table|lookaside\npublic|orders|table|lookaside\npublic|spending|view|lookaside\n"),
        ("\\dt", "public|customers|table|lookaside\npublic|orders|table|lookaside\n"),
        ("\\dt ord*", "public|orders|table|lookaside\n"),
        ("\\dv", "public|spending|view|lookaside\n"),
        ("\\di", "public|customers_pkey|index|lookaside|customers\n"),
        ("\\dn", "lookaside|lookaside\npublic|lookaside\n"),
        (
            "\\df",
            "lookaside|invalidate|bigint|table_name text, VARIADIC keys \"any\"|func\nlookaside|warm|bigint|table_name text, VARIADIC keys \"any\"|func\n",
        ),
        ("\\l", "lookaside|lookaside|UTF8|C|C||libc|\n"),
        ("\\dd", ""),
        ("\\d+ orders", "Column|Type|"),
        ("\\dt+ orders", "what was sold"),
        (
            "\\sv spending",
            "CREATE OR REPLACE VIEW public.spending AS\n SELECT o.order_id, c.name FROM orders o LEFT LOOKUP JOIN customers c ON o.customer_id = c.id\n",
        ),
        ("\\encoding", "UTF8\n"),
    ] {
        let shown = answer(server.port, &["-Atc", command]).await;
        let expected_within = matches!(command, "\\d+ orders" | "\\dt+ orders");
        let is_right = if expected_within { !shown.is_empty() } else { shown == expected };
        assert!(is_right, "{command}:\n{shown}\ninstead of\n{expected}");
    }
    let described = answer(server.port, &["-c", "\\dt+ orders"]).await;
    assert!(described.contains("what was sold"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_fails() {
    let server = server().await;
    let commands = "\\d \\d+ \\dS \\dt \\dt+ \\dtS \\dv \\dv+ \\dm \\df \\df+ \\dfS \\dn \\dn+ \\dT \\dT+ \\dTS \\du \\du+ \\dg \\di \\di+ \\ds \
        \\dE \\l \\l+ \\dp \\z \\dd \\da \\db \\db+ \\dc \\dC \\dD \\ddp \\des \\des+ \\deu \\deu+ \\dew \\dew+ \\det \\det+ \\dF \\dFd \\dFp \\dFt \\dL \\dO \\do \
        \\dA \\dAc \\dAf \\dAo \\dAp \\dP \\drds \\dRp \\dRs \\dx \\dy \\dX \\dconfig \\conninfo \\encoding \\dl";
    let named = [
        "\\d+ orders",
        "\\d+ customers",
        "\\d+ spending",
        "\\d public.*",
        "\\d lookaside.*",
        "\\df lookaside.*",
        "\\dv lookaside.*",
        "\\sv spending",
    ];
    let mut arguments = vec!["-v", "ON_ERROR_STOP=1"];
    for command in commands.split_whitespace().chain(named) {
        arguments.extend(["-c", command]);
    }
    answer(server.port, &arguments).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dump_is_refused_with_a_hint() {
    let server = server().await;
    let mut dump = tokio::process::Command::new("pg_dump");
    dump.args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-U", "tests", "--schema-only", "lookaside"]);
    dump.env("LC_ALL", "C.UTF-8");
    let dumped = run(dump).await;
    assert!(!dumped.status.success());
    assert!(dumped.stderr.contains("ERROR:  pg_dump is not supported"), "{}", dumped.stderr);
    assert!(dumped.stderr.contains("HINT:  What there is stands in the catalog files"), "{}", dumped.stderr);
}
