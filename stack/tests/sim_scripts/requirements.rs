//! `REQUIREMENTS.md` says the truth: no requirement is missing, every script is named, and every file
//! and name it sends a reader to is there.

use super::{NOT_ON_THE_WIRE, cited, files};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text() -> String {
    fs::read_to_string(package().join("REQUIREMENTS.md")).unwrap()
}

/// What stands in backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The rows of tables, as cells.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// Whether a source text defines a function, type, constant, a field or a variant of this name.
fn defines(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let (before, behind) = (line[..at].trim_start(), &line[at + name.len()..]);
            let keyword = ["fn ", "struct ", "enum ", "const ", "type "]
                .iter()
                .any(|keyword| before.ends_with(keyword));
            let whole = !behind.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            let member = matches!(before, "" | "pub ") && behind.starts_with([':', '(', ',']);
            whole && (keyword || member)
        })
    })
}

#[test]
fn a_name_counts_where_it_is_defined() {
    let text = "impl It {\n    pub(super) fn here<T>(&self) {\n        self.nowhere();\n    }\n}\n\
        pub struct Type {\n    pub field: u8,\n}\nconst LIMIT: u8 = 1;\n";
    for name in ["here", "Type", "field", "LIMIT"] {
        assert!(defines(text, name), "{name}");
    }
    for name in ["nowhere", "her", "ere", "It", "u8"] {
        assert!(!defines(text, name), "{name}");
    }
}

#[test]
fn every_requirement_of_rfc_9293_has_a_row() {
    let text = text();
    let labels: Vec<&str> = rows(&text).map(|cells| cells[0]).collect();
    let musts = (1..=69).map(|number| format!("MUST-{number}"));
    let shoulds = (1..=31).map(|number| format!("SHLD-{number}"));
    for label in musts.chain(shoulds).chain(["REC-1".into()]) {
        let count = labels.iter().filter(|it| **it == label).count();
        assert_eq!(count, 1, "{label}");
    }
}

#[test]
fn a_row_says_where_or_why_not_and_is_tested_where_it_says_where() {
    let text = text();
    for cells in rows(&text).filter(|cells| cells[0].starts_with("MUST-")) {
        let [label, what, place, tests] = cells[..] else {
            panic!("{cells:?}: four cells");
        };
        assert!(!what.is_empty(), "{label}");
        let waived = place.starts_with("**Waived.**");
        if let Some((_, why)) = NOT_ON_THE_WIRE.iter().find(|(it, _)| *it == label) {
            assert_eq!(waived, why.starts_with("waived: "), "{label}: {why}");
        }
        assert!(waived || spans(place).next().is_some(), "{label}: where?");
        assert!(
            waived || spans(tests).next().is_some(),
            "{label}: which test?"
        );
    }
}

#[test]
fn every_script_is_named_where_its_labels_are() {
    let text = text();
    let named: BTreeSet<&str> = spans(&text).filter(|it| it.ends_with(".pkt")).collect();
    for file in files() {
        assert!(named.contains(&*file.name), "{} is not named", file.name);
        for label in cited(&file.text) {
            let row = rows(&text).find(|cells| cells[0] == label);
            let row = row.unwrap_or_else(|| panic!("{label}: no row")).join(" ");
            let named = spans(&row).any(|it| it == file.name);
            assert!(named, "{}: cites {label}", file.name);
        }
    }
}

#[test]
fn every_file_and_every_name_is_there() {
    let text = text();
    for span in spans(&text) {
        let (path, name) = match span.split_once("::") {
            Some((path, name)) => (path, Some(name)),
            None => (span, None),
        };
        let folder = match path.rsplit_once('.') {
            Some((_, "pkt")) if path != "a/b.pkt" => "tests/scripts",
            Some((_, "rs")) if path.starts_with("tests/") || path.starts_with("src/") => "",
            Some((_, "rs")) => "src",
            _ => continue,
        };
        let content = fs::read_to_string(package().join(folder).join(path));
        let content = content.unwrap_or_else(|error| panic!("{span}: {error}"));
        if let Some(name) = name {
            assert!(defines(&content, name), "{span}: not in the file");
        }
    }
}
