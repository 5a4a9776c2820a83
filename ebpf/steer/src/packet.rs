//! Bounded access to the bytes of a packet.
//!
//! The BPF verifier accepts a read only where it can see a comparison with `data_end` before it.
//! So every header is asked for once, whole, with its length as a constant; the fields inside need
//! no further check, because their offsets are constants too and checked by the compiler.

/// Headers that start beyond this many bytes are not looked at. 4095 is the last byte of a page,
/// and a frame of an AF_XDP ring is at most a page. The verifier needs a bound for every variable
/// offset; a lower one would give up on packets with legal chains of extension headers.
pub const PARSE_LIMIT_BYTES: u32 = 4095;

/// A packet whose length is known only at run time.
pub trait Packet {
    /// `N` bytes of it.
    type Header<const N: usize>: Header;

    /// The `N` bytes from `at` on; `None` if the packet ends before, or `at` lies beyond
    /// [`PARSE_LIMIT_BYTES`].
    fn header<const N: usize>(&self, at: u32) -> Option<Self::Header<N>>;

    /// Whether the packet has at least `len` bytes.
    fn has_len(&self, len: u32) -> bool;

    /// Returns `value`, and makes the verifier forget how it came about.
    ///
    /// The verifier follows every path through the program, and what it knows of each value tells
    /// paths apart; where parts follow one another, the numbers of their paths multiply, and at a
    /// million instructions it gives up. Between two parts the program therefore passes their
    /// result through memory that the verifier does not track. Natively this does nothing.
    #[inline(always)]
    fn settle<T: Copy>(&self, value: T) -> T {
        value
    }
}

/// A header, wholly inside its packet. Reading beyond it does not compile.
pub trait Header {
    /// The byte at offset `AT`.
    fn u8<const AT: usize>(&self) -> u8;
    /// The two bytes from offset `AT` on, in network byte order on the wire.
    fn u16<const AT: usize>(&self) -> u16;
    /// The four bytes from offset `AT` on, in network byte order on the wire.
    fn u32<const AT: usize>(&self) -> u32;
}

impl Packet for [u8] {
    type Header<const N: usize> = [u8; N];

    #[inline]
    fn header<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        if at > PARSE_LIMIT_BYTES {
            return None;
        }
        let at = at as usize;
        self.get(at..at + N)?.try_into().ok()
    }

    #[inline]
    fn has_len(&self, len: u32) -> bool {
        self.len() >= len as usize
    }
}

impl<const N: usize> Header for [u8; N] {
    #[inline]
    fn u8<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N, "a field lies inside its header") };
        self[AT]
    }

    #[inline]
    fn u16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N, "a field lies inside its header") };
        u16::from_be_bytes([self[AT], self[AT + 1]])
    }

    #[inline]
    fn u32<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N, "a field lies inside its header") };
        u32::from_be_bytes([self[AT], self[AT + 1], self[AT + 2], self[AT + 3]])
    }
}
