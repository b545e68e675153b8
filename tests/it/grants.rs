//! What somebody may do once he is in, and that what he may not see is not there for him.

use postgres_protocol::password::scram_sha_256;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::access::connect;
use crate::support::lookaside::Lookaside;
use crate::support::raw::DEADLINE;

/// Names of eight characters, so that positions compare.
const HIDDEN: [&str; 3] = ["salaries", "payments", "overview"];
const MISSING: &str = "nonesuch";

fn catalog() -> String {
    let verifier = scram_sha_256(b"sesame");
    format!(
        r#"
[user.ana]
password = "{verifier}"
roles = ["analyst"]
[user.bob]
password = "{verifier}"
[user.root]
password = "{verifier}"
roles = ["boss"]

[role.analyst]
read = ["orders", "customers", "payroll", "mailbox"]
write = ["inbox", "mailbox"]
[role.boss]
admin = true

[stream.orders]
type = "generator"
rows_per_second = 0
columns = {{ order_id = "n", customer_id = "n % 3" }}
[stream.salaries]
type = "push"
columns = {{ name = "text", salary = "bigint" }}
[stream.inbox]
type = "push"
columns = {{ id = "bigint" }}
[stream.mailbox]
type = "push"
columns = {{ id = "bigint" }}
[lookup.customers]
type = "simulated"
key = {{ id = "bigint" }}
columns = {{ name = "'customer ' || id" }}
cache = {{ mode = "partial" }}
[lookup.payments]
type = "simulated"
key = {{ id = "bigint" }}
columns = {{ name = "'payment ' || id" }}
cache = {{ mode = "partial" }}
"#
    )
}

async fn start() -> (Lookaside, Client, Client) {
    let server = Lookaside::start(&catalog()).await;
    let root = connect(server.port, "root", "sesame").await.unwrap();
    root.batch_execute(
        "INSERT INTO salaries VALUES ('ana', 100);
         CREATE VIEW overview AS SELECT name FROM salaries WITH (start = 'earliest');
         CREATE VIEW payroll AS SELECT o.name, p.name AS payment
         FROM (SELECT name FROM overview LIMIT 1) o LOOKUP JOIN payments p ON p.id = 7",
    )
    .await
    .unwrap();
    let ana = connect(server.port, "ana", "sesame").await.unwrap();
    (server, root, ana)
}

/// The SQLSTATE, the message and the position of what goes wrong.
async fn failure(client: &Client, sql: &str) -> (String, String, Option<String>) {
    let answer = tokio::time::timeout(DEADLINE, client.simple_query(sql)).await;
    let error = answer.unwrap_or_else(|_| panic!("no end: {sql}")).map(|_| ()).expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?} of {sql}"));
    let position = error.position().map(|position| format!("{position:?}"));
    client.batch_execute("ROLLBACK; DEALLOCATE ALL").await.unwrap();
    (error.code().code().to_string(), error.message().to_string(), position)
}

async fn rows(client: &Client, sql: &str) -> Vec<Vec<String>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?} of {sql}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or("NULL").to_string()).collect())
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

#[tokio::test]
async fn what_may_not_be_seen_fails_as_what_does_not_exist() {
    let (server, root, ana) = start().await;
    for sql in [
        "SELECT * FROM NAME",
        "SELECT nothing FROM NAME",
        "SELECT * FROM public.NAME",
        "SELECT * FROM lookaside.public.NAME AS n (a, b)",
        "SELECT * FROM NAME WITH (start = 'earliest')",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM NAME)",
        "SELECT (SELECT max(name) FROM NAME)",
        "SELECT * FROM orders o LOOKUP JOIN NAME n ON n.id = o.order_id",
        "SELECT * FROM orders o JOIN NAME FOR SYSTEM_TIME AS OF now() AS n ON n.id = o.order_id",
        "SELECT * FROM NAME n LOOKUP JOIN customers c ON c.id = n.id",
        "SELECT * FROM orders NATURAL LOOKUP JOIN NAME",
        "WITH n AS (SELECT * FROM NAME) SELECT * FROM n",
        "SELECT * FROM (WITH NAME AS (SELECT 1 AS one) SELECT * FROM NAME) one, NAME",
        "SELECT 1 UNION ALL SELECT 1 FROM NAME",
        "EXPLAIN SELECT * FROM NAME",
        "COPY (SELECT * FROM NAME) TO STDOUT",
        "COPY NAME FROM STDIN",
        "BEGIN; DECLARE c CURSOR FOR SELECT * FROM NAME",
        "PREPARE p AS SELECT * FROM NAME",
        "PREPARE q (text) AS SELECT $1; EXECUTE q((SELECT max(name) FROM NAME))",
        "INSERT INTO inbox SELECT 1 FROM NAME",
        "INSERT INTO NAME VALUES (1)",
        "INSERT INTO NAME (name) VALUES ('x')",
        "DROP VIEW NAME",
        "SELECT lookaside.warm('NAME', 1)",
        "SELECT lookaside.invalidate('NAME')",
    ] {
        let expected = failure(&ana, &sql.replace("NAME", MISSING)).await;
        for hidden in HIDDEN {
            let (sqlstate, message, position) = failure(&ana, &sql.replace("NAME", hidden)).await;
            assert_eq!((sqlstate, message.replace(hidden, MISSING), position), expected, "{sql} of {hidden}");
        }
    }
    assert_eq!(rows(&root, "SELECT * FROM overview LIMIT 1").await, [["ana"]]);
    let bob = connect(server.port, "bob", "sesame").await.unwrap();
    assert_eq!(failure(&bob, "SELECT * FROM orders").await.1, "relation \"orders\" does not exist");
    assert_eq!(rows(&bob, "SELECT 1").await, [["1"]]);
}

#[tokio::test]
async fn a_view_reads_with_the_rights_of_who_made_it() {
    let (_server, _root, ana) = start().await;
    assert_eq!(rows(&ana, "SELECT * FROM payroll").await, [["ana", "payment 7"]]);
    // Also where the names in it are hidden by names of the query around it.
    let around = "WITH salaries AS (SELECT 'me' AS name) SELECT p.name, s.name FROM payroll p, salaries s";
    assert_eq!(rows(&ana, around).await, [["ana", "me"]]);
    assert_eq!(failure(&ana, "SELECT p.name FROM payroll p, salaries s").await.0, "42P01");
}

#[tokio::test]
async fn reading_writing_and_managing_are_rights_of_their_own() {
    let (_server, root, ana) = start().await;
    let joined = "SELECT c.name FROM (SELECT * FROM orders LIMIT 1) o LOOKUP JOIN customers c ON c.id = o.customer_id";
    assert_eq!(rows(&ana, joined).await, [["customer 1"]]);
    ana.batch_execute("INSERT INTO inbox VALUES (1); INSERT INTO mailbox VALUES (2)").await.unwrap();
    assert_eq!(rows(&ana, "SELECT * FROM mailbox WITH (start = 'earliest') LIMIT 1").await, [["2"]]);
    root.batch_execute("CREATE VIEW mine AS SELECT 1").await.unwrap();
    for (sql, expected) in [
        ("SELECT * FROM inbox", "permission denied for stream inbox"),
        ("INSERT INTO inbox SELECT * FROM inbox", "permission denied for stream inbox"),
        ("CREATE VIEW v AS SELECT 1", "permission denied for schema public"),
        ("CREATE OR REPLACE VIEW payroll AS SELECT 1", "permission denied for schema public"),
        ("DROP VIEW payroll", "must be owner of view payroll"),
        ("SELECT lookaside.invalidate('customers')", "permission denied for function lookaside.invalidate"),
        ("SELECT lookaside.warm('customers', 1)", "permission denied for function lookaside.warm"),
    ] {
        let (sqlstate, message, _) = failure(&ana, sql).await;
        assert_eq!((sqlstate.as_str(), message.as_str()), ("42501", expected), "{sql}");
    }
    assert_eq!(rows(&root, "SELECT lookaside.warm('customers', 1)").await, [["1"]]);
    // A stream that may be read and not written.
    let reader = catalog().replace("write = [\"inbox\", \"mailbox\"]", "");
    let server = Lookaside::start(&reader).await;
    let ana = connect(server.port, "ana", "sesame").await.unwrap();
    for sql in ["INSERT INTO mailbox VALUES (1)", "COPY mailbox FROM STDIN"] {
        let (sqlstate, message, _) = failure(&ana, sql).await;
        assert_eq!((sqlstate.as_str(), message.as_str()), ("42501", "permission denied for stream mailbox"), "{sql}");
    }
}

#[tokio::test]
async fn the_systems_views_show_what_exists_for_who_reads_them() {
    let (_server, root, ana) = start().await;
    let names = |rows: Vec<Vec<String>>| rows.into_iter().map(|row| row.join(" ")).collect::<Vec<_>>();
    let streams = "SELECT name FROM lookaside.streams";
    assert_eq!(names(rows(&ana, streams).await), ["inbox", "mailbox", "orders"]);
    assert_eq!(names(rows(&root, streams).await), ["inbox", "mailbox", "orders", "salaries"]);
    let lookups = "SELECT name FROM lookaside.lookups";
    assert_eq!(names(rows(&ana, lookups).await), ["customers"]);
    assert_eq!(names(rows(&root, lookups).await), ["customers", "payments"]);
    root.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM orders").await.unwrap();
    let queries = "SELECT \"user\" FROM lookaside.queries";
    assert_eq!(names(rows(&ana, queries).await), ["ana"]);
    ana.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM orders").await.unwrap();
    assert_eq!(names(rows(&ana, queries).await), ["ana", "ana"]);
    assert_eq!(names(rows(&root, queries).await), ["root", "ana", "root"]);
}
