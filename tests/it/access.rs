//! Who is let in: passwords, TLS, and what becomes of those who do not get that far.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use lookaside::server::Server;
use postgres_protocol::message::frontend;
use postgres_protocol::password::scram_sha_256;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::TlsConnector;

use crate::support::certificate::Certificates;
use crate::support::lookaside::{Lookaside, engine, project};
use crate::support::process::{Finished, Process, catalog_file, lookaside, run};
use crate::support::raw::{DEADLINE, Messages, RawClient};

/// One user, ana, whose password is "sesame", and who may do everything.
pub fn ana(server_lines: &str) -> String {
    let verifier = scram_sha_256(b"sesame");
    format!(
        "[server]\n{server_lines}\n[user.ana]\npassword = \"{verifier}\"\nroles = [\"all\"]\n[role.all]\nadmin = true\n\
         [stream.clicks]\ntype = \"generator\"\nrows_per_second = 0\ncolumns = {{ id = \"n\" }}\n"
    )
}

/// What tokio-postgres gets without TLS: a client, or the SQLSTATE and message of the refusal.
pub async fn connect(port: u16, user: &str, password: &str) -> Result<Client, String> {
    let config = format!("host=127.0.0.1 port={port} user={user} password={password} dbname=x sslmode=disable");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.map_err(|error| {
        error.as_db_error().map_or(error.to_string(), |error| format!("{} {}", error.code().code(), error.message()))
    })?;
    std::mem::forget(SpawnedTask::spawn(async move {
        let _ = connection.await;
    }));
    Ok(client)
}

/// psql as ana, with this in its connection string.
async fn psql(port: u16, parameters: &str) -> Finished {
    let mut command = tokio::process::Command::new("psql");
    let target = format!("host=127.0.0.1 port={port} user=ana dbname=lookaside {parameters}");
    command.args(["-X", "-A", "-t", "-c", "SELECT count(*) FROM (SELECT * FROM clicks LIMIT 3) c", "-d", &target]);
    command.env("PGPASSWORD", "sesame").env("LC_ALL", "C.UTF-8");
    run(command).await
}

#[tokio::test]
async fn psql_logs_in_with_a_password_in_every_mode_of_tls() {
    let certificates = Certificates::make();
    let server = Lookaside::start(&ana(&certificates.server_lines())).await;
    let ca = certificates.path("ca.crt").display().to_string();
    for parameters in [
        "sslmode=disable".to_string(),
        "sslmode=prefer".to_string(),
        "sslmode=require".to_string(),
        // Only SCRAM-SHA-256-PLUS satisfies this.
        "sslmode=require channel_binding=require".to_string(),
        "sslmode=require channel_binding=disable".to_string(),
        format!("sslmode=verify-full sslrootcert={ca}"),
    ] {
        let shown = psql(server.port, &parameters).await;
        assert_eq!((shown.stdout.trim(), shown.stderr.as_str()), ("3", ""), "{parameters}");
    }
    for parameters in ["sslmode=disable password=wrong", "sslmode=require password=wrong"] {
        let shown = psql(server.port, parameters).await;
        assert!(shown.stderr.contains("password authentication failed for user \"ana\""), "{}", shown.stderr);
    }
    let shown = psql(server.port, "sslmode=disable channel_binding=require").await;
    assert_eq!(shown.stdout, "");
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_look_the_same() {
    let server = Lookaside::start(&ana("")).await;
    assert!(connect(server.port, "ana", "sesame").await.is_ok());
    let refusal = |user: &str| format!("28P01 password authentication failed for user \"{user}\"");
    assert_eq!(connect(server.port, "ana", "open").await.err(), Some(refusal("ana")));
    assert_eq!(connect(server.port, "eve", "open").await.err(), Some(refusal("eve")));
    // The same salt each time, and as long as that of a user.
    let mut seen = vec![];
    for user in ["ana", "ana", "eve", "eve"] {
        let mut client = RawClient::open(server.port).await;
        seen.push(challenge(&mut client, user).await);
    }
    assert_eq!((seen[0].0.as_str(), &seen[0].1), (seen[1].0.as_str(), &seen[1].1));
    assert_eq!((seen[2].0.as_str(), &seen[2].1), (seen[3].0.as_str(), &seen[3].1));
    assert_ne!(seen[0].0, seen[2].0);
    assert_eq!((seen[0].0.len(), &seen[0].1), (seen[2].0.len(), &seen[2].1));
}

/// The salt and the number of iterations that a user is shown.
async fn challenge(client: &mut RawClient, user: &str) -> (String, String) {
    start(client, user).await;
    assert_eq!(client.next_message().await.unwrap(), (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec()));
    client.send(first_message(b"n,,n=,r=abc")).await;
    let (letter, body) = client.next_message().await.unwrap();
    assert_eq!((letter, &body[..4]), (b'R', &b"\0\0\0\x0b"[..]));
    let text = String::from_utf8(body[4..].to_vec()).unwrap();
    let mut parts = text.split(',').skip(1);
    (parts.next().unwrap().to_string(), parts.next().unwrap().to_string())
}

async fn start(client: &mut RawClient, user: &str) {
    let mut startup = Messages::default();
    frontend::startup_message([("user", user)], &mut startup.0).unwrap();
    client.send(startup).await;
}

fn first_message(data: &[u8]) -> Messages {
    let mut message = Messages::default();
    frontend::sasl_initial_response("SCRAM-SHA-256", data, &mut message.0).unwrap();
    message
}

#[tokio::test]
async fn nothing_but_the_log_in_is_answered_before_its_end() {
    let server = Lookaside::start(&ana("")).await;
    let too_long = [&b"p"[..], &10_001_i32.to_be_bytes()].concat();
    for (what, expected) in [
        (Messages::default().query("SELECT 1"), "08P01 expected SASL response, got message type 81"),
        (Messages::default().sync(), "08P01 expected SASL response, got message type 83"),
        (Messages::default().bytes(b"p\0\0\0\x0bsesame\0"), "08P01 invalid SASL response"),
        (Messages::default().bytes(&too_long), "08P01 invalid message length"),
        (first_message(b"n,a=root,n=,r=abc"), "0A000 client uses authorization identity, but it is not supported"),
        (
            Messages::default().bytes(b"p\0\0\0\x18SCRAM-SHA-512\0\0\0\0\x02n,"),
            "08P01 client selected an invalid SASL authentication mechanism",
        ),
    ] {
        let mut client = RawClient::open(server.port).await;
        start(&mut client, "ana").await;
        assert!(client.next().await.unwrap().starts_with('R'));
        client.send(what).await;
        assert_eq!(client.next().await, Some(format!("E FATAL {expected}")));
        assert_eq!(client.next().await, None);
    }
    let mut client = RawClient::open(server.port).await;
    client.send(Messages::default().bytes(&10_001_i32.to_be_bytes())).await;
    assert_eq!(client.next().await.as_deref(), Some("E FATAL 08P01 invalid length of startup packet"));
}

#[tokio::test]
async fn clear_bytes_behind_a_request_for_tls_are_refused() {
    let certificates = Certificates::make();
    let server = Lookaside::start(&ana(&certificates.server_lines())).await;
    let mut socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let mut bytes = [8_i32.to_be_bytes(), 80_877_103_i32.to_be_bytes()].concat();
    bytes.extend_from_slice(b"\0\0\0\x0dinjected\0");
    socket.write_all(&bytes).await.unwrap();
    let mut answer = vec![];
    tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await.expect("an end in time").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("SE") && answer.contains("received unencrypted data after SSL request"), "{answer}");
}

#[tokio::test]
async fn required_tls_is_required_and_cancels_come_through_it() {
    let certificates = Certificates::make();
    let server = Lookaside::start(&ana(&format!("{}require_tls = true", certificates.server_lines()))).await;
    let refused = connect(server.port, "ana", "sesame").await.err();
    assert_eq!(refused.as_deref(), Some("28000 user \"ana\" may not connect from \"127.0.0.1\", no encryption"));
    let tls = MakeRustlsConnect::new(certificates.client(&[]));
    let config = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=ana password=sesame sslmode=require channel_binding=require",
        server.port
    );
    let (client, connection) = tokio_postgres::connect(&config, tls.clone()).await.unwrap();
    let _connection = SpawnedTask::spawn(async move {
        let _ = connection.await;
    });
    let endless = tokio::time::timeout(DEADLINE, client.batch_execute("SELECT * FROM clicks"));
    tokio::pin!(endless);
    let token = client.cancel_token();
    // Until one has hit the statement, which may not have begun.
    let ended = loop {
        tokio::select! {
            ended = &mut endless => break ended.expect("it ends in time"),
            sent = token.cancel_query(tls.clone()) => sent.unwrap(),
        }
    };
    assert_eq!(ended.unwrap_err().code().map(|code| code.code()), Some("57014"));
}

#[tokio::test]
async fn tls_from_the_first_byte_needs_the_protocols_name() {
    let certificates = Certificates::make();
    let server = Lookaside::start(&ana(&certificates.server_lines())).await;
    for (protocols, expected) in [
        (&["postgresql"][..], "R\0\0\0*\0\0\0\nSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
        (&[][..], "without ALPN protocol negotiation extension"),
    ] {
        let connector = TlsConnector::from(Arc::new(certificates.client(protocols)));
        let socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        let mut socket = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
        let mut startup = Messages::default();
        frontend::startup_message([("user", "ana")], &mut startup.0).unwrap();
        socket.write_all(&startup.0).await.unwrap();
        let mut answer = vec![0; 1024];
        let read = tokio::time::timeout(DEADLINE, socket.read(&mut answer)).await.expect("an answer in time").unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.contains(expected), "{answer:?}");
    }
    // Who only came to cancel is told that this is the end, and not left to take it for a cut line.
    let connector = TlsConnector::from(Arc::new(certificates.client(&["postgresql"])));
    let socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let mut socket = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
    let cancel = [16_i32, 80_877_102, 1, 2].map(i32::to_be_bytes).concat();
    socket.write_all(&cancel).await.unwrap();
    let mut rest = vec![];
    let end = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await.expect("an end in time");
    assert_eq!((end.unwrap(), rest), (0, vec![]));
}

#[tokio::test]
async fn an_authority_for_clients_lets_in_only_those_that_it_has_signed() {
    let certificates = Certificates::make();
    let lines =
        format!("{}tls_client_ca = \"{}\"\n", certificates.server_lines(), certificates.path("ca.crt").display());
    let server = Lookaside::start(&ana(&lines)).await;
    let own = format!(
        "sslmode=require sslcert={} sslkey={}",
        certificates.path("client.crt").display(),
        certificates.path("client.key").display()
    );
    let shown = psql(server.port, &own).await;
    assert_eq!((shown.stdout.trim(), shown.stderr.as_str()), ("3", ""));
    let shown = psql(server.port, "sslmode=require sslcert=/none").await;
    assert_eq!(shown.stdout, "", "{}", shown.stderr);
}

#[tokio::test]
async fn half_open_connections_keep_nobody_out_and_are_closed_in_time() {
    const HALF_OPEN: usize = 500;
    let server = Lookaside::start(&ana("login_timeout = \"3s\"")).await;
    let before = Instant::now();
    let mut sockets = vec![];
    for number in 0..HALF_OPEN {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        // Some say nothing, some begin and stop.
        if number % 2 == 0 {
            socket.write_all(b"\0\0\0").await.unwrap();
        }
        sockets.push(socket);
    }
    let begun = Instant::now();
    let client = connect(server.port, "ana", "sesame").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for socket in &mut sockets {
        let mut byte = [0];
        let read = tokio::time::timeout(DEADLINE, socket.read(&mut byte)).await.expect("an end in time");
        assert_eq!(read.unwrap_or(0), 0);
    }
    // Those that connected last had until then.
    assert!(before.elapsed() < begun.duration_since(before) + Duration::from_secs(10), "{:?}", before.elapsed());
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn clients_beyond_the_last_place_are_told() {
    let server = Lookaside::start(&ana("max_connections = 1")).await;
    let first = connect(server.port, "ana", "sesame").await.unwrap();
    let refused = connect(server.port, "ana", "sesame").await.err();
    assert_eq!(refused.as_deref(), Some("53300 sorry, too many clients already"));
    // Who does not know the password is not told how full it is.
    let refused = connect(server.port, "ana", "open").await.err();
    assert_eq!(refused.as_deref(), Some("28P01 password authentication failed for user \"ana\""));
    drop(first);
    let place = async { while connect(server.port, "ana", "sesame").await.is_err() {} };
    tokio::time::timeout(DEADLINE, place).await.expect("a place in time");
}

#[tokio::test]
async fn idle_clients_are_sent_away_but_not_out_of_a_transaction() {
    let server = Lookaside::start("[server]\nidle_timeout = \"1s\"").await;
    let mut busy = RawClient::connect(server.port).await;
    busy.query("BEGIN").await;
    let mut idle = RawClient::connect(server.port).await;
    let expected = "E FATAL 57P05 terminating connection due to idle-session timeout";
    assert_eq!(idle.next().await.as_deref(), Some(expected));
    assert_eq!(idle.next().await, None);
    assert_eq!(busy.query("COMMIT").await, ["C COMMIT", "Z I"]);
    assert_eq!(busy.next().await.as_deref(), Some(expected));
}

#[tokio::test]
async fn other_machines_are_served_with_users_and_tls_or_in_so_many_words() {
    let certificates = Certificates::make();
    let tls = certificates.server_lines();
    let plain_words = "let_other_machines_in_unprotected = true\n";
    for (catalog, missing) in [
        (ana(""), Some("The catalog has no certificate.")),
        (format!("[server]\n{tls}"), Some("The catalog has no users.")),
        (String::new(), Some("The catalog has no users and no certificate.")),
        (ana(&tls), None),
        (format!("[server]\n{plain_words}"), None),
    ] {
        let bound = Server::bind(engine(&catalog), "0.0.0.0:0").await;
        match missing {
            None => assert!(bound.is_ok(), "{catalog}"),
            Some(missing) => {
                let error = bound.map(|_| ()).unwrap_err();
                assert_eq!((error.sqlstate(), error.detail()), ("22023", Some(missing)), "{error}");
            }
        }
        assert!(Server::bind(engine(&catalog), "127.0.0.1:0").await.is_ok());
    }
}

#[tokio::test]
async fn a_verifier_made_by_passwd_lets_its_password_in() {
    let made = |password: &'static str| async move {
        let mut command = lookaside();
        command.arg("passwd");
        let mut process = Process::start(command);
        process.write(password).await;
        process.finish().await
    };
    let shown = made("open sesame\n").await;
    assert_eq!((shown.status.code(), shown.stderr.as_str()), (Some(0), ""));
    let verifier = shown.stdout.trim();
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
    let server = Lookaside::start(&format!("[user.ana]\npassword = \"{verifier}\"")).await;
    assert!(connect(server.port, "ana", "'open sesame'").await.is_ok());
    assert!(connect(server.port, "ana", "sesame").await.is_err());
    let shown = made("\n").await;
    assert_eq!((shown.status.code(), shown.stdout.as_str()), (Some(1), ""));
    assert!(shown.stderr.contains("an empty password would let everybody in"), "{}", shown.stderr);
}

#[tokio::test]
async fn the_secured_example_works_as_it_says() {
    let certificates = Certificates::make();
    let mut command = lookaside();
    command.arg("serve").arg(project().join("catalogs/secured.toml")).args(["--listen", "127.0.0.1:0"]);
    command.env("TLS_CERTIFICATE", certificates.path("server.crt"));
    command.env("TLS_KEY", certificates.path("server.key"));
    let mut server = Process::start(command);
    let line = server.line().await.unwrap_or_else(|| panic!("no line: {}", server.stderr()));
    let address: SocketAddr = line.strip_prefix("listening on ").unwrap().parse().unwrap();
    let psql = |user: &'static str, sql: &'static str| async move {
        let mut command = tokio::process::Command::new("psql");
        let target = format!("host=127.0.0.1 port={} user={user} dbname=x sslmode=require", address.port());
        command.args(["-X", "-A", "-t", "-d", &target, "-c", sql]).env("PGPASSWORD", format!("{user}-example"));
        run(command).await
    };
    let shown = psql("ana", "INSERT INTO orders VALUES (1, 2, 3.5)").await;
    assert_eq!(shown.stdout.trim(), "INSERT 0 1", "{}", shown.stderr);
    let shown = psql("ana", "SELECT * FROM orders WITH (start = 'earliest') LIMIT 1").await;
    assert_eq!(shown.stdout.trim(), "1|2|3.50", "{}", shown.stderr);
    let shown = psql("ana", "INSERT INTO salaries VALUES ('ana', 1)").await;
    assert!(shown.stderr.contains("relation \"salaries\" does not exist"), "{}", shown.stderr);
    let shown = psql("root", "INSERT INTO salaries VALUES ('ana', 1)").await;
    assert_eq!(shown.stdout.trim(), "INSERT 0 1", "{}", shown.stderr);
}

#[tokio::test]
async fn check_tells_who_may_do_what_and_what_is_wrong_with_tls() {
    let verifier = scram_sha_256(b"sesame");
    let catalog = format!(
        "[server]\ntls_certificate = \"gone.crt\"\ntls_key = \"gone.key\"\n[user.ana]\npassword = \"{verifier}\"\n\
         roles = [\"analyst\"]\n[user.root]\npassword = \"{verifier}\"\nroles = [\"boss\"]\n[role.boss]\nadmin = true\n\
         [role.analyst]\nread = [\"clicks\", \"clics\"]\n[stream.clicks]\ntype = \"push\"\ncolumns = {{ id = \"bigint\" }}\n"
    );
    let (_folder, path) = catalog_file(&catalog);
    let mut command = lookaside();
    command.arg("check").arg(&path);
    let shown = run(command).await;
    assert_eq!(shown.status.code(), Some(1));
    assert!(
        shown.stdout.contains("user ana: reads clicks, clics; writes nothing\nuser root: admin\n"),
        "{}",
        shown.stdout
    );
    assert!(shown.stderr.contains("\"clics\" in [role.analyst] is no stream"), "{}", shown.stderr);
    assert!(shown.stderr.contains("gone.crt\" cannot be used"), "{}", shown.stderr);
    assert!(!shown.stdout.contains("SCRAM") && !shown.stderr.contains("SCRAM"), "no verifier is shown");
}
