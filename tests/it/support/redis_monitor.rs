//! What a Redis is told, as it tells itself.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use super::redis::RedisServer;

/// What a server is told, by its own account, but for connections being opened.
pub struct Monitor<'a> {
    server: &'a RedisServer,
    lines: std::thread::JoinHandle<Vec<Vec<String>>>,
}

impl Monitor<'_> {
    const END: &'static str = "the test ends here";

    pub fn start(server: &RedisServer) -> Monitor<'_> {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        let lines = std::thread::spawn(move || {
            let lines = lines.map(|line| words(&line.unwrap()));
            lines.take_while(|words| words[1..] != [Monitor::END]).filter(|words| words[0] != "CLIENT").collect()
        });
        Monitor { server, lines }
    }

    /// The commands since the start, as words.
    pub async fn stop(self) -> Vec<Vec<String>> {
        self.server.run(&["ECHO", Monitor::END]).await;
        tokio::task::spawn_blocking(|| self.lines.join().unwrap()).await.unwrap()
    }
}

/// The quoted words of a line of MONITOR, without its quoting.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut bytes = line.bytes();
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut word = Vec::new();
        while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
            word.push(match (byte, byte == b'\\') {
                (byte, false) => byte,
                (_, true) => match bytes.next().unwrap() {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                    }
                    other => other,
                },
            });
        }
        words.push(String::from_utf8(word).unwrap());
    }
    words
}
