//! How a request or a connection fails, and how often each way.

use std::collections::BTreeMap;

use crate::loadgen::load::ErrorCounts;

/// Why a request has no reply, or a connection did not come to be. None of these is ever a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The SYN was answered by a RST: nobody listens.
    Refused,
    /// The handshake was not over in time.
    ConnectTimeout,
    /// The connection was not to be had for want of a source port or address.
    NoPort,
    /// The network says there is no way (ICMP, or no route).
    Unreachable,
    /// The peer reset the connection.
    Reset,
    /// The peer closed the connection before the whole reply was there.
    Closed,
    /// The whole reply was not there in time.
    Timeout,
    /// The reply's bytes are not those there should be.
    Corrupted,
    /// Bytes nobody asked for.
    Unexpected,
    /// The reply is not what the protocol allows.
    Malformed,
    /// An HTTP status other than 2xx and 3xx.
    Status,
    /// Another error of a system call, by its errno.
    Other(i32),
}

impl Failure {
    /// All kinds, in the order they are listed in; those with an errno as one.
    pub const ALL: [Self; 12] = [
        Self::Refused,
        Self::ConnectTimeout,
        Self::NoPort,
        Self::Unreachable,
        Self::Reset,
        Self::Closed,
        Self::Timeout,
        Self::Corrupted,
        Self::Unexpected,
        Self::Malformed,
        Self::Status,
        Self::Other(0),
    ];

    /// What connect(2), send(2), recv(2) and SO_ERROR mean by `errno`.
    #[must_use]
    pub fn of_errno(errno: i32) -> Self {
        match errno {
            libc::ECONNREFUSED => Self::Refused,
            libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED => Self::Reset,
            libc::ETIMEDOUT => Self::ConnectTimeout,
            libc::EADDRNOTAVAIL | libc::EADDRINUSE => Self::NoPort,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
                Self::Unreachable
            }
            other => Self::Other(other),
        }
    }

    /// Its name in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::NoPort => "no_port",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Corrupted => "corrupted",
            Self::Unexpected => "unexpected",
            Self::Malformed => "malformed",
            Self::Status => "status",
            Self::Other(_) => "other",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Refused => 0,
            Self::ConnectTimeout => 1,
            Self::NoPort => 2,
            Self::Unreachable => 3,
            Self::Reset => 4,
            Self::Closed => 5,
            Self::Timeout => 6,
            Self::Corrupted => 7,
            Self::Unexpected => 8,
            Self::Malformed => 9,
            Self::Status => 10,
            Self::Other(_) => 11,
        }
    }
}

/// How often each kind happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureCounts {
    counts: [u64; Failure::ALL.len()],
    errnos: ErrorCounts,
}

impl FailureCounts {
    /// Counts one.
    pub fn count(&mut self, failure: Failure) {
        self.counts[failure.index()] += 1;
        if let Failure::Other(errno) = failure {
            self.errnos.count(errno);
        }
    }

    /// How many of a kind.
    #[must_use]
    pub fn of(&self, failure: Failure) -> u64 {
        self.counts[failure.index()]
    }

    /// How many of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        let Self { counts, errnos } = other;
        for (mine, theirs) in self.counts.iter_mut().zip(counts) {
            *mine += theirs;
        }
        self.errnos.add(errnos);
    }

    /// Those that happened, by name; system calls' errors by the kernel's name for them.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let named = Failure::ALL[..Failure::ALL.len() - 1]
            .iter()
            .map(|&failure| (failure.name().to_owned(), self.of(failure)))
            .filter(|&(_, count)| count > 0);
        named.chain(self.errnos.by_name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_place_and_a_name_of_its_own() {
        let mut counts = FailureCounts::default();
        for (index, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure.index(), index);
            counts.count(failure);
            assert_eq!(counts.total(), index as u64 + 1);
        }
        let mut twice = counts.clone();
        twice.add(&counts);
        assert_eq!(twice.total(), 24);
        assert_eq!(twice.by_name().len(), 12);
        assert_eq!(twice.by_name()["refused"], 2);
        assert_eq!(twice.by_name()["errno 0"], 2);
    }

    #[test]
    fn what_the_kernel_says() {
        for (errno, failure) in [
            (libc::ECONNREFUSED, Failure::Refused),
            (libc::EPIPE, Failure::Reset),
            (libc::EADDRNOTAVAIL, Failure::NoPort),
            (libc::EHOSTUNREACH, Failure::Unreachable),
            (libc::ENOBUFS, Failure::Other(libc::ENOBUFS)),
        ] {
            assert_eq!(Failure::of_errno(errno), failure);
        }
    }
}
