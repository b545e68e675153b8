//! The trigger that tells of changes, as SQL for whoever owns the table.

use super::postgres_schema::quote_identifier;

/// Statements that may be run again, for the table `name` in `schema`. `key` names the primary key's columns, and is
/// empty where messages cannot say which rows have changed.
pub(super) fn statements((schema, name): (&str, &str), channel: &str, key: &[&str]) -> String {
    let relation = format!("{}.{}", quote_identifier(schema), quote_identifier(name));
    let short = shortened(channel);
    let name = quote_identifier(&format!("lookaside_{short}"));
    let everything = quote_identifier(&format!("lookaside_{short}_all"));
    let function = format!("{}.{name}", quote_identifier(schema));
    let (body, each, note) = match key.is_empty() {
        true => (whole_table(channel), "STATEMENT", " It has no primary key: all that is cached of it is emptied."),
        false => (keys(channel, key), "ROW", ""),
    };
    format!(
        "-- Tells on channel {channel} which rows of {relation} have changed, when that is committed.{note}
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS {body};
DROP TRIGGER IF EXISTS {name} ON {relation};
CREATE TRIGGER {name} AFTER INSERT OR UPDATE OR DELETE ON {relation}
  FOR EACH {each} EXECUTE FUNCTION {function}();
DROP TRIGGER IF EXISTS {everything} ON {relation};
CREATE TRIGGER {everything} AFTER TRUNCATE ON {relation}
  FOR EACH STATEMENT EXECUTE FUNCTION {function}();
"
    )
}

/// PostgreSQL cuts names after 63 bytes: what follows the channel's name must stay.
fn shortened(channel: &str) -> &str {
    const MOST: usize = 48;
    &channel[..channel.floor_char_boundary(MOST)]
}

fn whole_table(channel: &str) -> String {
    let channel = quote_literal(channel);
    dollar_quoted(&format!(
        "
BEGIN
  PERFORM pg_notify({channel}, '');
  RETURN NULL;
END
"
    ))
}

fn keys(channel: &str, key: &[&str]) -> String {
    let channel = quote_literal(channel);
    let object = |row: &str| {
        let members = key.iter().map(|column| format!("{}, {row}.{}", quote_literal(column), quote_identifier(column)));
        format!("jsonb_build_object({})", members.collect::<Vec<_>>().join(", "))
    };
    let (old, new) = (object("OLD"), object("NEW"));
    dollar_quoted(&format!(
        "
DECLARE
  message jsonb := '{{}}';
BEGIN
  IF TG_OP IN ('UPDATE', 'DELETE') THEN
    message := message || jsonb_build_object('old', {old});
  END IF;
  IF TG_OP IN ('INSERT', 'UPDATE') THEN
    message := message || jsonb_build_object('new', {new});
  END IF;
  -- A message has room for less than 8000 bytes; without keys it means that any row may have changed.
  IF octet_length(message::text) > 7999 THEN
    message := '{{}}';
  END IF;
  PERFORM pg_notify({channel}, message::text);
  RETURN NULL;
END
"
    ))
}

fn quote_literal(text: &str) -> String {
    match text.contains('\\') {
        true => format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

/// In dollar quotes whose tag the text does not hold.
fn dollar_quoted(text: &str) -> String {
    let tags = (0..).map(|number| if number == 0 { "$$".to_string() } else { format!("$body{number}$") });
    let tag = tags.into_iter().find(|tag| !text.contains(tag.as_str())).unwrap_or_default();
    format!("{tag}{text}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names_whatever_they_hold() {
        let sql = statements(("public", "it's \"big\""), "a\"b'c$$", &["i'd", "x\"y"]);
        assert!(sql.contains("CREATE OR REPLACE FUNCTION \"public\".\"lookaside_a\"\"b'c$$\"()"), "{sql}");
        assert!(sql.contains("$body1$\nDECLARE"), "{sql}");
        assert!(sql.contains("jsonb_build_object('i''d', OLD.\"i'd\", 'x\"y', OLD.\"x\"\"y\")"), "{sql}");
        assert!(sql.contains("pg_notify('a\"b''c$$', message::text)"), "{sql}");
        assert!(sql.contains("CREATE TRIGGER \"lookaside_a\"\"b'c$$_all\" AFTER TRUNCATE"), "{sql}");
    }

    #[test]
    fn a_table_without_a_key_tells_that_something_changed() {
        let sql = statements(("public", "log"), "c", &[]);
        assert!(sql.contains("FOR EACH STATEMENT") && !sql.contains("FOR EACH ROW") && !sql.contains("jsonb"), "{sql}");
    }
}
