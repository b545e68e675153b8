//! Programs as processes: the binary under test, psql, Python.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use datafusion::common::runtime::SpawnedTask;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::raw::DEADLINE;

/// The binary under test; `LOOKASIDE_PROGRAM` names another build of it.
pub fn lookaside() -> Command {
    let program = std::env::var("LOOKASIDE_PROGRAM");
    Command::new(program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_lookaside").to_string()))
}

/// psql without its start-up file, connected to this port.
pub fn psql(port: u16, arguments: &[&str]) -> Command {
    // stdbuf: psql writes into a pipe when its buffer is full, on a terminal line by line.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "psql", "-X", "-h", "127.0.0.1", "-U", "tests", "-d", "lookaside", "-p", &port.to_string()]);
    command.env_remove("PGAPPNAME").env("PGCONNECT_TIMEOUT", "10").env("LC_ALL", "C.UTF-8").args(arguments);
    command
}

/// A process that runs while this lives.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    errors: Arc<Mutex<String>>,
    reading: SpawnedTask<()>,
}

/// How a process has ended.
pub struct Finished {
    pub status: ExitStatus,
    /// What it wrote to stdout after the lines that were read before.
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    pub fn start(mut command: Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let mut stderr = child.stderr.take().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&errors);
        let reading = SpawnedTask::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        let stdin = child.stdin.take();
        Process { child, stdin, stdout, errors, reading }
    }

    /// `lookaside serve` with this catalog on a free port; ready when this returns.
    pub async fn serve(catalog: &Path, arguments: &[&str]) -> (Process, u16) {
        let mut command = lookaside();
        command.arg("serve").arg(catalog).args(["--listen", "127.0.0.1:0"]).args(arguments);
        if std::env::var_os("LOOKASIDE_LOG").is_none() {
            command.env("LOOKASIDE_LOG", "debug");
        }
        let mut process = Process::start(command);
        let line = process.line().await.unwrap_or_else(|| panic!("no line: {}", process.stderr()));
        let address = line.strip_prefix("listening on 127.0.0.1:").unwrap_or_else(|| panic!("{line}"));
        let port = address.parse().unwrap();
        (process, port)
    }

    /// The next line on stdout; `None` at its end.
    pub async fn line(&mut self) -> Option<String> {
        let stdout = self.stdout.as_mut().expect("stdout is open");
        let line = tokio::time::timeout(DEADLINE, stdout.next_line()).await;
        line.unwrap_or_else(|_| panic!("no line in time; stderr: {}", self.stderr())).unwrap()
    }

    /// Closes the end at which stdout is read.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub async fn write(&mut self, text: &str) {
        self.stdin.as_mut().expect("stdin is open").write_all(text.as_bytes()).await.unwrap();
    }

    /// What there is on stderr so far.
    pub fn stderr(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Its resident memory.
    pub fn resident_kib(&self) -> u64 {
        self.status("VmRSS:").trim_end_matches(" kB").parse().unwrap()
    }

    /// Its threads.
    pub fn threads(&self) -> u64 {
        self.status("Threads:").parse().unwrap()
    }

    /// What the kernel says of it under this name.
    fn status(&self, name: &str) -> String {
        let process = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it").trim().to_string()
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> u64 {
        let process = self.child.id().expect("it runs");
        std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64
    }

    /// Sends a signal by its name, as in `INT`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let status = std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Closes its stdin, reads what it still writes, and waits for its end.
    pub async fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        let mut rest = String::new();
        while self.stdout.is_some()
            && let Some(line) = self.line().await
        {
            rest.push_str(&line);
            rest.push('\n');
        }
        let status = tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it ends in time").unwrap();
        let _ = self.reading.join().await;
        let stderr = self.errors.lock().unwrap().clone();
        Finished { status, stdout: rest, stderr }
    }
}

/// Runs a command to its end.
pub async fn run(command: Command) -> Finished {
    Process::start(command).finish().await
}

/// A catalog file that lives as long as the folder.
pub fn catalog_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}
