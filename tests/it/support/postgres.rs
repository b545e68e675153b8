//! A private PostgreSQL on a free port, in a directory of its own, which goes with the test process.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

/// A cluster that runs while this lives.
pub struct PostgresServer {
    directory: PathBuf,
    port: u16,
    guard: Child,
    /// Its end of file tells the guard to clean up: also if the test process is killed.
    guard_input: Option<ChildStdin>,
}

/// Waits for the end of its input, then stops the cluster in `$1` and deletes it.
const GUARD: &str = r#"
read -r _
if [ -f "$1/data/postmaster.pid" ]; then
    pid=$(head -n 1 "$1/data/postmaster.pid")
    kill -CONT "$pid"; kill -QUIT "$pid"
    tries=0
    while [ -e "/proc/$pid/exe" ] && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -KILL "$pid"
fi 2>/dev/null
rm -rf "$1"
"#;

impl PostgresServer {
    /// The server for all tests that leave it as it is. Tables are the tests' own: each names them after itself.
    pub fn shared() -> &'static PostgresServer {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(PostgresServer::start)
    }

    /// Makes a cluster and starts it.
    pub fn start() -> PostgresServer {
        PostgresServer::start_with_settings("")
    }

    /// As [`PostgresServer::start`], with further lines of `postgresql.conf`.
    pub fn start_with_settings(settings: &str) -> PostgresServer {
        PostgresServer::start_with(|_| settings.to_string())
    }

    /// As [`PostgresServer::start`], with TLS and a certificate for 127.0.0.1, but not for localhost.
    pub fn start_with_tls() -> PostgresServer {
        PostgresServer::start_with(|server| {
            let (key, certificate) = (server.data().join("server.key"), server.certificate());
            run(server
                .program("openssl")
                .args(["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"])
                .args([
                    "-subj",
                    "/CN=lookaside test",
                    "-addext",
                    "subjectAltName=IP:127.0.0.1",
                    "-addext",
                    "basicConstraints=critical,CA:FALSE",
                ])
                .arg("-keyout")
                .arg(key)
                .arg("-out")
                .arg(certificate));
            "ssl = on\n".to_string()
        })
    }

    /// The certificate of a server with TLS, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.data().join("server.crt")
    }

    /// `prepare` gives further settings.
    fn start_with(prepare: impl FnOnce(&PostgresServer) -> String) -> PostgresServer {
        let directory = tempfile::Builder::new().prefix("lookaside-postgres-").tempdir().unwrap().keep();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&directory));
        }
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let guard_input = guard.stdin.take();
        let mut server = PostgresServer { directory, port: 0, guard, guard_input };
        let data = server.data();
        run(server.program("initdb").arg("-D").arg(&data).args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]));
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 60\n{}",
            server.directory.display(),
            prepare(&server)
        );
        let mut file = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        file.write_all(settings.as_bytes()).unwrap();
        // Somebody else may take the port between the question and its use: ask again.
        let started = (0..5).any(|_| {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            server.try_start()
        });
        assert!(started, "PostgreSQL does not start: {}", fs::read_to_string(server.log()).unwrap_or_default());
        server
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres:not-a-secret@127.0.0.1:{}/postgres", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills every process at once, as a power cut would.
    pub fn stop(&self) {
        // The postmaster first, frozen, so that it starts no new children.
        let postmaster = self.postmaster();
        signal("-STOP", &[postmaster]);
        let mut all = children(postmaster);
        all.push(postmaster);
        signal("-KILL", &all);
        wait_for_exit(&all);
    }

    /// Starts again what was stopped, on the same port.
    pub fn start_again(&self) {
        // The killed server could not take its lock files with it, and may still be there as a zombie.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        let _ = fs::remove_file(self.directory.join(format!(".s.PGSQL.{}.lock", self.port)));
        assert!(self.try_start(), "PostgreSQL does not start again: {}", fs::read_to_string(self.log()).unwrap());
    }

    /// Stops every process from running; connections stay open and unanswered.
    pub fn freeze(&self) {
        let postmaster = self.postmaster();
        signal("-STOP", &[postmaster]);
        signal("-STOP", &children(postmaster));
    }

    /// Lets frozen processes run again.
    pub fn thaw(&self) {
        let postmaster = self.postmaster();
        signal("-CONT", &children(postmaster));
        signal("-CONT", &[postmaster]);
    }

    /// Runs statements over a connection of their own.
    pub async fn execute(&self, sql: &str) {
        self.query(sql).await;
    }

    /// Runs statements and gives the rows of all as PostgreSQL writes them.
    pub async fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.unwrap();
        let messages = tokio::select! {
            messages = client.simple_query(sql) => messages.unwrap_or_else(|error| panic!("{error:?} in {sql}")),
            end = connection => panic!("PostgreSQL hung up: {end:?}"),
        };
        let text =
            |row: &tokio_postgres::SimpleQueryRow| (0..row.len()).map(|i| row.get(i).map(String::from)).collect();
        let rows = messages.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(text(row)),
            _ => None,
        });
        rows.collect()
    }

    fn try_start(&self) -> bool {
        let mut command = self.program("pg_ctl");
        command.arg("start").arg("-w").arg("-s").arg("-D").arg(self.data()).arg("-l").arg(self.log());
        command.arg("-o").arg(format!("-p {}", self.port));
        // The server must not hold the pipes of whoever reads the tests' output.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// What it has written into its log.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap()).into_owned()
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn postmaster(&self) -> u32 {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().trim().parse().unwrap()
    }

    /// A program of PostgreSQL, run by somebody whom it accepts: never root.
    fn program(&self, name: &str) -> Command {
        let path = find(name);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(&self.directory);
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.guard_input.take());
        let _ = self.guard.wait();
    }
}

/// A program of PostgreSQL: in the PATH, or where Debian has the programs of each version: the newest.
pub fn find(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name)).collect::<Vec<_>>();
    let mut versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect::<Vec<_>>();
    versions.sort_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    candidates.extend(versions.iter().rev().map(|version| version.path().join("bin").join(name)));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install PostgreSQL"))
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn signal(signal: &str, processes: &[u32]) {
    // One that has gone meanwhile is as good as signalled.
    let _ = Command::new("kill").arg(signal).args(processes.iter().map(u32::to_string)).stderr(Stdio::null()).status();
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|&process| status(process).is_some_and(|(_, of)| of == parent)).collect()
}

/// Waits until none of them is left, but for zombies that nobody has collected.
fn wait_for_exit(processes: &[u32]) {
    while processes.iter().any(|&process| status(process).is_some_and(|(state, _)| state != 'Z')) {
        std::thread::yield_now();
    }
}

/// A process's state and parent.
fn status(process: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
