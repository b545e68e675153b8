//! No secret of any store is ever shown: a catalog full of them, against stores that answer, refuse and are gone; then
//! everything that the program has said to anybody is searched.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_postgres::SimpleQueryMessage;

use crate::support::http_service::{HttpService, Told};
use crate::support::lookaside::connect_to;
use crate::support::mariadb::MariadbServer;
use crate::support::postgres::PostgresServer;
use crate::support::process::{Process, catalog_file, lookaside, run};
use crate::support::redis::RedisServer;
use crate::support::s3::S3Server;

/// The secrets; nothing else looks like them.
const SECRETS: [&str; 10] = [
    "canary4postgres4password",
    "canary4mysql4password",
    "canary4redis4password",
    "canary4http4token",
    "canary4http4url4password",
    "canary4files4secret",
    "canary4files4session",
    "canary4environment",
    "canary4kafka4password",
    "canary4kafka4client4secret",
];

/// The stores, whose secrets those are.
struct Stores {
    postgres: &'static PostgresServer,
    mariadb: MariadbServer,
    redis: RedisServer,
    http: HttpService,
    s3: S3Server,
}

impl Stores {
    async fn start() -> Stores {
        let postgres = PostgresServer::shared();
        postgres
            .execute("CREATE TABLE canaries (id bigint PRIMARY KEY, name text); INSERT INTO canaries VALUES (1, 'Ann')")
            .await;
        let mariadb = MariadbServer::start();
        mariadb
            .execute(&[
                "CREATE TABLE shop.canaries (id bigint PRIMARY KEY, name text)",
                "INSERT INTO shop.canaries VALUES (1, 'Ann')",
                &format!("CREATE USER reader@'%' IDENTIFIED BY '{}'", SECRETS[1]),
                "GRANT SELECT ON shop.* TO reader@'%'",
            ])
            .await;
        let redis = RedisServer::start();
        redis.run(&["HSET", "canary:1", "name", "Ann"]).await;
        redis.run(&["ACL", "SETUSER", "reader", "on", &format!(">{}", SECRETS[2]), "~*", "+@all"]).await;
        // It is as indiscreet as a service can be: what it refuses, it repeats with all headers.
        let http = HttpService::start(|asked| match asked.target.as_str() {
            "/canaries/1" => Told::json("{\"name\": \"Ann\"}"),
            _ => Told::status(500).with_body(&format!("{asked:?}")),
        })
        .await;
        let s3 = S3Server::start().await;
        s3.put("canaries.csv", "id,name\n1,Ann\n").await;
        Stores { postgres, mariadb, redis, http, s3 }
    }

    /// Each store as it is to be used, with a wrong user, and at a port where nobody is.
    fn catalog(&self, gone: u16) -> String {
        let mut catalog = String::new();
        let mut table = |name: &str, connection: &str, lookup: &str| {
            let columns = "[lookup.{name}.columns]\nid = \"bigint\"\nname = \"text\"\n".replace("{name}", name);
            let columns = if lookup.contains("table = ") { "" } else { &columns };
            writeln!(catalog, "[connection.{name}]\n{connection}\n[lookup.{name}]\nconnection = \"{name}\"\n{lookup}\nretry = {{ max_attempts = 1 }}\n{columns}").unwrap();
        };
        let [postgres, mysql, redis, token, url_password, files, session, _, kafka, client] = SECRETS;
        let at = |scheme: &str, user: &str, password: &str, port: u16, path: &str| {
            format!(
                "type = \"{}\"\nurl = \"{scheme}://{user}:{password}@127.0.0.1:{port}/{path}\"",
                scheme.replace("mariadb", "mysql")
            )
        };
        for (suffix, user, pg, my, rd) in [
            ("", "reader", self.postgres.port(), self.mariadb.port(), self.redis.port()),
            ("_refused", "nobody", self.postgres.port(), self.mariadb.port(), self.redis.port()),
            ("_gone", "reader", gone, gone, gone),
        ] {
            let pg_user = if user == "reader" { "postgres" } else { user };
            let table_name = "table = \"canaries\"";
            table(&format!("pg{suffix}"), &at("postgres", pg_user, postgres, pg, "postgres"), table_name);
            table(&format!("my{suffix}"), &at("mysql", user, mysql, my, "shop"), table_name);
            let by_key = "key = \"canary:{id}\"\nvalue = \"hash\"";
            table(&format!("rd{suffix}"), &at("redis", user, redis, rd, "0"), by_key);
        }
        let headers = format!("headers = {{ authorization = \"Bearer {token}\", x-key = \"{url_password}\" }}");
        for (suffix, port, path) in
            [("", self.http.port, "canaries"), ("_refused", self.http.port, "refused"), ("_gone", gone, "canaries")]
        {
            let connection =
                format!("type = \"http\"\nurl = \"http://localhost:{port}\"\nallow_hosts = [\"localhost\"]\n{headers}");
            table(&format!("web{suffix}"), &connection, &format!("request = \"GET /{path}/{{id}}\""));
        }
        for (suffix, endpoint, path) in [
            ("", self.s3.endpoint(), "canaries.csv"),
            ("_refused", self.s3.endpoint(), "nothing.csv"),
            ("_gone", format!("http://127.0.0.1:{gone}"), "canaries.csv"),
        ] {
            let connection = format!(
                "type = \"files\"\nurl = \"s3://tests/top\"\nendpoint = \"{endpoint}\"\nallow_http = true\naccess_key_id = \"tests\"\n\
                 secret_access_key = \"{files}\"\nsession_token = \"{session}\"\nrequest_timeout = \"2s\""
            );
            table(&format!("lake{suffix}"), &connection, &format!("path = \"{path}\""));
        }
        // Of brokers that are not there: by a password, and by a token that nobody gives.
        let token_url = format!("http://127.0.0.1:{}/token", self.http.port);
        for (name, login) in [
            ("by_password", format!("sasl_mechanism = \"SCRAM-SHA-256\"\nuser = \"reader\"\npassword = \"{kafka}\"")),
            (
                "by_token",
                format!(
                    "sasl_mechanism = \"OAUTHBEARER\"\ntoken_url = \"{token_url}\"\nclient_id = \"reader\"\n\
                     client_secret = \"{client}\""
                ),
            ),
        ] {
            writeln!(
                catalog,
                "[connection.{name}]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:{gone}\"\n{login}\n[stream.{name}]\n\
                 connection = \"{name}\"\ntopic = \"canaries\"\nformat = \"json\"\ncolumns = {{ id = \"bigint\" }}"
            )
            .unwrap();
        }
        catalog
    }
}

/// Says what is found of a secret, as it is or as Basic authorization or the like would write it.
fn found(said: &str) -> Option<String> {
    SECRETS.iter().find_map(|secret| {
        // Base64 of anything that ends with it: by where its bytes fall.
        let encoded = (0..3).map(|skipped| {
            let text = STANDARD.encode(&secret.as_bytes()[skipped..]);
            text.trim_end_matches('=')[..text.trim_end_matches('=').len() - 2].to_string()
        });
        let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let shapes = encoded.chain([secret.to_string(), hex]);
        shapes.into_iter().find(|shape| said.contains(shape)).map(|shape| {
            let at = said.find(&shape).unwrap_or_default();
            let start = said[..at].char_indices().rev().nth(300).map_or(0, |(start, _)| start);
            format!("{secret}: …{}", &said[start..at + shape.len()])
        })
    })
}

/// Everything that a statement is answered with.
async fn answer(client: &tokio_postgres::Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(messages) => messages.iter().fold(String::new(), |mut said, message| {
            if let SimpleQueryMessage::Row(row) = message {
                let values = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL")).collect::<Vec<_>>();
                writeln!(said, "{}", values.join("|")).unwrap();
            }
            said
        }),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_any_store_is_shown_anywhere() {
    let stores = Stores::start().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let catalog = stores.catalog(gone);
    let (_folder, path) = catalog_file(&catalog);
    let mut said = vec![];

    // A mistake in each line, one after the other: none of the messages shows the line.
    let lines = catalog.lines().collect::<Vec<_>>();
    let secret_lines = (0..lines.len()).filter(|&line| SECRETS.iter().any(|secret| lines[line].contains(secret)));
    for line in secret_lines {
        for wrong in [
            lines[line].replacen(" = ", "x = ", 1),
            lines[line].replace('"', "'"),
            lines[line].trim_end_matches(['"', ' ', '}']).to_string(),
            lines[line].replacen("= \"", "= \"%zz", 1),
        ] {
            let mut lines = lines.clone();
            lines[line] = &wrong;
            let (_folder, path) = catalog_file(&lines.join("\n"));
            let mut check = lookaside();
            check.arg("check").arg(&path).env("LOOKASIDE_LOG", "off");
            // What is still right is asked: only reading is of interest here.
            if lookaside::catalog::file::read_files(std::slice::from_ref(&path)).is_ok() {
                continue;
            }
            let finished = run(check).await;
            said.push((format!("check of {}", wrong.split('=').next().unwrap()), finished.stdout + &finished.stderr));
        }
    }
    assert!(said.len() > 20, "{} mistakes", said.len());

    let mut check = lookaside();
    check.arg("check").arg(&path).env("LOOKASIDE_LOG", "trace");
    let finished = run(check).await;
    assert!(finished.stdout.contains("lookup pg:") && finished.stdout.contains("lookup lake:"), "{}", finished.stdout);
    said.push(("check".to_string(), finished.stdout + &finished.stderr));

    let mut command = lookaside();
    command.arg("serve").arg(&path).args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.env("LOOKASIDE_LOG", "trace").env("CANARY", SECRETS[7]);
    let mut process = Process::start(command);
    let port = process.line().await.unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let http_port = process.line().await.unwrap().rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let client = connect_to(port, "tests").await;
    let mut found_rows = 0;
    for name in ["pg", "my", "rd", "web", "lake"] {
        for suffix in ["", "_refused", "_gone"] {
            let join = format!(
                "SELECT c.name FROM (VALUES (1), (2)) AS k (id) LOOKUP JOIN {name}{suffix} AS c ON c.id = k.id"
            );
            for sql in [
                join.replace("(1), (2)", "(1)"),
                join.clone(),
                format!("EXPLAIN {join}"),
                format!("EXPLAIN ANALYZE {join}"),
                format!("SELECT * FROM {name}{suffix}"),
                format!("SELECT lookaside.invalidate('{name}{suffix}')"),
            ] {
                let answer = answer(&client, &sql).await;
                found_rows += usize::from(answer == "Ann\n");
                said.push((sql, answer));
            }
        }
    }
    assert!(found_rows >= 5, "each store answered: {said:#?}");
    for name in ["by_password", "by_token"] {
        for sql in [format!("EXPLAIN SELECT * FROM {name}"), format!("SELECT * FROM {name} LIMIT 1")] {
            let answer = answer(&client, &sql).await;
            assert!(sql.starts_with("EXPLAIN") || answer.contains("HV00N"), "{answer}");
            said.push((sql, answer));
        }
    }
    let relations = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE n.nspname IN ('pg_catalog', 'information_schema', 'lookaside')";
    let relations = answer(&client, relations).await;
    assert!(relations.lines().count() > 50 && relations.contains("lookaside.lookups"), "{relations}");
    for relation in relations.lines() {
        said.push((relation.to_string(), answer(&client, &format!("SELECT * FROM {relation}")).await));
    }
    for sql in ["SHOW ALL", "SHOW LOOKUPS", "SHOW STREAMS", "SHOW QUERIES"] {
        said.push((sql.to_string(), answer(&client, sql).await));
    }
    let lookups = &said.iter().find(|(what, _)| what == "lookaside.lookups").unwrap().1;
    assert!(lookups.contains("pg_gone") && lookups.contains("web_refused"), "{lookups}");

    for page in ["metrics", "health", "ready"] {
        let answer = reqwest::get(format!("http://127.0.0.1:{http_port}/{page}")).await.unwrap().text().await.unwrap();
        assert!(page != "metrics" || answer.contains("pg_gone"), "{answer}");
        said.push((page.to_string(), answer));
    }
    drop(client);
    process.signal("TERM");
    let finished = process.finish().await;
    assert!(finished.stderr.contains("TRACE"), "the log tells everything");
    said.push(("log".to_string(), finished.stdout + &finished.stderr));

    let shown = said.iter().filter_map(|(what, said)| found(said).map(|found| format!("{what}: {found}")));
    let shown = shown.collect::<Vec<_>>();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    for secret in SECRETS {
        for user in ["", "a", "ab", "abc"] {
            let basic = STANDARD.encode(format!("{user}:{secret}"));
            assert!(found(&format!("Basic {basic}")).is_some(), "{user}:{secret}");
        }
        assert!(found(&format!("x{secret}y")).is_some());
    }
    assert_eq!(found("canary"), None);
}
