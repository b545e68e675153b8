//! The extended query: statements that are prepared, bound, described and executed, each by a message of its own.

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use pgwire::messages::PgWireFrontendMessage;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};

use crate::error::{Code, Error};
use crate::pg_type::PgType;
use crate::server::connection::{Connection, Ended};
use crate::server::decode::decode_parameter;
use crate::server::encode::{Format, row_description};
use crate::server::query::command_tag;
use crate::server::wire::Broken;
use crate::session::portal::{Content, Portal, RowReader};
use crate::session::{Outcome, Prepared, SHOW_ALL_COLUMNS, Session};
use crate::sql::{self, Statement, StatementKind};

impl Connection {
    /// One message of the extended protocol.
    pub(super) async fn extended_query(&mut self, message: PgWireFrontendMessage) -> Result<(), Ended> {
        match message {
            PgWireFrontendMessage::Parse(parse) => self.parse(parse).await,
            PgWireFrontendMessage::Bind(bind) => self.bind(bind).await,
            PgWireFrontendMessage::Describe(describe) => self.describe(&describe),
            PgWireFrontendMessage::Execute(execute) => self.execute(execute).await,
            PgWireFrontendMessage::Close(close) => self.close(close),
            PgWireFrontendMessage::Flush(_) => self.flush().await,
            _ => Err(Broken::Protocol(Error::new(Code::ProtocolViolation, "unexpected message")).into()),
        }
    }

    async fn parse(&mut self, parse: Parse) -> Result<(), Ended> {
        let name = parse.name.unwrap_or_default();
        let mut statements = sql::parse(&parse.query)?;
        if statements.len() > 1 {
            return Err(
                Error::new(Code::SyntaxError, "cannot insert multiple commands into a prepared statement").into()
            );
        }
        let statement = statements.pop().unwrap_or(Statement { kind: StatementKind::Empty, text: String::new() });
        let declared = parse.type_oids.iter().map(|oid| declared_type(*oid)).collect::<Result<Vec<_>, _>>()?;
        let (wire, session, stop) = self.parts();
        let prepared = stop
            .guard(wire, session.prepare(statement, &declared))
            .await?
            .map_err(|error| error.locate(&parse.query))?;
        self.session.keep_statement(&name, prepared.with_declared_oids(parse.type_oids))?;
        Ok(self.wire.send(&ParseComplete::new())?)
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Ended> {
        let name = bind.statement_name.unwrap_or_default();
        let prepared = self.session.statement(&name)?.clone();
        self.session.refuse_in_failed_transaction(&prepared.statement)?;
        let expected = prepared.parameters.len();
        if bind.parameters.len() != expected {
            let given = bind.parameters.len();
            let message = format!(
                "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {expected}"
            );
            return Err(Error::new(Code::ProtocolViolation, message).into());
        }
        let formats = Format::expand(&bind.parameter_format_codes, expected).map_err(|_| {
            let given = bind.parameter_format_codes.len();
            let message = format!("bind message has {given} parameter formats but {expected} parameters");
            Error::new(Code::ProtocolViolation, message)
        })?;
        let settings = self.value_settings();
        let mut values = vec![];
        for ((bytes, format), pg_type) in bind.parameters.iter().zip(formats).zip(&prepared.parameters) {
            values.push(decode_parameter(bytes.as_deref(), format, pg_type, settings)?);
        }
        let codes = bind.result_column_format_codes;
        let portal = match (&prepared.statement.kind, prepared.planned.is_some()) {
            // A query begins here: what arrives from now on is in it.
            (StatementKind::Query(_) | StatementKind::ShowRelation { .. }, true) => {
                if let Some(schema) = result_schema(&mut self.session, &prepared)? {
                    Format::expand(&codes, schema.fields().len())?;
                }
                let (wire, session, stop) = self.parts();
                let executed = stop.guard(wire, session.execute(&prepared, values)).await??;
                match self.announce(executed)? {
                    Outcome::Rows { rows, tag } => Portal::of_rows(rows, tag, codes),
                    _ => return Err(Error::internal("a query without rows").into()),
                }
            }
            _ => Portal::of_statement(prepared, values, codes),
        };
        self.session.open_portal(&bind.portal_name.unwrap_or_default(), portal)?;
        Ok(self.wire.send(&BindComplete::new())?)
    }

    fn describe(&mut self, describe: &Describe) -> Result<(), Ended> {
        let name = describe.name.as_deref().unwrap_or_default();
        if !matches!(describe.target_type, b'S' | b'P') {
            let message = format!("invalid DESCRIBE message subtype {}", describe.target_type);
            return Err(Error::new(Code::ProtocolViolation, message).into());
        }
        if describe.target_type == b'S' {
            let prepared = self.session.statement(name)?.clone();
            self.wire.send(&ParameterDescription::new(prepared.parameter_oids()))?;
            let schema = result_schema(&mut self.session, &prepared)?;
            return self.send_description(schema, &[]);
        }
        let portal = self.session.portal(name)?;
        let formats = portal.formats.clone();
        let schema = match &portal.content {
            Content::Rows(reader) => Some(reader.schema().clone()),
            Content::Done => None,
            Content::Statement { prepared, .. } => {
                let prepared = prepared.as_ref().clone();
                result_schema(&mut self.session, &prepared)?
            }
        };
        self.send_description(schema, &formats)
    }

    fn send_description(&mut self, schema: Option<SchemaRef>, codes: &[i16]) -> Result<(), Ended> {
        match schema {
            Some(schema) => {
                let formats = Format::expand(codes, schema.fields().len())?;
                Ok(row_description(&schema, &formats, &mut self.wire.output)?)
            }
            None => Ok(self.wire.send(&NoData::new())?),
        }
    }

    async fn execute(&mut self, execute: Execute) -> Result<(), Ended> {
        let name = execute.name.unwrap_or_default();
        self.session.begin_pipeline();
        let limit = u64::try_from(execute.max_rows).ok().filter(|rows| *rows > 0).unwrap_or(u64::MAX);
        let portal = self.session.portal(&name)?;
        let formats = portal.formats.clone();
        match std::mem::replace(&mut portal.content, Content::Done) {
            Content::Statement { prepared, values } => {
                self.backend.runs(&prepared.statement.text);
                if let StatementKind::Empty = prepared.statement.kind {
                    portal.content = Content::Statement { prepared, values };
                    return Ok(self.wire.send(&EmptyQueryResponse::new())?);
                }
                let (wire, session, stop) = self.parts();
                let executed = stop.guard(wire, session.execute(&prepared, values)).await??;
                match self.announce(executed)? {
                    Outcome::Rows { rows, tag } => {
                        self.execute_rows(&name, RowReader::new(rows, tag), &formats, limit).await
                    }
                    Outcome::Fetch(fetch) => self.fetch(&fetch, Some(&formats)).await,
                    other => self.send_rowless(other).await,
                }
            }
            Content::Rows(reader) => self.execute_rows(&name, reader, &formats, limit).await,
            Content::Done => Err(Error::new(Code::ObjectNotReady, format!("portal \"{name}\" cannot be run")).into()),
        }
    }

    async fn execute_rows(
        &mut self,
        name: &str,
        mut reader: RowReader,
        codes: &[i16],
        limit: u64,
    ) -> Result<(), Ended> {
        let formats = Format::expand(codes, reader.schema().fields().len())?;
        let tag = reader.tag();
        let sent = self.send_rows(&mut reader, &formats, limit, None).await?;
        // At its end too: who asks for more is told that there is none.
        if let Ok(portal) = self.session.portal(name) {
            portal.put_back(reader);
        }
        match sent < limit {
            true => Ok(self.wire.send(&CommandComplete::new(command_tag(tag, sent)))?),
            false => Ok(self.wire.send(&PortalSuspended::new())?),
        }
    }

    fn close(&mut self, close: Close) -> Result<(), Ended> {
        let name = close.name.unwrap_or_default();
        match close.target_type {
            b'S' => self.session.forget_statement(&name),
            b'P' => self.session.close_portal(&name),
            other => {
                let message = format!("invalid CLOSE message subtype {other}");
                return Err(Error::new(Code::ProtocolViolation, message).into());
            }
        }
        Ok(self.wire.send(&CloseComplete::new())?)
    }
}

fn declared_type(oid: u32) -> Result<Option<PgType>, Error> {
    match oid {
        // Unspecified, and what drivers send for a string that may be anything.
        0 | 705 => Ok(None),
        oid => match PgType::of_oid(oid) {
            Some(pg_type) => Ok(Some(pg_type)),
            None => Err(Error::unsupported(format!("parameters of the type with OID {oid} are not supported"))),
        },
    }
}

/// The columns of what a statement answers, without running it.
fn result_schema(session: &mut Session, prepared: &Prepared) -> Result<Option<SchemaRef>, Error> {
    let texts = |columns: &[&str]| {
        let fields: Vec<_> = columns.iter().map(|column| PgType::Text.field(column, false)).collect();
        Some(SchemaRef::new(Schema::new(fields)))
    };
    Ok(match &prepared.statement.kind {
        StatementKind::Query(_) | StatementKind::ShowRelation { .. } => {
            prepared.planned.as_ref().map(|planned| planned.schema.clone())
        }
        StatementKind::Explain { .. } => texts(&["QUERY PLAN"]),
        StatementKind::Show { name } if name == "all" => texts(&SHOW_ALL_COLUMNS),
        StatementKind::Show { name } => texts(&[session.settings().get(name)?.0]),
        StatementKind::Fetch(fetch) if !fetch.is_move => match &session.cursor(&fetch.cursor)?.content {
            Content::Rows(reader) => Some(reader.schema().clone()),
            _ => None,
        },
        StatementKind::Execute { name, .. } => {
            let inner = session.statement(name)?.clone();
            result_schema(session, &inner)?
        }
        _ => None,
    })
}
