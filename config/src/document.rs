//! The TOML tree with its spans, and how keys are taken out of it: every key that is asked for is a
//! known key, every other one is an error.

use crate::error::{ConfigError, Findings, Source};
use crate::suggest::nearest;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file being read: where its keys are, and what is wrong so far.
pub(crate) struct Document<'t> {
    text: &'t str,
    /// Byte offset of the start of every line.
    line_starts: Vec<usize>,
    pub(crate) source: Source,
    pub(crate) findings: Findings,
    /// The keys that were asked for, by section name without index.
    known: Vec<(String, Vec<&'static str>)>,
    unknown: Vec<Unknown>,
}

/// A key nobody asked for.
struct Unknown {
    /// Section with its index, empty at the top level.
    section: String,
    key: String,
}

impl Unknown {
    fn path(&self) -> String {
        let Self { section, key } = self;
        if section.is_empty() {
            key.clone()
        } else {
            format!("{section}.{key}")
        }
    }
}

impl<'t> Document<'t> {
    /// Parses `text`; what is not TOML is a finding.
    pub(crate) fn parse(text: &'t str, file: &str) -> (Self, Spanned<DeTable<'t>>) {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(newline, _)| newline + 1))
            .collect();
        let mut document = Self {
            text,
            line_starts,
            source: Source::new(file),
            findings: Findings::default(),
            known: Vec::new(),
            unknown: Vec::new(),
        };
        let (tree, errors) = DeTable::parse_recoverable(text);
        let mut last_line = None;
        for error in errors {
            let place = error
                .span()
                .map(|span| document.line_and_column(span.start));
            let line = place.map(|(line, _)| line);
            // What follows in the same line follows from the first mistake.
            if line.is_some() && line == last_line {
                continue;
            }
            last_line = line;
            let message = error.message().trim().replace('\n', "; ");
            document.findings.push(ConfigError {
                file: file.into(),
                line,
                key: String::new(),
                value: String::new(),
                message: match place {
                    Some((_, column)) => format!("column {column}: not valid TOML: {message}"),
                    None => format!("not valid TOML: {message}"),
                },
            });
        }
        (document, tree)
    }

    /// Line and column, both counted from 1, of a byte offset.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = line
            .checked_sub(1)
            .and_then(|index| self.line_starts.get(index))
            .copied();
        let before = self.text.get(start.unwrap_or(0)..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }

    /// Remembers where `key` is and what is written there.
    fn record(&mut self, key: &str, value: &Spanned<DeValue<'_>>, line_of: usize) {
        // Long enough for any sane value, short enough for one line of a terminal.
        const SHOWN: usize = 60;
        let mut written = self.text.get(value.span()).unwrap_or("");
        let is_header = match value.get_ref() {
            DeValue::Table(_) => written.starts_with('['),
            DeValue::Array(_) => written.starts_with("[[") && is_tables(value.get_ref()),
            _ => false,
        };
        if is_header {
            // The key says as much.
            written = "";
        }
        let mut shown: String = written
            .chars()
            .take_while(|c| !c.is_control())
            .take(SHOWN)
            .collect();
        if shown.len() < written.len() {
            shown.push('…');
        }
        let (line, _) = self.line_and_column(line_of);
        self.source.record(key, line, shown);
    }

    /// The section `[name]`; a section the file does not have is one without keys.
    pub(crate) fn section<'d, 'v>(
        &'d mut self,
        tree: &'v DeTable<'t>,
        name: &'static str,
    ) -> Section<'d, 't, 'v> {
        let entry = tree.get_key_value(name);
        if let Some((key, value)) = entry {
            self.record(name, value, key.span().start);
        }
        let table = match entry.map(|(_, value)| value.get_ref()) {
            None => None,
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => {
                let message = match other {
                    DeValue::Array(_) => format!("must be one table: write [{name}]"),
                    _ => format!("must be a table: write [{name}], and its keys below"),
                };
                self.findings.add(&self.source, name, "", message);
                None
            }
        };
        Section {
            document: self,
            name: name.into(),
            table,
            known: Vec::new(),
        }
    }

    /// How many tables `[[name]]` there are.
    pub(crate) fn count(&mut self, tree: &DeTable<'t>, name: &'static str) -> usize {
        match tree.get_key_value(name) {
            None => 0,
            Some((key, value)) => match value.get_ref() {
                DeValue::Array(array) => array.len(),
                _ => {
                    self.record(name, value, key.span().start);
                    let message = format!("must be an array of tables: write [[{name}]]");
                    self.findings.add(&self.source, name, "", message);
                    0
                }
            },
        }
    }

    /// The table number `index` of `[[name]]`.
    pub(crate) fn element<'d, 'v>(
        &'d mut self,
        tree: &'v DeTable<'t>,
        name: &'static str,
        index: usize,
    ) -> Section<'d, 't, 'v> {
        let path = format!("{name}[{index}]");
        let value = match tree.get(name).map(Spanned::get_ref) {
            Some(DeValue::Array(array)) => array.get(index),
            _ => None,
        };
        if let Some(value) = value {
            self.record(&path, value, value.span().start);
        }
        let table = value.and_then(|value| value.get_ref().as_table());
        if table.is_none() {
            let message = format!("must be a table: write [[{name}]], and its keys below");
            self.findings.add(&self.source, &path, "", message);
        }
        Section {
            document: self,
            name: path,
            table,
            known: Vec::new(),
        }
    }

    /// Makes errors of the keys nobody asked for, at the top level too, where `sections` are the
    /// names that were.
    pub(crate) fn reject_unknown(&mut self, tree: &DeTable<'t>, sections: &[&'static str]) {
        for (key, value) in tree {
            let name = key.get_ref().as_ref();
            if sections.contains(&name) {
                continue;
            }
            self.record(name, value, key.span().start);
            let is_section = value.get_ref().is_table() || is_tables(value.get_ref());
            if is_section {
                let hint = match nearest(name, sections.iter().copied()) {
                    Some(near) => format!("did you mean [{near}]?"),
                    None => format!("there are [{}]", sections.join("], [")),
                };
                self.findings
                    .add(&self.source, name, "", format!("unknown section; {hint}"));
            } else {
                self.unknown.push(Unknown {
                    section: String::new(),
                    key: name.into(),
                });
            }
        }
        for unknown in std::mem::take(&mut self.unknown) {
            let hint = self.hint(&unknown.section, &unknown.key);
            let message = format!("unknown key; {hint}");
            self.findings
                .add(&self.source, &unknown.path(), "", message);
        }
    }

    /// What may have been meant by the unknown `key` in `section`: a similar key there, the same
    /// key elsewhere, a similar key elsewhere; else what `section` has.
    fn hint(&self, section: &str, key: &str) -> String {
        let kind = without_index(section);
        let here = self
            .known
            .iter()
            .find(|(name, _)| name == kind)
            .map(|(_, keys)| keys);
        if let Some(near) = here.and_then(|keys| nearest(key, keys.iter().copied())) {
            return format!("did you mean \"{near}\"?");
        }
        let elsewhere = |wanted: &dyn Fn(&[&'static str]) -> Option<&'static str>| {
            self.known
                .iter()
                .filter(|(name, _)| name != kind)
                .find_map(|(name, keys)| wanted(keys).map(|key| format!("{name}.{key}")))
        };
        let same = elsewhere(&|keys| keys.iter().copied().find(|known| *known == key));
        let similar = || elsewhere(&|keys| nearest(key, keys.iter().copied()));
        match (same.or_else(similar), here) {
            (Some(path), _) => format!("did you mean \"{path}\"?"),
            (None, Some(keys)) => format!("[{kind}] has {}", keys.join(", ")),
            (None, None) => "every key belongs to a section, such as [interface]".into(),
        }
    }
}

/// Whether `value` is what `[[name]]` makes.
fn is_tables(value: &DeValue<'_>) -> bool {
    let elements = value.as_array();
    elements.is_some_and(|array| array.iter().any(|element| element.get_ref().is_table()))
}

/// `service[3]` → `service`.
fn without_index(path: &str) -> &str {
    path.split_once('[').map_or(path, |(name, _)| name)
}

/// One table of the file, and the keys that were asked for so far.
pub(crate) struct Section<'d, 't, 'v> {
    document: &'d mut Document<'t>,
    name: String,
    table: Option<&'v DeTable<'t>>,
    known: Vec<&'static str>,
}

impl<'t, 'v> Section<'_, 't, 'v> {
    /// The value of `key`; where it is missing or wrong, `None`.
    fn value(&mut self, key: &'static str) -> Option<&'v Spanned<DeValue<'t>>> {
        self.known.push(key);
        let (written, value) = self.table?.get_key_value(key)?;
        let path = format!("{}.{key}", self.name);
        self.document.record(&path, value, written.span().start);
        Some(value)
    }

    fn add(&mut self, key: &str, message: String) {
        let Document {
            source, findings, ..
        } = &mut *self.document;
        findings.add(source, key, "", message);
    }

    /// `key` as `convert` understands it; where it is missing or wrong, `None`.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match convert(value.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.add(&format!("{}.{key}", self.name), message);
                None
            }
        }
    }

    /// Whether `key` is written, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Makes an error of a missing `key`; `allowed` says what it should be.
    pub(crate) fn require(&mut self, key: &'static str, allowed: &str) {
        let written = match self.table {
            Some(table) => table.contains_key(key),
            // Something else stands where the table should be: that is the error.
            None => !self.document.findings.sound(&[&self.name]),
        };
        if written {
            return;
        }
        let error = ConfigError {
            file: self.document.source.file.clone(),
            line: self.document.source.line(&self.name),
            key: format!("{}.{key}", self.name),
            value: String::new(),
            message: format!("missing: {allowed}"),
        };
        self.document.findings.push(error);
    }

    /// A list whose elements `convert` understands. Every wrong element is an error of its own.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        convert: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let path = format!("{}.{key}", self.name);
        let DeValue::Array(array) = value.get_ref() else {
            self.add(&path, format!("must be {allowed}"));
            return None;
        };
        let mut list = Vec::with_capacity(array.len());
        for (index, element) in array.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.document.record(&path, element, element.span().start);
            match convert(element.get_ref()) {
                Ok(value) => list.push(value),
                Err(message) => self.add(&path, message),
            }
        }
        // With an element left out, what is left would be another configuration.
        (list.len() == array.len()).then_some(list)
    }

    /// Either `word` (then `Some(None)`) or a list.
    pub(crate) fn word_or_list<T>(
        &mut self,
        key: &'static str,
        word: &str,
        allowed: &str,
        convert: impl Fn(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<Option<Vec<T>>> {
        let written = self
            .table
            .and_then(|table| table.get(key))
            .map(Spanned::get_ref);
        if written.and_then(DeValue::as_str) == Some(word) {
            self.value(key);
            return Some(None);
        }
        self.list(key, allowed, convert).map(Some)
    }

    /// A whole number in `range`.
    pub(crate) fn number<T>(&mut self, key: &'static str, range: RangeInclusive<T>, default: T) -> T
    where
        T: Copy + TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        self.read(key, |value| number(value, &range))
            .unwrap_or(default)
    }

    /// A power of two in `range`.
    pub(crate) fn power_of_two(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let allowed = || {
            format!(
                "must be a power of two from {} to {}",
                range.start(),
                range.end()
            )
        };
        self.read(key, |value| match number(value, &range) {
            Ok(number) if number.is_power_of_two() => Ok(number),
            _ => Err(allowed()),
        })
        .unwrap_or(default)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, |value| match value {
            DeValue::Boolean(value) => Ok(*value),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                Err("must be true or false, without quotes".into())
            }
            _ => Err("must be true or false".into()),
        })
        .unwrap_or(default)
    }

    /// One of `words`; where it is missing or wrong, `None`.
    pub(crate) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        self.read(key, |value| {
            let written = value.as_str();
            if let Some((_, value)) = words.iter().find(|(word, _)| Some(*word) == written) {
                return Ok(*value);
            }
            let list: Vec<_> = words
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            let mut message = match list.as_slice() {
                [only] => format!("must be {only}, the only one so far"),
                list => format!("must be one of {}", list.join(", ")),
            };
            let near = written.and_then(|text| nearest(text, words.iter().map(|(word, _)| *word)));
            if let (Some(near), true) = (near, words.len() > 1) {
                message.push_str(&format!("; did you mean \"{near}\"?"));
            }
            Err(message)
        })
    }

    /// Ends the section: keys nobody asked for are remembered as unknown.
    pub(crate) fn finish(self) {
        let Self {
            document,
            name,
            table,
            known,
        } = self;
        for (key, value) in table.into_iter().flatten() {
            if !known.contains(&key.get_ref().as_ref()) {
                let unknown = Unknown {
                    section: name.clone(),
                    key: key.get_ref().to_string(),
                };
                document.record(&unknown.path(), value, key.span().start);
                document.unknown.push(unknown);
            }
        }
        let name = without_index(&name);
        if !document.known.iter().any(|(section, _)| section == name) {
            document.known.push((name.into(), known));
        }
    }
}

/// A whole number in `range`.
pub(crate) fn number<T>(value: &DeValue<'_>, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let allowed = || {
        format!(
            "must be a whole number from {} to {}",
            range.start(),
            range.end()
        )
    };
    match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(allowed),
        DeValue::String(text) if text.parse::<i64>().is_ok() => {
            Err(format!("{}, without quotes", allowed()))
        }
        _ => Err(allowed()),
    }
}

/// A string that `parse` understands; `allowed` says what it should be where it is no string.
pub(crate) fn string<T>(
    value: &DeValue<'_>,
    allowed: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    match value {
        DeValue::String(text) => parse(text),
        _ => Err(format!("must be {allowed}, in quotes")),
    }
}
