//! A client that sends exactly the messages it is told to, and shows every message that comes back as a line of text:
//! the message's letter, then what it says.

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long any single answer may take before the test has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Messages on their way to the server.
#[derive(Default)]
pub struct Messages(pub BytesMut);

impl Messages {
    pub fn query(mut self, sql: &str) -> Self {
        frontend::query(sql, &mut self.0).unwrap();
        self
    }

    pub fn parse(mut self, name: &str, sql: &str) -> Self {
        frontend::parse(name, sql, [], &mut self.0).unwrap();
        self
    }

    /// Binds parameters in text; `formats` are those of the result.
    pub fn bind(mut self, portal: &str, statement: &str, parameters: &[&str], formats: &[i16]) -> Self {
        let text = |value: &&str, buffer: &mut BytesMut| {
            buffer.put_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        let bound = frontend::bind(portal, statement, [], parameters, text, formats.iter().copied(), &mut self.0);
        assert!(bound.is_ok());
        self
    }

    /// `kind` is `S` for a statement, `P` for a portal.
    pub fn describe(mut self, kind: char, name: &str) -> Self {
        frontend::describe(kind as u8, name, &mut self.0).unwrap();
        self
    }

    pub fn execute(mut self, portal: &str, max_rows: i32) -> Self {
        frontend::execute(portal, max_rows, &mut self.0).unwrap();
        self
    }

    pub fn close(mut self, kind: char, name: &str) -> Self {
        frontend::close(kind as u8, name, &mut self.0).unwrap();
        self
    }

    pub fn flush(mut self) -> Self {
        frontend::flush(&mut self.0);
        self
    }

    pub fn sync(mut self) -> Self {
        frontend::sync(&mut self.0);
        self
    }

    pub fn copy_data(mut self, data: &str) -> Self {
        frontend::CopyData::new(data.as_bytes()).unwrap().write(&mut self.0);
        self
    }

    pub fn copy_done(mut self) -> Self {
        frontend::copy_done(&mut self.0);
        self
    }

    pub fn copy_fail(mut self, reason: &str) -> Self {
        frontend::copy_fail(reason, &mut self.0).unwrap();
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.put_slice(bytes);
        self
    }
}

/// A connection of which the test sees every message.
pub struct RawClient {
    pub socket: TcpStream,
    input: BytesMut,
    /// From BackendKeyData.
    pub pid: i32,
    pub secret: i32,
}

impl RawClient {
    /// Connects and sends nothing.
    pub async fn open(port: u16) -> RawClient {
        Self::over(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    /// As [`RawClient::open`], over a socket that is connected.
    pub fn over(socket: TcpStream) -> RawClient {
        RawClient { socket, input: BytesMut::new(), pid: 0, secret: 0 }
    }

    /// Connects and logs in.
    pub async fn connect(port: u16) -> RawClient {
        let mut client = RawClient::open(port).await;
        let answers = client.log_in(&[("user", "tests")]).await;
        assert_eq!(answers.last().map(String::as_str), Some("Z I"), "{answers:?}");
        client
    }

    /// The answers to a startup message with these parameters.
    pub async fn log_in(&mut self, parameters: &[(&str, &str)]) -> Vec<String> {
        let mut message = BytesMut::new();
        frontend::startup_message(parameters.iter().copied(), &mut message).unwrap();
        self.send(Messages(message)).await;
        self.until_ready().await
    }

    pub async fn send(&mut self, messages: Messages) {
        self.socket.write_all(&messages.0).await.unwrap();
    }

    /// The answers to one Query message.
    pub async fn query(&mut self, sql: &str) -> Vec<String> {
        self.send(Messages::default().query(sql)).await;
        self.until_ready().await
    }

    /// The answers up to ReadyForQuery, or to the end of the connection.
    pub async fn until_ready(&mut self) -> Vec<String> {
        let mut answers = vec![];
        while let Some(answer) = self.next().await {
            let last = answer.starts_with('Z');
            answers.push(answer);
            if last {
                break;
            }
        }
        answers
    }

    /// So many of the next answers.
    pub async fn take(&mut self, count: usize) -> Vec<String> {
        let mut answers = vec![];
        for _ in 0..count {
            answers.push(self.next().await.expect("the connection has ended"));
        }
        answers
    }

    /// The next answer; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<String> {
        let (letter, body) = tokio::time::timeout(DEADLINE, self.next_message()).await.expect("an answer in time")?;
        if letter == b'K' {
            (self.pid, self.secret) = ((&body[..4]).get_i32(), (&body[4..]).get_i32());
            return Some("K".to_string());
        }
        Some(format!("{} {}", letter as char, show(letter, &body)).trim_end().to_string())
    }

    /// The next message as it came: letter and body.
    pub async fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if self.input.len() >= 5 {
                let length = (&self.input[1..5]).get_i32() as usize;
                if self.input.len() > length {
                    let message = self.input.split_to(length + 1);
                    return Some((message[0], message[5..].to_vec()));
                }
            }
            // A connection that is reset has ended as well.
            if self.socket.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// What the body of a message says.
fn show(letter: u8, body: &[u8]) -> String {
    match letter {
        b'T' => columns(body).join(","),
        b'D' => values(body).join("|"),
        b't' => body[2..].chunks(4).map(|mut oid| oid.get_i32().to_string()).collect::<Vec<_>>().join(","),
        b'E' | b'N' => failure(body),
        b'S' => strings(body).join("="),
        b'G' | b'H' => format!("{} {}", body[0], (&body[1..3]).get_i16()),
        b'd' => String::from_utf8_lossy(body).trim_end_matches('\n').to_string(),
        _ => strings(body).join(" "),
    }
}

fn strings(body: &[u8]) -> Vec<String> {
    let parts = body.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// `name:type` of each column, `name:type:binary` where it is.
fn columns(mut body: &[u8]) -> Vec<String> {
    let count = body.get_i16();
    let mut columns = vec![];
    for _ in 0..count {
        let end = body.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8_lossy(&body[..end]).into_owned();
        body.advance(end + 1 + 4 + 2);
        let oid = body.get_i32();
        body.advance(2 + 4);
        let binary = if body.get_i16() == 1 { ":binary" } else { "" };
        columns.push(format!("{name}:{oid}{binary}"));
    }
    columns
}

/// Values that are no text are shown in hexadecimal digits.
fn values(mut body: &[u8]) -> Vec<String> {
    let count = body.get_i16();
    let mut values = vec![];
    for _ in 0..count {
        let length = body.get_i32();
        if length < 0 {
            values.push("NULL".to_string());
            continue;
        }
        let value = &body[..length as usize];
        let is_text = value.iter().all(|byte| *byte >= b' ');
        values.push(match is_text {
            true => String::from_utf8_lossy(value).into_owned(),
            false => value.iter().map(|byte| format!("{byte:02x}")).collect(),
        });
        body.advance(length as usize);
    }
    values
}

/// `SEVERITY SQLSTATE message`, detail and hint in brackets.
fn failure(body: &[u8]) -> String {
    let fields = strings(body);
    let field = |letter: char| fields.iter().find_map(|field| field.strip_prefix(letter));
    let mut text = [field('S'), field('C'), field('M')].map(Option::unwrap_or_default).join(" ");
    for letter in ['D', 'H'] {
        text.extend(field(letter).map(|sentence| format!(" [{sentence}]")));
    }
    text
}
