//! The hash that ties the committed object to its sources: computed by the build script of the
//! program, which puts it into the object, and by the test that compares the two.

use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Everything the object is made from, relative to the folder `ebpf`. Folders count with all that
/// is below them.
pub(crate) const SOURCES: &[&str] = &[
    "build.sh",
    "program/.cargo/config.toml",
    "program/Cargo.lock",
    "program/Cargo.toml",
    "program/build.rs",
    "program/src",
    "source_hash.rs",
    "steer/Cargo.toml",
    "steer/src",
];

/// The SHA-256 of all [`SOURCES`] below `ebpf` with their names, in 64 hexadecimal digits. It
/// depends on nothing else: not on where the folder lies, nor on times or permissions.
///
/// # Errors
///
/// A source that is missing or cannot be read.
pub(crate) fn source_hash(ebpf: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(ebpf, PathBuf::from(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(ebpf.join(&file))?;
        // Lengths in front, so that no two different sets of files give the same bytes.
        for part in [file.to_string_lossy().as_bytes(), &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn collect(root: &Path, relative: PathBuf, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !root.join(&relative).is_dir() {
        files.push(relative);
        return Ok(());
    }
    for entry in fs::read_dir(root.join(&relative))? {
        collect(root, relative.join(entry?.file_name()), files)?;
    }
    Ok(())
}
