//! SET and SHOW: the settings that clients of PostgreSQL send and ask for.
//!
//! A setting is either kept and obeyed, or fixed: then only values that change nothing are taken, and all others
//! refused. `setting_table.rs` lists them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::format::settings::{IntervalStyle, ValueSettings};
use crate::session::setting_table::{Kind, SETTINGS, Setting};

/// The settings of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    changed: BTreeMap<&'static str, String>,
    /// What SET LOCAL has covered, to be put back at the end of the transaction.
    covered: BTreeMap<&'static str, Option<String>>,
    /// What the client asked for when it connected: RESET goes back to that.
    initial: BTreeMap<&'static str, String>,
}

/// A setting whose new value the client is to be told.
pub type Report = (&'static str, String);

impl Settings {
    /// The value of a setting and its name as PostgreSQL spells it.
    ///
    /// # Errors
    /// 42704 for a name that is no setting.
    pub fn get(&self, name: &str) -> Result<(&'static str, String)> {
        let setting = find(name)?;
        Ok((setting.name, self.value(setting)))
    }

    /// The values of all settings.
    pub fn all(&self) -> BTreeMap<&'static str, String> {
        SETTINGS.iter().map(|setting| (setting.name, self.value(setting))).collect()
    }

    /// What SHOW ALL shows: name, value, what it is for.
    pub fn described(&self) -> impl Iterator<Item = (&'static str, String, &'static str)> {
        let mut settings: Vec<_> = SETTINGS.iter().collect();
        settings.sort_by_key(|setting| setting.name.to_lowercase());
        settings.into_iter().map(|setting| (setting.name, self.value(setting), setting.description))
    }

    /// All settings that a client is told of when it connects.
    pub fn reported(&self) -> Vec<Report> {
        SETTINGS.iter().filter(|setting| setting.reported).map(|setting| (setting.name, self.value(setting))).collect()
    }

    /// Sets a setting, or puts it back to what it was when the client connected; with `local` until the end of the
    /// transaction.
    ///
    /// # Errors
    /// 42704 for a name that is no setting, 55P02 for one that is fixed, 22023 or 0A000 for a value it cannot have.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<()> {
        let setting = find(name)?;
        let value = match value {
            Some(value) => Some(self.check(setting, value)?),
            None if matches!(setting.kind, Kind::ReadOnly) => return Err(fixed(setting)),
            None => self.initial.get(setting.name).cloned(),
        };
        let before = self.changed.get(setting.name).cloned();
        if local {
            self.covered.entry(setting.name).or_insert(before);
        } else {
            self.covered.remove(setting.name);
        }
        match value {
            Some(value) => self.changed.insert(setting.name, value),
            None => self.changed.remove(setting.name),
        };
        Ok(())
    }

    /// The client has connected: what is set now is what RESET goes back to.
    pub fn keep_as_initial(&mut self) {
        self.initial = self.changed.clone();
    }

    /// Puts every setting back to what it was when the client connected.
    pub fn reset_all(&mut self) {
        let user = self.changed.remove("session_authorization");
        self.changed = self.initial.clone();
        self.covered.clear();
        // The name of the user is no setting that RESET may change.
        if let Some(user) = user {
            self.changed.insert("session_authorization", user);
        }
    }

    /// Puts back what SET LOCAL has covered.
    pub fn end_transaction(&mut self) {
        for (name, value) in std::mem::take(&mut self.covered) {
            match value {
                Some(value) => self.changed.insert(name, value),
                None => self.changed.remove(name),
            };
        }
    }

    /// The reported settings whose value is another than `before`.
    pub fn differences(&self, before: &Settings) -> Vec<Report> {
        if self == before {
            return vec![];
        }
        let reported = SETTINGS.iter().filter(|setting| setting.reported);
        reported
            .map(|setting| (setting.name, self.value(setting), before.value(setting)))
            .filter(|(_, now, before)| now != before)
            .map(|(name, now, _)| (name, now))
            .collect()
    }

    /// Remembers who has connected.
    pub fn set_user(&mut self, user: &str) {
        self.changed.insert("session_authorization", user.to_string());
    }

    /// How values are written and read.
    pub fn values(&self) -> ValueSettings {
        ValueSettings::of(|name| self.changed.get(name).map(String::as_str))
    }

    /// Who has connected.
    pub fn user(&self) -> &str {
        self.changed.get("session_authorization").map_or("", String::as_str)
    }

    pub fn application_name(&self) -> &str {
        self.changed.get("application_name").map_or("", String::as_str)
    }

    /// How long a statement may run.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.timeout("statement_timeout")
    }

    /// How long a client may say nothing, in a transaction or out of one.
    pub fn idle_timeout(&self, in_transaction: bool) -> Option<Duration> {
        self.timeout(if in_transaction { "idle_in_transaction_session_timeout" } else { "idle_session_timeout" })
    }

    /// Whether the transaction may not put rows into streams.
    pub fn is_read_only(&self) -> bool {
        find("transaction_read_only").is_ok_and(|setting| self.value(setting) == "on")
    }

    /// Whether a notice, or a warning, is wanted.
    pub fn wants(&self, notice: &Error) -> bool {
        match self.changed.get("client_min_messages").map(String::as_str) {
            Some("error") => false,
            Some("warning") => notice.code() != Code::Notice,
            _ => true,
        }
    }

    fn timeout(&self, name: &'static str) -> Option<Duration> {
        let milliseconds = self.changed.get(name).and_then(|value| milliseconds(value).ok())?;
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    fn value(&self, setting: &Setting) -> String {
        if let Some(value) = self.changed.get(setting.name) {
            return value.clone();
        }
        // A transaction is as the session has it, unless it says otherwise.
        let of_session = setting.name.strip_prefix("transaction_").map(|rest| format!("default_transaction_{rest}"));
        let of_session = of_session.and_then(|name| self.changed.get(name.as_str()));
        of_session.cloned().unwrap_or_else(|| setting.default.to_string())
    }

    fn check(&self, setting: &Setting, value: &str) -> Result<String> {
        let invalid = || {
            let message = format!("invalid value for parameter \"{}\": \"{value}\"", setting.name);
            Error::new(Code::InvalidParameterValue, message)
        };
        match setting.kind {
            Kind::Name => Ok(clean_name(value)),
            Kind::ReadOnly => Err(fixed(setting)),
            Kind::Milliseconds => match milliseconds(value) {
                Ok(milliseconds) => Ok(show_milliseconds(milliseconds)),
                Err(hint) => Err(invalid().with_hint(hint)),
            },
            Kind::Boolean => {
                let value = crate::format::literal::boolean(value).map_err(|_| {
                    let message = format!("parameter \"{}\" requires a Boolean value", setting.name);
                    Error::new(Code::InvalidParameterValue, message)
                })?;
                Ok(if value { "on" } else { "off" }.to_string())
            }
            Kind::OneOf(values) => {
                let found = values.iter().find(|known| known.eq_ignore_ascii_case(value));
                found
                    .map(ToString::to_string)
                    .ok_or_else(|| invalid().with_hint(format!("Available values: {}.", values.join(", "))))
            }
            Kind::Fixed(values) => match values.iter().any(|known| is_alike(known, value)) {
                true => Ok(setting.default.to_string()),
                false => Err(Error::unsupported(format!("\"{}\" cannot be set to \"{value}\" here", setting.name))
                    .with_hint(format!("It is \"{}\".", setting.default))),
            },
            Kind::SearchPath(values) => {
                let found = values.iter().find(|known| known.eq_ignore_ascii_case(value));
                found.map(ToString::to_string).ok_or_else(|| {
                    Error::unsupported(format!("\"{}\" cannot be set to \"{value}\" here", setting.name))
                        .with_hint(format!("It is \"{}\".", setting.default))
                })
            }
            Kind::Between(least, most) => match value.trim().parse::<i8>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number.to_string()),
                Ok(number) => Err(Error::new(
                    Code::InvalidParameterValue,
                    format!(
                        "{number} is outside the valid range for parameter \"{}\" ({least} .. {most})",
                        setting.name
                    ),
                )),
                Err(_) => Err(invalid()),
            },
            Kind::DateStyle => {
                let style = self.values().date_style.with(value);
                style.map(|style| style.to_string()).ok_or_else(invalid)
            }
            Kind::IntervalStyle => {
                let value = value.to_ascii_lowercase();
                IntervalStyle::parse(&value).map(|_| value).ok_or_else(invalid)
            }
            Kind::TimeZone => {
                let zone = match value.to_ascii_lowercase().as_str() {
                    "utc" | "gmt" | "z" | "zulu" => Some(&chrono_tz::UTC),
                    _ => chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(value)),
                };
                zone.map(|zone| zone.name().to_string())
                    .ok_or_else(|| invalid().with_hint("Write the name of a zone, as in 'Europe/Berlin'."))
            }
        }
    }
}

fn find(name: &str) -> Result<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| Error::new(Code::UndefinedObject, format!("unrecognized configuration parameter \"{name}\"")))
}

/// As PostgreSQL compares names of encodings, by letters and digits only: there are drivers that send them in quotes.
fn is_alike(known: &str, value: &str) -> bool {
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    letters(known).eq_ignore_ascii_case(&letters(value))
}

fn fixed(setting: &Setting) -> Error {
    Error::new(Code::CannotChangeParameter, format!("parameter \"{}\" cannot be changed", setting.name))
}

/// As PostgreSQL keeps an application's name: 63 bytes at most, and a question mark for every byte that is no
/// printable character of ASCII.
fn clean_name(name: &str) -> String {
    const MAX_NAME_BYTES: usize = 63;
    let cut = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
    cut.bytes().map(|byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' }).collect()
}

/// A whole number of milliseconds, or a number with a unit, as PostgreSQL takes times.
fn milliseconds(text: &str) -> Result<u64, &'static str> {
    const HINT: &str = "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\".";
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: f64 = number.trim().parse().map_err(|_| HINT)?;
    let factor = match unit.trim() {
        "us" => 0.001,
        "ms" | "" => 1.0,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return Err(HINT),
    };
    let milliseconds = (number * factor).round_ties_even();
    match (0.0..=f64::from(i32::MAX)).contains(&milliseconds) {
        true => Ok(milliseconds as u64),
        false => Err("It is from 0 to 2147483647 milliseconds."),
    }
}

/// In the largest unit that divides it, as PostgreSQL shows times.
fn show_milliseconds(milliseconds: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    if milliseconds == 0 {
        return "0".to_string();
    }
    match units.iter().find(|(factor, _)| milliseconds.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", milliseconds / factor),
        None => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, value: &str) -> Result<String, &'static str> {
        let mut settings = Settings::default();
        settings.set(name, Some(value), false).map_err(|error| error.sqlstate())?;
        settings.get(name).map(|(_, value)| value).map_err(|error| error.sqlstate())
    }

    #[test]
    fn names_are_found_in_any_case_and_shown_in_their_own() {
        let mut settings = Settings::default();
        settings.set("timezone", Some("europe/berlin"), false).unwrap();
        assert_eq!(settings.get("TIMEZONE").unwrap(), ("TimeZone", "Europe/Berlin".into()));
        assert_eq!(settings.differences(&Settings::default()), [("TimeZone", "Europe/Berlin".to_string())]);
        assert_eq!(settings.get("no_such").unwrap_err().sqlstate(), "42704");
    }

    #[test]
    fn values_are_shown_as_postgresql_shows_them() {
        for (name, value, expected) in [
            ("statement_timeout", "5000", "5s"),
            ("statement_timeout", "1500", "1500ms"),
            ("statement_timeout", "2 min", "2min"),
            ("statement_timeout", "0.5s", "500ms"),
            ("statement_timeout", "0", "0"),
            ("DateStyle", "german", "German, DMY"),
            ("IntervalStyle", "ISO_8601", "iso_8601"),
            ("client_encoding", "utf-8", "UTF8"),
            ("client_encoding", "'utf-8'", "UTF8"),
            ("default_transaction_read_only", "yes", "on"),
            ("extra_float_digits", "-15", "-15"),
            ("application_name", "a\u{e9}\n", "a???"),
        ] {
            assert_eq!(shown(name, value).as_deref(), Ok(expected), "{name} {value}");
        }
        assert_eq!(shown("application_name", &"x".repeat(80)), Ok("x".repeat(63)));
    }

    #[test]
    fn what_is_not_obeyed_is_refused() {
        for (name, value, sqlstate) in [
            ("client_encoding", "LATIN1", "0A000"),
            ("DateStyle", "roman", "22023"),
            ("statement_timeout", "-1", "22023"),
            ("statement_timeout", "5 fortnights", "22023"),
            ("server_version", "9", "55P02"),
            ("TimeZone", "Mars/Olympus", "22023"),
            ("extra_float_digits", "4", "22023"),
            ("default_transaction_read_only", "maybe", "22023"),
            ("default_transaction_isolation", "none", "22023"),
        ] {
            assert_eq!(shown(name, value), Err(sqlstate), "{name} {value}");
        }
    }

    #[test]
    fn set_local_ends_with_the_transaction() {
        let mut settings = Settings::default();
        settings.set("application_name", Some("a"), false).unwrap();
        settings.set("application_name", Some("b"), true).unwrap();
        assert_eq!(settings.application_name(), "b");
        settings.end_transaction();
        assert_eq!(settings.application_name(), "a");
    }

    #[test]
    fn reset_goes_back_to_what_the_client_connected_with() {
        let mut settings = Settings::default();
        settings.set_user("ana");
        settings.set("application_name", Some("tool"), false).unwrap();
        settings.keep_as_initial();
        settings.set("application_name", Some("other"), false).unwrap();
        settings.set("statement_timeout", Some("1s"), false).unwrap();
        settings.set("application_name", None, false).unwrap();
        assert_eq!(settings.application_name(), "tool");
        settings.reset_all();
        assert_eq!((settings.user(), settings.statement_timeout()), ("ana", None));
    }
}
