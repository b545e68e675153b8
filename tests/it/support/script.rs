//! Wire scripts: messages sent, messages expected, as a person would write them down. `tests/wire/README.md` explains
//! the format.

use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use tokio::io::AsyncReadExt;

use crate::support::raw::{Messages, RawClient};

/// Which server a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Lookaside,
    Postgres,
}

/// One line that does something.
struct Line<'a> {
    number: usize,
    /// `None`: both servers.
    only: Option<Side>,
    client: usize,
    is_sent: bool,
    text: &'a str,
}

/// Plays a script against the server at `port`.
///
/// # Panics
/// With the number of the line that does not hold.
pub async fn play(name: &str, script: &str, side: Side, port: u16) {
    let mut player = Player { name, port, clients: vec![] };
    for (index, line) in script.lines().enumerate() {
        let Some(line) = read_line(name, index + 1, line) else { continue };
        if line.only.is_some_and(|only| only != side) {
            continue;
        }
        match line.is_sent {
            true => player.send(&line, side).await,
            false => player.expect(&line, side).await,
        }
    }
}

/// `None` for blank lines and comments.
fn read_line<'a>(name: &str, number: usize, line: &'a str) -> Option<Line<'a>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let at = line.find(['>', '<']).unwrap_or_else(|| panic!("{name}:{number}: neither > nor <"));
    let (mut only, mut client) = (None, 1);
    for mark in line[..at].chars() {
        match mark {
            'L' => only = Some(Side::Lookaside),
            'P' => only = Some(Side::Postgres),
            digit => client = digit.to_digit(10).unwrap_or_else(|| panic!("{name}:{number}: mark {digit}")) as usize,
        }
    }
    Some(Line { number, only, client, is_sent: line.as_bytes()[at] == b'>', text: line[at + 1..].trim() })
}

struct Player<'a> {
    name: &'a str,
    port: u16,
    clients: Vec<(usize, Speaker)>,
}

/// A client with what it has not sent yet.
struct Speaker {
    client: RawClient,
    unsent: Messages,
}

impl Player<'_> {
    /// The client of a line. One that says anything but its own startup has logged in before.
    async fn speaker(&mut self, number: usize, logs_in_itself: bool) -> &mut Speaker {
        if !self.clients.iter().any(|(known, _)| *known == number) {
            let client = match logs_in_itself {
                true => RawClient::open(self.port).await,
                false => {
                    let mut client = RawClient::open(self.port).await;
                    let answers = client.log_in(&[("user", "postgres"), ("database", "postgres")]).await;
                    assert_eq!(answers.last().map(String::as_str), Some("Z I"), "{answers:?}");
                    client
                }
            };
            self.clients.push((number, Speaker { client, unsent: Messages::default() }));
        }
        &mut self.clients.iter_mut().find(|(known, _)| *known == number).unwrap().1
    }

    async fn send(&mut self, line: &Line<'_>, side: Side) {
        let (word, rest) = line.text.split_once(' ').unwrap_or((line.text, ""));
        if word == "Connect" {
            self.clients.retain(|(known, _)| *known != line.client);
            return;
        }
        if word == "CancelRequest" {
            // For the first client, as its libpq would send it: over a connection of its own.
            let first = &self.speaker(1, false).await.client;
            let (pid, secret) = (first.pid, first.secret);
            let speaker = self.speaker(line.client, true).await;
            frontend::cancel_request(pid, secret, &mut speaker.unsent.0);
            return;
        }
        let logs_in_itself = matches!(word, "StartupMessage" | "SSLRequest" | "GSSENCRequest" | "RawBytes");
        let place = format!("{}:{} ({side:?})", self.name, line.number);
        let speaker = self.speaker(line.client, logs_in_itself).await;
        let unsent = std::mem::take(&mut speaker.unsent);
        speaker.unsent = append(unsent, word, rest.trim_start(), &place);
    }

    async fn expect(&mut self, line: &Line<'_>, side: Side) {
        let place = format!("{}:{} ({side:?})", self.name, line.number);
        let speaker = self.speaker(line.client, false).await;
        let unsent = std::mem::take(&mut speaker.unsent);
        if !unsent.0.is_empty() {
            speaker.client.send(unsent).await;
        }
        if let Some(expected) = line.text.strip_prefix("Byte ") {
            let mut byte = [0_u8];
            speaker.client.socket.read_exact(&mut byte).await.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(char::from(byte[0]).to_string(), expected.trim(), "{place}");
            return;
        }
        // `... X`: whatever comes, up to X.
        let (skips, wanted) = match line.text.strip_prefix("...") {
            Some(wanted) => (true, wanted.trim()),
            None => (false, line.text),
        };
        let mut seen = vec![];
        loop {
            let message = tokio::time::timeout(crate::support::raw::DEADLINE, speaker.client.next_message());
            let message = message.await.unwrap_or_else(|_| panic!("{place}: waited for {wanted}, saw {seen:?}"));
            let shown = match message {
                None => "Closed".to_string(),
                Some((letter, body)) => {
                    if letter == b'K' {
                        (speaker.client.pid, speaker.client.secret) = ((&body[..4]).get_i32(), (&body[4..]).get_i32());
                    }
                    show(letter, &body)
                }
            };
            if fits(wanted, &shown) {
                return;
            }
            assert!(skips && shown != "Closed", "{place}: expected {wanted}, got {shown} (skipped {seen:?})");
            seen.push(shown);
        }
    }
}

/// A star at the end stands for the rest.
fn fits(wanted: &str, shown: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => shown.starts_with(beginning.trim_end()),
        None => wanted == shown,
    }
}

/// `name=value …` before a colon, and what stands behind it.
struct Arguments<'a> {
    named: Vec<(&'a str, &'a str)>,
    text: &'a str,
}

impl<'a> Arguments<'a> {
    fn read(rest: &'a str) -> Self {
        let (named, text) = match rest.strip_prefix(':') {
            Some(text) => ("", text),
            None => rest.split_once(" :").or_else(|| rest.split_once(":")).unwrap_or((rest, "")),
        };
        let named = named.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        Arguments { named, text: text.strip_prefix(' ').unwrap_or(text) }
    }

    fn get(&self, name: &str) -> &'a str {
        self.named.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    fn numbers<T: std::str::FromStr>(&self, name: &str) -> Vec<T> {
        self.get(name).split(',').filter_map(|number| number.parse().ok()).collect()
    }
}

fn append(messages: Messages, word: &str, rest: &str, place: &str) -> Messages {
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    let unnamed = |name: &str| if name == "\"\"" { String::new() } else { name.to_string() };
    match word {
        "Query" => messages.query(rest),
        "Parse" => {
            let arguments = Arguments::read(rest);
            let mut messages = messages;
            let types: Vec<u32> = arguments.numbers("types");
            frontend::parse(arguments.get("name"), arguments.text, types, &mut messages.0).unwrap();
            messages
        }
        "Bind" => bind(messages, &Arguments::read(rest)),
        "Describe" | "Close" => {
            let kind = first.chars().next().unwrap_or_else(|| panic!("{place}: S or P"));
            let name = unnamed(second);
            if word == "Describe" { messages.describe(kind, &name) } else { messages.close(kind, &name) }
        }
        "Execute" => {
            let (name, rows) = rest.rsplit_once(' ').unwrap_or((rest, "0"));
            messages.execute(&unnamed(name.trim()), rows.trim().parse().unwrap_or(0))
        }
        "Flush" => messages.flush(),
        "Sync" => messages.sync(),
        "CopyData" => {
            let mut messages = messages;
            frontend::CopyData::new(unescape(rest).as_slice()).unwrap().write(&mut messages.0);
            messages
        }
        "CopyDone" => messages.copy_done(),
        "CopyFail" => messages.copy_fail(rest),
        "Terminate" => messages.bytes(b"X\0\0\0\x04"),
        // The number of a function that does not exist, no arguments.
        "FunctionCall" => messages.bytes(b"F\0\0\0\x0e\0\0\0\0\0\0\0\0\0\0"),
        "StartupMessage" => {
            let arguments = Arguments::read(rest);
            startup(messages, &arguments)
        }
        "SSLRequest" => messages.bytes(&[8_i32.to_be_bytes(), 80_877_103_i32.to_be_bytes()].concat()),
        "GSSENCRequest" => messages.bytes(&[8_i32.to_be_bytes(), 80_877_104_i32.to_be_bytes()].concat()),
        "Bytes" | "RawBytes" => {
            let bytes: Vec<u8> =
                rest.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap_or_default()).collect();
            messages.bytes(&bytes)
        }
        other => panic!("{place}: no message is called {other}"),
    }
}

fn startup(messages: Messages, arguments: &Arguments<'_>) -> Messages {
    let version = match arguments.get("version") {
        "" => "3.0",
        version => version,
    };
    let (major, minor) = version.split_once('.').unwrap();
    let mut body = BytesMut::new();
    body.put_u16(major.parse().unwrap());
    body.put_u16(minor.parse().unwrap());
    for (name, value) in arguments.named.iter().filter(|(name, _)| *name != "version") {
        body.put_slice(name.as_bytes());
        body.put_u8(0);
        body.put_slice(value.as_bytes());
        body.put_u8(0);
    }
    body.put_u8(0);
    let mut messages = messages;
    messages.0.put_i32(body.len() as i32 + 4);
    messages.0.put_slice(&body);
    messages
}

/// Values are separated by bars; `NULL` is none, and `\x…` stands for bytes.
fn bind(mut messages: Messages, arguments: &Arguments<'_>) -> Messages {
    let formats: Vec<i16> = arguments.numbers("formats");
    let results: Vec<i16> = arguments.numbers("results");
    let values: Vec<&str> = if arguments.text.is_empty() { vec![] } else { arguments.text.split('|').collect() };
    let write = |value: &str, buffer: &mut BytesMut| {
        if value == "NULL" {
            return Ok(IsNull::Yes);
        }
        buffer.put_slice(&unescape(value));
        Ok(IsNull::No)
    };
    let bound = frontend::bind(
        arguments.get("portal"),
        arguments.get("statement"),
        formats,
        values,
        write,
        results,
        &mut messages.0,
    );
    assert!(bound.is_ok());
    messages
}

/// `\n`, `\t`, `\\`, and `\x` before hexadecimal digits up to the end.
fn unescape(text: &str) -> Vec<u8> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        return digits.chunks(2).map(byte).collect();
    }
    let mut bytes = vec![];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let plain = match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            (character, false) => character,
        };
        bytes.extend_from_slice(plain.to_string().as_bytes());
    }
    bytes
}

/// A message of a server as scripts write it.
fn show(letter: u8, body: &[u8]) -> String {
    let text = |name: &str, rest: String| format!("{name} {rest}").trim_end().to_string();
    match letter {
        b'1' => "ParseComplete".to_string(),
        b'2' => "BindComplete".to_string(),
        b'3' => "CloseComplete".to_string(),
        b'n' => "NoData".to_string(),
        b's' => "PortalSuspended".to_string(),
        b'I' => "EmptyQueryResponse".to_string(),
        b'c' => "CopyDone".to_string(),
        b'K' => "BackendKeyData".to_string(),
        b'R' => text("Authentication", (&body[..4]).get_i32().to_string()),
        b'Z' => text("ReadyForQuery", String::from_utf8_lossy(body).into_owned()),
        b'C' => text("CommandComplete", strings(body).concat()),
        b'S' => text("ParameterStatus", strings(body).join("=")),
        b'T' => text("RowDescription", columns(body)),
        b't' => {
            let oids: Vec<String> = body[2..].chunks(4).map(|mut oid| oid.get_u32().to_string()).collect();
            text("ParameterDescription", oids.join(","))
        }
        b'D' => text("DataRow", values(body)),
        b'd' => text("CopyData", bytes(body)),
        b'G' | b'H' => {
            let name = if letter == b'G' { "CopyInResponse" } else { "CopyOutResponse" };
            let format = if body[0] == 0 { "text" } else { "binary" };
            format!("{name} {format} {}", (&body[1..3]).get_i16())
        }
        b'v' => {
            let version = (&body[..4]).get_u32();
            let options = strings(&body[8..]).join(" ");
            text("NegotiateProtocolVersion", format!("{}.{} {options}", version >> 16, version & 0xffff))
        }
        b'E' => text("ErrorResponse", failure(body)),
        b'N' => text("NoticeResponse", failure(body)),
        other => format!("Message {}", char::from(other)),
    }
}

fn strings(body: &[u8]) -> Vec<String> {
    let parts = body.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// `SEVERITY SQLSTATE message`.
fn failure(body: &[u8]) -> String {
    let fields = strings(body);
    let field = |letter: char| fields.iter().find_map(|field| field.strip_prefix(letter)).unwrap_or_default();
    format!("{} {} {}", field('S'), field('C'), field('M'))
}

/// `name:type`, `name:type:binary`.
fn columns(mut body: &[u8]) -> String {
    let count = body.get_i16();
    let mut columns = vec![];
    for _ in 0..count {
        let end = body.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8_lossy(&body[..end]).into_owned();
        body.advance(end + 1 + 4 + 2);
        let oid = body.get_u32();
        body.advance(2 + 4);
        let binary = if body.get_i16() == 1 { ":binary" } else { "" };
        columns.push(format!("{name}:{oid}{binary}"));
    }
    columns.join(" ")
}

fn values(mut body: &[u8]) -> String {
    let count = body.get_i16();
    let mut values = vec![];
    for _ in 0..count {
        let length = body.get_i32();
        if length < 0 {
            values.push("NULL".to_string());
            continue;
        }
        values.push(bytes(&body[..length as usize]));
        body.advance(length as usize);
    }
    values.join("|")
}

/// Text with its line ends and tabs escaped, or `\x` and hexadecimal digits.
fn bytes(value: &[u8]) -> String {
    let is_text = |byte: &u8| *byte >= b' ' || matches!(*byte, b'\n' | b'\t');
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(is_text) => text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t"),
        _ => format!("\\x{}", value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}
