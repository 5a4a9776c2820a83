//! The XDP program: maps, and the pure decision of the crate `steer` applied to each packet.
//!
//! It needs nothing newer than Linux 5.15: no `bpf_loop`, no kfunc, no `bpf_xdp_load_bytes`, no
//! multi-buffer frames.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod maps;
mod packet;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_meta};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use maps::KernelTables;
use packet::KernelPacket;
use steer::Verdict;
use steer::stamp::{STAMP_LEN_BYTES, STAMP_MAGIC};

/// The hash of the sources, for the test that tells a stale object.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = "source_hash")]
static SOURCE_HASH: [u8; 64] = *include_bytes!(concat!(env!("OUT_DIR"), "/source_hash"));

/// Every helper called here is open to programs under any licence (`bpf_ktime_get_ns` since Linux 5.8),
/// so this is the project's own, and not one that the kernel takes for the GPL.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";

/// Runs for every packet, before the kernel sees it.
#[xdp]
pub fn dataplane_steer(ctx: XdpContext) -> u32 {
    let (Some(tables), Some(scratch)) = (KernelTables::new(), maps::scratch()) else {
        return xdp_action::XDP_PASS;
    };
    let verdict = steer::steer(&KernelPacket::new(&ctx, scratch), &tables);
    if !verdict.redirects() {
        maps::count(verdict);
        return xdp_action::XDP_PASS;
    }
    // The ring of the queue it came in on: an AF_XDP socket receives from its own queue only. The
    // flag is what the kernel answers for an empty slot.
    let queue = ctx.rx_queue_index();
    if maps::XSKS
        .redirect(queue, u64::from(xdp_action::XDP_PASS))
        .is_err()
    {
        maps::count(Verdict::PassNoWorker);
        return xdp_action::XDP_PASS;
    }
    maps::count(verdict);
    stamp(&ctx);
    xdp_action::XDP_REDIRECT
}

/// Writes the arrival time in front of the packet, where the driver leaves room for it.
#[inline(always)]
fn stamp(ctx: &XdpContext) {
    let grow = -(STAMP_LEN_BYTES as i32);
    // SAFETY: `ctx.ctx` is the context this program was called with. The call moves `data_meta`, so
    // pointers taken before are not used after it.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, grow) } != 0 {
        return;
    }
    let (meta, data) = (ctx.metadata(), ctx.data());
    if meta + STAMP_LEN_BYTES > data {
        return;
    }
    // SAFETY: no arguments, no state.
    let arrival_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the 16 bytes from `meta` on lie before `data`, as just compared, and no helper that moves
    // the packet was called since.
    unsafe { (meta as *mut [u64; 2]).write_unaligned([STAMP_MAGIC, arrival_ns]) };
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
