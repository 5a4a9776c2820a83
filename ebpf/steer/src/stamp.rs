//! The arrival time, written into the XDP metadata area directly in front of a redirected packet.
//!
//! ```text
//!  data - 16          data - 8             data
//!     │ magic (8 bytes)  │ arrival (8 bytes)  │ Ethernet header ...
//! ```
//!
//! Both are in host byte order: program and reader are the same host. A driver without room for
//! metadata delivers the packet without a stamp, and then these bytes hold whatever they held
//! before, so the reader must clear the magic once it has read it.

/// Length of a stamp in bytes. The metadata area grows in steps of four bytes up to at least 32
/// (`bpf_xdp_adjust_meta` in net/core/filter.c).
pub const STAMP_LEN_BYTES: usize = 16;

/// Says that a stamp follows: 64 random bits, so that old contents of the headroom are not taken
/// for a stamp by accident.
pub const STAMP_MAGIC: u64 = 0x9d3c_51f0_e7a2_4b86;

/// Takes the stamp out of the bytes in front of a packet, and clears it so that it is not read a
/// second time. `headroom` ends where the packet starts. The stamp is in nanoseconds of
/// `CLOCK_MONOTONIC` (`bpf_ktime_get_ns`); `None` if there is none.
#[inline]
pub fn take(headroom: &mut [u8]) -> Option<u64> {
    let (magic, arrival) = headroom
        .last_chunk_mut::<STAMP_LEN_BYTES>()?
        .split_at_mut(8);
    let magic: &mut [u8; 8] = magic.try_into().ok()?;
    if *magic != STAMP_MAGIC.to_ne_bytes() {
        return None;
    }
    *magic = [0; 8];
    Some(u64::from_ne_bytes((&*arrival).try_into().ok()?))
}
