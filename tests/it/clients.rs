//! Drivers of other languages: each program in `tests/clients` checks itself against a server.

use crate::support::lookaside::{Lookaside, project};
use crate::support::process::run;

const CATALOG: &str = r#"
[stream.orders]
type = "generator"
rows_per_second = 20
[stream.orders.columns]
order_id = "n"
amount = "CAST(n + 0.5 AS numeric(12,2))"

[stream.inbox]
type = "push"
[stream.inbox.columns]
id = "bigint not null"
note = "text"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works() {
    let python = std::env::var_os("LOOKASIDE_TEST_PYTHON");
    let python = python.expect("LOOKASIDE_TEST_PYTHON names a Python with psycopg; tests/run makes one and sets it");
    let server = Lookaside::start(CATALOG).await;
    let mut command = tokio::process::Command::new(python);
    command.arg(project().join("tests/clients/psycopg_client.py")).arg(server.port.to_string());
    let checked = run(command).await;
    assert!(checked.status.success(), "{}{}", checked.stdout, checked.stderr);
    assert_eq!(checked.stdout.lines().filter(|line| line.starts_with("ok ")).count(), 8, "{}", checked.stdout);
}
