//! How a stream gets in to its brokers: passwords and tokens, TLS, and what it says when it does not get in.

use crate::source_kafka::{catalog_with, numbered, numbers};
use crate::support::certificate::Certificates;
use crate::support::kafka::KafkaBroker;
use crate::support::kafka_login::{Login, ScramHash, token_endpoint};
use crate::support::kafka_producer::{producer, send};
use crate::support::kafka_proxy::{Door, KafkaProxy};
use crate::support::lookaside::Lookaside;

/// A topic with the message 7 behind a door.
async fn behind(topic: &str, door: Door) -> KafkaProxy {
    let broker = KafkaBroker::shared();
    broker.create_topic(topic, 1);
    send(&producer(broker.client()), topic, &numbered(0, [7]));
    KafkaProxy::start_with(broker.port(), door).await
}

/// Reads the topic with these lines of the connection; otherwise the SQLSTATE and message of the refusal.
async fn tried(proxy: &KafkaProxy, topic: &str, lines: &str) -> Result<(), String> {
    let server = Lookaside::start(&catalog_with(&proxy.address(), lines, &numbers(topic))).await;
    let sql = format!("SELECT n FROM {topic} WITH (start = 'earliest', until = 'latest')");
    match server.connect().await.query(&sql, &[]).await {
        Ok(rows) => assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [7]),
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
            return Err(format!("{} {}", error.code().code(), error.message()));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_get_in_by_each_mechanism_and_wrong_ones_are_refused_at_once() {
    let scram = |hash| Login::Scram { hash, user: "ana", password: "sesame" };
    let logins = [Login::Plain { user: "ana", password: "sesame" }, scram(ScramHash::Sha256), scram(ScramHash::Sha512)];
    for login in logins {
        let mechanism = login.mechanism();
        let topic = format!("login_{}", mechanism.to_lowercase().replace('-', "_"));
        let proxy = behind(&topic, Door { login: Some(login), ..Door::default() }).await;
        let lines = |user: &str, password: &str| {
            format!("sasl_mechanism = \"{mechanism}\"\nuser = \"{user}\"\npassword = \"{password}\"\n")
        };
        assert_eq!(tried(&proxy, &topic, &lines("ana", "sesame")).await, Ok(()), "{mechanism}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "sesame\n").unwrap();
        let in_file =
            format!("sasl_mechanism = \"{mechanism}\"\nuser = \"ana\"\npassword_file = \"{}\"\n", file.display());
        assert_eq!(tried(&proxy, &topic, &in_file).await, Ok(()), "{mechanism}");
        for (user, password) in [("ana", "0pen"), ("eve", "sesame")] {
            let told = tried(&proxy, &topic, &lines(user, password)).await.unwrap_err();
            assert!(told.starts_with("HV00N ") && told.contains("\"kafka\""), "{mechanism}: {told}");
            assert!(told.contains("Authentication failed") && !told.contains(password), "{mechanism}: {told}");
        }
        let other = if mechanism == "PLAIN" { "SCRAM-SHA-256" } else { "PLAIN" };
        let told = tried(&proxy, &topic, &lines("ana", "sesame").replace(mechanism, other)).await.unwrap_err();
        assert!(told.starts_with("HV00N ") && told.contains(other), "{mechanism}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_endpoint_get_in() {
    let endpoint = token_endpoint("lookaside", "s3cret", "a.b.c", 60).await;
    let other_endpoint = token_endpoint("lookaside", "s3cret", "d.e.f", 60).await;
    let proxy = behind("tokens", Door { login: Some(Login::OAuthBearer { token: "a.b.c" }), ..Door::default() }).await;
    let lines = |port: u16, secret: &str| {
        format!(
            "sasl_mechanism = \"OAUTHBEARER\"\ntoken_url = \"http://127.0.0.1:{port}/token\"\nclient_id = \"lookaside\"\n\
             client_secret = \"{secret}\"\nscope = \"read all\"\n"
        )
    };
    assert_eq!(tried(&proxy, "tokens", &lines(endpoint.port, "s3cret")).await, Ok(()));
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 1, "one token serves all queries while it is young");
    assert!(
        asked[0].body.contains("grant_type=client_credentials") && asked[0].body.contains("scope=read"),
        "{asked:?}"
    );
    let told = tried(&proxy, "tokens", &lines(endpoint.port, "gue55")).await.unwrap_err();
    assert!(told.starts_with("HV00N ") && told.contains("401") && !told.contains("gue55"), "{told}");
    let told = tried(&proxy, "tokens", &lines(other_endpoint.port, "s3cret")).await.unwrap_err();
    assert!(told.starts_with("HV00N ") && told.contains("invalid_token") && !told.contains("d.e.f"), "{told}");
    let port = other_endpoint.port;
    drop(other_endpoint);
    let told = tried(&proxy, "tokens", &lines(port, "s3cret")).await.unwrap_err();
    assert!(told.starts_with("HV00N ") && told.contains("token"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_in_both_directions() {
    let (certificates, others) = (Certificates::make(), Certificates::make());
    let path = |name: &str| certificates.path(name).display().to_string();
    let full = format!("sslmode = \"verify-full\"\nsslrootcert = \"{}\"\n", path("ca.crt"));
    let own = format!("{full}sslcert = \"{}\"\nsslkey = \"{}\"\n", path("client.crt"), path("client.key"));
    let password = "sasl_mechanism = \"SCRAM-SHA-512\"\nuser = \"ana\"\npassword = \"sesame\"\n";

    let proxy = behind("tls", Door { tls: Some(certificates.acceptor()), login: None }).await;
    assert_eq!(tried(&proxy, "tls", &full).await, Ok(()));
    let untrusted = format!("sslmode = \"verify-full\"\nsslrootcert = \"{}\"\n", others.path("ca.crt").display());
    let told = tried(&proxy, "tls", &untrusted).await.unwrap_err();
    assert!(told.starts_with("HV00N ") && told.contains("certificate verify failed"), "{told}");
    let told = tried(&proxy, "tls", "").await.unwrap_err();
    assert!(told.starts_with("HV00N "), "{told}");

    let proxy = behind("tls_known", Door { tls: Some(certificates.acceptor_of_known_clients()), login: None }).await;
    assert_eq!(tried(&proxy, "tls_known", &own).await, Ok(()));
    let told = tried(&proxy, "tls_known", &full).await.unwrap_err();
    assert!(told.starts_with("HV00N "), "{told}");

    let login = Login::Scram { hash: ScramHash::Sha512, user: "ana", password: "sesame" };
    let proxy = behind("tls_login", Door { tls: Some(certificates.acceptor()), login: Some(login) }).await;
    assert_eq!(tried(&proxy, "tls_login", &format!("{full}{password}")).await, Ok(()));
}
