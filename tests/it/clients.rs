//! Clients of many kinds: each program in `tests/clients` checks itself against a server of its own.

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, pin_mut};
use postgres_protocol::password::scram_sha_256;
use tokio::process::Command;
use tokio_postgres::error::SqlState;

use crate::support::lookaside::{Lookaside, project};
use crate::support::postgres::find;
use crate::support::process::run;
use crate::support::raw::DEADLINE;

const PASSWORD: &str = "open-sesame";

/// What the programs read and write.
fn catalog() -> String {
    std::fs::read_to_string(project().join("tests/clients/catalog.toml")).unwrap()
}

/// What tests/run has installed, by the variable that tells where.
pub fn installed(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: tests/run installs drivers and sets it"))
}

/// The command that runs a program, by the language it is in.
fn program(path: &Path) -> Command {
    let mut command = match path.extension().and_then(|extension| extension.to_str()) {
        Some("sh") => Command::new("bash"),
        Some("py") => {
            let mut command = Command::new(installed("LOOKASIDE_TEST_PYTHON"));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        }
        Some("js") => {
            let mut command = Command::new("node");
            command.env("NODE_PATH", installed("LOOKASIDE_TEST_NODE_MODULES"));
            command
        }
        Some("java") => {
            let mut command = Command::new("java");
            command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", &installed("LOOKASIDE_TEST_JDBC")]);
            command
        }
        _ => panic!("nothing runs {}", path.display()),
    };
    command.arg(path);
    command
}

/// A server and what a client must know of it, in the variables of libpq.
struct Served {
    server: Lookaside,
    variables: Vec<(&'static str, String)>,
    _folder: tempfile::TempDir,
}

impl Served {
    /// One that lets everybody in, and one that asks for a password over TLS, with a certificate that clients verify.
    async fn both() -> [Served; 2] {
        let folder = tempfile::tempdir().unwrap();
        let open = Served { server: Lookaside::start(&catalog()).await, variables: vec![], _folder: folder };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
        std::fs::write(path("server.crt"), made.cert.pem()).unwrap();
        std::fs::write(path("server.key"), made.signing_key.serialize_pem()).unwrap();
        let secured = format!(
            "{}\n[server]\ntls_certificate = \"{}\"\ntls_key = \"{}\"\nrequire_tls = true\n\
             [user.tests]\npassword = \"{}\"\nroles = [\"tester\"]\n[role.tester]\nadmin = true\n",
            catalog(),
            path("server.crt"),
            path("server.key"),
            scram_sha_256(PASSWORD.as_bytes())
        );
        let variables = vec![
            ("PGPASSWORD", PASSWORD.to_string()),
            ("PGSSLMODE", "verify-full".to_string()),
            ("PGSSLROOTCERT", path("server.crt")),
        ];
        [open, Served { server: Lookaside::start(&secured).await, variables, _folder: folder }]
    }

    fn is_secured(&self) -> bool {
        !self.variables.is_empty()
    }

    /// Tells a client where the server is.
    fn tell(&self, command: &mut Command) {
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.server.port.to_string());
        command.env("PGUSER", "tests").env("PGDATABASE", "lookaside");
        command.envs(self.variables.iter().cloned());
    }
}

/// Runs a program against servers of its own: all of its `checks` pass, and those of a server with passwords as well.
async fn passes(file: &str, checks: usize, checks_of_secured: usize) {
    for served in Served::both().await {
        let mut command = program(&project().join("tests/clients").join(file));
        served.tell(&mut command);
        let checked = run(command).await;
        assert!(checked.status.success(), "{}{}", checked.stdout, checked.stderr);
        let passed = checked.stdout.lines().filter(|line| line.starts_with("ok ")).count();
        let expected = if served.is_secured() { checks + checks_of_secured } else { checks };
        assert_eq!(passed, expected, "{}", checked.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works() {
    passes("psycopg_client.py", 8, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_works() {
    passes("asyncpg_client.py", 9, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pg8000_works() {
    passes("pg8000_client.py", 5, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_works() {
    passes("sqlalchemy_client.py", 5, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_postgres_works() {
    passes("pg_client.js", 8, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_js_works() {
    passes("postgresjs_client.js", 7, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_works() {
    passes("JdbcClient.java", 10, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_reads_a_stream_over_tls_with_a_password() {
    let [_, served] = Served::both().await;
    let psql = |variable: &str, value: &str| {
        let mut command = Command::new("psql");
        command.args(["-X", "-w", "-At", "-v", "FETCH_COUNT=1", "-c", "SELECT order_id FROM orders LIMIT 2"]);
        served.tell(&mut command);
        command.env(variable, value);
        run(command)
    };
    for mode in ["require", "verify-full"] {
        let read = psql("PGSSLMODE", mode).await;
        assert_eq!((read.stdout.as_str(), read.stderr.as_str()), ("1\n2\n", ""), "{mode}");
    }
    let refused = psql("PGSSLMODE", "disable").await;
    assert!(!refused.status.success() && refused.stderr.contains("encryption"), "{}", refused.stderr);
    let refused = psql("PGPASSWORD", "not the one").await;
    assert!(refused.stderr.contains("password authentication failed for user \"tests\""), "{}", refused.stderr);
}

/// A statement that a program of PostgreSQL's may run again and again.
const ENRICH: &str =
    "SELECT c.name FROM (VALUES (CAST(:id AS bigint))) AS o (id) LOOKUP JOIN customers AS c ON o.id = c.id;\n";

async fn pgbench(served: &Served, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("enrich.sql");
    std::fs::write(&script, format!("\\set id random(1, 1000)\n{ENRICH}")).unwrap();
    let mut command = Command::new(find("pgbench"));
    command.arg("-n").arg("-f").arg(&script).args(arguments);
    served.tell(&mut command);
    let done = run(command).await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("number of transactions actually processed: 100/100\n"), "{}", done.stdout);
    assert!(done.stdout.contains("number of failed transactions: 0 "), "{}", done.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_works_in_every_mode() {
    for served in Served::both().await {
        for mode in ["simple", "extended", "prepared"] {
            pgbench(&served, &["-M", mode, "-c", "4", "-t", "25"]).await;
        }
        // With a connection for each transaction.
        pgbench(&served, &["-C", "-c", "4", "-t", "25"]).await;
    }
}

#[tokio::test]
async fn tokio_postgres_reads_portals_in_parts_and_rows_as_they_come() {
    let server = Lookaside::start(&catalog()).await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT order_id FROM orders WHERE order_id > $1", &[&2_i64]).await.unwrap();
    for expected in [3_i64, 4, 5] {
        let rows = transaction.query_portal(&portal, 1).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [expected]);
    }
    drop(portal);
    transaction.rollback().await.unwrap();
    let rows = client.query_raw("SELECT order_id FROM orders", Vec::<i64>::new()).await.unwrap();
    pin_mut!(rows);
    for expected in [1_i64, 2, 3] {
        let row = tokio::time::timeout(DEADLINE, rows.try_next()).await.expect("a row in time").unwrap().unwrap();
        assert_eq!(row.get::<_, i64>(0), expected);
    }
}

#[tokio::test]
async fn tokio_postgres_cancels_and_goes_on() {
    let server = Lookaside::start(&catalog()).await;
    let client = server.connect().await;
    for sql in ["SELECT order_id FROM orders", "SELECT id FROM inbox", "SELECT n FROM numbers"] {
        let rows = client.query_raw(sql, Vec::<i64>::new()).await.unwrap();
        client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
        let end = tokio::time::timeout(DEADLINE, rows.try_for_each(|_| std::future::ready(Ok(()))));
        let error = end.await.expect("the cancel ends it").unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{sql}");
        assert_eq!(client.query_one("SELECT CAST(1 AS int)", &[]).await.unwrap().get::<_, i32>(0), 1);
    }
}

#[tokio::test]
async fn tokio_postgres_copies_in_and_out() {
    let server = Lookaside::start(&catalog()).await;
    let (reader, writer) = (server.connect().await, server.connect().await);
    let copied = reader.copy_out("COPY (SELECT id, note FROM inbox) TO STDOUT (FORMAT csv)").await.unwrap();
    pin_mut!(copied);
    let sink = writer.copy_in::<_, bytes::Bytes>("COPY inbox FROM STDIN (FORMAT csv)").await.unwrap();
    pin_mut!(sink);
    futures::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"1,one\n2,\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    for expected in ["1,one\n", "2,\n"] {
        let line = tokio::time::timeout(DEADLINE, copied.next()).await.expect("a row in time").unwrap().unwrap();
        assert_eq!(line, expected.as_bytes());
    }
}

/// How long the checks beside the checkout may take all together.
const OUTSIDE_LIMIT: Duration = Duration::from_secs(240);
/// pg_dump is refused.
const REFUSED_OUTSIDE: &str = "FAIL psql pg_dump_schema: ";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/run runs it alone, where there are checks beside the checkout: they look at the clock"]
async fn outside_checks_pass() {
    let folder = std::path::PathBuf::from(installed("LOOKASIDE_OUTSIDE_CHECKS"));
    for served in Served::both().await {
        for file in ["psql_check.sh", "psycopg_check.py", "node_check.js"] {
            let mut command = program(&folder.join(file));
            served.tell(&mut command);
            command.args(["127.0.0.1", &served.server.port.to_string(), "tests", "lookaside"]);
            command.arg("SELECT CAST(order_id AS int), amount FROM orders");
            let checked = tokio::time::timeout(OUTSIDE_LIMIT, run(command)).await.expect("an end in time");
            let failed = checked.stdout.lines().filter(|line| line.starts_with("FAIL "));
            let failed: Vec<_> = failed.filter(|line| !line.starts_with(REFUSED_OUTSIDE)).collect();
            assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), checked.stderr);
            let passed = checked.stdout.lines().filter(|line| line.starts_with("PASS ")).count();
            assert!(passed > 0, "{file}: {}", checked.stderr);
            println!("{file}, with TLS and a password: {}: {passed} passed", served.is_secured());
        }
    }
}
