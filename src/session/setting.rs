//! SET and SHOW: the settings that clients of PostgreSQL send and ask for.
//!
//! A setting is either kept and obeyed, or fixed: then only values that change nothing are taken, and all others refused.

use std::collections::BTreeMap;

use crate::error::{Code, Error, Result};

/// What a setting may be.
enum Kind {
    /// Any text.
    Free,
    /// Only these, the first is the default.
    OneOf(&'static [&'static str]),
    /// A time-out that is not kept: 0 only.
    Off,
    TimeZone,
    /// UTF8, however it is spelled.
    Encoding,
    /// Cannot be set at all.
    ReadOnly,
}

struct Setting {
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// Whether the client is told of every change.
    reported: bool,
}

const ON_OFF: &[&str] = &["on", "off"];

const fn setting(name: &'static str, default: &'static str, kind: Kind, reported: bool) -> Setting {
    Setting { name, default, kind, reported }
}

static SETTINGS: [Setting; 27] = [
    setting("application_name", "", Kind::Free, true),
    setting("bytea_output", "hex", Kind::OneOf(&["hex"]), false),
    setting("client_encoding", "UTF8", Kind::Encoding, true),
    setting(
        "client_min_messages",
        "notice",
        Kind::OneOf(&["notice", "warning", "error", "log", "info", "debug"]),
        false,
    ),
    setting(
        "DateStyle",
        "ISO, MDY",
        Kind::OneOf(&["ISO, MDY", "ISO", "iso", "ISO, DMY", "ISO, YMD", "iso, mdy"]),
        true,
    ),
    setting("default_transaction_isolation", "read committed", Kind::OneOf(ISOLATION), false),
    setting("default_transaction_read_only", "off", Kind::OneOf(&["off"]), true),
    setting("extra_float_digits", "1", Kind::OneOf(&["1", "2", "3"]), false),
    setting("idle_in_transaction_session_timeout", "0", Kind::Off, false),
    setting("in_hot_standby", "off", Kind::ReadOnly, true),
    setting("integer_datetimes", "on", Kind::ReadOnly, true),
    setting("IntervalStyle", "postgres", Kind::OneOf(&["postgres"]), true),
    setting("is_superuser", "off", Kind::ReadOnly, true),
    setting("lock_timeout", "0", Kind::Off, false),
    setting("max_identifier_length", "63", Kind::ReadOnly, false),
    setting("scram_iterations", "4096", Kind::ReadOnly, true),
    setting(
        "search_path",
        "\"$user\", public",
        Kind::OneOf(&["\"$user\", public", "$user, public", "public", ""]),
        false,
    ),
    setting("server_encoding", "UTF8", Kind::ReadOnly, true),
    setting("server_version", concat!("15.0 (Lookaside ", env!("CARGO_PKG_VERSION"), ")"), Kind::ReadOnly, true),
    setting("server_version_num", "150000", Kind::ReadOnly, false),
    setting("session_authorization", "", Kind::ReadOnly, true),
    setting("standard_conforming_strings", "on", Kind::OneOf(&["on", "true", "1"]), true),
    setting("statement_timeout", "0", Kind::Off, false),
    setting("synchronous_commit", "on", Kind::OneOf(ON_OFF), false),
    setting("TimeZone", "UTC", Kind::TimeZone, true),
    setting("transaction_isolation", "read committed", Kind::OneOf(ISOLATION), false),
    setting("transaction_read_only", "off", Kind::OneOf(&["off"]), false),
];

const ISOLATION: &[&str] = &["read committed", "read uncommitted", "repeatable read", "serializable"];

/// The settings of one session.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    changed: BTreeMap<&'static str, String>,
    /// What SET LOCAL has covered, to be put back at the end of the transaction.
    covered: BTreeMap<&'static str, Option<String>>,
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

    /// All settings that a client is told of when it connects.
    pub fn reported(&self) -> Vec<Report> {
        SETTINGS.iter().filter(|setting| setting.reported).map(|setting| (setting.name, self.value(setting))).collect()
    }

    /// Sets a setting, or puts it back to its default; tells what to report.
    ///
    /// # Errors
    /// 42704 for a name that is no setting, 55P02 for one that is fixed, 22023 or 0A000 for a value it cannot have.
    pub fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<Option<Report>> {
        let setting = find(name)?;
        let value = value.map(|value| check(setting, value)).transpose()?;
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
        Ok(setting.reported.then(|| (setting.name, self.value(setting))))
    }

    /// Puts every setting back to its default.
    pub fn reset_all(&mut self) -> Vec<Report> {
        let before = std::mem::take(self);
        // The name of the user is no setting that RESET may change.
        if let Some(user) = before.changed.get("session_authorization") {
            self.changed.insert("session_authorization", user.clone());
        }
        self.differences(&before)
    }

    /// Puts back what SET LOCAL has covered.
    pub fn end_transaction(&mut self) -> Vec<Report> {
        let before = self.clone();
        for (name, value) in std::mem::take(&mut self.covered) {
            match value {
                Some(value) => self.changed.insert(name, value),
                None => self.changed.remove(name),
            };
        }
        self.differences(&before)
    }

    /// The reported settings whose value is another than `before`.
    pub fn differences(&self, before: &Settings) -> Vec<Report> {
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

    /// The zone in which `timestamptz` is shown.
    pub fn time_zone(&self) -> chrono_tz::Tz {
        self.changed.get("TimeZone").and_then(|name| name.parse().ok()).unwrap_or(chrono_tz::UTC)
    }

    /// Who has connected.
    pub fn user(&self) -> &str {
        self.changed.get("session_authorization").map_or("", String::as_str)
    }

    pub fn application_name(&self) -> &str {
        self.changed.get("application_name").map_or("", String::as_str)
    }

    /// Whether notices are wanted.
    pub fn wants_notices(&self) -> bool {
        !matches!(self.changed.get("client_min_messages").map(String::as_str), Some("warning" | "error"))
    }

    fn value(&self, setting: &Setting) -> String {
        self.changed.get(setting.name).cloned().unwrap_or_else(|| setting.default.to_string())
    }
}

fn find(name: &str) -> Result<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| Error::new(Code::UndefinedObject, format!("unrecognized configuration parameter \"{name}\"")))
}

fn check(setting: &Setting, value: &str) -> Result<String> {
    let refuse = || {
        Error::unsupported(format!("\"{}\" cannot be set to \"{value}\" here", setting.name))
            .with_hint(format!("It is \"{}\".", setting.default))
    };
    match setting.kind {
        Kind::Free => Ok(value.to_string()),
        Kind::ReadOnly => {
            Err(Error::new(Code::CannotChangeParameter, format!("parameter \"{}\" cannot be changed", setting.name)))
        }
        Kind::Off => match value.trim_matches(|c: char| c.is_alphabetic() || c == ' ') {
            "0" => Ok("0".into()),
            _ => Err(refuse()),
        },
        Kind::OneOf(values) => {
            let found = values.iter().find(|known| known.eq_ignore_ascii_case(value)).ok_or_else(refuse)?;
            // Spellings of one and the same value all become the first.
            Ok(match setting.name {
                "DateStyle" | "standard_conforming_strings" => values[0].to_string(),
                _ => found.to_string(),
            })
        }
        // PostgreSQL looks at letters and digits only: there are drivers that send the name in quotes.
        Kind::Encoding => {
            let name: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            match name.to_ascii_lowercase().as_str() {
                "utf8" | "unicode" => Ok(setting.default.to_string()),
                _ => Err(refuse()),
            }
        }
        Kind::TimeZone => {
            let zone = match value.to_ascii_lowercase().as_str() {
                "utc" | "gmt" | "z" | "zulu" => Some(&chrono_tz::UTC),
                _ => chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(value)),
            };
            zone.map(|zone| zone.name().to_string()).ok_or_else(|| {
                Error::new(
                    Code::InvalidParameterValue,
                    format!("invalid value for parameter \"TimeZone\": \"{value}\""),
                )
                .with_hint("Write the name of a zone, as in 'Europe/Berlin'.")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_shown_in_their_own() {
        let mut settings = Settings::default();
        assert_eq!(
            settings.set("timezone", Some("europe/berlin"), false).unwrap(),
            Some(("TimeZone", "Europe/Berlin".into()))
        );
        assert_eq!(settings.get("TIMEZONE").unwrap(), ("TimeZone", "Europe/Berlin".into()));
        assert_eq!(settings.get("no_such").unwrap_err().sqlstate(), "42704");
    }

    #[test]
    fn what_is_not_obeyed_is_refused() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("DateStyle", Some("German"), false).unwrap_err().sqlstate(), "0A000");
        assert_eq!(settings.set("statement_timeout", Some("5s"), false).unwrap_err().sqlstate(), "0A000");
        assert_eq!(settings.set("server_version", Some("9"), false).unwrap_err().sqlstate(), "55P02");
        assert_eq!(settings.set("TimeZone", Some("Mars/Olympus"), false).unwrap_err().sqlstate(), "22023");
        assert!(settings.set("statement_timeout", Some("0"), false).is_ok());
        for name in ["utf-8", "'utf-8'", "Unicode", "UTF_8"] {
            settings.set("client_encoding", Some(name), false).unwrap();
            assert_eq!(settings.get("client_encoding").unwrap().1, "UTF8");
        }
        assert_eq!(settings.set("client_encoding", Some("LATIN1"), false).unwrap_err().sqlstate(), "0A000");
    }

    #[test]
    fn set_local_ends_with_the_transaction() {
        let mut settings = Settings::default();
        settings.set("application_name", Some("a"), false).unwrap();
        settings.set("application_name", Some("b"), true).unwrap();
        assert_eq!(settings.application_name(), "b");
        assert_eq!(settings.end_transaction(), vec![("application_name", "a".to_string())]);
        assert_eq!(settings.application_name(), "a");
        assert_eq!(settings.end_transaction(), vec![]);
    }
}
