//! Private servers of Redis on free ports, each in a directory of its own, which go with the test process.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use redis::Value;

use super::certificate::Certificates;

/// A server that runs while this lives.
pub struct RedisServer {
    directory: PathBuf,
    port: u16,
    arguments: Vec<String>,
    server: Mutex<Child>,
    guard: Child,
    /// Its end of file tells the guard to clean up: also if the test process is killed.
    guard_input: Option<ChildStdin>,
}

/// Waits for the end of its input, then kills the server of `$1` and deletes it.
const GUARD: &str = r#"
read -r _
if [ -f "$1/pid" ]; then kill -KILL "$(cat "$1/pid")"; fi 2>/dev/null
rm -rf "$1"
"#;

impl RedisServer {
    /// The server for all tests that leave it as it is. Keys are the tests' own: each names them after itself.
    pub fn shared() -> &'static RedisServer {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(RedisServer::start)
    }

    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// As [`RedisServer::start`], with further arguments of the command line.
    pub fn start_with(arguments: &[&str]) -> RedisServer {
        let directory = tempfile::Builder::new().prefix("lookaside-redis-").tempdir().unwrap().keep();
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect::<Vec<_>>();
        // Somebody else may take the port between the question and its use: ask again.
        let started = (0..5).find_map(|_| {
            let port = free_port();
            let mut server = spawn(&directory, port, &arguments);
            is_up(&mut server, port).then_some((port, Mutex::new(server)))
        });
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        let (port, server) = started.unwrap_or_else(|| panic!("Redis does not start: {}", log()));
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let guard_input = guard.stdin.take();
        RedisServer { directory, port, arguments, server, guard, guard_input }
    }

    /// A server that speaks TLS as well, with these certificates; and the port of that.
    pub fn start_with_tls(certificates: &Certificates) -> (RedisServer, u16) {
        let path = |name: &str| certificates.path(name).display().to_string();
        let port = free_port();
        let (certificate, key, authority) = (path("server.crt"), path("server.key"), path("ca.crt"));
        let server = RedisServer::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authority,
            "--tls-auth-clients",
            "no",
        ]);
        (server, port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it, as a power cut would.
    pub fn stop(&self) {
        let mut server = self.server.lock().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Starts again what was stopped, on the same port.
    pub fn start_again(&self) {
        let mut server = self.server.lock().unwrap();
        *server = spawn(&self.directory, self.port, &self.arguments);
        assert!(is_up(&mut server, self.port), "Redis does not start again");
    }

    /// Stops it from running; connections stay open and unanswered.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen server run again.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.server.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// A connection of the tests' own.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// Runs a command.
    pub async fn run(&self, words: &[&str]) -> Value {
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut self.connect().await).await.unwrap_or_else(|error| panic!("{error} in {words:?}"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.guard_input.take());
        let _ = self.guard.wait();
        let _ = self.server.get_mut().map(Child::wait);
    }
}

/// A cluster of three masters.
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    pub fn start() -> RedisCluster {
        let start = |_| {
            let bus = free_port().to_string();
            let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "15000", "--cluster-port", &bus];
            RedisServer::start_with(&settings)
        };
        let servers = (0..3).map(start).collect::<Vec<_>>();
        let addresses = servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let mut create = Command::new(find("redis-cli"));
        create.args(["--cluster", "create"]).args(addresses).arg("--cluster-yes").stdin(Stdio::null());
        let output = create.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("All 16384 slots covered"), "{text}");
        // Each learns from the others that they agree.
        let is_ready = |server: &RedisServer| {
            let mut ask = Command::new(find("redis-cli"));
            ask.args(["-p", &server.port.to_string(), "CLUSTER", "INFO"]).stdin(Stdio::null());
            let output = ask.output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("cluster_state:ok")
        };
        while !servers.iter().all(is_ready) {}
        RedisCluster { servers }
    }

    /// `"127.0.0.1:1", "127.0.0.1:2"`, …
    pub fn seeds(&self) -> String {
        let seeds = self.servers.iter().map(|server| format!("\"127.0.0.1:{}\"", server.port));
        seeds.collect::<Vec<_>>().join(", ")
    }

    pub async fn connect(&self) -> redis::cluster_async::ClusterConnection {
        let urls = self.servers.iter().map(RedisServer::url).collect::<Vec<_>>();
        redis::cluster::ClusterClient::new(urls).unwrap().get_async_connection().await.unwrap()
    }

    /// The server that has the key's slot, by its number, and the slot.
    pub async fn owner_of(&self, key: &str) -> (usize, u16) {
        for (number, server) in self.servers.iter().enumerate() {
            let slot: u16 = redis::from_redis_value(server.run(&["CLUSTER", "KEYSLOT", key]).await).unwrap();
            let count: Result<Value, _> = redis::cmd("EXISTS").arg(key).query_async(&mut server.connect().await).await;
            if count.is_ok() {
                return (number, slot);
            }
        }
        panic!("nobody has the slot of {key}");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn find(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name));
    candidates
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: install redis-server"))
}

fn spawn(directory: &std::path::Path, port: u16, arguments: &[String]) -> Child {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut command = Command::new(find("redis-server"));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", &path("")]);
    command.args(["--logfile", &path("log"), "--enable-debug-command", "yes"]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // For the guard.
    let server = command.spawn().unwrap();
    fs::write(directory.join("pid"), server.id().to_string()).unwrap();
    server
}

/// Waits until it listens; false if it has ended instead.
fn is_up(server: &mut Child, port: u16) -> bool {
    loop {
        if server.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return true;
        }
        std::thread::yield_now();
    }
}
