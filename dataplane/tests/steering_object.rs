//! The committed object was built from the sources beside it.

#[path = "../../ebpf/source_hash.rs"]
mod source_hash;

use source_hash::{SOURCES, source_hash};
use std::fs;
use std::path::{Path, PathBuf};

const OBJECT: &[u8] = include_bytes!("../../ebpf/steering.bpf.o");

fn ebpf() -> PathBuf {
    // Where the test runs, if it says so: it may be a copy of where it was built.
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    package
        .map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
        .join("../ebpf")
}

#[test]
fn the_object_was_built_from_these_sources() {
    let hash = source_hash(&ebpf()).expect("the sources are there");
    assert!(
        OBJECT
            .windows(hash.len())
            .any(|bytes| bytes == hash.as_bytes()),
        "ebpf/steering.bpf.o is stale: run `make ebpf` and commit it with the change \
         (the sources hash to {hash})"
    );
}

#[test]
fn a_change_of_any_source_is_noticed() {
    let copy = std::env::temp_dir().join(format!("steering-sources-{}", std::process::id()));
    let _cleanup = Cleanup(copy.clone());
    let mut files = Vec::new();
    for source in SOURCES {
        copy_all(&ebpf(), &copy, Path::new(source), &mut files);
    }
    let unchanged = source_hash(&copy).expect("the copy is there");
    assert_eq!(
        unchanged,
        source_hash(&ebpf()).expect("the sources are there")
    );
    assert!(files.len() > SOURCES.len(), "folders were followed");

    for file in files {
        let path = copy.join(&file);
        let content = fs::read(&path).expect("it was copied");
        let mut changed = content.clone();
        changed.push(b'\n');
        fs::write(&path, changed).expect("it is ours");
        assert_ne!(
            source_hash(&copy).ok(),
            Some(unchanged.clone()),
            "{} grew",
            file.display()
        );
        fs::write(&path, &content).expect("it is ours");

        let renamed = path.with_extension("renamed");
        fs::rename(&path, &renamed).expect("it is ours");
        assert_ne!(
            source_hash(&copy).ok(),
            Some(unchanged.clone()),
            "{} renamed",
            file.display()
        );
        fs::rename(&renamed, &path).expect("it is ours");
    }
    fs::write(copy.join("steer/src/new.rs"), "").expect("it is ours");
    assert_ne!(source_hash(&copy).ok(), Some(unchanged), "a new file");
}

#[test]
fn the_object_names_no_folder_of_the_machine_that_built_it() {
    for folder in ["/root/", "/home/", "/work/", "/tmp/", "/Users/"] {
        assert!(
            !OBJECT
                .windows(folder.len())
                .any(|bytes| bytes == folder.as_bytes()),
            "{folder} is in the object"
        );
    }
}

struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_all(from: &Path, to: &Path, relative: &Path, files: &mut Vec<PathBuf>) {
    let source = from.join(relative);
    if source.is_dir() {
        for entry in fs::read_dir(&source).expect("it is a folder") {
            let name = entry.expect("it can be listed").file_name();
            copy_all(from, to, &relative.join(name), files);
        }
    } else {
        let target = to.join(relative);
        fs::create_dir_all(target.parent().expect("it has a folder")).expect("it is ours");
        fs::copy(source, target).expect("it can be read");
        files.push(relative.to_owned());
    }
}
