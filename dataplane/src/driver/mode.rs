//! How packets get from the NIC to us, as asked for and as obtained.
//!
//! ```text
//!   mode       XDP program runs          packets are                  needs
//!   zero-copy  in the driver             DMA'd into our memory        a driver that can
//!   copy       in the driver             copied by the kernel         a driver with native XDP
//!   generic    in the network stack      copied, from sk_buffs        nothing
//! ```
//!
//! Whether the program runs in the driver or in the network stack is decided by whoever attaches
//! it; whether packets are copied is decided by `bind`. [`attempts`] says which pairs to try,
//! in which order.

use config::Mode;
use std::fmt;

/// The mode in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObtainedMode {
    /// The NIC writes into and reads from our memory.
    ZeroCopy,
    /// The program runs in the driver and the kernel copies.
    Copy,
    /// The program runs in the network stack and the kernel copies.
    Generic,
    /// No NIC: the in-memory and replay drivers.
    Simulated,
}

/// Where the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver (`XDP_FLAGS_DRV_MODE`).
    Native,
    /// In the network stack (`XDP_FLAGS_SKB_MODE`).
    Generic,
}

/// What `bind` demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindMode {
    /// `XDP_ZEROCOPY`: fail rather than copy.
    ZeroCopy,
    /// `XDP_COPY`: copy even where zero-copy could be had.
    Copy,
}

/// One combination to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// How the program has to be attached, first.
    pub attach: AttachMode,
    /// How the sockets are bound, afterwards.
    pub bind: BindMode,
}

const ZERO_COPY: Attempt = Attempt {
    attach: AttachMode::Native,
    bind: BindMode::ZeroCopy,
};
const COPY: Attempt = Attempt {
    attach: AttachMode::Native,
    bind: BindMode::Copy,
};
const GENERIC: Attempt = Attempt {
    attach: AttachMode::Generic,
    bind: BindMode::Copy,
};

/// What to try for a mode that was asked for, best first. Go on to the next when attaching fails, or
/// when opening the driver fails with an error that is a
/// [mode refusal](super::DriverError::mode_refusal). A mode asked for by name has one attempt: it is
/// obtained, or it is an error.
#[must_use]
pub const fn attempts(mode: Mode) -> &'static [Attempt] {
    match mode {
        Mode::Auto => &[ZERO_COPY, COPY, GENERIC],
        Mode::ZeroCopy => &[ZERO_COPY],
        Mode::Copy => &[COPY],
        Mode::Generic => &[GENERIC],
    }
}

impl Attempt {
    /// The mode in force if this attempt succeeds.
    #[must_use]
    pub const fn obtains(self) -> ObtainedMode {
        match (self.attach, self.bind) {
            (AttachMode::Native, BindMode::ZeroCopy) => ObtainedMode::ZeroCopy,
            (AttachMode::Native, BindMode::Copy) => ObtainedMode::Copy,
            // A driver that binds zero-copy below a generic program still feeds it copies.
            (AttachMode::Generic, _) => ObtainedMode::Generic,
        }
    }
}

impl ObtainedMode {
    /// The name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
            Self::Generic => "generic",
            Self::Simulated => "simulated",
        }
    }
}

impl fmt::Display for ObtainedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_asked_for_by_name_has_no_fallback() {
        use ObtainedMode as Obtained;
        let obtains = |mode: Mode| {
            attempts(mode)
                .iter()
                .map(|a| a.obtains())
                .collect::<Vec<_>>()
        };
        assert_eq!(obtains(Mode::ZeroCopy), [Obtained::ZeroCopy]);
        assert_eq!(obtains(Mode::Copy), [Obtained::Copy]);
        assert_eq!(obtains(Mode::Generic), [Obtained::Generic]);
        assert_eq!(
            obtains(Mode::Auto),
            [Obtained::ZeroCopy, Obtained::Copy, Obtained::Generic]
        );
    }
}
