//! What a failed simulation leaves behind, and how it is replayed. The only part that needs an
//! operating system.
//!
//! | variable | meaning |
//! |---|---|
//! | `SIM_SEED` | run the scenarios with this seed alone |
//! | `SIM_SECONDS` | instead of a fixed number of seeds, try new ones for so long; 0 for ever |
//! | `SIM_DIR` | where captures go; `target/sim` by default |

extern crate std;

use self::std::panic::resume_unwind;
use self::std::path::PathBuf;
use self::std::time::{Instant, SystemTime, UNIX_EPOCH};
use self::std::{env, eprintln, fs, io, process, thread};
use super::random::Random;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// The same with as many seeds at once as the machine has processors. No new seed begins once one
/// has failed.
///
/// # Panics
/// As [`for_each_seed`].
pub fn for_each_seed_at_once(seeds: u64, scenario: impl Fn(u64) + Sync) {
    if env::var_os("SIM_SEED").is_some() || env::var_os("SIM_SECONDS").is_some() {
        return for_each_seed(seeds, scenario);
    }
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        // Raised unless every scenario comes back.
        let alarm = Alarm(&failed);
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            scenario(seed);
        }
        drop(alarm);
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    });
}

/// Says that the thread panicked.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={value}: not a number")))
}
