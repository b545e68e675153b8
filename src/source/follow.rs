//! A file that is followed as it grows, as `tail -F` does it: what is appended comes, and then what comes in the file's place.
//!
//! Nothing runs between two calls of [`Follower::next`], so a reader that waits holds no thread, and one that is slow is read
//! for no further ahead than a batch.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use tokio::time::Instant;

use super::tail::{Look, Tail};
use crate::error::{Code, Error, Result};
use crate::format::lines::{LineDecoder, LineFormat, MalformedRow, Step};
use crate::format::{OnMalformed, malformed_row};

/// How often the end of a file is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How often it is asked what the path leads to. A file that stays there for less may be missed.
const PATH_PAUSE: Duration = Duration::from_millis(200);
/// As many skipped rows of a reading are logged as warnings.
const LOGGED_SKIPS: u64 = 10;

/// A file as it is declared.
#[derive(Debug)]
pub struct FollowedFile {
    /// Of the stream.
    pub name: String,
    pub path: PathBuf,
    pub format: LineFormat,
    pub schema: SchemaRef,
    pub on_malformed: OnMalformed,
}

/// One reading of a file that does not end.
pub struct Follower {
    followed: Arc<FollowedFile>,
    /// `None` as long as there is no file.
    current: Option<Reading>,
    successor: Option<Successor>,
    next_path_look: Instant,
    /// What ends the reading, once the rows before it have been given.
    failed: Option<Error>,
    skips: u64,
    is_denied: bool,
}

/// A file that is being read.
struct Reading {
    tail: Tail,
    decoder: LineDecoder,
    /// Where its first line begins.
    first_byte: u64,
    /// Nothing more is read of it.
    is_over: bool,
}

/// What has come in the file's place. It is held open so that it cannot be missed, and read once whoever still writes to the
/// old file has been quiet for a while.
struct Successor {
    reading: Reading,
    is_old_quiet: bool,
}

impl Follower {
    /// Reads all that is there, and then what comes. The file need not be there yet.
    ///
    /// # Errors
    /// 22000 with what the system says of the file.
    pub async fn from_beginning(followed: Arc<FollowedFile>) -> Result<Self> {
        let tail = Tail::open(&followed.path, None).await.map_err(|error| followed.unreadable(&error))?;
        let current = tail.map(|tail| Reading::try_new(&followed, tail)).transpose()?;
        Ok(Follower::new(followed, current))
    }

    /// Reads the lines that end from now on, of csv with the header that is there.
    ///
    /// # Errors
    /// As [`Follower::from_beginning`]; what is wrong with the header.
    pub async fn from_end(followed: Arc<FollowedFile>) -> Result<Self> {
        let unreadable = |error: io::Error| followed.unreadable(&error);
        let tail = Tail::open(&followed.path, None).await.map_err(unreadable)?;
        let mut current = tail.map(|tail| Reading::try_new(&followed, tail)).transpose()?;
        if let Some(reading) = &mut current {
            reading.tail.go_to_last_line().await.map_err(unreadable)?;
            reading.first_byte = reading.tail.position();
            if !reading.read_header(&followed).await? {
                reading.rewind(&followed)?;
            }
        }
        Ok(Follower::new(followed, current))
    }

    fn new(followed: Arc<FollowedFile>, current: Option<Reading>) -> Self {
        let next_path_look = Instant::now() + PATH_PAUSE;
        Follower { followed, current, successor: None, next_path_look, failed: None, skips: 0, is_denied: false }
    }

    /// The rows that are there, as soon as there is one, with all columns of the schema. Malformed rows that are left out are
    /// counted in `skipped`.
    ///
    /// # Errors
    /// 22P02 for a malformed row, with line and file, unless they are skipped; 42703 and 22P04 for a header that will not do;
    /// 54000 for a line of more than 64 MiB; 22000 for a file that cannot be read. The rows before it have been given.
    pub async fn next(&mut self, skipped: &AtomicU64) -> Result<RecordBatch> {
        loop {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            let read = self.read(skipped).await;
            let rows = self.current.as_mut().map(|reading| reading.decoder.take()).transpose()?;
            if let Some(batch) = rows.flatten() {
                self.failed = read.err();
                return Ok(batch);
            }
            read?;
            self.wait().await?;
        }
    }

    /// Reads until a batch is full or nothing more is there.
    async fn read(&mut self, skipped: &AtomicU64) -> Result<()> {
        while let Some(reading) = &mut self.current {
            if reading.decode(&self.followed, &mut self.skips, skipped)? || !self.look().await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether more has come.
    async fn look(&mut self) -> Result<bool> {
        let Some(reading) = self.current.as_mut().filter(|reading| !reading.is_over) else { return Ok(false) };
        match reading.tail.look().await.map_err(|error| self.followed.unreadable(&error))? {
            Look::Nothing => Ok(false),
            Look::Bytes(bytes) => {
                reading.decoder.push(&bytes);
                if let Some(successor) = &mut self.successor {
                    successor.is_old_quiet = false;
                }
                Ok(true)
            }
            // They are given first; the next look finds the same.
            Look::Rewritten if reading.decoder.has_rows() => Ok(false),
            Look::Rewritten => {
                let FollowedFile { name, path, .. } = self.followed.as_ref();
                tracing::warn!(name, file = %path.display(), "the file was truncated, and is read from its beginning again");
                reading.rewind(&self.followed)?;
                Ok(true)
            }
        }
    }

    /// Waits for something to look at.
    async fn wait(&mut self) -> Result<()> {
        if self.current.as_ref().is_some_and(|reading| reading.is_over) {
            self.current = self.successor.take().map(|successor| successor.reading);
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        let now = Instant::now();
        if now < self.next_path_look {
            return Ok(());
        }
        self.next_path_look = now + PATH_PAUSE;
        let Some(successor) = &mut self.successor else { return self.look_at_path().await };
        match std::mem::replace(&mut successor.is_old_quiet, true) {
            true => self.end_current().await,
            false => Ok(()),
        }
    }

    async fn look_at_path(&mut self) -> Result<()> {
        let known = self.current.as_ref().map(|reading| reading.tail.identity());
        let opened = match Tail::open(&self.followed.path, known).await {
            // Who rotates files may give a new one to its owner only after it is there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                if !std::mem::replace(&mut self.is_denied, true) {
                    tracing::warn!("{}; it is tried again", self.followed.unreadable(&error));
                }
                return Ok(());
            }
            opened => opened.map_err(|error| self.followed.unreadable(&error))?,
        };
        self.is_denied = false;
        let Some(tail) = opened else { return Ok(()) };
        let reading = Reading::try_new(&self.followed, tail)?;
        match self.current {
            None => self.current = Some(reading),
            Some(_) => self.successor = Some(Successor { reading, is_old_quiet: true }),
        }
        Ok(())
    }

    /// Ends the old file, unless something has come in the last moment. Its last line is a row even without a newline.
    async fn end_current(&mut self) -> Result<()> {
        if self.look().await? {
            return Ok(());
        }
        if let Some(reading) = &mut self.current {
            tracing::debug!(name = self.followed.name, "the file was replaced, and its successor is read");
            reading.decoder.finish();
            reading.is_over = true;
        }
        Ok(())
    }
}

impl FollowedFile {
    fn unreadable(&self, error: &io::Error) -> Error {
        Error::new(Code::DataException, format!("could not read file \"{}\": {error}", self.path.display()))
    }
}

impl Reading {
    fn try_new(followed: &FollowedFile, tail: Tail) -> Result<Self> {
        let decoder = LineDecoder::try_new(&followed.schema, &followed.format)?;
        Ok(Reading { tail, decoder, first_byte: 0, is_over: false })
    }

    fn rewind(&mut self, followed: &FollowedFile) -> Result<()> {
        self.tail.rewind();
        self.decoder = LineDecoder::try_new(&followed.schema, &followed.format)?;
        self.first_byte = 0;
        Ok(())
    }

    /// Reads the header of what lies before the position. False: it is not there whole.
    async fn read_header(&mut self, followed: &FollowedFile) -> Result<bool> {
        let mut from = 0;
        while !self.decoder.has_header() {
            let piece = self.tail.read_again(from).await.map_err(|error| followed.unreadable(&error))?;
            if piece.is_empty() {
                return Ok(false);
            }
            from += piece.len() as u64;
            self.decoder.read_header(&piece).map_err(|error| error.with_context(followed.path.display()))?;
        }
        Ok(true)
    }

    /// Whether a batch is full.
    fn decode(&mut self, followed: &FollowedFile, skips: &mut u64, skipped: &AtomicU64) -> Result<bool> {
        loop {
            match self.decoder.read().map_err(|error| error.with_context(followed.path.display()))? {
                Step::NeedsInput => return Ok(false),
                Step::Full => return Ok(true),
                Step::Malformed(row) => {
                    self.malformed(followed, row, skips)?;
                    skipped.fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn malformed(&self, followed: &FollowedFile, row: MalformedRow, skips: &mut u64) -> Result<()> {
        let MalformedRow { line, reason } = row;
        if reason.code == Code::Internal {
            return Err(reason.into());
        }
        let path = followed.path.display();
        let position = match self.first_byte {
            0 => format!("line {line} of {path}"),
            byte => format!("line {line} from byte {byte} of {path}"),
        };
        let message = malformed_row(&followed.name, position, &reason.message);
        if followed.on_malformed == OnMalformed::Fail {
            return Err(Error::new(Code::InvalidTextRepresentation, message));
        }
        *skips += 1;
        match *skips {
            ..=LOGGED_SKIPS => tracing::warn!("{message}; it is skipped"),
            _ => tracing::debug!("{message}; it is skipped"),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
