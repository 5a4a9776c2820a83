//! What a running service can take over from a changed configuration, and what needs a restart.

use crate::schema::{Config, Latency, Service};

/// Where two configurations differ, as a running service sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What can change while the service runs, section by section.
    pub live: Vec<&'static str>,
    /// What cannot: sections, and keys of sections of which the rest can.
    pub restart: Vec<&'static str>,
}

impl Config {
    /// What changes from this configuration to `new`.
    #[must_use]
    pub fn changes_to(&self, new: &Self) -> Changes {
        // Whoever adds a section has to say here which kind it is.
        let Self {
            interface,
            rings,
            busy_poll,
            workers,
            checksums,
            ip,
            reassembly,
            tcp,
            limits,
            steering,
            latency,
            control,
            services,
            source: _,
        } = self;
        let Latency {
            enabled,
            significant_digits,
            directory: _,
        } = latency;
        let histograms = (enabled, significant_digits);
        let new_histograms = (&new.latency.enabled, &new.latency.significant_digits);
        let restart = [
            ("interface", *interface != new.interface),
            ("rings", *rings != new.rings),
            ("busy_poll", *busy_poll != new.busy_poll),
            ("workers", *workers != new.workers),
            ("checksums", *checksums != new.checksums),
            ("ip", *ip != new.ip),
            ("reassembly", *reassembly != new.reassembly),
            ("tcp", *tcp != new.tcp),
            ("limits", *limits != new.limits),
            ("control", *control != new.control),
            (
                "latency.enabled or latency.significant_digits",
                histograms != new_histograms,
            ),
            (
                "congestion (the first service with \"new_reno\")",
                new.uses_new_reno() && !self.uses_new_reno(),
            ),
            (
                "own_addresses",
                !own_addresses(services).eq(own_addresses(&new.services)),
            ),
        ];
        let live = [
            ("services", *services != new.services),
            ("steering", *steering != new.steering),
            ("latency", *latency != new.latency),
        ];
        let differing = |all: &[(&'static str, bool)]| {
            let differing = all.iter().filter(|(_, differs)| *differs);
            differing.map(|(name, _)| *name).collect()
        };
        Changes {
            live: differing(&live),
            restart: differing(&restart),
        }
    }
}

/// Of all services, in file order: the rest of a service can change while it runs.
fn own_addresses(services: &[Service]) -> impl Iterator<Item = &crate::Cidr> {
    services.iter().flat_map(|service| {
        let Service {
            name: _,
            application: _,
            protocol: _,
            listen: _,
            connect: _,
            connections: _,
            v6only: _,
            own_addresses,
            workers: _,
            congestion: _,
            nodelay: _,
            backlog: _,
        } = service;
        own_addresses
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = Config::new("eth0");
        assert_eq!(old.changes_to(&old), Changes::default());
        let mut new = Config::new("eth0");
        new.rings.rx = 64;
        new.ip.ttl = 9;
        new.latency.directory = Some("/tmp".into());
        let changes = old.changes_to(&new);
        assert_eq!(changes.restart, ["rings", "ip"]);
        assert_eq!(changes.live, ["latency"]);
    }

    #[test]
    fn services_change_live_but_for_their_own_addresses() {
        let parse = |keys: &str| {
            let text = format!(
                "[interface]\nname = \"eth0\"\n[[service]]\nname = \"a\"\nprotocol = \"udp\"\n\
                 application = \"echo\"\n{keys}"
            );
            Config::parse(&text, "t").expect("a valid configuration")
        };
        let old = parse("listen = [\"[::]:7\"]\n");
        let other_port = parse("listen = [\"[::]:8\"]\n");
        let owner = parse("listen = [\"[::]:7\"]\nown_addresses = [\"192.0.2.9/24\"]\n");
        let changes = old.changes_to(&other_port);
        assert_eq!((changes.live, changes.restart), (vec!["services"], vec![]));
        assert_eq!(old.changes_to(&owner).restart, ["own_addresses"]);
    }
}
