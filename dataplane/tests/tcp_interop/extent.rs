//! How much is tested: `make test` takes a sample, `make interop` everything.

/// Whether everything is to be tested.
pub(crate) fn is_full() -> bool {
    has("full")
}

/// Whether a Linux kernel takes the service's place.
pub(crate) fn is_reference() -> bool {
    has("reference")
}

fn has(word: &str) -> bool {
    let chosen = std::env::var("INTEROP").unwrap_or_default();
    chosen.split(',').any(|other| other == word)
}

/// `full` of something when everything is tested, otherwise `sample`.
pub(crate) fn sized<T>(sample: T, full: T) -> T {
    if is_full() { full } else { sample }
}

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;
