//! The tables of rules in the kernel, and how they change.

use super::rules::{PrefixKey, RuleSet};
use super::{Capacity, SteeringError};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use std::collections::BTreeSet;
use std::net::IpAddr;
use steer::Address;
use steer::tables::map;

/// A table of which only the keys matter.
trait Table {
    type Key: Copy + Ord;

    fn name(&self) -> &'static str;
    fn capacity(&self) -> u32;
    fn keys(&self) -> Result<BTreeSet<Self::Key>, MapError>;
    fn insert(&mut self, key: &Self::Key) -> Result<(), MapError>;
    fn remove(&mut self, key: &Self::Key) -> Result<(), MapError>;
}

#[derive(Debug)]
struct Set<const N: usize> {
    name: &'static str,
    capacity: u32,
    map: HashMap<MapData, [u8; N], u8>,
}

impl<const N: usize> Table for Set<N> {
    type Key = [u8; N];

    fn name(&self) -> &'static str {
        self.name
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn keys(&self) -> Result<BTreeSet<[u8; N]>, MapError> {
        self.map.keys().collect()
    }

    fn insert(&mut self, key: &[u8; N]) -> Result<(), MapError> {
        self.map.insert(key, 1, 0)
    }

    fn remove(&mut self, key: &[u8; N]) -> Result<(), MapError> {
        self.map.remove(key)
    }
}

#[derive(Debug)]
struct Prefixes {
    capacity: u32,
    map: LpmTrie<MapData, [u8; 16], u8>,
}

impl Table for Prefixes {
    type Key = PrefixKey;

    fn name(&self) -> &'static str {
        map::PREFIXES
    }

    fn capacity(&self) -> u32 {
        self.capacity
    }

    fn keys(&self) -> Result<BTreeSet<PrefixKey>, MapError> {
        self.map
            .keys()
            .map(|key| key.map(|key| (key.prefix_len(), key.data())))
            .collect()
    }

    fn insert(&mut self, (len, address): &PrefixKey) -> Result<(), MapError> {
        self.map.insert(&Key::new(*len, *address), 1, 0)
    }

    fn remove(&mut self, (len, address): &PrefixKey) -> Result<(), MapError> {
        self.map.remove(&Key::new(*len, *address))
    }
}

/// What has to change in one table.
#[derive(Debug)]
struct Change<K> {
    add: Vec<K>,
    remove: Vec<K>,
}

impl<K: Copy + Ord> Change<K> {
    /// From what the kernel has to what it should have.
    fn between<T: Table<Key = K>>(table: &T, wanted: &BTreeSet<K>) -> Result<Self, SteeringError> {
        // Checked ahead, although both sets are in the table for a moment, so that the sentence can
        // name the limit; `add` meets the rest.
        if wanted.len() > table.capacity() as usize {
            return Err(SteeringError::TableFull {
                table: table.name(),
                capacity: table.capacity(),
            });
        }
        let present = table
            .keys()
            .map_err(|error| SteeringError::map("list", table.name(), error))?;
        Ok(Self {
            add: wanted.difference(&present).copied().collect(),
            remove: present.difference(wanted).copied().collect(),
        })
    }

    /// Adds what is new, up to the first that cannot be added.
    fn add<T: Table<Key = K>>(&self, table: &mut T) -> Result<(), SteeringError> {
        self.add
            .iter()
            .try_for_each(|key| table.insert(key))
            .map_err(|error| {
                if is_full(&error) {
                    SteeringError::TableFull {
                        table: table.name(),
                        capacity: table.capacity(),
                    }
                } else {
                    SteeringError::map("add to", table.name(), error)
                }
            })
    }

    /// Removes what is old.
    fn remove<T: Table<Key = K>>(&self, table: &mut T) -> Result<(), SteeringError> {
        remove_all(table, &self.remove)
    }

    /// Takes back an addition, whole or half done: what is new was not there before.
    fn undo<T: Table<Key = K>>(&self, table: &mut T) -> Result<(), SteeringError> {
        remove_all(table, &self.add)
    }
}

fn remove_all<T: Table>(table: &mut T, keys: &[T::Key]) -> Result<(), SteeringError> {
    for key in keys {
        match table.remove(key) {
            Err(error) if !is_missing(&error) => {
                return Err(SteeringError::map("remove from", table.name(), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The difference between the rules in the kernel and new ones.
#[derive(Debug)]
pub(super) struct Plan {
    deny: Change<[u8; 24]>,
    exact: Change<[u8; 40]>,
    ports: Change<[u8; 24]>,
    prefixes: Change<PrefixKey>,
}

impl Plan {
    /// Whether the deny list grows.
    pub(super) fn denies_more(&self) -> bool {
        !self.deny.add.is_empty()
    }
}

/// The tables.
#[derive(Debug)]
pub(super) struct Rules {
    deny: Set<24>,
    exact: Set<40>,
    ports: Set<24>,
    locals: Set<16>,
    prefixes: Prefixes,
}

impl Rules {
    /// Takes the maps out of the loaded object.
    pub(super) fn take_from(ebpf: &mut Ebpf, capacity: Capacity) -> Self {
        let Capacity {
            deny,
            exact,
            ports,
            locals,
            prefixes,
        } = capacity;
        Self {
            deny: set(ebpf, map::DENY, deny),
            exact: set(ebpf, map::EXACT, exact),
            ports: set(ebpf, map::PORTS, ports),
            locals: set(ebpf, map::LOCALS, locals),
            prefixes: Prefixes {
                capacity: prefixes,
                map: LpmTrie::try_from(take(ebpf, map::PREFIXES))
                    .expect("invariant: object and loader share the layouts in `steer::tables`"),
            },
        }
    }

    /// Compares `wanted` with what is in the kernel.
    pub(super) fn plan(&self, wanted: &RuleSet) -> Result<Plan, SteeringError> {
        Ok(Plan {
            deny: Change::between(&self.deny, &wanted.deny_keys())?,
            exact: Change::between(&self.exact, &wanted.exact_keys())?,
            ports: Change::between(&self.ports, &wanted.port_keys())?,
            prefixes: Change::between(&self.prefixes, &wanted.prefix_keys())?,
        })
    }

    /// Adds what is new in the deny list, up to the first entry that cannot be added. This comes
    /// before [`add_claims`](Self::add_claims), but is not enough for nothing it reserves to be taken
    /// by a new rule: the program looks for an entry only once the configuration has its shape.
    pub(super) fn add_deny(&mut self, plan: &Plan) -> Result<(), SteeringError> {
        plan.deny.add(&mut self.deny)
    }

    /// Adds what is new in the tables of what is ours, up to the first entry that cannot be added.
    pub(super) fn add_claims(&mut self, plan: &Plan) -> Result<(), SteeringError> {
        plan.exact.add(&mut self.exact)?;
        plan.ports.add(&mut self.ports)?;
        plan.prefixes.add(&mut self.prefixes)
    }

    /// Takes back what [`add_claims`](Self::add_claims) did, whole or half.
    pub(super) fn undo_claims(&mut self, plan: &Plan) -> Result<(), SteeringError> {
        plan.prefixes.undo(&mut self.prefixes)?;
        plan.ports.undo(&mut self.ports)?;
        plan.exact.undo(&mut self.exact)
    }

    /// Takes back what [`add_deny`](Self::add_deny) did, whole or half. Claims have to be taken back
    /// before.
    pub(super) fn undo_deny(&mut self, plan: &Plan) -> Result<(), SteeringError> {
        plan.deny.undo(&mut self.deny)
    }

    /// Removes what is old; the deny list last, because the program looks there first.
    pub(super) fn remove(&mut self, plan: &Plan) -> Result<(), SteeringError> {
        let Plan {
            deny,
            exact,
            ports,
            prefixes,
        } = plan;
        prefixes.remove(&mut self.prefixes)?;
        ports.remove(&mut self.ports)?;
        exact.remove(&mut self.exact)?;
        deny.remove(&mut self.deny)
    }

    /// Replaces the addresses of this host.
    pub(super) fn set_locals(&mut self, addresses: &[IpAddr]) -> Result<(), SteeringError> {
        let wanted = addresses
            .iter()
            .map(|&address| Address::from(address).to_bytes())
            .collect();
        let change = Change::between(&self.locals, &wanted)?;
        if let Err(error) = change.add(&mut self.locals) {
            change.undo(&mut self.locals)?;
            return Err(error);
        }
        change.remove(&mut self.locals)
    }
}

fn set<const N: usize>(ebpf: &mut Ebpf, name: &'static str, capacity: u32) -> Set<N> {
    let map = HashMap::try_from(take(ebpf, name))
        .expect("invariant: object and loader share the layouts in `steer::tables`");
    Set {
        name,
        capacity,
        map,
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> Map {
    ebpf.take_map(name)
        .expect("invariant: the object has every map named in `steer::tables::map`")
}

/// Whether the entry to remove was not there.
pub(super) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// Hash tables answer E2BIG, tries ENOSPC.
fn is_full(error: &MapError) -> bool {
    let MapError::SyscallError(error) = error else {
        return false;
    };
    matches!(
        error.io_error.raw_os_error(),
        Some(libc::E2BIG | libc::ENOSPC)
    )
}
