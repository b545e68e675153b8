//! How MariaDB and MySQL are asked for conditions. Texts are compared by their bytes in UTF-8, since collations there fold
//! capitals and accents and ignore blanks at the end.

use super::mysql_column::{FilterForm, MysqlColumn};
use super::sql_filter::{Constant, Dialect, Family};

/// The columns of the table `t`.
pub(super) struct MysqlDialect<'a>(pub(super) &'a [MysqlColumn]);

/// What numbers of the server have at most.
const MOST_DIGITS: usize = 65;

impl MysqlDialect<'_> {
    fn column(&self, name: &str) -> Option<&MysqlColumn> {
        self.0.iter().find(|column| column.name == name)
    }
}

impl Dialect for MysqlDialect<'_> {
    fn comparable(&self, column: &str) -> Option<(Family, String)> {
        let column = self.column(column)?;
        let family = Family::of(&column.pg_type)?;
        let name = column.column();
        let sql = match column.filter {
            FilterForm::Native | FilterForm::Moment => name,
            FilterForm::Bytes => format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)"),
            FilterForm::Bit => format!("({name} <> 0)"),
            FilterForm::None => return None,
        };
        Some((family, sql))
    }

    fn nullable(&self, column: &str) -> Option<String> {
        let column = self.column(column)?;
        Some(match column.filter {
            FilterForm::Moment => format!("CONCAT({})", column.column()),
            _ => column.column(),
        })
    }

    fn constant(&self, constant: &Constant) -> Option<String> {
        Some(match constant {
            Constant::Bool(value) => value.to_string().to_uppercase(),
            Constant::Integer(value) => format!("({value})"),
            Constant::Numeric(digits) => {
                let count = digits.chars().filter(char::is_ascii_digit).count();
                return (count <= MOST_DIGITS).then(|| format!("({digits})"));
            }
            Constant::Date(date) => format!("DATE'{date}'"),
            // The session's time zone is UTC.
            Constant::Timestamp(moment) | Constant::Timestamptz(moment) => format!("TIMESTAMP'{moment}'"),
        })
    }

    fn text(&self, _parameter: usize) -> String {
        "CAST(? AS BINARY)".to_string()
    }
}
