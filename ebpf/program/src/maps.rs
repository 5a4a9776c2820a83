//! The maps, and the look-ups of a decision in them. Layouts and names are those of
//! `steer::tables`.

use crate::packet::Scratch;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, XskMap};
use steer::tables::{ExactKey, FRAGMENT_COUNT_MAX, FragmentKey, LocalKey, QUEUE_COUNT_MAX};
use steer::verdict::VERDICT_COUNT;
use steer::{Address, Config, Tables, Verdict};

// Only user space adds entries to the tables of rules, so none of them needs memory for entries
// that do not exist. The loader sets their sizes; these here are for whoever loads the object by
// other means.
const ENTRY_COUNT_DEFAULT: u32 = 4096;

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static DENY: HashMap<LocalKey, u8> =
    HashMap::with_max_entries(ENTRY_COUNT_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static EXACT: HashMap<ExactKey, u8> =
    HashMap::with_max_entries(ENTRY_COUNT_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static PORTS: HashMap<LocalKey, u8> =
    HashMap::with_max_entries(ENTRY_COUNT_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static LOCALS: HashMap<Address, u8> =
    HashMap::with_max_entries(ENTRY_COUNT_DEFAULT, BPF_F_NO_PREALLOC);
#[map]
static PREFIXES: LpmTrie<[u32; 4], u8> = LpmTrie::with_max_entries(ENTRY_COUNT_DEFAULT, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, u8> = LruHashMap::with_max_entries(FRAGMENT_COUNT_MAX, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICT_COUNT, 0);
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static XSKS: XskMap = XskMap::with_max_entries(QUEUE_COUNT_MAX, 0);

/// Scratch memory of this CPU, on which one XDP program runs at a time. Entry 0 of an array of one
/// always exists, but the verifier asks.
#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}

/// Counts a verdict on this CPU.
#[inline(always)]
pub fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: the kernel gave us a pointer to this CPU's value, and neither another CPU nor
        // another run of this program on this CPU writes to it meanwhile.
        unsafe { *counter += 1 };
    }
}

/// The maps as the tables of a decision. Whether an entry exists is all it asks, so no value is
/// ever read, except the configuration.
pub struct KernelTables {
    config: *const Config,
}

impl KernelTables {
    /// Entry 0 of an array of one always exists, but the verifier asks.
    #[inline(always)]
    pub fn new() -> Option<Self> {
        Some(Self {
            config: CONFIG.get_ptr(0)?,
        })
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn flags(&self) -> u32 {
        // SAFETY: the kernel gave us the pointer; user space may write meanwhile, which an aligned
        // volatile read of 32 bits sees either before or after.
        unsafe { (&raw const (*self.config).flags).read_volatile() }
    }

    #[inline(always)]
    fn deny_shapes(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.config).deny_shapes).read_volatile() }
    }

    #[inline(always)]
    fn vlan_stack(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.config).vlan_stack).read_volatile() }
    }

    #[inline(always)]
    fn mac(&self) -> [u32; 2] {
        // SAFETY: as above.
        unsafe {
            [
                (&raw const (*self.config).mac[0]).read_volatile(),
                (&raw const (*self.config).mac[1]).read_volatile(),
            ]
        }
    }

    #[inline(always)]
    fn deny(&self, key: &LocalKey) -> bool {
        DENY.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn exact(&self, key: &ExactKey) -> bool {
        EXACT.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn port(&self, key: &LocalKey) -> bool {
        PORTS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn local(&self, address: &Address) -> bool {
        LOCALS.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn prefix(&self, address: &Address) -> bool {
        PREFIXES.get(Key::new(128, address.words)).is_some()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> bool {
        FRAGMENTS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey) {
        // Fails only without memory, and then the later fragments go to the kernel.
        let _ = FRAGMENTS.insert(key, 1, 0);
    }

    #[inline(always)]
    fn forget_fragment(&self, key: &FragmentKey) {
        // Fails where there is nothing to forget.
        let _ = FRAGMENTS.remove(key);
    }
}
