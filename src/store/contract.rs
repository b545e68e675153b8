//! What every store must do: a suite that each one's tests run over a data set of the suite's.
//!
//! A test loads [`table`] into its store and calls [`check`]; a store that can be asked by its rows' own key alone is
//! loaded with [`keyed_table`] and held to [`check_keyed`]. For use by tests alone; it is public so that
//! those which need a real service, and live outside of this crate, can call it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::future::try_join_all;

pub use super::contract_keyed::{check_keyed, keyed_table};
use super::{Conditions, LookupRequest, LookupShape, Store};
use crate::error::{Error, Result};
use crate::pg_type::PgType;

/// Rows of the data set beyond the special ones: for large requests.
pub(super) const BULK_ROWS: i64 = 10_000;
/// The id of the first of them; the others follow.
pub(super) const FIRST_BULK_ID: i64 = 100_000;

/// In which order the rows of one key come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As they were loaded.
    AsLoaded,
    /// As the store pleases, as a database without ORDER BY does.
    Any,
}

/// Texts that a store must take and give as they are. Those with a zero byte are asked for, but stand in no row.
pub(super) const HOSTILE: [&str; 10] = [
    "",
    " ",
    "O'Brien",
    "'); DROP TABLE contract; --",
    "back\\slash \\' \\x00",
    "\"double\" and ${1} $1 %s {}",
    "tab\tnew\nline\r\n",
    "NULL",
    "Ωμέγα 漢字 🦀 e\u{301}",
    "{a,b} [1,2]",
];

/// The id of the row with a big value.
const BIG_ID: i64 = 11;
/// How often [`HOSTILE`] stands in it: some 250 kB.
const BIG_REPEATS: usize = 2000;

/// A text that fits into no packet, buffer or page, of what must not be cut anywhere.
fn big_value() -> String {
    HOSTILE.concat().repeat(BIG_REPEATS)
}

/// A row of [`table`].
type Person<'a> = (Option<i64>, Option<&'a str>, Option<&'a str>, Option<&'a str>);

/// The data set: `id bigint, region text, name text, note text`, of which none is unique and all may be NULL.
pub fn table() -> Result<RecordBatch> {
    let mut rows: Vec<Person> = vec![
        (Some(1), Some("eu"), Some("Ann"), Some("first")),
        (Some(2), Some("eu"), Some("Bob"), None),
        (Some(2), Some("us"), Some("Carl"), Some("second")),
        (Some(3), Some("us"), None, None),
        (None, Some("eu"), Some("nobody"), Some("its key is NULL")),
        (Some(5), None, Some("nowhere"), Some("half of its key is NULL")),
        (Some(2), Some("eu"), Some("Dora"), Some("third")),
        (Some(-7), Some("us"), Some("Eve"), Some("")),
        (Some(i64::MAX), Some("max"), Some("Max"), None),
        (Some(i64::MIN), Some("min"), Some("Min"), None),
    ];
    let big = big_value();
    rows.push((Some(BIG_ID), Some("big"), Some("Big"), Some(&big)));
    rows.extend(HOSTILE.iter().map(|&text| (Some(9), Some(text), Some(text), Some(text))));
    let bulk = (0..BULK_ROWS).map(|i| (FIRST_BULK_ID + i, format!("name {i}")));
    let bulk = bulk.collect::<Vec<_>>();
    rows.extend(bulk.iter().map(|(id, name)| (Some(*id), Some("bulk"), Some(name.as_str()), None)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.2))),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.3))),
    ];
    let text = |name| PgType::Text.field(name, true);
    let schema = Schema::new(vec![PgType::Int8.field("id", true), text("region"), text("name"), text("note")]);
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

pub(super) const ID: usize = 0;
pub(super) const REGION: usize = 1;
pub(super) const NAME: usize = 2;
pub(super) const NOTE: usize = 3;

/// Holds `store`, which was loaded with [`table`], to the contract.
///
/// # Errors
/// Which claim does not hold, with what was expected and what came.
pub async fn check(store: &dyn Store, order: RowOrder) -> Result<()> {
    let suite = Suite { store, order };
    ensure_schema(store)?;
    suite.hits_and_misses_are_told_apart().await?;
    suite.duplicates_all_come().await?;
    suite.row_of_nulls_is_a_match().await?;
    suite.null_in_the_table_equals_nothing().await?;
    suite.columns_come_as_asked().await?;
    suite.composite_keys_match_as_a_whole().await?;
    suite.hostile_texts_are_only_texts().await?;
    suite.big_values_come_whole().await?;
    suite.large_request_is_answered_by_position().await?;
    suite.concurrent_requests_do_not_mix().await
}

struct Suite<'a> {
    store: &'a dyn Store,
    order: RowOrder,
}

/// For each key's position that has rows, their columns as text.
pub(super) type Found = BTreeMap<u32, Vec<Vec<String>>>;

impl Suite<'_> {
    async fn hits_and_misses_are_told_apart(&self) -> Result<()> {
        let keys = [bigints(&[1, 4, -7, i64::MAX, 0, i64::MIN, 3])];
        let expected = [(0, vec!["Ann"]), (2, vec!["Eve"]), (3, vec!["Max"]), (5, vec!["Min"]), (6, vec!["NULL"])];
        self.holds("hits and misses are told apart", &[ID], &[NAME], &keys, &names(&expected)).await?;
        self.holds("a request may find nothing", &[ID], &[NAME], &[bigints(&[4, 6])], &Found::new()).await
    }

    async fn duplicates_all_come(&self) -> Result<()> {
        let expected = names(&[(0, vec!["Ann"]), (1, vec!["Bob", "Carl", "Dora"])]);
        self.holds("all rows of a key come", &[ID], &[NAME], &[bigints(&[1, 2])], &expected).await
    }

    async fn row_of_nulls_is_a_match(&self) -> Result<()> {
        let expected = Found::from([(1, vec![vec!["NULL".to_string(), "NULL".to_string()]])]);
        self.holds("a row of NULLs is a match", &[ID], &[NAME, NOTE], &[bigints(&[4, 3])], &expected).await
    }

    async fn null_in_the_table_equals_nothing(&self) -> Result<()> {
        let keys = [bigints(&[5, 5, 0]), texts(&["", "eu", "eu"])];
        self.holds("NULL in the table equals nothing", &[ID, REGION], &[NAME], &keys, &Found::new()).await
    }

    async fn columns_come_as_asked(&self) -> Result<()> {
        let keys = [bigints(&[1])];
        let row = |values: &[&str]| Found::from([(0, vec![values.iter().map(|v| v.to_string()).collect()])]);
        let swapped = row(&["first", "1", "Ann"]);
        self.holds("columns come in the order asked", &[ID], &[NOTE, ID, NAME], &keys, &swapped).await?;
        let keys = [bigints(&[2, 4, 1])];
        let counted = Found::from([(0, vec![vec![], vec![], vec![]]), (2, vec![vec![]])]);
        self.holds("no column need be asked for", &[ID], &[], &keys, &counted).await
    }

    async fn composite_keys_match_as_a_whole(&self) -> Result<()> {
        let (ids, regions) = (bigints(&[2, 2, 1, 3]), texts(&["eu", "us", "us", "us"]));
        let expected = names(&[(0, vec!["Bob", "Dora"]), (1, vec!["Carl"]), (3, vec!["NULL"])]);
        let keys = [Arc::clone(&ids), Arc::clone(&regions)];
        self.holds("composite keys match as a whole", &[ID, REGION], &[NAME], &keys, &expected).await?;
        let turned = "key columns may come in another order than the table's";
        self.holds(turned, &[REGION, ID], &[NAME], &[regions, ids], &expected).await
    }

    async fn hostile_texts_are_only_texts(&self) -> Result<()> {
        let mut asked = HOSTILE.to_vec();
        asked.extend(["eu' OR '1'='1", "no\0thing", "\0"]);
        let expected = HOSTILE.iter().zip(0..).map(|(text, i)| (i, vec![vec![text.to_string()]])).collect();
        self.holds("hostile texts are only texts", &[REGION], &[NAME], &[texts(&asked)], &expected).await
    }

    async fn big_values_come_whole(&self) -> Result<()> {
        let keys = [bigints(&[4, BIG_ID, 1])];
        let row = |name: &str, note: &str| vec![vec![name.to_string(), note.to_string()]];
        let expected = Found::from([(1, row("Big", &big_value())), (2, row("Ann", "first"))]);
        self.holds("big values come whole", &[ID], &[NAME, NOTE], &keys, &expected).await?;
        // And as a key, of which there is none.
        self.holds("big keys are only keys", &[NAME], &[ID], &[texts(&[&big_value()])], &Found::new()).await
    }

    async fn large_request_is_answered_by_position(&self) -> Result<()> {
        // Backwards, every other one a miss.
        let ids = (0..BULK_ROWS).map(|i| if i % 2 == 0 { FIRST_BULK_ID + BULK_ROWS - 1 - i } else { -1000 - i });
        let ids = ids.collect::<Vec<_>>();
        let hits = ids.iter().zip(0..).filter(|(id, _)| **id >= FIRST_BULK_ID);
        let expected = hits.map(|(id, i)| (i, vec![vec![format!("name {}", id - FIRST_BULK_ID)]])).collect();
        self.holds("a large request is answered by position", &[ID], &[NAME], &[bigints(&ids)], &expected).await
    }

    async fn concurrent_requests_do_not_mix(&self) -> Result<()> {
        let expected = |i: i64| Found::from([(0, vec![vec![format!("name {i}")]])]);
        let requests = (0..32).map(|i| async move {
            let keys = [bigints(&[FIRST_BULK_ID + i, -1])];
            self.holds("concurrent requests do not mix", &[ID], &[NAME], &keys, &expected(i)).await
        });
        try_join_all(requests).await.map(|_| ())
    }

    async fn holds(
        &self,
        claim: &str,
        key_columns: &[usize],
        columns: &[usize],
        keys: &[ArrayRef],
        expected: &Found,
    ) -> Result<()> {
        let shape = LookupShape {
            key_columns: key_columns.to_vec(),
            columns: columns.to_vec(),
            filters: Conditions::default(),
        };
        let request = LookupRequest { shape: Arc::new(shape), keys: keys.to_vec(), max_answer_bytes: u64::MAX };
        let answer =
            self.store.lookup(&request).await.map_err(|error| error.into_error("contract").with_context(claim))?;
        let schema = self.store.schema().project(columns)?;
        ensure(&format!("{claim}: schema of the rows"), &schema, answer.rows.schema().as_ref())?;
        ensure(&format!("{claim}: a key for each row"), &answer.rows.num_rows(), &answer.key_of_row.len())?;
        let mut found = found(&answer.rows, answer.key_of_row.values())?;
        let mut expected = expected.clone();
        if self.order == RowOrder::Any {
            found.values_mut().chain(expected.values_mut()).for_each(|rows| rows.sort());
        }
        ensure(claim, &expected, &found)
    }
}

pub(super) fn ensure_schema(store: &dyn Store) -> Result<()> {
    let types = |schema: &Schema| schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect();
    let (expected, found): (Vec<_>, Vec<_>) = (types(&table()?.schema()), types(&store.schema()));
    ensure("schema is as loaded", &expected, &found)
}

pub(super) fn found(rows: &RecordBatch, key_of_row: &[u32]) -> Result<Found> {
    let options = FormatOptions::default().with_null("NULL");
    let formatters = rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
    let mut found = Found::new();
    for (i, key) in key_of_row.iter().enumerate() {
        let row = formatters.iter().map(|formatter| formatter.value(i).to_string()).collect();
        found.entry(*key).or_default().push(row);
    }
    Ok(found)
}

pub(super) fn ensure<T: PartialEq + std::fmt::Debug + ?Sized>(claim: &str, expected: &T, found: &T) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let shorten = |value: String| value.chars().take(1000).collect::<String>();
    let (expected, found) = (shorten(format!("{expected:?}")), shorten(format!("{found:?}")));
    Err(Error::internal(format!("{claim}: expected {expected}, found {found}")))
}

pub(super) fn bigints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

pub(super) fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

fn names(rows: &[(u32, Vec<&str>)]) -> Found {
    let name = |name: &&str| vec![name.to_string()];
    rows.iter().map(|(key, names)| (*key, names.iter().map(name).collect())).collect()
}
