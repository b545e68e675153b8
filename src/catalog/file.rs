//! Catalog files: TOML as written in, definitions as meant out, or all that is wrong.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::connection_section::Connections;
use super::definition::{CatalogDefinition, Origin};
use super::lookup_section::read_lookup;
use super::problem::{Complaint, Problem, SourceText};
use super::reading::Reading;
use super::section::Section;
use super::server_section::read_server;
use super::stream_section::read_stream;
use super::user_section::{Role, WrittenUser, grants_beside, read_role, read_user, resolve_users};

/// Reads catalog files, which form one catalog, with the variables of this process.
///
/// # Errors
/// Every mistake in any of them.
pub fn read_files(paths: &[PathBuf]) -> Result<CatalogDefinition, Vec<Problem>> {
    let mut files = Vec::with_capacity(paths.len());
    let mut problems = Vec::new();
    for path in paths {
        match std::fs::read_to_string(path) {
            Ok(text) => files.push((path.clone(), text)),
            Err(error) => problems.push(Problem {
                file: path.clone(),
                line: 0,
                column: 0,
                message: format!("cannot read the catalog file: {error}"),
                hint: None,
            }),
        }
    }
    match read_text(&files, &|name| std::env::var(name).ok()) {
        Ok(catalog) if problems.is_empty() => Ok(catalog),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    }
}

/// Reads catalogs from their text. Paths tell where the texts came from; `environment` has the variables.
///
/// # Errors
/// Every mistake in any of them, in the order of files and lines.
pub fn read_text(
    files: &[(PathBuf, String)],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<CatalogDefinition, Vec<Problem>> {
    let files: Vec<SourceText> = files.iter().map(|(path, text)| SourceText { path, text }).collect();
    read_sources(&files, environment, None)
}

/// Reads a catalog from inside the binary, whose lookup files are `data`: paths as the catalog names them, and contents.
///
/// # Errors
/// Every mistake in it.
pub fn read_embedded(
    path: &Path,
    text: &str,
    data: &[(&str, &'static str)],
) -> Result<CatalogDefinition, Vec<Problem>> {
    read_sources(&[SourceText { path, text }], &|_| None, Some(data))
}

fn read_sources<'a>(
    files: &[SourceText<'a>],
    environment: &dyn Fn(&str) -> Option<String>,
    embedded: Option<&[(&str, &'static str)]>,
) -> Result<CatalogDefinition, Vec<Problem>> {
    let problems = RefCell::new(Vec::new());
    let mut collected = Collected::default();
    let reading = |source: &SourceText<'a>| Reading { source: *source, environment, embedded, problems: &problems };
    let readings = files.iter().map(reading).collect::<Vec<_>>();
    let parsed = readings.iter().filter_map(|reading| Some((reading, collected.parse(reading)?))).collect::<Vec<_>>();
    let roots = parsed.iter().map(|(reading, table)| Section::root(reading, table)).collect::<Vec<_>>();
    // What tables may say depends on their connections, which may stand in another file.
    roots.iter().for_each(|root| collected.read_connections(root));
    roots.iter().for_each(|root| collected.read(root));
    let mut problems = problems.borrow().clone();
    problems.extend(collected.resolve_rights());
    if problems.is_empty() {
        return Ok(collected.catalog);
    }
    let place = |problem: &Problem| files.iter().position(|file| file.path == problem.file);
    problems.sort_by_key(|problem| (place(problem), problem.line, problem.column));
    Err(problems)
}

/// What the files declared so far.
#[derive(Default)]
struct Collected {
    catalog: CatalogDefinition,
    /// Names of streams and lookup tables, of wrong ones too, so that one mistake is not reported as two.
    tables: Vec<Declared>,
    connection_names: Vec<Declared>,
    connections: Connections,
    /// Where `[server]` stands.
    server: Option<Origin>,
    users: Vec<WrittenUser>,
    user_names: Vec<Declared>,
    roles: Vec<Role>,
    role_names: Vec<Declared>,
}

struct Declared {
    name: String,
    /// "stream", "lookup table", "connection", "user" or "role".
    what: &'static str,
    origin: Origin,
}

impl Collected {
    /// What stands in the file; `None`, with complaints, if it is not TOML.
    fn parse<'a>(&mut self, reading: &Reading<'a>) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(reading.source.text);
        if errors.is_empty() {
            return Some(table.into_inner());
        }
        // It may declare anything.
        self.connections.is_partial = true;
        reading.problems.borrow_mut().extend(syntax_problems(&reading.source, &errors));
        None
    }

    fn read_connections(&mut self, root: &Section) {
        for (name, section) in objects(root, "connection", "connection.X") {
            if declare(&mut self.connection_names, "connection", &name, &section) {
                self.catalog.connections.extend(self.connections.read(&name, &section));
            }
        }
    }

    fn read(&mut self, root: &Section) {
        root.check_keys();
        if let Some(server) = root.section("server", "server") {
            self.read_server(&server);
        }
        self.read_tables(root);
        for (name, section) in objects(root, "user", "user.X") {
            if declare(&mut self.user_names, "user", &name, &section) {
                self.users.extend(read_user(&name, &section));
            }
        }
        for (name, section) in objects(root, "role", "role.X") {
            if declare(&mut self.role_names, "role", &name, &section) {
                self.roles.push(read_role(&name, &section));
            }
        }
    }

    fn read_tables(&mut self, root: &Section) {
        for (name, section) in objects(root, "stream", "stream.X") {
            if declare(&mut self.tables, "stream", &name, &section) {
                self.catalog.streams.extend(read_stream(&name, &section, &self.connections));
            }
        }
        for (name, section) in objects(root, "lookup", "lookup.X") {
            if declare(&mut self.tables, "lookup table", &name, &section) {
                self.catalog.lookups.extend(read_lookup(&name, &section, &self.connections));
            }
        }
    }

    fn read_server(&mut self, section: &Section) {
        if let Some(earlier) = self.server.replace(section.origin.clone()) {
            return section.complain(Complaint::new(format!("[server] is already declared at {earlier}")));
        }
        self.catalog.server = read_server(section);
    }

    /// What can be told only when all files have been read: who has which rights.
    fn resolve_rights(&mut self) -> Vec<Problem> {
        let is_table = |name: &str| self.tables.iter().any(|table| table.name == name);
        self.catalog.grants = grants_beside(&self.roles, &is_table).collect();
        match resolve_users(std::mem::take(&mut self.users), &self.roles) {
            Ok(users) => {
                self.catalog.users = users;
                vec![]
            }
            Err(_) if self.connections.is_partial => vec![],
            Err(problems) => problems,
        }
    }
}

/// The named sections inside `[group]`.
fn objects<'a>(root: &Section<'a>, group: &str, kind: &'static str) -> Vec<(String, Section<'a>)> {
    let Some(group) = root.section(group, "") else { return Vec::new() };
    let named = group.entries().filter_map(|(name, _)| {
        let section = group.section(name.get_ref(), kind)?;
        Some((name.get_ref().to_string(), section))
    });
    named.collect()
}

/// Takes note of a name; false, with a complaint, if it is empty or taken.
fn declare(declared: &mut Vec<Declared>, what: &'static str, name: &str, section: &Section) -> bool {
    if name.is_empty() {
        section.complain(Complaint::new(format!("a {what} needs a name")));
        return false;
    }
    if let Some(earlier) = declared.iter().find(|earlier| earlier.name == name) {
        let complaint =
            Complaint::new(format!("name \"{name}\" is already taken by the {} at {}", earlier.what, earlier.origin));
        section.complain(match what {
            "connection" | "user" | "role" => complaint,
            _ => complaint.with_hint("Streams and lookup tables share their names: rename one."),
        });
        return false;
    }
    declared.push(Declared { name: name.to_string(), what, origin: section.origin.clone() });
    true
}

/// What the parser says, once a line: one slip often gives it several reasons to complain.
fn syntax_problems(source: &SourceText, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for error in errors {
        let offset = error.span().map_or(source.text.len(), |span| span.start);
        let origin = source.origin(offset);
        let told = |line: usize| problems.iter().any(|earlier| earlier.line == line);
        if told(origin.line) {
            continue;
        }
        if error.message() != "duplicate key" {
            problems.push(Complaint::new(format!("this is not TOML: {}", error.message())).at(&origin));
            continue;
        }
        let header = header_before(source.text, offset);
        // A section that is declared twice repeats its keys too.
        if !header.is_some_and(|header| told(source.origin(header).line)) {
            problems.push(Complaint::new(duplicate_message(source, header, offset)).at(&origin));
        }
    }
    problems
}

/// Where the `[header]` begins whose section the key at `offset` is in; `None` at the top and in a header itself.
fn header_before(text: &str, offset: usize) -> Option<usize> {
    let start = line_start(text, offset);
    if text[start..].trim_start().starts_with('[') {
        return None;
    }
    let mut end = 0;
    let starts = text[..start].split_inclusive('\n').map(|line| {
        end += line.len();
        (end - line.len(), line)
    });
    starts.filter(|(_, line)| line.trim_start().starts_with('[')).last().map(|(start, _)| start)
}

fn line_start(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Names both places of a key that is declared twice. The parser tells only the second one.
fn duplicate_message(source: &SourceText, header: Option<usize>, offset: usize) -> String {
    let line_at = |offset: usize| source.text[offset..].lines().next().unwrap_or_default();
    let start = line_start(source.text, offset);
    // The same path in a text of its own leads through what comes before to the first declaration.
    let excerpt = format!("{}\n{}\n", header.map_or("", line_at), line_at(start));
    let (path, _) = DeTable::parse_recoverable(&excerpt);
    let (before, _) = DeTable::parse_recoverable(&source.text[..start]);
    match first_declaration(before.get_ref(), path.get_ref()) {
        Some((name, first)) => format!("\"{name}\" is already declared at {}", source.origin(first)),
        None => "a key is declared twice".to_string(),
    }
}

/// Follows the one path in `path` through `table`: the last name on it and where it stands.
fn first_declaration(table: &DeTable, path: &DeTable) -> Option<(String, usize)> {
    let (name, inner) = path.iter().next()?;
    let (first, value) = table.get_key_value(name.get_ref().as_ref())?;
    match (value.get_ref().as_table(), inner.get_ref().as_table()) {
        (Some(table), Some(inner)) if !inner.is_empty() => first_declaration(table, inner),
        _ => Some((name.get_ref().to_string(), first.span().start)),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "access_tests.rs"]
mod access_tests;

#[cfg(test)]
#[path = "mistake_tests.rs"]
mod mistake_tests;
