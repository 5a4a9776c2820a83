//! Puts the hash of the sources into the object, so that a test can tell a stale one.

#[path = "../source_hash.rs"]
mod source_hash;

use std::path::Path;

fn main() {
    let ebpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for path in source_hash::SOURCES {
        println!("cargo:rerun-if-changed={}", ebpf.join(path).display());
    }
    let hash = source_hash::source_hash(&ebpf).expect("the sources of the program can be read");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("source_hash"), hash)
        .expect("the build folder is writable");
}
