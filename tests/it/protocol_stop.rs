//! What ends a statement or a connection from outside: cancel, a client that goes or does not read, nonsense, shutdown.

use std::time::Duration;

use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_postgres::NoTls;

use crate::protocol::CATALOG;
use crate::support::lookaside::Lookaside;
use crate::support::raw::{Messages, RawClient};

/// An endless query of which nothing comes, and of which more comes than can be read.
const ENDLESS: [&str; 3] = ["SELECT id FROM inbox", "SELECT n FROM clicks", "COPY (SELECT id FROM inbox) TO STDOUT"];
const CANCELED: &str = "E ERROR 57014 canceling statement due to user request";

/// Sends a cancel request and waits until the server has taken it.
async fn cancel(port: u16, pid: i32, secret: i32) {
    let mut messages = Messages::default();
    frontend::cancel_request(pid, secret, &mut messages.0);
    let mut client = RawClient::open(port).await;
    client.send(messages).await;
    assert_eq!(client.next().await, None, "a cancel request is answered by the end of its connection");
}

#[tokio::test]
async fn cancel_ends_the_statement_and_not_the_connection() {
    let server = Lookaside::start(CATALOG).await;
    for sql in ENDLESS {
        let mut client = RawClient::connect(server.port).await;
        client.send(Messages::default().query(sql)).await;
        client.next().await;
        let asked = Instant::now();
        cancel(server.port, client.pid, client.secret).await;
        let answers = client.until_ready().await;
        // A second is promised; a machine that is busy with other tests needs longer to read what came before.
        assert!(asked.elapsed() < Duration::from_secs(5), "{sql} took {:?}", asked.elapsed());
        assert_eq!(answers[answers.len() - 2..], [CANCELED, "Z I"], "{sql}");
        assert_eq!(answers.iter().filter(|answer| answer.starts_with('E')).count(), 1, "{sql}");
        assert_eq!(client.query("SELECT 1 AS a").await, ["T a:20", "D 1", "C SELECT 1", "Z I"]);
    }
}

#[tokio::test]
async fn cancel_fails_the_transaction_and_keeps_the_cursor_unread() {
    let server = Lookaside::start(CATALOG).await;
    let mut client = RawClient::connect(server.port).await;
    client.query("BEGIN; DECLARE c CURSOR FOR SELECT id FROM inbox").await;
    client.send(Messages::default().query("FETCH 1 FROM c")).await;
    assert_eq!(client.next().await.unwrap(), "T id:20");
    cancel(server.port, client.pid, client.secret).await;
    assert_eq!(client.until_ready().await, [CANCELED, "Z E"]);
    assert_eq!(client.query("ROLLBACK").await, ["C ROLLBACK", "Z I"]);
}

#[tokio::test]
async fn wrong_secret_cancels_nothing() {
    let server = Lookaside::start(CATALOG).await;
    let writer = server.connect().await;
    let mut client = RawClient::connect(server.port).await;
    client.send(Messages::default().query("SELECT id FROM inbox LIMIT 1")).await;
    client.next().await;
    cancel(server.port, client.pid, client.secret.wrapping_add(1)).await;
    cancel(server.port, client.pid.wrapping_add(1), client.secret).await;
    writer.execute("INSERT INTO inbox VALUES (1)", &[]).await.unwrap();
    assert_eq!(client.until_ready().await, ["D 1", "C SELECT 1", "Z I"]);
    // And one that comes when nothing runs stops nothing that comes later.
    cancel(server.port, client.pid, client.secret).await;
    assert_eq!(client.query("SELECT 1 AS a").await[1], "D 1");
}

#[tokio::test]
async fn closed_connection_is_noticed_on_an_idle_stream() {
    let server = Lookaside::start(CATALOG).await;
    for sql in [ENDLESS[0], ENDLESS[2]] {
        let mut client = RawClient::connect(server.port).await;
        client.send(Messages::default().query(sql)).await;
        client.next().await;
        // The client says that it goes; the server's own end is closed when it has let go of the statement.
        client.socket.shutdown().await.unwrap();
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test]
async fn writer_is_released_when_the_reader_it_waits_for_goes() {
    let server = Lookaside::start(CATALOG).await;
    let writer = server.connect().await;
    let mut reader = RawClient::connect(server.port).await;
    reader.query("BEGIN; DECLARE c CURSOR FOR SELECT id FROM gate").await;
    assert_eq!(writer.execute("INSERT INTO gate VALUES (1)", &[]).await.unwrap(), 1, "one row is retained");
    let second = writer.execute("INSERT INTO gate VALUES (2)", &[]);
    tokio::pin!(second);
    tokio::select! {
        biased;
        inserted = &mut second => panic!("it must wait for the reader: {inserted:?}"),
        // As many turns as a client needs that is not held up.
        () = round_trips(&server, 20) => {}
    }
    drop(reader);
    assert_eq!(second.await.unwrap(), 1);
}

async fn round_trips(server: &Lookaside, count: usize) {
    let client = server.connect().await;
    for _ in 0..count {
        client.query_one("SELECT 1", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn client_that_does_not_read_holds_up_its_own_query_only() {
    /// More than sockets buffer, less than a server that buffered everything would take.
    const MOST_ROWS: usize = 100;
    let server = Lookaside::start(CATALOG).await;
    let writer = server.connect().await;
    let mut reader = RawClient::connect(server.port).await;
    reader.send(Messages::default().query("SELECT note FROM gate")).await;
    reader.next().await;
    // Each row is a megabyte. The writer waits for the reader as soon as the buffers between them are full.
    let insert = "INSERT INTO gate VALUES (1, repeat('x', 1000000))";
    let mut rows = 0;
    loop {
        let inserted = writer.execute(insert, &[]);
        tokio::pin!(inserted);
        if tokio::time::timeout(Duration::from_secs(1), &mut inserted).await.is_ok() {
            rows += 1;
            assert!(rows < MOST_ROWS, "{rows} MB were taken for a client that reads nothing");
            continue;
        }
        // Others go on meanwhile.
        round_trips(&server, 20).await;
        // Two rows read make room for one more.
        while tokio::time::timeout(Duration::from_millis(1), &mut inserted).await.is_err() {
            assert!(reader.next().await.unwrap().starts_with("D xxx"));
        }
        break;
    }
    assert!(rows > 0);
}

#[tokio::test]
async fn nonsense_ends_its_own_connection_only() {
    let server = Lookaside::start(CATALOG).await;
    let mut witness = RawClient::connect(server.port).await;
    let long = vec![0xff_u8; 10_000];
    let startups: [&[u8]; 5] = [
        &long,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[0, 0, 0, 9, 0, 2, 0, 0, 0],
        &[0, 0, 0, 1, 0, 3, 0, 0],
        &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in startups {
        let mut client = RawClient::open(server.port).await;
        client.send(Messages::default().bytes(bytes)).await;
        let answers = client.until_ready().await;
        assert!(answers.iter().all(|answer| answer.starts_with("E FATAL ")), "{answers:?}");
        assert_eq!(client.next().await, None);
    }
    let messages: [&[u8]; 8] = [
        b"Q\x7f\xff\xff\xff",
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\0",
        b"Q\0\0\0\x03",
        b"?\0\0\0\x04",
        b"B\0\0\0\x07a\0b",
        b"P\0\0\0\x04",
        b"E\0\0\0\x05x",
    ];
    for bytes in messages {
        let mut client = RawClient::connect(server.port).await;
        client.send(Messages::default().bytes(bytes)).await;
        let answers = client.until_ready().await;
        let refused = |answer: &String| answer.starts_with("E FATAL 08P01 ");
        assert!(answers.len() == 1 && answers.iter().all(refused), "{bytes:?}: {answers:?}");
        assert_eq!(client.next().await, None);
    }
    assert_eq!(witness.query("SELECT 1 AS a").await[1], "D 1");
}

#[tokio::test]
async fn shutdown_ends_running_statements_and_the_server() {
    let server = Lookaside::start(CATALOG).await;
    let port = server.port;
    let mut clients = vec![];
    for sql in ENDLESS {
        let mut client = RawClient::connect(port).await;
        client.send(Messages::default().query(sql)).await;
        client.next().await;
        clients.push(client);
    }
    // One that idles, and one that never said a word.
    clients.push(RawClient::connect(port).await);
    let mut silent = RawClient::open(port).await;
    let asked = Instant::now();
    let read = async {
        for client in &mut clients {
            let answers = client.until_ready().await;
            let last = answers.last().map(String::as_str);
            assert_eq!(last, Some("E FATAL 57P01 terminating connection due to administrator command"));
        }
        assert_eq!(silent.next().await, None);
    };
    tokio::join!(server.stop(), read);
    assert!(asked.elapsed() < Duration::from_secs(5));
    let config = format!("host=127.0.0.1 port={port} user=tests");
    assert!(tokio_postgres::connect(&config, NoTls).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn sessions_are_cancelled_and_ended_by_functions() {
    let server = Lookaside::start(CATALOG).await;
    let mut client = RawClient::connect(server.port).await;
    let mut other = RawClient::connect(server.port).await;
    let said = |answer: &'static str| ["T said:16", answer, "C SELECT 1", "Z I"];

    client.send(Messages::default().query("SELECT id FROM inbox")).await;
    assert_eq!(client.next().await.unwrap(), "T id:20");
    let cancel = format!("SELECT pg_cancel_backend({}) AS said", client.pid);
    assert_eq!(other.query(&cancel).await, said("D t"));
    assert_eq!(client.until_ready().await, [CANCELED, "Z I"]);
    // One that rests has nothing to be cancelled.
    assert_eq!(other.query(&cancel).await, said("D t"));
    assert_eq!(client.query("SELECT 1 AS a").await[1], "D 1");

    let end = format!("SELECT pg_terminate_backend({}) AS said", client.pid);
    assert_eq!(other.query(&end).await, said("D t"));
    let ended = ["E FATAL 57P01 terminating connection due to administrator command"];
    assert_eq!(client.until_ready().await, ended);
    assert_eq!(other.query("SELECT pg_terminate_backend(1, 100) AS said").await, said("D f"));
}
