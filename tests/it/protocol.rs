//! Messages in their order: simple and extended queries, portals, cursors, transactions, settings.

use tokio_postgres::NoTls;

use crate::support::lookaside::Lookaside;
use crate::support::raw::{Messages, RawClient};

/// Streams that never end, that end, and that clients fill.
pub const CATALOG: &str = r#"
[stream.clicks]
type = "generator"
rows_per_second = 0
[stream.clicks.columns]
n = "n"

[stream.three]
type = "generator"
rows_per_second = 0
rows = 3
[stream.three.columns]
n = "n"
label = "concat('row ', n)"

[stream.inbox]
type = "push"
[stream.inbox.columns]
id = "bigint not null"
note = "text"

[stream.gate]
type = "push"
retain_rows = 1
slow_reader = "wait"
[stream.gate.columns]
id = "bigint not null"
note = "text"
"#;

async fn start() -> (Lookaside, RawClient) {
    let server = Lookaside::start(CATALOG).await;
    let client = RawClient::connect(server.port).await;
    (server, client)
}

#[tokio::test]
async fn rows_of_a_slow_stream_arrive_one_by_one() {
    let server = Lookaside::start(CATALOG).await;
    let writer = server.connect().await;
    let extended =
        Messages::default().parse("", "SELECT id FROM inbox").bind("", "", &[], &[]).describe('P', "").execute("", 0);
    let ways = [
        (Messages::default().query("SELECT id FROM inbox"), vec!["T id:20"], "D "),
        (extended.sync(), vec!["1", "2", "T id:20"], "D "),
        (Messages::default().query("COPY (SELECT id FROM inbox) TO STDOUT"), vec!["H 0 1"], "d "),
        (Messages::default().query("COPY (SELECT id FROM inbox) TO STDOUT (FORMAT csv)"), vec!["H 0 1"], "d "),
    ];
    for (messages, begin, row) in ways {
        let mut reader = RawClient::connect(server.port).await;
        reader.send(messages).await;
        // The begin of the answer comes before there is a row, and what is inserted from then on is in it.
        assert_eq!(reader.take(begin.len()).await, begin);
        for id in 1..=3 {
            writer.execute(&format!("INSERT INTO inbox VALUES ({id})"), &[]).await.unwrap();
            assert_eq!(reader.next().await, Some(format!("{row}{id}")), "before the next is made");
        }
    }
}

#[tokio::test]
async fn cursor_shows_rows_as_they_come() {
    let (server, mut reader) = start().await;
    let writer = server.connect().await;
    let declare = "DECLARE \"_psql_cursor\" NO SCROLL CURSOR FOR SELECT id FROM inbox";
    assert_eq!(reader.query("BEGIN").await, ["C BEGIN", "Z T"]);
    assert_eq!(reader.query(declare).await, ["C DECLARE CURSOR", "Z T"]);
    // Rows that come between DECLARE and FETCH are in it.
    writer.execute("INSERT INTO inbox VALUES (1), (2), (3)", &[]).await.unwrap();
    let fetch = "FETCH FORWARD 2 FROM \"_psql_cursor\"";
    assert_eq!(reader.query(fetch).await, ["T id:20", "D 1", "D 2", "C FETCH 2", "Z T"]);
    reader.send(Messages::default().query(fetch)).await;
    assert_eq!(reader.take(2).await, ["T id:20", "D 3"]);
    writer.execute("INSERT INTO inbox VALUES (4)", &[]).await.unwrap();
    assert_eq!(reader.until_ready().await, ["D 4", "C FETCH 2", "Z T"]);
    assert_eq!(reader.query("CLOSE \"_psql_cursor\"").await, ["C CLOSE CURSOR", "Z T"]);
    assert_eq!(reader.query("COMMIT").await, ["C COMMIT", "Z I"]);
}

#[tokio::test]
async fn cursors_are_named_described_fetched_to_the_end_and_closed() {
    let (_server, mut client) = start().await;
    let refused = "E ERROR 25P01 DECLARE CURSOR can only be used in transaction blocks";
    assert_eq!(client.query("DECLARE c CURSOR FOR SELECT n FROM three").await, [refused, "Z I"]);
    client.query("BEGIN").await;
    client.query("DECLARE c CURSOR FOR SELECT n FROM three").await;
    // As psycopg asks for the columns of its cursor.
    client.send(Messages::default().describe('P', "c").sync()).await;
    assert_eq!(client.until_ready().await, ["T n:20", "Z T"]);
    assert_eq!(client.query("FETCH c").await, ["T n:20", "D 1", "C FETCH 1", "Z T"]);
    assert_eq!(client.query("FETCH ALL FROM c").await, ["T n:20", "D 2", "D 3", "C FETCH 2", "Z T"]);
    assert_eq!(client.query("FETCH FORWARD 5 FROM c").await, ["T n:20", "C FETCH 0", "Z T"]);
    client.query("CLOSE c").await;
    assert_eq!(client.query("FETCH c").await, ["E ERROR 34000 cursor \"c\" does not exist", "Z E"]);
    client.query("ROLLBACK").await;

    // The end of the transaction closes what is open.
    client.query("BEGIN; DECLARE c CURSOR FOR SELECT n FROM clicks; COMMIT").await;
    assert_eq!(client.query("FETCH c").await, ["E ERROR 34000 cursor \"c\" does not exist", "Z I"]);

    // A binary cursor, and a second of the same name.
    client.query("BEGIN; DECLARE c BINARY CURSOR FOR SELECT n FROM three").await;
    assert_eq!(client.query("FETCH 1 FROM c").await, ["T n:20:binary", "D 0000000000000001", "C FETCH 1", "Z T"]);
    let taken = "E ERROR 42P03 cursor \"c\" already exists";
    assert_eq!(client.query("DECLARE c CURSOR FOR SELECT n FROM three").await, [taken, "Z E"]);
}

#[tokio::test]
async fn portals_give_exactly_as_many_rows_as_are_asked_for() {
    let (_server, mut client) = start().await;
    let open = Messages::default().parse("s", "SELECT n FROM clicks").bind("p", "s", &[], &[]);
    client.send(open.execute("p", 2).execute("p", 3).flush()).await;
    assert_eq!(client.take(9).await, ["1", "2", "D 1", "D 2", "s", "D 3", "D 4", "D 5", "s"]);
    client.send(Messages::default().close('P', "p").close('P', "never opened").sync()).await;
    assert_eq!(client.until_ready().await, ["3", "3", "Z I"]);

    // A bounded one: its end is told when it is asked for more.
    let open = Messages::default().parse("t", "SELECT n FROM three").bind("", "t", &[], &[1]);
    client.send(open.describe('P', "").execute("", 3).execute("", 3).execute("", 3).sync()).await;
    let one_to_three = ["D 0000000000000001", "D 0000000000000002", "D 0000000000000003"];
    assert_eq!(client.take(3).await, ["1", "2", "T n:20:binary"]);
    assert_eq!(client.take(3).await, one_to_three);
    assert_eq!(client.until_ready().await, ["s", "C SELECT 0", "C SELECT 0", "Z I"]);

    // Outside of a transaction Sync closes portals; inside, they live on.
    client.send(Messages::default().execute("", 1).sync()).await;
    assert_eq!(client.until_ready().await, ["E ERROR 34000 cursor \"\" does not exist", "Z I"]);
    client.query("BEGIN").await;
    client.send(Messages::default().bind("p", "s", &[], &[]).execute("p", 1).sync()).await;
    assert_eq!(client.until_ready().await, ["2", "D 1", "s", "Z T"]);
    client.send(Messages::default().execute("p", 1).sync()).await;
    assert_eq!(client.until_ready().await, ["D 2", "s", "Z T"]);
}

#[tokio::test]
async fn statements_and_portals_are_described() {
    let (_server, mut client) = start().await;
    let sql = "SELECT n + $1 AS sum, label FROM three WHERE label <> $2";
    client.send(Messages::default().parse("s", sql).describe('S', "s").sync()).await;
    assert_eq!(client.until_ready().await, ["1", "t 20,25", "T sum:20,label:25", "Z I"]);
    client.send(Messages::default().bind("", "s", &["10", "row 2"], &[1, 0]).describe('P', "").sync()).await;
    assert_eq!(client.until_ready().await, ["2", "T sum:20:binary,label:25", "Z I"]);
    client.send(Messages::default().bind("", "s", &["10", "row 2"], &[]).execute("", 0).sync()).await;
    assert_eq!(client.until_ready().await, ["2", "D 11|row 1", "D 13|row 3", "C SELECT 2", "Z I"]);
    for (sql, described) in [
        ("SET application_name TO 'x'", "n"),
        ("", "n"),
        ("SHOW TimeZone", "T timezone:25"),
        ("EXPLAIN SELECT 1", "T QUERY PLAN:25"),
        ("INSERT INTO inbox VALUES (1)", "n"),
    ] {
        client.send(Messages::default().parse("", sql).describe('S', "").sync()).await;
        assert_eq!(client.until_ready().await, ["1", "t", described, "Z I"], "{sql}");
    }
}

#[tokio::test]
async fn errors_of_the_extended_query_skip_to_sync() {
    let (_server, mut client) = start().await;
    let good = |messages: Messages| messages.parse("", "SELECT 1 AS a").bind("", "", &[], &[]).execute("", 0);
    client.send(good(good(Messages::default()).parse("", "SELEKT")).sync()).await;
    let answers = client.until_ready().await;
    assert_eq!(answers[..4], ["1", "2", "D 1", "C SELECT 1"]);
    assert!(answers[4].starts_with("E ERROR 42601 "), "{answers:?}");
    assert_eq!(answers[5..], ["Z I"]);
    // Also a whole query is skipped: the client does not know of the error yet.
    client.send(Messages::default().parse("", "SELEKT").query("SELECT 2").sync()).await;
    assert_eq!(client.until_ready().await.len(), 2);
    // The error itself comes at once, to a client that has sent Flush and waits for it.
    client.send(Messages::default().parse("", "SELEKT").flush()).await;
    assert!(client.next().await.unwrap().starts_with("E ERROR 42601 "));
    client.send(Messages::default().sync()).await;
    assert_eq!(client.until_ready().await, ["Z I"]);
    client.send(good(Messages::default()).sync()).await;
    assert_eq!(client.until_ready().await, ["1", "2", "D 1", "C SELECT 1", "Z I"]);

    let wrong = [
        (Messages::default().bind("", "nobody", &[], &[]), "26000 prepared statement \"nobody\" does not exist"),
        (Messages::default().describe('S', "nobody"), "26000 prepared statement \"nobody\" does not exist"),
        (Messages::default().describe('P', "nobody"), "34000 cursor \"nobody\" does not exist"),
        (Messages::default().execute("nobody", 0), "34000 cursor \"nobody\" does not exist"),
        (
            Messages::default().parse("", "SELECT 1; SELECT 2"),
            "42601 cannot insert multiple commands into a prepared statement",
        ),
        (
            Messages::default().bind("", "", &["1"], &[]),
            "08P01 bind message supplies 1 parameters, but prepared statement \"\" requires 0",
        ),
    ];
    client.send(Messages::default().parse("", "SELECT 1").sync()).await;
    client.until_ready().await;
    for (messages, message) in wrong {
        client.send(messages.sync()).await;
        assert_eq!(client.until_ready().await, [format!("E ERROR {message}"), "Z I".to_string()]);
    }
}

#[tokio::test]
async fn one_message_may_hold_several_statements_or_none() {
    let (_server, mut client) = start().await;
    let answers = client.query("SELECT 1 AS a; ; SELECT n FROM three LIMIT 1;").await;
    assert_eq!(answers, ["T a:20", "D 1", "C SELECT 1", "T n:20", "D 1", "C SELECT 1", "Z I"]);
    assert_eq!(client.query(" ; -- nothing").await, ["I", "Z I"]);
    assert_eq!(client.query("").await, ["I", "Z I"]);
    // What comes behind an error is not run.
    let answers = client.query("SELECT 1 AS a; SELECT * FROM nowhere; INSERT INTO inbox VALUES (1)").await;
    assert_eq!(answers[..3], ["T a:20", "D 1", "C SELECT 1"]);
    assert!(answers[3].starts_with("E ERROR 42P01 "), "{answers:?}");
    assert_eq!(answers[4..], ["Z I"]);
    client.send(Messages::default().parse("", "").bind("", "", &[], &[]).execute("", 0).sync()).await;
    assert_eq!(client.until_ready().await, ["1", "2", "I", "Z I"]);
}

#[tokio::test]
async fn failed_transaction_takes_nothing_but_its_end() {
    let (server, mut client) = start().await;
    let mut reader = RawClient::connect(server.port).await;
    reader.send(Messages::default().query("SELECT id FROM inbox LIMIT 1")).await;
    reader.next().await;
    let aborted =
        "E ERROR 25P02 current transaction is aborted, commands ignored until end of transaction block".to_string();
    client.query("BEGIN; INSERT INTO inbox VALUES (1)").await;
    assert_eq!(client.query("SELECT 1/0").await.last().unwrap(), "Z E");
    for sql in ["SELECT 1", "BEGIN", "SHOW TimeZone", "INSERT INTO inbox VALUES (2)"] {
        assert_eq!(client.query(sql).await, [aborted.as_str(), "Z E"], "{sql}");
    }
    client.send(Messages::default().parse("", "SELECT 1").sync()).await;
    assert_eq!(client.until_ready().await, [aborted.as_str(), "Z E"]);
    assert_eq!(client.query("COMMIT").await, ["C ROLLBACK", "Z I"]);

    // Rows enter at COMMIT, and those of the failed transaction did not.
    client.query("BEGIN; INSERT INTO inbox VALUES (3)").await;
    client.query("ROLLBACK").await;
    client.query("BEGIN; INSERT INTO inbox VALUES (4)").await;
    assert_eq!(client.query("COMMIT").await, ["C COMMIT", "Z I"]);
    assert_eq!(reader.until_ready().await, ["D 4", "C SELECT 1", "Z I"]);

    let lonely = ["N WARNING 25P01 there is no transaction in progress", "C ROLLBACK", "Z I"];
    assert_eq!(client.query("ROLLBACK").await, lonely);
}

#[tokio::test]
async fn settings_are_reported_and_rolled_back() {
    let (_server, mut client) = start().await;
    let set = ["S application_name=a", "C SET", "Z I"];
    assert_eq!(client.query("SET application_name TO 'a'").await, set);
    client.query("BEGIN").await;
    assert_eq!(client.query("SET TimeZone = 'Europe/Berlin'").await, ["S TimeZone=Europe/Berlin", "C SET", "Z T"]);
    let shown = ["T timezone:25", "D Europe/Berlin", "C SHOW", "Z T"];
    assert_eq!(client.query("SHOW timezone").await, shown);
    assert_eq!(client.query("ROLLBACK").await, ["S TimeZone=UTC", "C ROLLBACK", "Z I"]);
    assert_eq!(client.query("SHOW application_name").await[1], "D a");
    assert_eq!(client.query("RESET application_name").await, ["S application_name", "C RESET", "Z I"]);
    let fixed = "E ERROR 55P02 parameter \"server_version\" cannot be changed";
    assert_eq!(client.query("SET server_version = '9'").await, [fixed, "Z I"]);
    let unknown = "E ERROR 42704 unrecognized configuration parameter \"no_such\"";
    assert_eq!(client.query("SET no_such = '9'").await, [unknown, "Z I"]);
}

#[tokio::test]
async fn log_in_takes_settings_and_refuses_what_it_does_not_know() {
    let server = Lookaside::start(CATALOG).await;
    let mut client = RawClient::open(server.port).await;
    // SSLRequest and GSSENCRequest are answered with one byte each.
    for code in [80_877_103_i32, 80_877_104] {
        let request = [8_i32.to_be_bytes(), code.to_be_bytes()].concat();
        client.send(Messages::default().bytes(&request)).await;
        let mut answer = [0_u8];
        tokio::io::AsyncReadExt::read_exact(&mut client.socket, &mut answer).await.unwrap();
        assert_eq!(answer, *b"N");
    }
    let parameters =
        [("user", "me"), ("database", "any"), ("application_name", "tool"), ("options", "-c TimeZone=UTC")];
    let answers = client.log_in(&parameters).await;
    assert_eq!(answers[0], "R");
    for reported in ["S application_name=tool", "S TimeZone=UTC", "S server_encoding=UTF8", "S integer_datetimes=on"] {
        assert!(answers.iter().any(|answer| answer == reported), "{reported} in {answers:?}");
    }

    let refused = [
        (vec![("user", "me"), ("no_such", "1")], "42704 unrecognized configuration parameter \"no_such\""),
        (vec![("database", "any")], "28000 no PostgreSQL user name specified in startup packet"),
        (vec![("user", "me"), ("replication", "database")], "0A000 replication connections are not supported"),
    ];
    for (parameters, message) in refused {
        let mut client = RawClient::open(server.port).await;
        assert_eq!(client.log_in(&parameters).await, [format!("E FATAL {message}")], "and the connection ends");
    }
    let config = format!("host=127.0.0.1 port={} user=tests sslmode=require", server.port);
    assert!(tokio_postgres::connect(&config, NoTls).await.is_err());
}
