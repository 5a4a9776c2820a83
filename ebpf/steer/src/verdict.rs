//! The outcomes of a decision.

macro_rules! verdicts {
    ($(#[$doc:meta])* $enum:ident { $($variant:ident = $fate:ident, $name:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $enum { $(#[doc = $help] $variant,)+ }

        impl $enum {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [$enum] = &[$($enum::$variant,)+];

            /// The name of its counter in metrics and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($enum::$variant => $name,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $($enum::$variant => $help,)+ }
            }

            /// Whether the packet is ours; otherwise it goes to the kernel.
            #[inline]
            #[must_use]
            pub const fn redirects(self) -> bool {
                match self { $($enum::$variant => verdicts!(@$fate),)+ }
            }
        }
    };
    (@redirect) => { true };
    (@pass) => { false };
}

verdicts! {
    /// What happens to a packet, and why. There is one counter for each.
    Verdict {
        RedirectExact = redirect, "redirect_exact", "Redirected: the packet's addresses and ports are one of our connections.";
        RedirectPort = redirect, "redirect_port", "Redirected: we own its port on its destination address.";
        RedirectPortAny = redirect, "redirect_port_any", "Redirected: we own its port on every local address.";
        RedirectPrefix = redirect, "redirect_prefix", "Redirected: we own its destination address whole.";
        RedirectArp = redirect, "redirect_arp", "Redirected: ARP for, or in the name of, an IPv4 address that we own whole.";
        RedirectNeighbor = redirect, "redirect_neighbor", "Redirected: a neighbour solicitation for an IPv6 address that we own whole, or its advertisement to all nodes.";
        RedirectFragment = redirect, "redirect_fragment", "Redirected: a later fragment of a packet whose first fragment was ours.";
        RedirectIcmpError = redirect, "redirect_icmp_error", "Redirected: an ICMP error about a packet that we sent.";
        PassDisabled = pass, "pass_disabled", "Passed to the kernel: steering is switched off.";
        PassDenied = pass, "pass_denied", "Passed to the kernel: the deny list reserves it for the kernel.";
        PassNotOurMac = pass, "pass_not_our_mac", "Passed to the kernel: sent to the MAC address of another station, such as a virtual machine behind a bridge.";
        PassVlan = pass, "pass_vlan", "Passed to the kernel: its VLAN tags are not the configured ones.";
        PassProtocol = pass, "pass_protocol", "Passed to the kernel: neither IPv4 nor IPv6, nor ARP about an address that we own.";
        PassUnmatched = pass, "pass_unmatched", "Passed to the kernel: no rule claims it.";
        PassFragment = pass, "pass_fragment", "Passed to the kernel: a fragment without ports whose first fragment was not ours or has not been seen.";
        PassExtensionHeaders = pass, "pass_extension_headers", "Passed to the kernel: more IPv6 extension headers than steering follows.";
        PassMalformed = pass, "pass_malformed", "Passed to the kernel: truncated, or its headers contradict each other.";
        PassNoWorker = pass, "pass_no_worker", "Passed to the kernel: ours, but no worker serves the queue it came in on.";
    }
}

/// How many verdicts there are: the size of the table of counters.
#[expect(clippy::cast_possible_truncation, reason = "a handful")]
pub const VERDICT_COUNT: u32 = Verdict::ALL.len() as u32;
