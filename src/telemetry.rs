//! Logs: for people on a terminal, JSON on request; always to stderr, so that stdout holds nothing but results.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Begins to log. `LOOKASIDE_LOG` says what, in the syntax of tracing's filters (`debug`, `lookaside::store=trace`);
/// `default` is what to log without it.
pub fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_env("LOOKASIDE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process changes nothing.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
