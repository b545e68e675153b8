//! COPY in both directions, INSERT with parameters, binary values: what goes over the wire, byte for byte where it matters.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, pin_mut};

use crate::protocol::CATALOG;
use crate::support::lookaside::Lookaside;
use crate::support::raw::{Messages, RawClient};

/// A reader of the inbox whose query has begun, so that nothing put in from now on is missed.
async fn reader(server: &Lookaside, sql: &str) -> RawClient {
    let mut reader = RawClient::connect(server.port).await;
    reader.send(Messages::default().query(sql)).await;
    assert!(reader.next().await.unwrap().starts_with("T "));
    reader
}

#[tokio::test]
async fn copy_in_takes_pieces_split_anywhere() {
    let server = Lookaside::start(CATALOG).await;
    let mut reader = reader(&server, "SELECT id, note FROM inbox").await;
    let mut client = RawClient::connect(server.port).await;
    client.send(Messages::default().query("COPY inbox FROM STDIN")).await;
    assert_eq!(client.next().await.unwrap(), "G 0 2");
    client
        .send(Messages::default().copy_data("1\tone\n2\tt").copy_data("wo").copy_data("\\040abs").copy_data("\n3"))
        .await;
    // Rows enter as they are read, before the end of the COPY.
    assert_eq!(reader.take(2).await, ["D 1|one", "D 2|two abs"]);
    client.send(Messages::default().copy_data("\t\\N\n").copy_done()).await;
    assert_eq!(client.until_ready().await, ["C COPY 3", "Z I"]);
    assert_eq!(reader.next().await.unwrap(), "D 3|NULL");

    let csv = "COPY inbox (note, id) FROM STDIN (FORMAT csv, HEADER)";
    client
        .send(Messages::default().query(csv).copy_data("note,id\r\n\"a,\"\"b\"\"").copy_data("\",4\r\n,5").copy_done())
        .await;
    assert_eq!(client.until_ready().await, ["G 0 2", "C COPY 2", "Z I"]);
    assert_eq!(reader.take(2).await, ["D 4|a,\"b\"", "D 5|NULL"]);
}

#[tokio::test]
async fn copy_in_that_fails_says_how_many_rows_were_taken() {
    let server = Lookaside::start(CATALOG).await;
    let mut reader = reader(&server, "SELECT id FROM inbox").await;
    let mut client = RawClient::connect(server.port).await;
    let begin = || Messages::default().query("COPY inbox FROM STDIN");
    let refused = |answers: Vec<String>| {
        assert_eq!(answers[0], "G 0 2");
        assert_eq!(answers[2..], ["Z I"]);
        answers[1].clone()
    };
    // What comes behind the bad row, and the end, are skipped.
    client.send(begin().copy_data("1\tone\nx\tbad\n3\tc\n").copy_data("4\td\n").copy_done()).await;
    let error = refused(client.until_ready().await);
    assert!(error.starts_with("E ERROR 22P02 ") && error.contains("1 row"), "{error}");
    assert_eq!(reader.next().await.unwrap(), "D 1");

    client.send(begin().copy_data("2\ttwo\n").copy_fail("no more")).await;
    let error = refused(client.until_ready().await);
    assert!(error.starts_with("E ERROR 57014 COPY from stdin failed: no more [1 row"), "{error}");
    assert_eq!(reader.next().await.unwrap(), "D 2");

    client.send(begin().copy_data("\\N\tnone\n").copy_done()).await;
    let error = refused(client.until_ready().await);
    let violation = "E ERROR 23502 null value in column \"id\" of stream \"inbox\" violates not-null constraint";
    assert!(error.starts_with(violation), "{error}");

    assert_eq!(client.query("SELECT 1 AS a").await[1], "D 1", "the connection serves on");
    let missing = client.query("COPY nowhere FROM STDIN").await;
    assert!(missing[0].starts_with("E ERROR 42P01 "), "{missing:?}");
}

#[tokio::test]
async fn copy_in_inside_a_transaction_enters_at_commit() {
    let server = Lookaside::start(CATALOG).await;
    let mut reader = reader(&server, "SELECT id FROM inbox LIMIT 1").await;
    let mut client = RawClient::connect(server.port).await;
    let copy = |row: &str| Messages::default().query("COPY inbox (id) FROM STDIN").copy_data(row).copy_done();
    client.query("BEGIN").await;
    client.send(copy("1\n")).await;
    assert_eq!(client.until_ready().await, ["G 0 1", "C COPY 1", "Z T"]);
    client.query("ROLLBACK; BEGIN").await;
    client.send(copy("2\n")).await;
    client.until_ready().await;
    client.query("COMMIT").await;
    assert_eq!(reader.until_ready().await, ["D 2", "C SELECT 1", "Z I"]);
}

#[tokio::test]
async fn copy_in_by_the_extended_query_works_and_fails_the_same() {
    let server = Lookaside::start(CATALOG).await;
    let client = server.connect().await;
    let sink = client.copy_in::<_, Bytes>("COPY inbox FROM STDIN (FORMAT csv)").await.unwrap();
    pin_mut!(sink);
    sink.send(Bytes::from_static(b"1,a\n2,b\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    let sink = client.copy_in::<_, Bytes>("COPY inbox FROM STDIN (FORMAT csv)").await.unwrap();
    pin_mut!(sink);
    sink.send(Bytes::from_static(b"no number,a\n")).await.unwrap();
    let error = sink.finish().await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("22P02"));
    assert_eq!(client.query_one("SELECT 1::int", &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn insert_takes_parameters_in_text_and_binary() {
    let server = Lookaside::start(CATALOG).await;
    let mut reader = reader(&server, "SELECT id, note FROM inbox").await;
    let client = server.connect().await;
    // tokio-postgres sends binary.
    let inserted = client.execute("INSERT INTO inbox VALUES ($1, $2), ($3, NULL)", &[&1_i64, &"o'ne", &2_i64]).await;
    assert_eq!(inserted.unwrap(), 2);
    let missing = client.execute("INSERT INTO inbox VALUES ($1)", &[&None::<i64>]).await.unwrap_err();
    assert_eq!(missing.code().map(|code| code.code()), Some("23502"));

    let mut raw = RawClient::connect(server.port).await;
    let insert = Messages::default().parse("i", "INSERT INTO inbox (note, id) VALUES ($1, $2)").describe('S', "i");
    raw.send(insert.bind("", "i", &["text", "3"], &[]).execute("", 0).sync()).await;
    assert_eq!(raw.until_ready().await, ["1", "t 25,20", "n", "2", "C INSERT 0 1", "Z I"]);
    raw.send(Messages::default().bind("", "i", &["text", "3x"], &[]).sync()).await;
    let error = raw.until_ready().await;
    assert!(error[0].starts_with("E ERROR 22P02 "), "{error:?}");
    assert_eq!(reader.take(3).await, ["D 1|o'ne", "D 2|NULL", "D 3|text"]);
}

#[tokio::test]
async fn copy_out_is_written_as_postgresql_writes_it() {
    let server = Lookaside::start(CATALOG).await;
    let mut client = RawClient::connect(server.port).await;
    let rows = "SELECT * FROM (VALUES (1, 'a\tb'), (2, NULL), (3, 'say \"x\", y')) AS v (id, note)";
    let text = client.query(&format!("COPY ({rows}) TO STDOUT")).await;
    assert_eq!(text, ["H 0 2", "d 1\ta\\tb", "d 2\t\\N", "d 3\tsay \"x\", y", "c", "C COPY 3", "Z I"]);
    let csv = client.query(&format!("COPY ({rows}) TO STDOUT WITH (FORMAT csv, HEADER)")).await;
    let expected = ["H 0 2", "d id,note", "d 1,a\tb", "d 2,", "d 3,\"say \"\"x\"\", y\"", "c", "C COPY 3", "Z I"];
    assert_eq!(csv, expected);

    let client = server.connect().await;
    let sql = "COPY (SELECT CAST(7 AS int) AS a, CAST(NULL AS text) AS b) TO STDOUT (FORMAT binary)";
    let bytes: Vec<_> = client.copy_out(sql).await.unwrap().map(|piece| piece.unwrap()).collect().await;
    let header = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let row = [0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(bytes.concat(), [header.as_slice(), &row, &[0xff, 0xff]].concat());

    // Rows that came before an error are delivered, and no end is told.
    let mut client = RawClient::connect(server.port).await;
    let failing = client.query("COPY (SELECT 6 / (3 - n) FROM three) TO STDOUT").await;
    assert!(failing.iter().any(|answer| answer.starts_with("E ERROR 22012 ")), "{failing:?}");
    assert!(!failing.iter().any(|answer| answer == "c"), "{failing:?}");
}

#[tokio::test]
async fn binary_results_are_what_drivers_read() {
    let server = Lookaside::start(CATALOG).await;
    let client = server.connect().await;
    let row = client
        .query_one(
            "SELECT CAST($1 AS int), CAST($2 AS text), CAST('2024-02-29' AS date), CAST('{1,NULL}' AS int[]),
             CAST('2024-02-29 12:34:56.789012+00' AS timestamptz), true, CAST(1.5 AS double precision)",
            &[&41_i32, &"o'brien"],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 41);
    assert_eq!(row.get::<_, &str>(1), "o'brien");
    assert_eq!(row.get::<_, chrono::NaiveDate>(2).to_string(), "2024-02-29");
    assert_eq!(row.get::<_, Vec<Option<i32>>>(3), [Some(1), None]);
    let moment = row.get::<_, chrono::DateTime<chrono::Utc>>(4);
    assert_eq!(moment.to_string(), "2024-02-29 12:34:56.789012 UTC");
    assert!(row.get::<_, bool>(5));
    assert_eq!(row.get::<_, f64>(6), 1.5);
}
