//! How PostgreSQL is asked for conditions. Left out beside what `sql_filter.rs` leaves out: char(n), for its padding.

use super::postgres_schema::PostgresColumn;
use super::sql_filter::{Constant, Dialect, Family};

/// The columns of the table `t`.
pub(super) struct PostgresDialect<'a>(pub(super) &'a [PostgresColumn]);

impl PostgresDialect<'_> {
    fn column(&self, name: &str) -> Option<&PostgresColumn> {
        self.0.iter().find(|column| column.name == name)
    }
}

impl Dialect for PostgresDialect<'_> {
    fn comparable(&self, column: &str) -> Option<(Family, String)> {
        let column = self.column(column).filter(|column| column.can_filter)?;
        let family = Family::of(&column.pg_type)?;
        let sql = match family {
            Family::Text => format!("({}::text COLLATE \"C\")", column.value),
            _ => column.value.clone(),
        };
        Some((family, sql))
    }

    fn nullable(&self, column: &str) -> Option<String> {
        self.column(column).map(|column| column.value.clone())
    }

    fn constant(&self, constant: &Constant) -> Option<String> {
        Some(match constant {
            Constant::Bool(value) => value.to_string().to_uppercase(),
            // With its type, and in brackets: a minus binds less than a cast.
            Constant::Integer(value) => format!("({value})::int8"),
            Constant::Numeric(digits) => format!("'{digits}'::numeric"),
            Constant::Date(date) => format!("'{date}'::date"),
            Constant::Timestamp(moment) => format!("'{moment}'::timestamp"),
            Constant::Timestamptz(moment) => format!("'{moment}+00'::timestamptz"),
        })
    }

    fn text(&self, parameter: usize) -> String {
        format!("${parameter}::text")
    }
}
