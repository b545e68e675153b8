//! The command line: flags, subcommands, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lookaside::command::{check, demo, passwd, query, serve, trigger};
use lookaside::telemetry::{self, LogFormat};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Joins live streams with the tables they refer to, in SQL, over the PostgreSQL protocol.
#[derive(Parser)]
#[command(name = "lookaside", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the embedded demo and show its query at work.
    Demo {
        /// Where to listen; port 0 picks a free one.
        #[arg(long, default_value = "127.0.0.1:7432")]
        listen: String,
    },
    /// Serve catalogs to PostgreSQL clients.
    Serve {
        #[arg(required = true)]
        catalog: Vec<PathBuf>,
        /// Where to listen; port 0 picks a free one.
        #[arg(long)]
        listen: Option<String>,
        /// Where to serve metrics and health over HTTP; port 0 picks a free one.
        #[arg(long)]
        http: Option<String>,
        /// Files of statements to run at start.
        #[arg(long)]
        sql: Vec<PathBuf>,
    },
    /// Run one query in process and print its rows as they come.
    Query {
        /// Catalog files.
        #[arg(long)]
        catalog: Vec<PathBuf>,
        /// How rows are printed.
        #[arg(long, value_enum, default_value = "table")]
        format: query::OutputFormat,
        /// A file with the query.
        #[arg(short, long, conflicts_with = "sql")]
        file: Option<PathBuf>,
        /// The query.
        #[arg(required_unless_present = "file")]
        sql: Option<String>,
    },
    /// Read, connect and plan; tell everything that is wrong.
    Check {
        #[arg(required = true)]
        catalog: Vec<PathBuf>,
        /// Files of statements to check with the catalogs.
        #[arg(long)]
        sql: Vec<PathBuf>,
    },
    /// Print the trigger that tells a lookup table in PostgreSQL of changes (cache.listen), as SQL.
    Trigger {
        #[arg(required = true)]
        catalog: Vec<PathBuf>,
        /// The lookup table's name in the catalog.
        lookup: String,
    },
    /// Make the verifier of a password, for [user.X] in a catalog file.
    Passwd,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_server = matches!(arguments.command, Command::Serve { .. });
    telemetry::start(arguments.log_format, if is_server { "warn,lookaside=info" } else { "warn" });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lookaside: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match arguments.command {
            Command::Demo { listen } => demo::run(&listen).await,
            Command::Serve { catalog, listen, http, sql } => serve::run(&catalog, listen, http, &sql).await,
            Command::Query { catalog, format, file, sql } => query::run(&catalog, format, file, sql).await,
            Command::Check { catalog, sql } => check::run(&catalog, &sql).await,
            Command::Trigger { catalog, lookup } => trigger::run(&catalog, &lookup).await,
            Command::Passwd => passwd::run(),
        }
    });
    // What still reads a file or waits for a name to be resolved is not waited for.
    runtime.shutdown_background();
    ExitCode::from(code)
}
