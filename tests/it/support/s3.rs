//! An S3 server (moto, which tests/run installs) on a free port, and files in it.

use std::process::Stdio;

use datafusion::common::runtime::SpawnedTask;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStoreExt, PutPayload};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::clients::installed;
use crate::support::raw::DEADLINE;

pub const BUCKET: &str = "lake";
pub const SECRET: &str = "s3cret-of-tests";

/// A server that runs while this lives; what it holds is gone with it.
pub struct S3Server {
    child: Child,
    pub port: u16,
    _reading: SpawnedTask<()>,
}

impl S3Server {
    pub async fn start() -> S3Server {
        Self::start_at(0).await
    }

    /// With an empty bucket.
    pub async fn start_at(port: u16) -> S3Server {
        let mut command = Command::new(installed("LOOKASIDE_TEST_PYTHON"));
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = tokio::time::timeout(DEADLINE, async {
            let mut seen = String::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, port)) = line.split_once("Running on http://127.0.0.1:") {
                    return port.trim().parse().unwrap();
                }
                seen.push_str(&line);
            }
            panic!("moto did not start (tests/run installs it): {seen}");
        });
        let port = port.await.expect("moto starts in time");
        // It writes a line for each request.
        let reading = SpawnedTask::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let server = S3Server { child, port, _reading: reading };
        let bucket = format!("{}/{BUCKET}", server.endpoint());
        let made = reqwest::Client::new().put(bucket).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The lines of a connection to the bucket.
    pub fn connection_lines(&self) -> String {
        format!(
            "type = \"files\"\nurl = \"s3://{BUCKET}/top\"\nendpoint = \"{}\"\nallow_http = true\n\
             access_key_id = \"tests\"\nsecret_access_key = \"{SECRET}\"\n",
            self.endpoint()
        )
    }

    fn client(&self) -> AmazonS3 {
        let builder = AmazonS3Builder::new().with_bucket_name(BUCKET).with_endpoint(self.endpoint());
        let builder = builder.with_access_key_id("tests").with_secret_access_key(SECRET).with_allow_http(true);
        builder.build().unwrap()
    }

    /// Below the `top` of the bucket.
    pub async fn put(&self, path: &str, contents: impl Into<PutPayload>) {
        let path = object_store::path::Path::parse(format!("top/{path}")).unwrap();
        self.client().put(&path, contents.into()).await.unwrap();
    }

    pub async fn delete(&self, path: &str) {
        self.client().delete(&object_store::path::Path::parse(format!("top/{path}")).unwrap()).await.unwrap();
    }

    /// Sends a signal by its name, as in `STOP`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Ends it at once.
    pub async fn kill(mut self) -> u16 {
        self.child.kill().await.unwrap();
        self.port
    }
}
