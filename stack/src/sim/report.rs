//! What a failed simulation leaves behind, and how it is replayed. The only part that needs an
//! operating system.
//!
//! | variable | meaning |
//! |---|---|
//! | `SIM_SEED` | run the scenarios with this seed alone |
//! | `SIM_SECONDS` | instead of a fixed number of seeds, try new ones for so long; 0 for ever |
//! | `SIM_DIR` | where captures go; `target/sim` by default |

extern crate std;

use self::std::path::PathBuf;
use self::std::time::{Instant, SystemTime, UNIX_EPOCH};
use self::std::{env, eprintln, fs, io, process, thread};
use super::random::Random;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Where captures go.
#[must_use]
pub fn directory() -> PathBuf {
    if let Some(directory) = env::var_os("SIM_DIR") {
        return directory.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../target").into(),
        PathBuf::from,
    );
    target.join("sim")
}

/// Writes a capture; says where it is.
///
/// # Errors
/// As creating a directory or writing a file.
pub fn write_capture(name: &str, seed: u64, pcapng: &[u8]) -> io::Result<PathBuf> {
    let directory = directory();
    fs::create_dir_all(&directory)?;
    let safe: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let path = directory.join(format!("{safe}-{seed}.pcapng"));
    fs::write(&path, pcapng)?;
    Ok(path)
}

/// While a panic unwinds: says the seed, and writes the capture.
pub(super) fn on_panic(name: &str, seed: u64, pcapng: impl FnOnce() -> Vec<u8>) {
    if !thread::panicking() {
        return;
    }
    eprintln!("simulation {name} failed: replay it with SIM_SEED={seed}");
    match write_capture(name, seed, &pcapng()) {
        Ok(path) => eprintln!("all its frames: {}", path.display()),
        Err(error) => eprintln!("its frames could not be written: {error}"),
    }
}

/// Runs a scenario with many seeds: 0 to `seeds` − 1, always the same, unless the environment says
/// otherwise.
///
/// # Panics
/// As the scenario does, or if a variable holds no number.
pub fn for_each_seed(seeds: u64, mut scenario: impl FnMut(u64)) {
    if let Some(seed) = number("SIM_SEED") {
        return scenario(seed);
    }
    let Some(seconds) = number("SIM_SECONDS") else {
        return (0..seeds).for_each(scenario);
    };
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since_epoch.map_or(0, |time| u64::from(time.subsec_nanos()) ^ time.as_secs());
    let mut random = Random::stream(nanos, process::id().into());
    let start = Instant::now();
    while seconds == 0 || start.elapsed().as_secs() < seconds {
        scenario(random.next_u64());
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value}: not a number")))
}
