//! The contract of stores whose rows have a key of their own, by which alone they can be asked: as `contract.rs`, over a
//! data set in which no key stands twice and none is NULL.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use futures::future::try_join_all;

use super::contract::{self, Found, HOSTILE, ID, NAME, NOTE, REGION, bigints, ensure, found, table, texts};
use super::{Conditions, LookupRequest, LookupShape, Store};
use crate::error::Result;

/// Texts of which no row has one.
const STRANGERS: [&str; 6] = ["eu' OR '1'='1", "no\0thing", "\0", "eu\r\n", "*", "e?"];
/// Numbers of which no row has one.
const MISSING_IDS: [i64; 4] = [0, 4, 6, -1];

/// The rows of [`contract::table`] that a store with this key (positions in its schema) can hold: none with a NULL in the
/// key, and of several with one key the first.
pub fn keyed_table(key: &[usize]) -> Result<RecordBatch> {
    let all = table()?;
    let nothing = |row: usize| key.iter().any(|&column| all.column(column).is_null(row));
    let mut seen = HashSet::new();
    let keys = shown_rows(&all, key)?;
    let kept = (0..all.num_rows()).filter(|&row| !nothing(row) && seen.insert(keys[row].clone()));
    Ok(take_record_batch(&all, &UInt32Array::from_iter_values(kept.map(|row| row as u32)))?)
}

/// Holds `store`, which was loaded with [`keyed_table`] for this key, to the contract.
///
/// # Errors
/// Which claim does not hold, with what was expected and what came.
pub async fn check_keyed(store: &dyn Store, key: &[usize]) -> Result<()> {
    let rows = keyed_table(key)?;
    let keys = shown_rows(&rows, key)?;
    let rows_by_key = keys.into_iter().zip(0..).collect();
    let suite = KeyedSuite { store, key, rows, rows_by_key };
    contract::ensure_schema(store)?;
    suite.hits_and_misses_are_told_apart().await?;
    suite.columns_come_as_asked().await?;
    suite.hostile_texts_are_only_texts().await?;
    suite.large_request_is_answered_by_position().await?;
    suite.concurrent_requests_do_not_mix().await?;
    suite.other_keys_are_refused()
}

struct KeyedSuite<'a> {
    store: &'a dyn Store,
    key: &'a [usize],
    rows: RecordBatch,
    /// By the key's columns as text.
    rows_by_key: BTreeMap<Vec<String>, usize>,
}

/// What is asked for: values of `id` and `region`, of which the key takes its own.
type Asked = Vec<(i64, String)>;

impl KeyedSuite<'_> {
    async fn hits_and_misses_are_told_apart(&self) -> Result<()> {
        let mut asked: Asked = vec![(1, "eu".into()), (2, "us".into()), (i64::MAX, "max".into()), (3, "us".into())];
        asked.extend(MISSING_IDS.iter().map(|&id| (id, format!("nowhere {id}"))));
        asked.extend([(i64::MIN, "min".into()), (-7, "us".into())]);
        self.holds("hits and misses are told apart", &[NAME, NOTE], asked).await?;
        let none = MISSING_IDS.iter().map(|&id| (id, format!("nowhere {id}"))).collect();
        self.holds("a request may find nothing", &[NAME], none).await?;
        self.holds("a row of NULLs is a match", &[NAME, NOTE], vec![(3, "us".into()), (4, "us".into())]).await
    }

    async fn columns_come_as_asked(&self) -> Result<()> {
        let asked: Asked = vec![(2, "eu".into()), (0, "none".into()), (1, "us".into()), (1, "eu".into())];
        for columns in [vec![NOTE, ID, NAME], vec![REGION, ID], vec![NOTE], vec![ID, REGION, NAME, NOTE]] {
            self.holds("columns come in the order asked", &columns, asked.clone()).await?;
        }
        self.holds("no column need be asked for", &[], asked).await
    }

    async fn hostile_texts_are_only_texts(&self) -> Result<()> {
        if !self.key.contains(&REGION) {
            return Ok(());
        }
        let asked = HOSTILE.iter().chain(&STRANGERS).map(|text| (9, text.to_string())).collect();
        self.holds("hostile texts are only texts", &[REGION, NAME, NOTE], asked).await
    }

    async fn large_request_is_answered_by_position(&self) -> Result<()> {
        // Backwards, every other one a miss.
        let ids = (0..contract::BULK_ROWS).rev();
        let ids = ids.map(|i| if i % 2 == 0 { contract::FIRST_BULK_ID + i } else { -1000 - i });
        let region = |id: i64| if self.key.contains(&ID) { "bulk".to_string() } else { format!("region {id}") };
        self.holds("a large request is answered by position", &[NAME], ids.map(|id| (id, region(id))).collect()).await
    }

    async fn concurrent_requests_do_not_mix(&self) -> Result<()> {
        let requests = (0..32).map(|i| async move {
            let asked = vec![(contract::FIRST_BULK_ID + i, "bulk".to_string()), (-1, format!("nowhere {i}"))];
            self.holds("concurrent requests do not mix", &[NAME], asked).await
        });
        try_join_all(requests).await.map(|_| ())
    }

    fn other_keys_are_refused(&self) -> Result<()> {
        let refused = |columns: &[usize]| self.store.check_keys(columns).map_err(|error| error.sqlstate()).err();
        ensure("its key is taken", &None, &refused(self.key))?;
        ensure("a lookup by another column alone is refused", &Some("0A000"), &refused(&[NOTE]))?;
        if self.key.len() > 1 {
            ensure("a lookup by half of the key is refused", &Some("0A000"), &refused(&self.key[..1]))?;
        }
        Ok(())
    }

    /// Whether what is asked for is answered as the data set says. Keys that the store's key cannot tell apart are asked
    /// for once.
    async fn holds(&self, claim: &str, columns: &[usize], asked: Asked) -> Result<()> {
        let mut seen = HashSet::new();
        let shown = |(id, region): &(i64, String)| {
            let value = |column: &usize| if *column == ID { id.to_string() } else { region.clone() };
            self.key.iter().map(value).collect::<Vec<_>>()
        };
        let asked = asked.into_iter().filter(|asked| seen.insert(shown(asked))).collect::<Vec<_>>();
        let array = |column: &usize| -> ArrayRef {
            match *column {
                ID => bigints(&asked.iter().map(|(id, _)| *id).collect::<Vec<_>>()),
                _ => texts(&asked.iter().map(|(_, region)| region.as_str()).collect::<Vec<_>>()),
            }
        };
        let shape =
            LookupShape { key_columns: self.key.to_vec(), columns: columns.to_vec(), filters: Conditions::default() };
        let keys = self.key.iter().map(array).collect();
        let request = LookupRequest { shape: Arc::new(shape), keys, max_answer_bytes: u64::MAX };
        let answer = self.store.lookup(&request).await;
        let answer = answer.map_err(|error| error.into_error("contract").with_context(claim))?;
        let schema = self.store.schema().project(columns)?;
        ensure(&format!("{claim}: schema of the rows"), &schema, answer.rows.schema().as_ref())?;
        ensure(&format!("{claim}: a key for each row"), &answer.rows.num_rows(), &answer.key_of_row.len())?;
        let values = shown_rows(&self.rows, columns)?;
        let row_of = |asked| self.rows_by_key.get(&shown(asked));
        let expected = asked.iter().zip(0..).filter_map(|(asked, i)| Some((i, vec![values[*row_of(asked)?].clone()])));
        ensure(claim, &expected.collect::<Found>(), &found(&answer.rows, answer.key_of_row.values())?)
    }
}

/// The columns of each row, as text.
fn shown_rows(rows: &RecordBatch, columns: &[usize]) -> Result<Vec<Vec<String>>> {
    let numbers = (0..rows.num_rows() as u32).collect::<Vec<_>>();
    Ok(found(&rows.project(columns)?, &numbers)?.into_values().flatten().collect())
}
