//! How many rows does a second of the server's processor time deliver to a client, beside a second of PostgreSQL's own?
//!
//! `cargo bench --bench delivery`; it starts a private PostgreSQL, whose programs must be installed, and the server.
//! `BENCH_ROWS` (1000000) is the number of rows of each run. Both have the same rows in memory: PostgreSQL in a table,
//! the server in a push stream. Each line is one number, a median: `name  value unit`.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::Stdio;

use bytes::{Buf, BufMut, BytesMut};
use lookaside::error::{Error, Result};
use postgres::PostgresServer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

#[path = "../tests/it/support/postgres.rs"]
#[expect(dead_code, clippy::unwrap_used, clippy::panic, reason = "the tests' own: they use all of it")]
mod postgres;

const REPEATS: usize = 5;
/// The kernel counts processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

const SETTINGS: &str = "shared_buffers = 1GB\njit = off\nautovacuum = off\nmax_parallel_workers_per_gather = 0\n";

const TABLE: &str = "
CREATE TABLE orders (order_id bigint, customer_id bigint, amount numeric(12,2), name text, placed_at timestamptz);
INSERT INTO orders
    SELECT 1000000 + n, n * 31 % 1000, (n * 7919 % 10000000) / 100.0, 'customer ' || lpad(n::text, 7, '0'),
        timestamptz '2024-02-29 12:34:56+00' + n * interval '1.234567 s'
    FROM generate_series(1::bigint, ROWS) AS n;";

const CATALOG: &str = r#"
[stream.orders]
type = "push"
retain_rows = ROWS
retain_bytes = "4096MiB"
[stream.orders.columns]
order_id    = "bigint"
customer_id = "bigint"
amount      = "numeric(12,2)"
name        = "text"
placed_at   = "timestamptz"
"#;

/// How a result is asked for.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Binary,
    Copy(&'static str),
}

const FORMS: [(&str, Form); 5] = [
    ("text", Form::Text),
    ("binary", Form::Binary),
    ("copy_text", Form::Copy("text")),
    ("copy_csv", Form::Copy("csv")),
    ("copy_binary", Form::Copy("binary")),
];

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
    runtime.block_on(measure_all())
}

async fn measure_all() -> Result<()> {
    let rows: u64 = match std::env::var("BENCH_ROWS") {
        Ok(text) => text.parse().map_err(|error| Error::internal(format!("BENCH_ROWS={text}: {error}")))?,
        Err(_) => 1_000_000,
    };
    let postgres = PostgresServer::start_with_settings(SETTINGS);
    postgres.execute(&TABLE.replace("ROWS", &rows.to_string())).await;
    postgres.execute("VACUUM ANALYZE orders").await;
    let (server, port, _folder) = start(rows).await?;
    fill(&postgres, port).await?;

    let mut theirs = Client::connect(postgres.port(), "postgres").await?;
    let backend = theirs.backend;
    let mut ours = Client::connect(port, "lookaside").await?;
    let process = server.id().ok_or_else(|| Error::internal("the server has gone"))?;
    for (name, form) in FORMS {
        let mut rates: [Vec<f64>; 2] = Default::default();
        // By turns, so that what else the machine does meets both; the first round warms up.
        for round in 0..=REPEATS {
            let of_theirs = theirs.measure("SELECT * FROM orders", form, backend, rows).await?;
            let query = format!("SELECT * FROM orders WITH (start = 'earliest') LIMIT {rows}");
            let of_ours = ours.measure(&query, form, process, rows).await?;
            if round > 0 {
                rates[0].push(of_theirs);
                rates[1].push(of_ours);
            }
        }
        let [theirs, ours] = rates.map(median);
        println!("postgres_{name}  {:.2} Mrows per CPU-second", theirs / 1e6);
        println!("delivered_{name}  {:.2} Mrows per CPU-second", ours / 1e6);
        println!("delivered_{name}_of_postgres  {:.2} times", ours / theirs);
    }
    Ok(())
}

async fn start(rows: u64) -> Result<(Child, u16, tempfile::TempDir)> {
    let folder = tempfile::tempdir().map_err(internal)?;
    let path: PathBuf = folder.path().join("catalog.toml");
    std::fs::write(&path, CATALOG.replace("ROWS", &rows.to_string())).map_err(internal)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookaside"));
    command.arg("serve").arg(&path).args(["--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(internal)?;
    let stdout = child.stdout.take().ok_or_else(|| Error::internal("the server has no stdout"))?;
    let line = BufReader::new(stdout).lines().next_line().await.map_err(internal)?.unwrap_or_default();
    let port = line.rsplit(':').next().and_then(|port| port.parse().ok());
    Ok((child, port.ok_or_else(|| Error::internal(format!("the server's first line is {line:?}")))?, folder))
}

/// The stream is given the table's rows.
async fn fill(postgres: &PostgresServer, port: u16) -> Result<()> {
    let (out, into) = (postgres.port().to_string(), port.to_string());
    let pipe = "psql -X -q -h 127.0.0.1 -p \"$1\" -U postgres -d postgres -c 'COPY orders TO STDOUT' \
        | psql -X -q -h 127.0.0.1 -p \"$2\" -U postgres -d postgres -c 'COPY orders FROM STDIN'";
    let status = Command::new("bash").args(["-c", pipe, "fill", &out, &into]).status().await.map_err(internal)?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::internal("the stream could not be filled")),
    }
}

/// A client that throws rows away.
struct Client {
    socket: TcpStream,
    input: BytesMut,
    backend: u32,
}

impl Client {
    async fn connect(port: u16, user: &str) -> Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(internal)?;
        let mut client = Client { socket, input: BytesMut::with_capacity(1 << 20), backend: 0 };
        let parameters = format!("user\0{user}\0database\0postgres\0TimeZone\0UTC\0\0");
        let mut message = BytesMut::new();
        message.put_u32(8 + parameters.len() as u32);
        message.put_u32(3 << 16);
        message.put_slice(parameters.as_bytes());
        client.socket.write_all(&message).await.map_err(internal)?;
        client.until_ready().await?;
        Ok(client)
    }

    /// Rows for each second of the process's time.
    async fn measure(&mut self, query: &str, form: Form, process: u32, rows: u64) -> Result<f64> {
        let mut messages = BytesMut::new();
        match form {
            Form::Text => put_message(&mut messages, b'Q', format!("{query}\0").as_bytes()),
            Form::Copy(format) => {
                let copy = format!("COPY ({query}) TO STDOUT (FORMAT {format})\0");
                put_message(&mut messages, b'Q', copy.as_bytes());
            }
            Form::Binary => {
                put_message(&mut messages, b'P', format!("\0{query}\0\0\0").as_bytes());
                put_message(&mut messages, b'B', b"\0\0\0\0\0\0\0\x01\0\x01");
                put_message(&mut messages, b'E', b"\0\0\0\0\0");
                put_message(&mut messages, b'S', b"");
            }
        }
        let before = processor_seconds(process)?;
        self.socket.write_all(&messages).await.map_err(internal)?;
        let received = self.until_ready().await?;
        let seconds = processor_seconds(process)? - before;
        match received.saturating_sub(rows) {
            // Beside the rows there is at most the end of binary data.
            0 | 1 if received >= rows => Ok(rows as f64 / seconds),
            _ => Err(Error::internal(format!("{received} rows instead of {rows}: {query}"))),
        }
    }

    /// Counts messages of data up to ReadyForQuery.
    async fn until_ready(&mut self) -> Result<u64> {
        let mut rows = 0;
        loop {
            while let Some(head) = self.input.get(..5) {
                let (kind, length) = (head[0], (&head[1..]).get_u32() as usize + 1);
                if self.input.len() < length {
                    break;
                }
                let message = self.input.split_to(length);
                match kind {
                    b'D' | b'd' => rows += 1,
                    b'K' => self.backend = (&message[5..]).get_u32(),
                    b'E' => return Err(Error::internal(String::from_utf8_lossy(&message[5..]).into_owned())),
                    b'Z' => return Ok(rows),
                    _ => {}
                }
            }
            self.input.reserve(1 << 20);
            if self.socket.read_buf(&mut self.input).await.map_err(internal)? == 0 {
                return Err(Error::internal("the server has closed the connection"));
            }
        }
    }
}

fn put_message(out: &mut BytesMut, kind: u8, body: &[u8]) {
    out.put_u8(kind);
    out.put_u32(4 + body.len() as u32);
    out.put_slice(body);
}

/// What a process has used of processors so far, in its own code and in the kernel.
fn processor_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).map_err(internal)?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(|| Error::internal("a process without a name"))?;
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn internal(error: impl Display) -> Error {
    Error::internal(error.to_string())
}
