//! What can be known before the kernel is asked: its version, and our privileges.

use super::error::SteeringError;
use rustix::thread::{CapabilitySet, capabilities};
use std::fs;

/// The oldest kernel supported, major and minor. 5.15 is the oldest long-term kernel whose AF_XDP has
/// what the driver needs; the program itself would load on somewhat older ones.
pub const KERNEL_MIN: (u32, u32) = (5, 15);

/// Refuses a kernel that is too old, and a process without the capabilities.
///
/// # Errors
///
/// [`SteeringError::KernelTooOld`], [`SteeringError::NotPermitted`].
pub fn check() -> Result<(), SteeringError> {
    // /proc may be missing or in a strange form; then the kernel itself will answer soon enough.
    if let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        check_kernel(release.trim())?;
    }
    let effective = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    check_capabilities(effective)
}

fn check_kernel(release: &str) -> Result<(), SteeringError> {
    match version(release) {
        Some(found) if found < KERNEL_MIN => Err(SteeringError::KernelTooOld {
            release: release.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Major and minor of a release such as `5.15.0-91-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// CAP_SYS_ADMIN contains CAP_BPF and CAP_PERFMON (capabilities(7)). CAP_PERFMON, because without it the
/// verifier also follows the paths a processor may take speculatively, and refuses.
fn check_capabilities(effective: CapabilitySet) -> Result<(), SteeringError> {
    let mut missing = Vec::new();
    if !effective.contains(CapabilitySet::NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if !effective.contains(CapabilitySet::SYS_ADMIN) {
        if !effective.contains(CapabilitySet::BPF) {
            missing.push("CAP_BPF");
        }
        if !effective.contains(CapabilitySet::PERFMON) {
            missing.push("CAP_PERFMON");
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(SteeringError::NotPermitted { missing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for release in ["5.15.0-91-generic", "5.15", "6.1.0-18-amd64", "10.0.1"] {
            assert!(check_kernel(release).is_ok(), "{release}");
        }
        for release in ["5.14.21-default", "5.4.0", "4.19.0-26-amd64"] {
            let error = check_kernel(release).expect_err(release);
            assert!(error.to_string().contains(release), "{error}");
        }
        // What cannot be read is not refused.
        assert!(check_kernel("unknown").is_ok());
    }

    #[test]
    fn missing_capabilities_are_named() {
        let names = |set| match check_capabilities(set) {
            Err(SteeringError::NotPermitted { missing }) => missing,
            other => {
                assert!(other.is_ok());
                Vec::new()
            }
        };
        assert_eq!(
            names(CapabilitySet::empty()),
            ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]
        );
        assert_eq!(names(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(
            names(CapabilitySet::NET_ADMIN | CapabilitySet::BPF),
            ["CAP_PERFMON"]
        );
        assert!(names(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN).is_empty());
        let all = CapabilitySet::NET_ADMIN | CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert!(names(all).is_empty());
    }
}
