//! Named counters and the one list of reasons to drop a packet.

/// Makes an enum of counters with names and help texts, and the table that counts them.
macro_rules! counters {
    ($(#[$doc:meta])* $enum:ident, $table:ident { $($(#[$help_doc:meta])* $variant:ident = $name:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $enum { $(#[doc = $help] $variant,)+ }

        impl $enum {
            /// All of them, in order.
            pub const ALL: &'static [$enum] = &[$($enum::$variant,)+];

            /// The name in metrics and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($enum::$variant => $name,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $($enum::$variant => $help,)+ }
            }
        }

        #[doc = concat!("A count for each [`", stringify!($enum), "`].")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $table([u64; $enum::ALL.len()]);

        impl Default for $table {
            fn default() -> Self { Self([0; $enum::ALL.len()]) }
        }

        impl $table {
            /// Adds one.
            #[inline]
            pub fn count(&mut self, which: $enum) { self.add(which, 1); }

            /// Adds `n`.
            #[inline]
            pub fn add(&mut self, which: $enum, n: u64) {
                self.0[which as usize] = self.0[which as usize].wrapping_add(n);
            }

            /// How often it happened.
            #[inline]
            #[must_use]
            pub fn get(&self, which: $enum) -> u64 { self.0[which as usize] }

            /// All of them, with their counts, zeros included.
            pub fn iter(&self) -> impl Iterator<Item = ($enum, u64)> + '_ {
                $enum::ALL.iter().map(|&which| (which, self.get(which)))
            }

            /// Adds another table to this one.
            pub fn merge(&mut self, other: &Self) {
                for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
                    *mine = mine.wrapping_add(*theirs);
                }
            }
        }
    };
}
pub(crate) use counters;
