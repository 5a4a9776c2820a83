//! A packet between `data` and `data_end`, read the way the verifier accepts.

use aya_ebpf::programs::XdpContext;
use core::arch::asm;
use steer::packet::{Header, PARSE_LIMIT_BYTES, Packet};

/// The packet of one run of the program.
pub struct KernelPacket {
    data: *const u8,
    data_end: *const u8,
    scratch: *mut Scratch,
}

impl KernelPacket {
    /// The packet of `ctx`. Invalid once a helper has moved the packet's bounds. `scratch` is memory
    /// of this run alone.
    #[inline(always)]
    pub fn new(ctx: &XdpContext, scratch: *mut Scratch) -> Self {
        Self {
            data: ctx.data() as *const u8,
            data_end: ctx.data_end() as *const u8,
            scratch,
        }
    }
}

impl Packet for KernelPacket {
    type Header<const N: usize> = KernelHeader<N>;

    #[inline(always)]
    fn header<const N: usize>(&self, at: u32) -> Option<KernelHeader<N>> {
        if at > PARSE_LIMIT_BYTES {
            return None;
        }
        let start = offset::<{ PARSE_LIMIT_BYTES }>(self.data, at);
        // The comparison the verifier looks for: it now knows N bytes behind `start`.
        if start.wrapping_add(N) > self.data_end {
            None
        } else {
            Some(KernelHeader { start })
        }
    }

    #[inline(always)]
    fn has_len(&self, len: u32) -> bool {
        offset::<0x1_ffff>(self.data, len) <= self.data_end
    }

    #[inline(always)]
    fn settle<T: Copy>(&self, value: T) -> T {
        const { assert!(size_of::<T>() <= size_of::<Scratch>()) };
        const { assert!(align_of::<T>() <= align_of::<Scratch>()) };
        let scratch = self.scratch.cast::<T>();
        // SAFETY: the scratch memory is this run's alone, large enough and aligned for a `T`, which
        // is read where it was written. The instruction does nothing, but may have written to memory as
        // far as the compiler knows, which therefore has to load what was stored.
        unsafe {
            let mut settled = scratch;
            scratch.write(value);
            asm!("{0} = {0}", inout(reg) settled, options(nostack, preserves_flags));
            settled.read()
        }
    }
}

/// Memory that the verifier does not track, see `Packet::settle`.
pub type Scratch = [u64; 8];

/// `data + at`, as a pointer the compiler knows nothing else about. `MASK` covers every `at`, and
/// tells the verifier so.
///
/// What the verifier learns from a comparison holds for one pointer and those made from it by adding
/// constants. Left alone, the compiler adds `at` again for the next access, which makes another
/// pointer in the verifier's eyes, and drops the mask, which only the verifier needs.
#[inline(always)]
fn offset<const MASK: u32>(data: *const u8, at: u32) -> *const u8 {
    const { assert!((MASK + 1).is_power_of_two()) };
    let mut start = data;
    // SAFETY: arithmetic only; no memory is touched.
    unsafe {
        asm!(
            "{at} &= {mask}",
            "{start} += {at}",
            at = inout(reg) u64::from(at) => _,
            start = inout(reg) start,
            mask = const MASK,
            options(pure, nomem, nostack),
        );
    }
    start
}

/// `N` bytes of the packet from `start` on.
///
/// Fields are loaded by instructions written out here. Header fields are not aligned; the kernel
/// accepts that on every machine with efficient unaligned access, but the compiler would load them
/// byte by byte, and told not to, it would misalign its stack as well, which the kernel refuses.
pub struct KernelHeader<const N: usize> {
    start: *const u8,
}

impl<const N: usize> Header for KernelHeader<N> {
    #[inline(always)]
    fn u8<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N, "a field lies inside its header") };
        // SAFETY: `header` compared `start + N` with the packet's end.
        unsafe { self.start.add(AT).read() }
    }

    #[inline(always)]
    fn u16<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N, "a field lies inside its header") };
        let value: u64;
        // SAFETY: `header` compared `start + N` with the packet's end; 16 bits fit a u16.
        unsafe {
            asm!(
                "{value} = *(u16 *)({start} + {at})",
                value = out(reg) value,
                start = in(reg) self.start,
                at = const AT,
                options(pure, readonly, nostack),
            );
        }
        u16::from_be(value as u16)
    }

    #[inline(always)]
    fn u32<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N, "a field lies inside its header") };
        let value: u64;
        // SAFETY: `header` compared `start + N` with the packet's end; 32 bits fit a u32.
        unsafe {
            asm!(
                "{value} = *(u32 *)({start} + {at})",
                value = out(reg) value,
                start = in(reg) self.start,
                at = const AT,
                options(pure, readonly, nostack),
            );
        }
        u32::from_be(value as u32)
    }
}
