//! Every setting there is: its name, what it may be, and what it is for.

/// What a setting may be.
pub(super) enum Kind {
    /// A text that is cut and cleaned as PostgreSQL does with names of applications.
    Name,
    Boolean,
    /// Only these, the first is the default.
    OneOf(&'static [&'static str]),
    /// One value, in these spellings.
    Fixed(&'static [&'static str]),
    /// Only these: every name means the one schema there is.
    SearchPath(&'static [&'static str]),
    /// A whole number.
    Between(i8, i8),
    /// A time; 0: none.
    Milliseconds,
    DateStyle,
    IntervalStyle,
    TimeZone,
    /// Cannot be set at all.
    ReadOnly,
}

pub(super) struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    /// Whether the client is told of every change.
    pub reported: bool,
    pub description: &'static str,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Setting {
    Setting { name, default, kind, reported: false, description }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind, description: &'static str) -> Setting {
    Setting { name, default, kind, reported: true, description }
}

/// Every statement reads one moment of a stream: any level is kept.
const ISOLATION: &[&str] = &["read committed", "read uncommitted", "repeatable read", "serializable"];

pub(super) static SETTINGS: [Setting; 32] = [
    reported("application_name", "", Kind::Name, "The name of the program that has connected."),
    setting("bytea_output", "hex", Kind::OneOf(&["hex", "escape"]), "How bytea is shown."),
    reported(
        "client_encoding",
        "UTF8",
        Kind::Fixed(&["UTF8", "UTF-8", "UNICODE"]),
        "The encoding of text on the wire.",
    ),
    setting(
        "client_min_messages",
        "notice",
        Kind::OneOf(&[
            "notice", "warning", "error", "log", "info", "debug", "debug1", "debug2", "debug3", "debug4", "debug5",
        ]),
        "The least messages that are sent beside results.",
    ),
    reported("DateStyle", "ISO, MDY", Kind::DateStyle, "How dates are shown, and how ambiguous ones are read."),
    setting("default_transaction_isolation", "read committed", Kind::OneOf(ISOLATION), "Of transactions to come."),
    reported(
        "default_transaction_read_only",
        "off",
        Kind::Boolean,
        "Whether transactions to come may put no rows into streams.",
    ),
    setting(
        "extra_float_digits",
        "1",
        Kind::Between(-15, 3),
        "Digits by which floats are shown with more or fewer than usual; above 0 they are exact.",
    ),
    setting(
        "idle_in_transaction_session_timeout",
        "0",
        Kind::Milliseconds,
        "How long a client may say nothing while a transaction is open.",
    ),
    setting("idle_session_timeout", "0", Kind::Milliseconds, "How long a client may say nothing."),
    reported("in_hot_standby", "off", Kind::ReadOnly, "Whether the server only follows another."),
    reported("integer_datetimes", "on", Kind::ReadOnly, "Whether dates and times are whole numbers."),
    reported("IntervalStyle", "postgres", Kind::IntervalStyle, "How intervals are shown."),
    reported("is_superuser", "off", Kind::ReadOnly, "Whether the user may do everything."),
    // Nothing here waits for a lock.
    setting("lock_timeout", "0", Kind::Milliseconds, "How long locks may be waited for."),
    setting("max_identifier_length", "63", Kind::ReadOnly, "Bytes of a name."),
    setting("max_index_keys", "32", Kind::ReadOnly, "Columns of a key that tools should expect."),
    reported("scram_iterations", "4096", Kind::ReadOnly, "Iterations of SCRAM verifiers."),
    setting(
        "search_path",
        "\"$user\", public",
        Kind::SearchPath(&["\"$user\", public", "$user, public", "public", ""]),
        "The schemas in which names are looked up.",
    ),
    reported("server_encoding", "UTF8", Kind::ReadOnly, "The encoding of text in the server."),
    reported(
        "server_version",
        concat!("15.0 (Lookaside ", env!("CARGO_PKG_VERSION"), ")"),
        Kind::ReadOnly,
        "The version of PostgreSQL that is spoken.",
    ),
    setting("server_version_num", "150000", Kind::ReadOnly, "The same as a number."),
    reported("session_authorization", "", Kind::ReadOnly, "Who has connected."),
    reported(
        "standard_conforming_strings",
        "on",
        Kind::Fixed(&["on", "true", "1", "yes"]),
        "Whether backslashes in quotes are backslashes.",
    ),
    setting("jit", "off", Kind::Boolean, "No query is compiled: any value means the same."),
    setting("statement_timeout", "0", Kind::Milliseconds, "How long a statement may run."),
    setting(
        "synchronous_commit",
        "on",
        Kind::OneOf(&["on", "off", "local", "remote_write", "remote_apply"]),
        "Rows of streams are kept in memory: any value means the same.",
    ),
    reported("TimeZone", "UTC", Kind::TimeZone, "The zone in which times are shown, and read where they name none."),
    setting("transaction_deferrable", "off", Kind::Boolean, "Of a serializable transaction that only reads."),
    setting("transaction_isolation", "read committed", Kind::OneOf(ISOLATION), "Of the transaction that is open."),
    setting("transaction_read_only", "off", Kind::Boolean, "Whether it may put no rows into streams."),
    setting("default_transaction_deferrable", "off", Kind::Boolean, "Of transactions to come."),
];
