//! Every failure that a user can see: message, detail, hint, SQLSTATE.
//!
//! Inside DataFusion an [`Error`] travels as `DataFusionError::External` and is found again by
//! `Error::from`; DataFusion's own errors are given the SQLSTATE that PostgreSQL would use.

use std::fmt;

use datafusion::error::DataFusionError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a program can act on it. [`Code::sqlstate`] gives PostgreSQL's name of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// No failure, but something to be told.
    Notice,
    SyntaxError,
    UndefinedTable,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedObject,
    UndefinedCursor,
    UndefinedStatement,
    UndefinedParameter,
    AmbiguousColumn,
    DuplicateObject,
    DuplicateCursor,
    DuplicateStatement,
    DuplicateAlias,
    DuplicateColumn,
    DatatypeMismatch,
    IndeterminateDatatype,
    GroupingError,
    InvalidColumnReference,
    InvalidParameterValue,
    CannotChangeParameter,
    FeatureNotSupported,
    NumericOutOfRange,
    DivisionByZero,
    DatetimeOverflow,
    IntervalOverflow,
    InvalidDatetimeFormat,
    InvalidTimeZoneDisplacement,
    InvalidTextRepresentation,
    InvalidBinaryRepresentation,
    CharacterNotInRepertoire,
    BadCopyFormat,
    NotNullViolation,
    CardinalityViolation,
    DataException,
    InvalidAuthorization,
    InvalidPassword,
    InsufficientPrivilege,
    TooManyConnections,
    ActiveTransaction,
    NoActiveTransaction,
    FailedTransaction,
    ReadOnlyTransaction,
    UndefinedSavepoint,
    ObjectNotReady,
    ProgramLimitExceeded,
    OutOfMemory,
    QueryCanceled,
    AdminShutdown,
    IdleInTransactionTimeout,
    IdleSessionTimeout,
    ProtocolViolation,
    /// The store could not be reached.
    StoreUnavailable,
    /// The store answered with an error, or did not answer in time.
    StoreFailed,
    Internal,
}

impl Code {
    /// The five characters of the SQLSTATE, from appendix A of PostgreSQL's manual.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Code::SyntaxError => "42601",
            Code::UndefinedTable => "42P01",
            Code::UndefinedColumn => "42703",
            Code::UndefinedFunction => "42883",
            Code::UndefinedObject => "42704",
            Code::UndefinedCursor => "34000",
            Code::UndefinedStatement => "26000",
            Code::UndefinedParameter => "42P02",
            Code::AmbiguousColumn => "42702",
            Code::DuplicateObject => "42P07",
            Code::DuplicateCursor => "42P03",
            Code::DuplicateStatement => "42P05",
            Code::DuplicateAlias => "42712",
            Code::DuplicateColumn => "42701",
            Code::Notice => "00000",
            Code::DatatypeMismatch => "42804",
            Code::IndeterminateDatatype => "42P18",
            Code::GroupingError => "42803",
            Code::InvalidColumnReference => "42P10",
            Code::InvalidParameterValue => "22023",
            Code::CannotChangeParameter => "55P02",
            Code::FeatureNotSupported => "0A000",
            Code::NumericOutOfRange => "22003",
            Code::DivisionByZero => "22012",
            Code::DatetimeOverflow => "22008",
            Code::IntervalOverflow => "22015",
            Code::InvalidDatetimeFormat => "22007",
            Code::InvalidTimeZoneDisplacement => "22009",
            Code::InvalidTextRepresentation => "22P02",
            Code::InvalidBinaryRepresentation => "22P03",
            Code::CharacterNotInRepertoire => "22021",
            Code::BadCopyFormat => "22P04",
            Code::NotNullViolation => "23502",
            Code::CardinalityViolation => "21000",
            Code::DataException => "22000",
            Code::InvalidAuthorization => "28000",
            Code::InvalidPassword => "28P01",
            Code::InsufficientPrivilege => "42501",
            Code::TooManyConnections => "53300",
            Code::ActiveTransaction => "25001",
            Code::NoActiveTransaction => "25P01",
            Code::FailedTransaction => "25P02",
            Code::ReadOnlyTransaction => "25006",
            Code::UndefinedSavepoint => "3B001",
            Code::ObjectNotReady => "55000",
            Code::ProgramLimitExceeded => "54000",
            Code::OutOfMemory => "53200",
            Code::QueryCanceled => "57014",
            Code::AdminShutdown => "57P01",
            Code::IdleInTransactionTimeout => "25P03",
            Code::IdleSessionTimeout => "57P05",
            Code::ProtocolViolation => "08P01",
            Code::StoreUnavailable => "HV00N",
            Code::StoreFailed => "HV000",
            Code::Internal => "XX000",
        }
    }
}

/// A failure as the client gets it. Cheap to move; cloned where several rows or queries share one failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Fields>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    code: Code,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<usize>,
    place: Option<(u64, u64)>,
}

impl Error {
    /// `message` as PostgreSQL writes them: lower case, no full stop, names in double quotes.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error(Box::new(Fields { code, message: message.into(), detail: None, hint: None, position: None, place: None }))
    }

    /// What the interface has and this version does not.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::FeatureNotSupported, message)
    }

    /// What cannot happen, with the facts in it.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// A sentence with the facts behind the message.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// A sentence that says what to do.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Where in the statement's text: characters from its start, the first is 1.
    pub fn with_position(mut self, position: usize) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Where in the statement's text, as line and column from 1; [`Error::locate`] makes a position of it.
    pub fn with_place(mut self, line: u64, column: u64) -> Self {
        self.0.place = Some((line, column));
        self
    }

    /// The same failure with its position in `text`, if all that is known so far is line and column.
    pub fn locate(mut self, text: &str) -> Self {
        if let Some((line, column)) = self.0.place.take().filter(|(line, column)| *line > 0 && *column > 0) {
            let lines_before = text.split_inclusive('\n').take(line as usize - 1);
            let before: usize = lines_before.map(|line| line.chars().count()).sum();
            self.0.position = Some(before + column as usize);
        }
        self
    }

    /// The same failure with other words in front: `context: message`.
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    pub fn code(&self) -> Code {
        self.0.code
    }

    pub fn sqlstate(&self) -> &'static str {
        self.0.code.sqlstate()
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn position(&self) -> Option<usize> {
        self.0.position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        DataFusionError::External(Box::new(error))
    }
}
