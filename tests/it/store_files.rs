//! Tables of files in a folder and in S3: the contract, folders that are columns, and what happens when files change.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use lookaside::catalog::{Catalog, file};
use lookaside::engine::Engine;
use lookaside::pg_type::PgType;
use lookaside::store::contract;
use lookaside::store::files::{FilesConfig, FilesConnection, FilesDeclared, FilesLocation, FilesTable, S3Options};
use lookaside::store::full::{FullCache, FullStore};
use lookaside::store::{DeclaredTable, StoreError};
use parquet::arrow::ArrowWriter;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::http_service::{HttpService, Told};
use crate::support::lookaside::{Lookaside, project};
use crate::support::raw::DEADLINE;
use crate::support::s3::{BUCKET, S3Server, SECRET};

fn parquet_bytes(batch: &RecordBatch) -> Bytes {
    let mut bytes = vec![];
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes.into()
}

fn json_bytes(batch: &RecordBatch) -> Bytes {
    let ids = batch.column(0).as_primitive::<Int64Type>();
    let text = |column: usize, row: usize| {
        let texts = batch.column(column).as_string_view();
        texts.is_valid(row).then(|| texts.value(row))
    };
    let line = |row: usize| {
        let id = ids.is_valid(row).then(|| ids.value(row));
        let (region, name, note) = (text(1, row), text(2, row), text(3, row));
        serde_json::json!({"id": id, "region": region, "name": name, "note": note}).to_string() + "\n"
    };
    (0..batch.num_rows()).map(line).collect::<String>().into()
}

/// The contract's rows in three files, in their order.
fn contract_files(ending: &str, bytes: impl Fn(&RecordBatch) -> Bytes) -> Vec<(String, Bytes)> {
    let rows = contract::table().unwrap();
    let cuts = [0, 5, 4000, rows.num_rows()];
    let slices = cuts.windows(2).map(|cut| rows.slice(cut[0], cut[1] - cut[0]));
    slices.zip(1..).map(|(slice, i)| (format!("people/{i}/part.{ending}"), bytes(&slice))).collect()
}

fn folder(path: &Path) -> Arc<FilesConnection> {
    FilesConnection::new(FilesConfig {
        location: FilesLocation::Folder(path.to_path_buf()),
        prefix: String::new(),
        request_timeout: Duration::from_secs(10),
        allow_http: false,
    })
}

fn bucket(server: &S3Server) -> Arc<FilesConnection> {
    let options = S3Options {
        bucket: BUCKET.to_string(),
        region: None,
        endpoint: Some(server.endpoint()),
        path_style: true,
        credentials: Some(("tests".to_string(), SECRET.to_string())),
        session_token: None,
        anonymous: false,
    };
    FilesConnection::new(FilesConfig {
        location: FilesLocation::S3(options),
        prefix: "top".to_string(),
        request_timeout: Duration::from_millis(500),
        allow_http: true,
    })
}

fn table(path: &str, columns: &[(&str, &str)]) -> FilesTable {
    let format = match path.rsplit('.').next().unwrap() {
        "parquet" => lookaside::format::FileFormat::Parquet,
        "csv" => lookaside::format::FileFormat::Csv,
        _ => lookaside::format::FileFormat::Json,
    };
    let columns = columns.iter().map(|(name, of)| (name.to_string(), PgType::parse(of).unwrap(), true)).collect();
    FilesTable { pattern: path.parse().unwrap(), format, columns, partitions: vec![] }
}

async fn open(connection: Arc<FilesConnection>, table: FilesTable, cache: FullCache) -> Result<FullStore, StoreError> {
    let declared = FilesDeclared { name: "people".to_string(), connection, table };
    Ok(FullStore::new("people".to_string(), declared.connect().await?, cache))
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_holds_over_json_and_parquet_in_a_folder_and_in_s3() {
    let server = S3Server::start().await;
    let temporary = tempfile::tempdir().unwrap();
    let columns = [("id", "bigint"), ("region", "text"), ("name", "text"), ("note", "text")];
    let json = contract_files("jsonl", json_bytes);
    let parquet = contract_files("parquet", parquet_bytes);
    for (path, bytes) in json.iter().chain(&parquet) {
        let local = temporary.path().join(path);
        std::fs::create_dir_all(local.parent().unwrap()).unwrap();
        std::fs::write(local, bytes).unwrap();
        server.put(path, bytes.clone()).await;
    }
    for connection in [folder(temporary.path()), bucket(&server)] {
        for table in [table("people/**/*.jsonl", &columns), table("people/*/part.parquet", &[])] {
            let store = open(Arc::clone(&connection), table, FullCache::default()).await.unwrap();
            contract::check(&store, contract::RowOrder::AsLoaded).await.unwrap();
        }
    }
}

/// The rows of a statement as text, or the error's SQLSTATE and message.
async fn rows_of(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    })?;
    let text = |row: &tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_string()).collect::<Vec<_>>().join("|")
    };
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(text(row)),
        _ => None,
    });
    Ok(rows.collect())
}

/// Asks until the rows are these.
async fn until(client: &Client, sql: &str, expected: &[&str]) {
    let mut last = Ok(vec![]);
    let asked = async {
        while last.as_ref().ok().is_none_or(|rows: &Vec<String>| rows != expected) {
            last = rows_of(client, sql).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, asked).await.is_ok();
    assert!(in_time, "{sql}: {last:?} instead of {expected:?}");
}

#[tokio::test]
async fn folders_of_a_table_in_hives_way_are_columns() {
    let temporary = tempfile::tempdir().unwrap();
    let id = |id: i64, year: i32| {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            // What the folder says goes before it.
            Field::new("year", DataType::Int32, true),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![id])), Arc::new(Int32Array::from(vec![year]))];
        parquet_bytes(&RecordBatch::try_new(Arc::new(schema), columns).unwrap())
    };
    for (path, bytes) in [
        ("sales/year=2023/region=a%2Fb/1.parquet", id(1, 0)),
        ("sales/year=2024/region=__HIVE_DEFAULT_PARTITION__/1.parquet", id(2, 0)),
        ("sales/year=2024/region=eu/1.parquet", id(3, 0)),
        ("sales/year=2024/region=eu/_SUCCESS", Bytes::new()),
        ("sales/_temporary/year=1/region=x/9.parquet", Bytes::from_static(b"half")),
        ("csv/year=2024/1.csv", Bytes::from_static(b"id\n4\n")),
    ] {
        let local = temporary.path().join(path);
        std::fs::create_dir_all(local.parent().unwrap()).unwrap();
        std::fs::write(local, bytes).unwrap();
    }
    let lookaside = Lookaside::start(&format!(
        "[connection.lake]\ntype = \"files\"\nurl = \"{}\"\n\
         [lookup.typed]\nconnection = \"lake\"\npath = \"sales/\"\nformat = \"parquet\"\npartitions = {{ year = \"int\" }}\n\
         [lookup.plain]\nconnection = \"lake\"\npath = \"sales/year=*/**/*.parquet\"\n\
         [lookup.lines]\nconnection = \"lake\"\npath = \"csv/*/*.csv\"\ncolumns = {{ year = \"smallint\", id = \"int\" }}\n",
        temporary.path().display()
    ))
    .await;
    let client = lookaside.connect().await;
    let typed =
        "SELECT t.id, t.year + 1, t.region FROM (VALUES (2023), (2024)) AS o (y) LOOKUP JOIN typed t ON t.year = o.y";
    assert_eq!(rows_of(&client, typed).await.unwrap(), ["1|2024|a/b", "2|2025|NULL", "3|2025|eu"]);
    let plain = "SELECT t.id FROM (VALUES ('2024')) AS o (y) LOOKUP JOIN plain t ON t.year = o.y";
    assert_eq!(rows_of(&client, plain).await.unwrap(), ["2", "3"]);
    assert_eq!(rows_of(&client, "SELECT year, id FROM lines").await.unwrap(), ["2024|4"]);
}

#[tokio::test]
async fn files_of_avro_name_their_columns_wherever_files_are_read() {
    let schema = apache_avro::Schema::parse_str(
        r#"{"type": "record", "name": "Sale", "fields": [{"name": "id", "type": "long"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "tags", "type": {"type": "map", "values": "int"}}]}"#,
    );
    let schema = schema.unwrap();
    let file = |id: i64| {
        let codec = apache_avro::Codec::Snappy;
        let mut writer = apache_avro::Writer::with_codec(&schema, vec![], codec).unwrap();
        let mut row = apache_avro::types::Record::new(&schema).unwrap();
        row.put("id", id);
        row.put("at", apache_avro::types::Value::TimestampMillis(1500));
        row.put("tags", std::collections::HashMap::from([("a", 1)]));
        writer.append_value(row).unwrap();
        writer.into_inner().unwrap()
    };
    let temporary = tempfile::tempdir().unwrap();
    for (path, id) in [("year=2023/1.avro", 1), ("year=2024/1.avro", 2)] {
        let local = temporary.path().join(path);
        std::fs::create_dir_all(local.parent().unwrap()).unwrap();
        std::fs::write(local, file(id)).unwrap();
    }
    let folder = temporary.path().display();
    let one = format!("path = \"{folder}/year=2024/1.avro\"\nformat = \"avro\"\n");
    let lookaside = Lookaside::start(&format!(
        "[connection.lake]\ntype = \"files\"\nurl = \"{folder}\"\n\
         [lookup.all]\nconnection = \"lake\"\npath = \"*/*.avro\"\npartitions = {{ year = \"int\" }}\n\
         [lookup.one]\ntype = \"file\"\n{one}[stream.sales]\ntype = \"file\"\n{one}"
    ))
    .await;
    let client = lookaside.connect().await;
    assert_eq!(
        rows_of(&client, "SELECT id, at, tags, year FROM \"all\" ORDER BY id").await.unwrap(),
        ["1|1970-01-01 00:00:01.5+00|{\"a\":1}|2023", "2|1970-01-01 00:00:01.5+00|{\"a\":1}|2024"]
    );
    let joined = "SELECT s.id, o.tags FROM sales s LOOKUP JOIN one o ON o.id = s.id";
    assert_eq!(rows_of(&client, joined).await.unwrap(), ["2|{\"a\":1}"]);
}

const NAME: &str = "SELECT p.name FROM (VALUES (1)) AS o (id) LOOKUP JOIN people p ON p.id = o.id";

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_read_again_and_the_old_rows_serve_while_they_cannot_be() {
    let server = S3Server::start().await;
    server.put("people/1.csv", "id,name\n1,Ann\n").await;
    let lookaside = Lookaside::start(&format!(
        "[connection.lake]\n{}request_timeout = \"500ms\"\n\
         [lookup.people]\nconnection = \"lake\"\npath = \"people/*.csv\"\ntimeout = \"20s\"\n\
         cache = {{ mode = \"full\", reload_every = \"50ms\", max_rows = 3 }}\n\
         [lookup.people.columns]\nid = \"int\"\nname = \"text\"\n",
        server.connection_lines()
    ))
    .await;
    let client = lookaside.connect().await;
    assert_eq!(rows_of(&client, NAME).await.unwrap(), ["Ann"]);
    // Another etag, another file, one file less.
    server.put("people/1.csv", "id,name\n1,Bea\n").await;
    until(&client, NAME, &["Bea"]).await;
    server.put("people/2.csv", "id,name\n1,Cid\n").await;
    until(&client, NAME, &["Bea", "Cid"]).await;
    server.delete("people/1.csv").await;
    until(&client, NAME, &["Cid"]).await;
    // What cannot be read, or is too much, leaves the old rows.
    let last_error = "SELECT last_error FROM lookaside.lookups WHERE name = 'people'";
    for (contents, reason) in [("id,name\nx,Dan\n", "line 2 of top/people/2.csv"), ("id\n1\n2\n3\n4\n", "max_rows")] {
        server.put("people/2.csv", contents).await;
        let told = async { while !rows_of(&client, last_error).await.unwrap()[0].contains(reason) {} };
        tokio::time::timeout(DEADLINE, told).await.expect("the reason shows");
        assert_eq!(rows_of(&client, NAME).await.unwrap(), ["Cid"]);
    }
    server.put("people/2.csv", "id,name\n1,Eve\n").await;
    until(&client, NAME, &["Eve"]).await;
    until(&client, last_error, &["NULL"]).await;
    // Frozen, killed, and there again.
    server.signal("STOP");
    let told = async { while rows_of(&client, last_error).await.unwrap() == ["NULL"] {} };
    tokio::time::timeout(DEADLINE, told).await.expect("the error shows");
    assert_eq!(rows_of(&client, NAME).await.unwrap(), ["Eve"]);
    let port = server.kill().await;
    assert_eq!(rows_of(&client, NAME).await.unwrap(), ["Eve"]);
    let again = S3Server::start_at(port).await;
    again.put("people/7.csv", "id,name\n1,Fay\n").await;
    until(&client, NAME, &["Fay"]).await;
    let shown = rows_of(&client, "SELECT * FROM lookaside.lookups").await.unwrap().join("\n");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn a_table_whose_files_do_not_change_is_not_read_again() {
    let reads = Arc::new(AtomicUsize::new(0));
    let looks = Arc::new(AtomicUsize::new(0));
    let (read, looked) = (Arc::clone(&reads), Arc::clone(&looks));
    let service = HttpService::start(move |asked| {
        match asked.method.as_str() {
            "GET" => read.fetch_add(1, Ordering::SeqCst),
            _ => looked.fetch_add(1, Ordering::SeqCst),
        };
        Told::json("{\"id\": 1}\n").with_header("etag", "\"one\"")
    })
    .await;
    let store = over_web(&service, Duration::from_millis(10)).await;
    store.load().await.unwrap();
    let looked = async {
        while looks.load(Ordering::SeqCst) < 10 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(DEADLINE, looked).await.expect("it is looked at again and again");
    assert_eq!((reads.load(Ordering::SeqCst), store.state().rows), (1, 1));
}

/// `file.jsonl` of a web server.
async fn over_web(service: &HttpService, reload_every: Duration) -> FullStore {
    let connection = FilesConnection::new(FilesConfig {
        location: FilesLocation::Web(format!("http://127.0.0.1:{}", service.port)),
        prefix: String::new(),
        request_timeout: Duration::from_millis(300),
        allow_http: true,
    });
    let cache = FullCache { reload_every: Some(reload_every), ..FullCache::default() };
    open(connection, table("file.jsonl", &[("id", "bigint")]), cache).await.unwrap()
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_read_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let service = HttpService::start(move |asked| {
        // It changes between the first look and the first reading.
        let etag = if count.load(Ordering::SeqCst) == 0 { "\"one\"" } else { "\"two\"" };
        if asked.method == "GET" {
            count.fetch_add(1, Ordering::SeqCst);
            if asked.header("if-match") != Some("\"two\"") {
                return Told::status(412);
            }
        }
        Told::json("{\"id\": 1}\n").with_header("etag", etag)
    })
    .await;
    let store = over_web(&service, Duration::from_secs(60)).await;
    store.load().await.unwrap();
    assert_eq!((asked.load(Ordering::SeqCst), store.state().rows), (2, 1));
}

#[tokio::test]
async fn half_a_file_and_none_are_errors() {
    let half: &[u8] = b"HTTP/1.1 200 OK\r\netag: \"x\"\r\ncontent-length: 100\r\n\r\n{\"id\": 1}\n";
    let gone = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    for (bytes, reason) in
        [(half, "the store of files cannot be read"), (&gone[..], "file \"file.jsonl\" is not there")]
    {
        let service = HttpService::saying(bytes, true).await;
        let error = over_web(&service, Duration::from_secs(60)).await.load().await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(error.clone().into_error("people").message().contains(reason), "{error:?}");
    }
    let temporary = tempfile::tempdir().unwrap();
    let error = open(folder(temporary.path()), table("*.parquet", &[]), FullCache::default()).await.unwrap_err();
    assert!(
        error.into_error("people").message().ends_with("is \"*.parquet\", of which lookup table \"people\" is made")
    );
}

/// The example of `catalogs/files.toml` with the query of `sql/files.sql`, from its folder and from S3.
#[tokio::test]
async fn the_example_joins_rows_of_files() {
    let server = S3Server::start().await;
    let path = project().join("catalogs/files.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    for name in [
        "countries.csv",
        "rates/year=2023/region=eu/rates.jsonl",
        "rates/year=2024/region=eu/rates.jsonl",
        "rates/year=2024/region=asia/rates.jsonl",
    ] {
        server.put(name, std::fs::read(project().join("catalogs/files").join(name)).unwrap()).await;
    }
    let in_s3 = text.replace("type = \"files\"\nurl = \"${FILES_URL:-files}\"\n", &server.connection_lines());
    assert_ne!(in_s3, text);
    let sql = std::fs::read_to_string(project().join("sql/files.sql")).unwrap();
    for text in [text, in_s3] {
        let catalog = file::read_text(&[(path.clone(), text)], &|_| None).unwrap();
        assert!(!format!("{catalog:?}").contains(SECRET), "{catalog:?}");
        let lookaside = Lookaside::serve(Engine::new(Catalog::open(catalog).unwrap())).await;
        let rows = rows_of(&lookaside.connect().await, &sql).await.unwrap();
        let expected = ["1|JP|Japan|0.0500", "2|PT|Portugal|0.2000", "3|XX|NULL|NULL", "4|FI|Finland|0.2000"];
        assert_eq!((rows.len(), &rows[..4]), (20, &expected.map(str::to_string)[..]));
    }
}
