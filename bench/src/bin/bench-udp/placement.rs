//! Which core does which work. A veth pair has no interrupts: whoever sends also does the receive work
//! of the other end, on its own core. A NIC gives that work to the core its interrupts are steered to.
//! Two ways lead there on a veth as well:
//!
//! * its NAPI in a kernel thread of its own (`threaded`), which can be pinned: for whoever has an XDP
//!   program, or GRO, on the interface
//! * receive packet steering (`rps_cpus`): for kernel sockets alone
//!
//! The thread gets a real-time priority, as the softirq of a NIC would interrupt the server too.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use bench::netns::{INTERFACE, Netns};

/// How long the kernel may take to start the threads: milliseconds, on a busy machine some more.
const THREADS_WAIT: Duration = Duration::from_secs(2);

/// Empty polls of a NAPI before its interrupt is enabled again, and how long that may take at most:
/// what Documentation/networking/napi.rst pairs with preferred busy polling. The time is that of
/// `busy_poll` in config/default.toml.
const DEFER_HARD_IRQS: u32 = 2;
const GRO_FLUSH_TIMEOUT_NS: u32 = 200_000;

/// Steers the receive work of kernel sockets on `netns`' interface to `core`, on all queues.
///
/// # Errors
/// What the kernel says.
pub(crate) fn receive_packet_steering(netns: &Netns, queues: u32, core: usize) -> io::Result<()> {
    (0..queues).try_for_each(|queue| {
        write_sysfs(netns, &format!("queues/rx-{queue}/rps_cpus"), &mask(core))
    })
}

/// Gives `netns`' interface a NAPI without an XDP program, and lets a busy-polling socket keep it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn busy_polled(netns: &Netns) -> io::Result<()> {
    gro(netns)?;
    write_sysfs(netns, "napi_defer_hard_irqs", &DEFER_HARD_IRQS.to_string())?;
    write_sysfs(
        netns,
        "gro_flush_timeout",
        &GRO_FLUSH_TIMEOUT_NS.to_string(),
    )
}

/// Gives `netns`' interface a NAPI without an XDP program.
///
/// # Errors
/// What `ethtool` says.
pub(crate) fn gro(netns: &Netns) -> io::Result<()> {
    netns
        .run("ethtool", ["-K", INTERFACE, "gro", "on"])
        .map(drop)
}

/// Moves the NAPI of `netns`' interface, of which no other process makes threads meanwhile, to threads
/// on `core`.
///
/// # Errors
/// What the kernel says; no NAPI.
pub(crate) fn napi_threads(netns: &Netns, core: usize) -> io::Result<()> {
    let before = threads()?;
    write_sysfs(netns, "threaded", "1")?;
    let deadline = Instant::now() + THREADS_WAIT;
    let new = loop {
        let new: Vec<u32> = threads()?.difference(&before).copied().collect();
        if !new.is_empty() {
            break new;
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "{INTERFACE} has no NAPI to put into a thread"
            )));
        }
        thread::sleep(Duration::from_millis(1));
    };
    for pid in new.iter().map(u32::to_string) {
        netns.run("taskset", ["-pc", &core.to_string(), &pid])?;
        netns.run("chrt", ["--fifo", "-p", "1", &pid])?;
    }
    Ok(())
}

/// The kernel threads of interfaces with this name, in all namespaces: their names have no more than
/// the interface's in them.
fn threads() -> io::Result<BTreeSet<u32>> {
    let prefix = format!("napi/{INTERFACE}-");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // One that has ended meanwhile is none.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// `/sys` shows the namespace it was mounted in, so `ip netns exec` mounts it anew.
fn write_sysfs(netns: &Netns, file: &str, value: &str) -> io::Result<()> {
    let path = format!("/sys/class/net/{INTERFACE}/{file}");
    let output = std::process::Command::new("ip")
        .args(["netns", "exec", netns.name(), "tee", &path])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                io::Write::write_all(&mut stdin, value.as_bytes())?;
            }
            child.wait_with_output()
        })?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!(
            "cannot write {value} to {path}: {}",
            said.trim()
        )))
    }
}

/// A CPU mask as the kernel reads it: hexadecimal words of 32 bits, the highest first
/// (`bitmap_parse`, lib/bitmap-str.c).
fn mask(core: usize) -> String {
    let highest = format!("{:x}", 1_u32 << (core % 32));
    highest + &",00000000".repeat(core / 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bench::netns::{Veth, available};

    #[test]
    fn masks() {
        assert_eq!(mask(0), "1");
        assert_eq!(mask(31), "80000000");
        assert_eq!(mask(33), "2,00000000");
        assert_eq!(mask(64), "1,00000000,00000000");
    }

    #[test]
    fn receive_work_is_placed() {
        if let Err(reason) = available() {
            eprintln!("skipped: receive_work_is_placed: {reason}");
            return;
        }
        let veth = Veth::new("place", 2).unwrap();
        let netns = &veth.server;
        receive_packet_steering(netns, 2, 0).unwrap();
        let read = |file: &str| {
            let path = format!("/sys/class/net/{INTERFACE}/{file}");
            let output = std::process::Command::new("ip")
                .args(["netns", "exec", netns.name(), "cat", &path])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(read("queues/rx-1/rps_cpus").trim_start_matches('0'), "1");
        let error = napi_threads(netns, 0).unwrap_err().to_string();
        assert!(
            error.contains("threaded") || error.contains("no NAPI"),
            "{error}"
        );
        busy_polled(netns).unwrap();
        assert_eq!(read("napi_defer_hard_irqs"), "2");
        napi_threads(netns, 0).unwrap();
        assert_eq!(read("threaded"), "1");
    }
}
