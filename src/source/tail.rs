//! One file that others append to: what has come since the last look.
//!
//! A look is a short piece of work off the async threads, and nothing happens between two of them. Whether a file was written
//! anew shows in its length, and, where it has grown beyond our position meanwhile, in the bytes before that.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::common::runtime::SpawnedTask;

/// How much is read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// How much of what was read is compared at each look.
const COMPARED_BYTES: usize = 1024;
/// Two changes within such a time may have the same time of change.
const CLOCK_TICK: Duration = Duration::from_secs(1);

/// A file and how far it has been read.
#[derive(Debug)]
pub(super) struct Tail {
    file: Arc<File>,
    identity: Identity,
    position: u64,
    /// The last bytes before `position`.
    before: Arc<Vec<u8>>,
    /// How the file was when nothing more had come.
    seen: Option<Stamp>,
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: SystemTime,
}

/// What a look has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Nothing,
    Bytes(Vec<u8>),
    /// It is not the file any more that was read: it is to be read from its beginning.
    Rewritten,
}

impl Stamp {
    /// Whether the next change will show.
    fn is_conclusive(&self) -> bool {
        SystemTime::now().duration_since(self.modified).is_ok_and(|age| age > CLOCK_TICK)
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Tail {
    /// Opens the file at `path`, to be read from its beginning; `None` where there is none, or none but `known`.
    ///
    /// # Errors
    /// What the system says; that it is no regular file.
    pub(super) async fn open(path: &Path, known: Option<Identity>) -> io::Result<Option<Tail>> {
        let path = path.to_path_buf();
        let opened = off_thread(move || {
            let metadata = std::fs::metadata(&path)?;
            if Some(Identity::of(&metadata)) == known {
                return Ok(None);
            }
            // Opening a pipe would wait for who writes to it.
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            let file = File::open(&path)?;
            // Another one may have come to its place meanwhile.
            let identity = Identity::of(&file.metadata()?);
            Ok((Some(identity) != known).then_some((file, identity)))
        });
        match opened.await {
            Ok(opened) => Ok(opened.map(|(file, identity)| Tail {
                file: Arc::new(file),
                identity,
                position: 0,
                before: Arc::default(),
                seen: None,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// The byte that is read next.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What has come since the last look, at most 64 KiB of it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn look(&mut self) -> io::Result<Look> {
        let (file, position, seen) = (Arc::clone(&self.file), self.position, self.seen);
        let before = Arc::clone(&self.before);
        let (look, stamp) = off_thread(move || look(&file, position, &before, seen)).await?;
        self.seen = stamp;
        if let Look::Bytes(bytes) = &look {
            self.position += bytes.len() as u64;
            let newest = &bytes[bytes.len().saturating_sub(COMPARED_BYTES)..];
            let kept = self.before.len().min(COMPARED_BYTES - newest.len());
            self.before = Arc::new([&self.before[self.before.len() - kept..], newest].concat());
        }
        Ok(look)
    }

    /// Goes to the beginning of the file.
    pub(super) fn rewind(&mut self) {
        (self.position, self.before, self.seen) = (0, Arc::default(), None);
    }

    /// Goes behind the last newline that is there, so that a line that is being written is read whole.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn go_to_last_line(&mut self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        let (position, before) = off_thread(move || {
            let position = last_line(&file)?;
            let length = position.min(COMPARED_BYTES as u64);
            Ok((position, read_at(&file, position - length, length as usize)?))
        })
        .await?;
        self.rewind();
        // Where it was cut short meanwhile, the next look says so.
        (self.position, self.before) = (position, Arc::new(before));
        Ok(())
    }

    /// What lies from `from` to the position, at most 64 KiB of it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn read_again(&self, from: u64) -> io::Result<Vec<u8>> {
        let length = self.position.saturating_sub(from).min(PIECE_BYTES as u64) as usize;
        let file = Arc::clone(&self.file);
        off_thread(move || read_at(&file, from, length)).await
    }
}

fn look(file: &File, position: u64, before: &[u8], seen: Option<Stamp>) -> io::Result<(Look, Option<Stamp>)> {
    let metadata = file.metadata()?;
    let stamp = Stamp { length: metadata.len(), modified: metadata.modified()? };
    if Some(stamp) == seen {
        return Ok((Look::Nothing, seen));
    }
    if stamp.length < position {
        return Ok((Look::Rewritten, None));
    }
    let mut bytes = read_at(file, position - before.len() as u64, before.len() + PIECE_BYTES)?;
    if !bytes.starts_with(before) {
        return Ok((Look::Rewritten, None));
    }
    bytes.drain(..before.len());
    match bytes.is_empty() {
        true => Ok((Look::Nothing, stamp.is_conclusive().then_some(stamp))),
        false => Ok((Look::Bytes(bytes), None)),
    }
}

/// As many bytes from `at` on as are there.
fn read_at(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Where the last line begins.
fn last_line(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let begin = end.saturating_sub(PIECE_BYTES as u64);
        let bytes = read_at(file, begin, (end - begin) as usize)?;
        if let Some(newline) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + newline as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    SpawnedTask::spawn_blocking(work).join().await.map_err(io::Error::other)?
}
