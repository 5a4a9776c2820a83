//! What is wrong with a configuration, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

/// One thing wrong with a configuration.
///
/// `Display` gives one line: `FILE:LINE: KEY = VALUE: what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named to [`Config::load`](crate::Config::load).
    pub file: String,
    /// The line, counted from 1; `None` where the value is a default or the whole file is meant.
    pub line: Option<usize>,
    /// The key with its section and index, such as `rings.rx` or `service[0].listen[1]`; empty
    /// where no single key is meant.
    pub key: String,
    /// The value as it is written in the file; empty where there is none.
    pub value: String,
    /// What is allowed, or what contradicts what.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            key,
            value,
            message,
        } = self;
        f.write_str(file)?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if !key.is_empty() {
            f.write_str(key)?;
            if !value.is_empty() {
                write!(f, " = {value}")?;
                if line.is_none() {
                    f.write_str(" (default)")?;
                }
            }
            f.write_str(": ")?;
        }
        f.write_str(message)
    }
}

impl std::error::Error for ConfigError {}

/// Everything wrong with a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }

    /// How many there are, one at least.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One error a line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Where the keys of a file are written, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) file: String,
    keys: BTreeMap<String, Written>,
}

/// One key as it is in the file.
#[derive(Clone, Debug)]
struct Written {
    line: usize,
    value: String,
}

impl Source {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            keys: BTreeMap::new(),
        }
    }

    pub(crate) fn record(&mut self, key: &str, line: usize, value: String) {
        self.keys.insert(key.into(), Written { line, value });
    }

    /// The line of `key`, where the file has it.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.keys.get(key).map(|written| written.line)
    }

    /// `line 12`, or `by default` for a key the file does not have: to point at the other side of a
    /// contradiction.
    pub(crate) fn place(&self, key: &str) -> String {
        match self.line(key) {
            Some(line) => format!("line {line}"),
            None => "by default".into(),
        }
    }
}

/// Collects errors, so that every check can go on after one.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Vec<ConfigError>,
    keys: BTreeSet<String>,
}

impl Findings {
    /// `key`, whose value is `value` where the file does not say, is wrong.
    pub(crate) fn add(
        &mut self,
        source: &Source,
        key: &str,
        value: impl fmt::Display,
        message: impl Into<String>,
    ) {
        let (line, value) = match source.keys.get(key) {
            Some(written) => (Some(written.line), written.value.clone()),
            None => (None, value.to_string()),
        };
        self.push(ConfigError {
            file: source.file.clone(),
            line,
            key: key.into(),
            value,
            message: message.into(),
        });
    }

    pub(crate) fn push(&mut self, error: ConfigError) {
        self.keys.insert(error.key.clone());
        self.errors.push(error);
    }

    /// Whether anything was wrong so far.
    pub(crate) fn any(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether nothing was wrong so far with any of `keys` or their elements: a contradiction with
    /// a value that is wrong by itself is no news.
    pub(crate) fn sound(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| {
            self.keys
                .range::<str, _>((Bound::Included(*key), Bound::Unbounded))
                .take_while(|wrong| wrong.starts_with(key))
                .any(|wrong| matches!(wrong.as_bytes().get(key.len()), None | Some(b'[')))
        })
    }

    /// `Ok(value)` where nothing was wrong.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, ConfigErrors> {
        let Self {
            mut errors,
            keys: _,
        } = self;
        if errors.is_empty() {
            return Ok(value);
        }
        // What has no line is about the file as a whole, and goes to the end; the sort is stable.
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        Err(ConfigErrors(errors))
    }
}
