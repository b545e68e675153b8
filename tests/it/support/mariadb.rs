//! A private MariaDB on a free port, in a directory of its own, which goes with the test process.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, Value};

use crate::support::certificate::Certificates;

/// A server that runs while this lives.
pub struct MariadbServer {
    directory: PathBuf,
    port: u16,
    settings: Vec<String>,
    process: Mutex<Option<Child>>,
    guard: Child,
    /// Its end of file tells the guard to clean up: also if the test process is killed.
    guard_input: Option<ChildStdin>,
}

/// Waits for the end of its input, then kills the server in `$1` and deletes it.
const GUARD: &str = r#"
read -r _
if [ -f "$1/pid" ]; then kill -KILL "$(cat "$1/pid")"; fi 2>/dev/null
rm -rf "$1"
"#;

pub const PASSWORD: &str = "not-a-secret";

impl MariadbServer {
    /// The server for all tests that leave it as it is. Tables are the tests' own: each names them after itself.
    pub fn shared() -> &'static MariadbServer {
        static SHARED: OnceLock<MariadbServer> = OnceLock::new();
        SHARED.get_or_init(MariadbServer::start)
    }

    /// Makes a server and starts it.
    pub fn start() -> MariadbServer {
        MariadbServer::start_with(&[])
    }

    /// As [`MariadbServer::start`], with TLS.
    pub fn start_with_tls(certificates: &Certificates) -> MariadbServer {
        let option = |name: &str, file: &str| format!("--ssl-{name}={}", certificates.path(file).display());
        // An address of this machine that the certificate does not name as well.
        let addresses = "--bind-address=127.0.0.1,127.0.0.2".to_string();
        MariadbServer::start_with(&[option("cert", "server.crt"), option("key", "server.key"), addresses])
    }

    /// As [`MariadbServer::start`], and writes every statement that it receives to [`MariadbServer::statements`].
    pub fn start_with_log() -> MariadbServer {
        MariadbServer::start_with(&["--general-log=ON".to_string(), "--general-log-file=statements".to_string()])
    }

    /// As [`MariadbServer::start`], with further options.
    pub fn start_with(settings: &[String]) -> MariadbServer {
        let directory = tempfile::Builder::new().prefix("lookaside-mariadb-").tempdir().unwrap().keep();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let guard_input = guard.stdin.take();
        let settings = settings.to_vec();
        let mut server = MariadbServer { directory, port: 0, settings, process: Mutex::default(), guard, guard_input };
        let installed = Command::new(find("mariadb-install-db"))
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .args(own_user())
            .arg(format!("--datadir={}", server.data().display()))
            // Two of these in one folder take each other's temporary tables away.
            .arg(format!("--tmpdir={}", server.directory.display()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let setup = server.directory.join("setup.sql");
        let user = format!(
            "CREATE USER tests@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO tests@'127.0.0.1' WITH GRANT OPTION;\n"
        );
        let database = "CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;\n";
        // A statement a line: what stands behind one is not run.
        fs::write(&setup, format!("{user}{database}")).unwrap();
        // Somebody else may take the port between the question and its use: ask again.
        let started = (0..5).any(|attempt| {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            server.try_start((attempt == 0).then_some(&setup))
        });
        assert!(started, "MariaDB does not start: {}", server.log());
        server
    }

    pub fn url(&self) -> String {
        format!("mysql://tests:{PASSWORD}@127.0.0.1:{}/shop", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the process at once, as a power cut would.
    pub fn stop(&self) {
        let mut process = self.process.lock().unwrap().take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts again what was stopped, on the same port.
    pub fn start_again(&self) {
        assert!(self.try_start(None), "MariaDB does not start again: {}", self.log());
    }

    /// Stops the process from running; connections stay open and unanswered.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets the frozen process run again.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// A connection of the tests' own.
    pub async fn connect(&self) -> Conn {
        let opts = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("tests"))
            .pass(Some(PASSWORD))
            .db_name(Some("shop"))
            .prefer_socket(Some(false))
            .setup(vec!["SET NAMES utf8mb4, time_zone = '+00:00'"]);
        Conn::new(opts).await.unwrap()
    }

    /// Runs statements, each of its own.
    pub async fn execute(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{error} in {statement}"));
        }
        conn.disconnect().await.unwrap();
    }

    /// Runs a statement and gives its rows as MariaDB writes them.
    pub async fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let mut conn = self.connect().await;
        let rows: Vec<Row> = conn.query(sql).await.unwrap_or_else(|error| panic!("{error} in {sql}"));
        conn.disconnect().await.unwrap();
        let text = |value: Value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8(bytes).unwrap()),
            other => Some(other.as_sql(true)),
        };
        rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
    }

    /// Asks until so many statements run whose text is like this.
    pub async fn until_running(&self, like: &str, count: usize) {
        let running = format!(
            "SELECT count(*) FROM information_schema.PROCESSLIST WHERE COMMAND IN ('Query', 'Execute') AND INFO LIKE '{like}' AND ID <> CONNECTION_ID()"
        );
        while self.query(&running).await[0][0] != Some(count.to_string()) {}
    }

    /// What the general log has, as bytes: keys may be in it.
    pub fn statements(&self) -> Vec<u8> {
        fs::read(self.data().join("statements")).unwrap()
    }

    /// Whether the server answers in time; its error log says why not.
    fn try_start(&self, setup: Option<&PathBuf>) -> bool {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        let socket = self.directory.join("socket");
        let _ = fs::remove_file(&socket);
        let mut command = Command::new(find("mariadbd"));
        command
            .arg("--no-defaults")
            .args(own_user())
            .arg(format!("--datadir={}", self.data().display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", self.directory.join("pid").display()))
            .arg(format!("--port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve=1"])
            .arg(format!("--tmpdir={}", self.directory.display()))
            // What was committed outlives the process, if not the machine.
            .arg("--innodb-flush-log-at-trx-commit=2")
            .args(["--innodb-buffer-pool-size=64M", "--max-connections=100"])
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if let Some(setup) = setup {
            command.arg(format!("--init-file={}", setup.display()));
        }
        let mut process = command.spawn().unwrap();
        // Its first byte on a connection is that of its greeting: then it is ready.
        let mut ready = false;
        while !ready && process.try_wait().unwrap().is_none() {
            ready = greets(self.port);
        }
        *self.process.lock().unwrap() = Some(process);
        ready
    }

    fn signal(&self, name: &str) {
        let process = self.process.lock().unwrap().as_ref().unwrap().id();
        let status = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for MariadbServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        drop(self.guard_input.take());
        let _ = self.guard.wait();
    }
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        std::thread::yield_now();
        return false;
    };
    matches!(std::io::Read::read(&mut stream, &mut [0]), Ok(1))
}

/// MariaDB runs as root only if it is told so.
fn own_user() -> Option<&'static str> {
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    is_root.then_some("--user=root")
}

/// A program of MariaDB: in the PATH, or where Debian has servers.
fn find(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name)).collect::<Vec<_>>();
    candidates.push(Path::new("/usr/sbin").join(name));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install MariaDB (mariadb-server)"))
}
