//! FETCH and MOVE, which the parser knows only in part, and what they come to over a cursor that goes forward only.

use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Code, Error, Result};
use crate::quantity::parse_duration;
use crate::sql::StatementKind;
use crate::sql_name::fold;

/// FETCH or MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub cursor: String,
    pub motion: Motion,
    /// MOVE: the rows are passed over.
    pub is_move: bool,
    /// How long rows are waited for; `None`: as long as it takes.
    pub timeout: Option<Duration>,
}

/// Where a cursor is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    Forward(Amount),
    Backward(Amount),
    /// To the row of this number from 1; a negative one counts from the end.
    Absolute(i64),
    Relative(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Rows(u64),
    All,
}

/// Where a cursor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorPosition {
    /// Rows that have been read: the last of them is the row it stands on, unless it has come to its end.
    pub rows: u64,
    pub at_end: bool,
}

/// What a motion comes to for a cursor that goes forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Rows to pass over, and rows to give after them.
    Read { skip: u64, take: u64 },
    /// The cursor stays on the row on which it stands.
    Stay,
}

impl Motion {
    /// What this motion comes to from `position`: PostgreSQL's rules for a cursor declared with NO SCROLL.
    ///
    /// # Errors
    /// 55000 where it would have to go back.
    pub fn steps(self, position: CursorPosition, is_move: bool) -> Result<Steps> {
        let CursorPosition { rows, at_end } = position;
        let is_on_row = rows > 0 && !at_end;
        match self {
            Motion::Forward(Amount::All) => Ok(Steps::Read { skip: 0, take: u64::MAX }),
            Motion::Forward(Amount::Rows(0)) | Motion::Backward(Amount::Rows(0)) | Motion::Relative(0) => {
                match (is_on_row, is_move) {
                    (true, true) => Ok(Steps::Stay),
                    // The row would have to be read once more.
                    (true, false) => Err(forward_only()),
                    (false, _) => Ok(Steps::Read { skip: 0, take: 0 }),
                }
            }
            Motion::Forward(Amount::Rows(count)) => Ok(Steps::Read { skip: 0, take: count }),
            Motion::Relative(count @ 1..) => Ok(Steps::Read { skip: count.unsigned_abs() - 1, take: 1 }),
            Motion::Absolute(0) if rows == 0 && !at_end => Ok(Steps::Read { skip: 0, take: 0 }),
            Motion::Absolute(count @ 1..) => {
                // Behind the end it takes one step more to come to a row.
                let passed = rows + u64::from(at_end);
                match count.unsigned_abs().checked_sub(passed + 1) {
                    Some(skip) => Ok(Steps::Read { skip, take: 1 }),
                    None => Err(forward_only()),
                }
            }
            Motion::Backward(_) | Motion::Absolute(_) | Motion::Relative(_) => Err(forward_only()),
        }
    }
}

fn forward_only() -> Error {
    Error::new(Code::ObjectNotReady, "cursor can only scan forward").with_hint("A stream is read forward only.")
}

/// Reads FETCH and MOVE; `None` for any other statement.
///
/// # Errors
/// 42601 for what PostgreSQL would not read either, 22023 for a bad time-out.
pub(super) fn parse_fetch(tokens: &[TokenWithSpan]) -> Result<Option<StatementKind>> {
    let meaningful = tokens.iter().map(|token| &token.token);
    let words: Vec<&Token> = meaningful.filter(|token| !matches!(token, Token::Whitespace(_) | Token::EOF)).collect();
    let mut reader = Reader { words: &words };
    let is_move = match reader.word().as_deref() {
        Some("fetch") => false,
        Some("move") => true,
        _ => return Ok(None),
    };
    reader.advance();
    let motion = reader.motion()?;
    reader.skip_word("from");
    reader.skip_word("in");
    let cursor = reader.name()?;
    let timeout = reader.timeout()?;
    match reader.words.first() {
        None => Ok(Some(StatementKind::Fetch(Fetch { cursor, motion, is_move, timeout }))),
        Some(_) => Err(reader.unexpected()),
    }
}

struct Reader<'a> {
    words: &'a [&'a Token],
}

impl Reader<'_> {
    /// The next token in lower case, if it is a word without quotes.
    fn word(&self) -> Option<String> {
        match self.words.first() {
            Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
            _ => None,
        }
    }

    fn advance(&mut self) {
        self.words = self.words.get(1..).unwrap_or_default();
    }

    fn skip_word(&mut self, wanted: &str) -> bool {
        let is_next = self.word().as_deref() == Some(wanted) && self.words.len() > 1;
        if is_next {
            self.advance();
        }
        is_next
    }

    fn unexpected(&self) -> Error {
        match self.words.first() {
            Some(token) => Error::new(Code::SyntaxError, format!("syntax error at or near \"{token}\"")),
            None => Error::new(Code::SyntaxError, "syntax error at end of input"),
        }
    }

    /// A word of a direction may as well be a cursor's name, if nothing follows it.
    fn motion(&mut self) -> Result<Motion> {
        const DIRECTIONS: [&str; 9] =
            ["next", "prior", "first", "last", "absolute", "relative", "all", "forward", "backward"];
        let one = Amount::Rows(1);
        let is_direction = |word: &String| self.words.len() > 1 && DIRECTIONS.contains(&word.as_str());
        let Some(direction) = self.word().filter(is_direction) else {
            return match self.words.first() {
                Some(Token::Number(..) | Token::Minus | Token::Plus) => {
                    Ok(counted(self.number()?, Motion::Forward, Motion::Backward))
                }
                _ => Ok(Motion::Forward(one)),
            };
        };
        self.advance();
        Ok(match direction.as_str() {
            "next" => Motion::Forward(one),
            "prior" => Motion::Backward(one),
            "first" => Motion::Absolute(1),
            "last" => Motion::Absolute(-1),
            "absolute" => Motion::Absolute(self.number()?),
            "relative" => Motion::Relative(self.number()?),
            "all" => Motion::Forward(Amount::All),
            "forward" => self.amount(Motion::Forward, Motion::Backward)?,
            _ => self.amount(Motion::Backward, Motion::Forward)?,
        })
    }

    /// What may stand behind FORWARD and BACKWARD.
    fn amount(&mut self, ahead: fn(Amount) -> Motion, back: fn(Amount) -> Motion) -> Result<Motion> {
        if self.skip_word("all") {
            return Ok(ahead(Amount::All));
        }
        match self.words.first() {
            Some(Token::Number(..) | Token::Minus | Token::Plus) => Ok(counted(self.number()?, ahead, back)),
            _ => Ok(ahead(Amount::Rows(1))),
        }
    }

    fn number(&mut self) -> Result<i64> {
        let sign = match self.words.first() {
            Some(Token::Minus) => "-",
            _ => "",
        };
        if let Some(Token::Minus | Token::Plus) = self.words.first() {
            self.advance();
        }
        let number = match self.words.first() {
            Some(Token::Number(digits, _)) => format!("{sign}{digits}").parse().map_err(|_| self.unexpected())?,
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(number)
    }

    fn name(&mut self) -> Result<String> {
        let name = match self.words.first() {
            Some(Token::Word(word)) => fold(&word.value, word.quote_style.is_some()),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(name)
    }

    /// `WITH (timeout = '1s')`
    fn timeout(&mut self) -> Result<Option<Duration>> {
        if self.word().as_deref() != Some("with") {
            return Ok(None);
        }
        self.advance();
        let hint = "Write WITH (timeout = '1s').";
        let timeout = match self.words {
            [Token::LParen, Token::Word(name), Token::Eq, Token::SingleQuotedString(text), Token::RParen, ..]
                if name.value.eq_ignore_ascii_case("timeout") =>
            {
                parse_duration(text).map_err(|reason| {
                    Error::new(
                        Code::InvalidParameterValue,
                        format!("invalid value for FETCH option \"timeout\": {reason}"),
                    )
                })?
            }
            [Token::LParen, Token::Word(name), Token::Eq, ..] if !name.value.eq_ignore_ascii_case("timeout") => {
                let message = format!("unrecognized FETCH option \"{}\"", name.value);
                return Err(Error::new(Code::InvalidParameterValue, message).with_hint(hint));
            }
            _ => return Err(self.unexpected().with_hint(hint)),
        };
        self.words = self.words.get(5..).unwrap_or_default();
        Ok(Some(timeout))
    }
}

/// A negative number of rows goes the other way.
fn counted(number: i64, ahead: fn(Amount) -> Motion, back: fn(Amount) -> Motion) -> Motion {
    let amount = Amount::Rows(number.unsigned_abs());
    if number < 0 { back(amount) } else { ahead(amount) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{self, StatementKind};

    fn fetch(text: &str) -> Result<Fetch> {
        match sql::parse(text)?.remove(0).kind {
            StatementKind::Fetch(fetch) => Ok(fetch),
            other => panic!("{text} is {other:?}"),
        }
    }

    #[test]
    fn every_direction_is_read() {
        let rows = Amount::Rows;
        for (text, motion) in [
            ("FETCH c", Motion::Forward(rows(1))),
            ("fetch from c", Motion::Forward(rows(1))),
            ("FETCH next", Motion::Forward(rows(1))),
            ("FETCH NEXT IN c", Motion::Forward(rows(1))),
            ("FETCH 5 c", Motion::Forward(rows(5))),
            ("FETCH -5 FROM c", Motion::Backward(rows(5))),
            ("FETCH ALL FROM c", Motion::Forward(Amount::All)),
            ("FETCH FORWARD FROM c", Motion::Forward(rows(1))),
            ("FETCH FORWARD ALL c", Motion::Forward(Amount::All)),
            ("FETCH BACKWARD 3 FROM c", Motion::Backward(rows(3))),
            ("FETCH PRIOR FROM c", Motion::Backward(rows(1))),
            ("FETCH FIRST FROM c", Motion::Absolute(1)),
            ("FETCH LAST FROM c", Motion::Absolute(-1)),
            ("FETCH ABSOLUTE -2 FROM c", Motion::Absolute(-2)),
            ("FETCH RELATIVE +2 FROM c", Motion::Relative(2)),
        ] {
            assert_eq!(fetch(text).unwrap().motion, motion, "{text}");
        }
        let with_timeout = fetch("MOVE 2 FROM \"C\" WITH (timeout = '250ms')").unwrap();
        assert_eq!((with_timeout.cursor.as_str(), with_timeout.is_move), ("C", true));
        assert_eq!(with_timeout.timeout, Some(Duration::from_millis(250)));
        for (text, sqlstate) in [
            ("FETCH", "42601"),
            ("FETCH 1.5 FROM c", "42601"),
            ("FETCH 2 FROM c d", "42601"),
            ("FETCH 2 FROM c WITH (timeout = 'soon')", "22023"),
            ("FETCH 2 FROM c WITH (patience = '1s')", "22023"),
            ("FETCH 2 FROM c WITH timeout", "42601"),
        ] {
            assert_eq!(sql::parse(text).unwrap_err().sqlstate(), sqlstate, "{text}");
        }
    }

    #[test]
    fn a_cursor_goes_forward_only() {
        let at = |rows, at_end| CursorPosition { rows, at_end };
        let read = |skip, take| Ok(Steps::Read { skip, take });
        let steps = |motion: Motion, position, is_move| motion.steps(position, is_move).map_err(|e| e.sqlstate());
        assert_eq!(steps(Motion::Absolute(5), at(2, false), false), read(2, 1));
        assert_eq!(steps(Motion::Absolute(2), at(2, false), false), Err("55000"));
        // Behind the last row of two, the third would be the next.
        assert_eq!(steps(Motion::Absolute(3), at(2, true), false), Err("55000"));
        assert_eq!(steps(Motion::Absolute(4), at(2, true), false), read(0, 1));
        assert_eq!(steps(Motion::Relative(3), at(2, false), false), read(2, 1));
        assert_eq!(steps(Motion::Forward(Amount::Rows(0)), at(0, false), false), read(0, 0));
        assert_eq!(steps(Motion::Forward(Amount::Rows(0)), at(1, false), false), Err("55000"));
        assert_eq!(steps(Motion::Forward(Amount::Rows(0)), at(1, false), true), Ok(Steps::Stay));
        assert_eq!(steps(Motion::Backward(Amount::All), at(0, false), true), Err("55000"));
        assert_eq!(steps(Motion::Absolute(0), at(0, false), false), read(0, 0));
        assert_eq!(steps(Motion::Absolute(-1), at(0, false), false), Err("55000"));
    }
}
