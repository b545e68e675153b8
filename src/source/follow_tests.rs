use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Int64Type, Schema};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::pg_type::PgType;

/// With the clock paused: as long as a follower may look for what does not come.
const IN_VAIN: Duration = Duration::from_secs(3);

/// A file in a folder of its own, and who follows it.
struct Scene {
    _folder: TempDir,
    followed: Arc<FollowedFile>,
    skipped: AtomicU64,
}

impl Scene {
    fn new(is_csv: bool, on_malformed: OnMalformed) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let schema = Arc::new(Schema::new(vec![PgType::Int8.field("id", false), PgType::Text.field("note", true)]));
        let format = if is_csv { LineFormat::Csv } else { LineFormat::json(&schema) };
        let followed = Arc::new(FollowedFile { name: "orders".into(), path, format, schema, on_malformed });
        Scene { _folder: folder, followed, skipped: AtomicU64::new(0) }
    }

    fn json() -> Scene {
        Scene::new(false, OnMalformed::Fail)
    }

    fn csv() -> Scene {
        Scene::new(true, OnMalformed::Fail)
    }

    fn path(&self) -> &Path {
        &self.followed.path
    }

    fn append(&self, bytes: impl AsRef<[u8]>) {
        append(self.path(), bytes);
    }

    async fn read_from_beginning(&self) -> Follower {
        Follower::from_beginning(Arc::clone(&self.followed)).await.unwrap()
    }

    async fn read_from_end(&self) -> Follower {
        Follower::from_end(Arc::clone(&self.followed)).await.unwrap()
    }

    /// The next rows, `id note` each.
    async fn next(&self, follower: &mut Follower) -> Result<Vec<String>> {
        let batch = follower.next(&self.skipped).await?;
        let (ids, notes) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string_view());
        let note = |row: usize| if notes.is_null(row) { "NULL" } else { notes.value(row) };
        Ok((0..batch.num_rows()).map(|row| format!("{} {}", ids.value(row), note(row))).collect())
    }

    async fn rows(&self, follower: &mut Follower) -> Vec<String> {
        timeout(IN_VAIN, self.next(follower)).await.expect("rows in time").unwrap()
    }

    async fn assert_nothing(&self, follower: &mut Follower) {
        let came = timeout(IN_VAIN, self.next(follower)).await;
        assert!(came.is_err(), "{came:?}");
    }
}

fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

fn row(id: i64) -> String {
    format!("{{\"id\": {id}, \"note\": \"row {id}\"}}\n")
}

#[tokio::test(start_paused = true)]
async fn what_is_there_comes_and_then_what_is_appended() {
    let scene = Scene::json();
    scene.append(row(1) + &row(2));
    let mut follower = scene.read_from_beginning().await;
    assert_eq!(scene.rows(&mut follower).await, ["1 row 1", "2 row 2"]);
    scene.assert_nothing(&mut follower).await;
    for id in 3..6 {
        scene.append(row(id));
        assert_eq!(scene.rows(&mut follower).await, [format!("{id} row {id}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_is_a_row_when_its_newline_has_come() {
    let scene = Scene::json();
    let text = "\u{feff}{\"id\": 1, \"note\": \"é€\"}\r\n".as_bytes();
    scene.append("");
    let mut follower = scene.read_from_beginning().await;
    // Also in the middle of the mark, of a character and of the line's end.
    for cut in 1..text.len() {
        fs::write(scene.path(), "").unwrap();
        scene.append(&text[..cut]);
        scene.assert_nothing(&mut follower).await;
        scene.append(&text[cut..]);
        assert_eq!(scene.rows(&mut follower).await, ["1 é€"], "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_where_the_last_line_begins() {
    let scene = Scene::json();
    scene.append(row(1) + "{\"id\": 2,");
    let mut follower = scene.read_from_end().await;
    scene.assert_nothing(&mut follower).await;
    scene.append(" \"note\": \"whole\"}\n".to_string() + &row(3));
    assert_eq!(scene.rows(&mut follower).await, ["2 whole", "3 row 3"]);
    // Lines longer than what is read at once.
    let scene = Scene::json();
    scene.append(row(1) + &format!("{{\"id\": 2, \"note\": \"{}", "x".repeat(200_000)));
    let mut follower = scene.read_from_end().await;
    scene.append("\"}\n");
    assert_eq!(scene.rows(&mut follower).await[0].len(), 200_002);
}

#[tokio::test(start_paused = true)]
async fn csv_has_its_header_once_and_for_who_comes_late_too() {
    let scene = Scene::csv();
    scene.append("\u{feff}note,id\r\n\"a\n");
    let mut early = scene.read_from_beginning().await;
    scene.assert_nothing(&mut early).await;
    scene.append("b\",1\r\n,2\r\n");
    assert_eq!(scene.rows(&mut early).await, ["1 a\nb", "2 NULL"]);
    let mut late = scene.read_from_end().await;
    scene.append("\nlast,3\n");
    assert_eq!(scene.rows(&mut late).await, ["3 last"]);
    assert_eq!(scene.rows(&mut early).await, ["3 last"]);
    // A header that is not there whole.
    let scene = Scene::csv();
    scene.append("note,");
    let mut late = scene.read_from_end().await;
    scene.append("id\nfirst,1\n");
    assert_eq!(scene.rows(&mut late).await, ["1 first"]);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_will_not_do_ends_the_reading() {
    let scene = Scene::csv();
    scene.append("note\na\n");
    let expected = format!("{}: the header has no column \"id\", which is not null", scene.path().display());
    let mut follower = scene.read_from_beginning().await;
    assert_eq!(scene.next(&mut follower).await.unwrap_err().message(), expected);
    let error = Follower::from_end(Arc::clone(&scene.followed)).await.map(|_| ()).unwrap_err();
    assert_eq!((error.message(), error.sqlstate()), (expected.as_str(), "42703"));
}

#[tokio::test(start_paused = true)]
async fn a_renamed_file_is_read_to_its_end_before_its_successor() {
    let scene = Scene::csv();
    scene.append("id,note\n1,a\n");
    let mut follower = scene.read_from_beginning().await;
    assert_eq!(scene.rows(&mut follower).await, ["1 a"]);
    let old = scene.path().with_extension("1");
    fs::rename(scene.path(), &old).unwrap();
    append(&old, "2,b\n");
    assert_eq!(scene.rows(&mut follower).await, ["2 b"], "no successor is there yet");
    scene.append("note,id\nc,4\n");
    append(&old, "3,last");
    assert_eq!(scene.rows(&mut follower).await, ["3 last"]);
    assert_eq!(scene.rows(&mut follower).await, ["4 c"]);
    // Its line numbers are its own.
    scene.append("d,x\n");
    let message = scene.next(&mut follower).await.unwrap_err().message().to_string();
    assert!(message.starts_with("malformed row in \"orders\" at line 3 of "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn who_still_writes_to_the_old_file_is_listened_to() {
    let scene = Scene::json();
    scene.append(row(1));
    let mut follower = scene.read_from_beginning().await;
    assert_eq!(scene.rows(&mut follower).await, ["1 row 1"]);
    let old = scene.path().with_extension("1");
    fs::rename(scene.path(), &old).unwrap();
    scene.append(row(100));
    for id in 2..12 {
        append(&old, row(id));
        // Each comes soon enough that the old file is never quiet for long.
        assert_eq!(scene.rows(&mut follower).await, [format!("{id} row {id}")]);
        tokio::time::advance(Duration::from_millis(90)).await;
    }
    assert_eq!(scene.rows(&mut follower).await, ["100 row 100"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_comes_and_goes_is_waited_for() {
    let scene = Scene::json();
    let mut follower = scene.read_from_end().await;
    scene.assert_nothing(&mut follower).await;
    scene.append(row(1));
    assert_eq!(scene.rows(&mut follower).await, ["1 row 1"], "all of it came after the start");
    fs::remove_file(scene.path()).unwrap();
    scene.assert_nothing(&mut follower).await;
    scene.append(row(2));
    assert_eq!(scene.rows(&mut follower).await, ["2 row 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_truncated_file_is_read_again() {
    let scene = Scene::csv();
    scene.append("id,note\n1,a\n2,b\n3,half");
    let mut follower = scene.read_from_beginning().await;
    assert_eq!(scene.rows(&mut follower).await, ["1 a", "2 b"]);
    // As copytruncate does it: the same file, cut short, and written to by who has it open.
    for after in ["note,id\nc,4\n", "id,note\n5,a\n6,b\n7,as long as before and longer\n", "id,note\n8,x\n"] {
        fs::write(scene.path(), "").unwrap();
        scene.append(after);
        let rows = scene.rows(&mut follower).await;
        assert_eq!(rows.len(), after.lines().count() - 1, "{rows:?}");
    }
    // Of the very length it had.
    let length = fs::metadata(scene.path()).unwrap().len();
    fs::write(scene.path(), "id,note\n9,y\n").unwrap();
    assert_eq!(fs::metadata(scene.path()).unwrap().len(), length);
    assert_eq!(scene.rows(&mut follower).await, ["9 y"]);
}

#[tokio::test(start_paused = true)]
async fn rows_before_a_malformed_one_come_first() {
    let scene = Scene::json();
    scene.append(row(1) + "{}\n" + &row(3));
    let mut follower = scene.read_from_beginning().await;
    assert_eq!(scene.rows(&mut follower).await, ["1 row 1"]);
    let error = scene.next(&mut follower).await.unwrap_err();
    let path = scene.path().display();
    let reason = "null value in column \"id\" violates not-null constraint";
    assert_eq!(error.message(), format!("malformed row in \"orders\" at line 2 of {path}: {reason}"));
    assert_eq!(error.sqlstate(), "22P02");
    let length = fs::metadata(scene.path()).unwrap().len();
    let mut late = scene.read_from_end().await;
    scene.append(row(4) + "{}\n");
    assert_eq!(scene.rows(&mut late).await, ["4 row 4"]);
    let error = scene.next(&mut late).await.unwrap_err();
    assert_eq!(
        error.message(),
        format!("malformed row in \"orders\" at line 2 from byte {length} of {path}: {reason}")
    );
}

#[tokio::test(start_paused = true)]
async fn skipped_rows_are_counted() {
    let scene = Scene::new(false, OnMalformed::Skip);
    scene.append("nonsense\n".to_string() + &row(1) + "\n{}\n");
    let mut follower = scene.read_from_beginning().await;
    assert_eq!(scene.rows(&mut follower).await, ["1 row 1"]);
    assert_eq!(scene.skipped.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_batch_is_read_ahead() {
    let scene = Scene::json();
    scene.append((0..50_000).map(row).collect::<String>());
    let mut follower = scene.read_from_beginning().await;
    let mut rows = vec![];
    while rows.len() < 50_000 {
        let batch = scene.rows(&mut follower).await;
        assert!(batch.len() <= 8192, "{}", batch.len());
        let position = follower.current.as_ref().unwrap().tail.position();
        rows.extend(batch);
        let given: usize = (0..rows.len() as i64).map(|id| row(id).len()).sum();
        assert!(position - given as u64 <= 64 * 1024, "{position} was read, {given} given");
    }
    assert!(rows.iter().enumerate().all(|(id, shown)| *shown == format!("{id} row {id}")));
    scene.assert_nothing(&mut follower).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_file_is_refused() {
    let scene = Scene::json();
    fs::create_dir(scene.path()).unwrap();
    let error = Follower::from_beginning(Arc::clone(&scene.followed)).await.map(|_| ()).unwrap_err();
    let expected = format!("could not read file \"{}\": it is not a regular file", scene.path().display());
    assert_eq!((error.sqlstate(), error.message()), ("22000", expected.as_str()));
}
