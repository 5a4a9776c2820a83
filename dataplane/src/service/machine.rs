//! What the machine has, for the configuration to be checked against.

use super::ServiceError;
use crate::control::netlink::{MirrorConfig, snapshot};
use crate::driver::{DriverError, Interface};
use config::{Cidr, Config, InterfaceFacts, Machine};
use std::sync::OnceLock;

/// Looks at cores and interface. An interface that does not exist is an error; privileges are not
/// needed.
///
/// # Errors
/// No such interface, or the kernel refuses to tell.
pub fn look(config: &Config) -> Result<Machine, ServiceError> {
    let interface = Interface::by_name(&config.interface.name)?;
    // Blocks on a runtime of its own, which must not be inside another: hence the thread.
    let mirror = mirror_config(config);
    let link = std::thread::scope(|scope| scope.spawn(|| snapshot(&mirror)).join())
        .map_err(|_| ServiceError::Lost("reading the interface's addresses panicked".into()))??;
    let addresses = link.addresses.iter().map(|local| Cidr {
        address: local.address,
        prefix_len: local.prefix_len,
    });
    let facts = InterfaceFacts {
        name: interface.name.clone(),
        queues: interface.queues(),
        addresses: addresses.collect(),
        mtu: interface.mtu,
    };
    Ok(Machine {
        cores: cores(),
        interface: Some(facts),
    })
}

/// The cores this process may run on, as it was when first asked: before the control thread, whose
/// own mask the kernel would answer with, was moved off the workers' cores.
#[must_use]
pub fn cores() -> Vec<usize> {
    static AT_START: OnceLock<Vec<usize>> = OnceLock::new();
    AT_START
        .get_or_init(|| {
            let ids = core_affinity::get_core_ids().unwrap_or_default();
            ids.into_iter().map(|core| core.id).collect()
        })
        .clone()
}

/// Whether services need no address of the kernel's: they own some, and listen on no others.
fn owns_all_addresses(config: &Config) -> bool {
    let services = || config.services.iter();
    let owned: Vec<_> = services()
        .flat_map(|service| service.own_addresses.iter())
        .map(|own| own.address.to_canonical())
        .collect();
    let mut listen = services().flat_map(|service| &service.listen);
    !owned.is_empty()
        && listen.all(|local| {
            let address = local.ip().to_canonical();
            address.is_unspecified() || owned.contains(&address)
        })
}

pub(super) fn mirror_config(config: &Config) -> MirrorConfig {
    MirrorConfig {
        interface: config.interface.name.clone(),
        vlans: config.interface.vlan.clone(),
        vlan_optional: owns_all_addresses(config),
        route_limit: config.limits.routes,
    }
}

/// Waits until the interface has a carrier, as long as `interface.link_wait_s` says. Not having one
/// by then is no error: it may come.
///
/// # Errors
/// The interface went away.
pub(super) async fn wait_for_carrier(config: &Config) -> Result<Interface, DriverError> {
    let name = &config.interface.name;
    let wait = std::time::Duration::from_secs(config.interface.link_wait_s.into());
    let deadline = std::time::Instant::now() + wait;
    let mut told = false;
    loop {
        let interface = Interface::by_name(name)?;
        if interface.carrier {
            return Ok(interface);
        }
        if std::time::Instant::now() >= deadline {
            tracing::warn!(
                "{name} has no carrier; starting all the same, packets come when it has"
            );
            return Ok(interface);
        }
        if !told {
            tracing::info!(
                "waiting for the carrier of {name}, at most {} s",
                wait.as_secs()
            );
            told = true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
