//! The conversations in `tests/scripts`, held with a stack; each says which rule it is about.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod given_up;
mod host;
mod requirements;

use host::Host;
use stack::sim::script::{Script, parse_with, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A script file: its name relative to the folder, its text, and what it says for each IP version.
struct File {
    name: String,
    text: String,
    scripts: Vec<Script>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

/// Every script, or those whose name holds `SCRIPTS`.
fn files() -> Vec<File> {
    let mut paths = Vec::new();
    let mut folders = vec![folder()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "pkt") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let wanted = std::env::var("SCRIPTS").unwrap_or_default();
    let named = paths.iter().map(|path| {
        let name = path.strip_prefix(folder()).unwrap();
        (path, name.display().to_string())
    });
    named
        .filter(|(_, name)| name.contains(&wanted))
        .map(|(path, name)| {
            let text = fs::read_to_string(path).unwrap();
            let included = |name: &str| fs::read_to_string(folder().join("lib").join(name)).ok();
            let scripts = parse_with(&text, included);
            let scripts = scripts.unwrap_or_else(|error| panic!("{name}: {error}"));
            File {
                name,
                text,
                scripts,
            }
        })
        .collect()
}

/// The labels of RFC 9293 that a script cites.
fn cited(text: &str) -> BTreeSet<String> {
    let comments = text.lines().filter_map(|line| line.split_once('#'));
    let words = comments
        .flat_map(|(_, comment)| comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')));
    words
        .filter(|word| word.starts_with("MUST-") || word.starts_with("SHLD-"))
        .map(String::from)
        .collect()
}

#[test]
fn every_script_can_be_read_and_cites_a_rule() {
    let files = files();
    assert!(!files.is_empty(), "no script of that name");
    for File {
        name,
        text,
        scripts,
    } in &files
    {
        let first = text.lines().next().unwrap_or("");
        assert!(
            first.starts_with("# RFC "),
            "{name}: its first line is a comment that cites an RFC"
        );
        for script in scripts {
            assert!(!script.lines.is_empty(), "{name}: nothing happens");
        }
    }
}

#[test]
fn every_script_holds() {
    let (mut held, mut broken) = (0, Vec::new());
    for File { name, scripts, .. } in files() {
        let mut failures = Vec::new();
        for script in &scripts {
            let label = format!("{}-{}", name.trim_end_matches(".pkt"), script.version);
            if let Err(failure) = run(&label, script, Host::new) {
                failures.push(format!("{name}, {}: {failure}", script.version));
            }
        }
        held += usize::from(failures.is_empty());
        broken.append(&mut failures);
    }
    let broken: Vec<String> = broken.iter().map(|it| format!("{it}\n")).collect();
    assert!(
        broken.is_empty(),
        "{held} scripts hold; {} times one did not:\n\n{}",
        broken.len(),
        broken.join("\n")
    );
}

/// The MUSTs of RFC 9293 that no script cites because they cannot be seen on the wire, or are waived, and
/// why; `REQUIREMENTS.md` says more.
const NOT_ON_THE_WIRE: &[(&str, &str)] = &[
    ("MUST-8", "statistical: tests of tcp::isn"),
    ("MUST-9", "statistical: tests of tcp::isn"),
    ("MUST-32", "waived: the urgent pointer is not looked at"),
    ("MUST-33", "waived: the urgent pointer is not looked at"),
    (
        "MUST-43",
        "an argument of the application: every script listens on one address",
    ),
    (
        "MUST-51",
        "waived: source routes are refused (RFC 7126 sections 4.3, 4.4)",
    ),
    ("MUST-52", "waived: source routes are refused"),
    ("MUST-53", "waived: source routes are refused"),
    (
        "MUST-62",
        "waived: no call sends urgent data (RFC 6093 section 6: new applications should not)",
    ),
];

#[test]
fn every_must_that_shows_on_the_wire_has_a_script() {
    if std::env::var_os("SCRIPTS").is_some() {
        return;
    }
    let cited: BTreeSet<String> = files().iter().flat_map(|file| cited(&file.text)).collect();
    for number in 1..=69 {
        let must = format!("MUST-{number}");
        let excused = NOT_ON_THE_WIRE.iter().any(|(label, _)| *label == must);
        assert_ne!(cited.contains(&must), excused, "{must}");
    }
}
