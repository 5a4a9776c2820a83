//! Taking over a changed configuration while packets flow.

use super::operate::Service;
use super::{bring_up, links};
use crate::worker::command::Command;
use config::Config;
use std::sync::Arc;

impl Service {
    /// Reads the file again and takes over what can change while running: services, the deny list,
    /// where latency reports go. Says what changed, once it is in force; what needs a restart is
    /// refused, whole.
    pub(super) async fn reload(&mut self) -> Result<String, String> {
        let new = super::load(&self.path).map_err(|error| error.to_string())?;
        let fixed = needs_restart(&self.config, &new);
        if !fixed.is_empty() {
            return Err(format!("a change of {} needs a restart", fixed.join(", ")));
        }
        let mut changed = Vec::new();
        if new.services != self.config.services {
            changed.push("services");
        }
        if new.steering != self.config.steering {
            changed.push("steering");
        }
        if new.latency != self.config.latency {
            changed.push("latency");
        }
        if changed.is_empty() {
            return Ok("nothing changed".into());
        }
        // Nothing is steered to us at any time without a socket behind it: first only what both
        // configurations have, then the sockets change, then the rest is taken.
        let rules = links::rules(&new, &self.link);
        let common = links::common(&self.rules, &rules);
        self.steering
            .set_rules(&common)
            .map_err(|error| error.to_string())?;
        let count = self.workers.len();
        let served_by = Arc::new(bring_up::served_by(&new, count));
        for worker in &mut self.workers {
            let binds = bring_up::binds(&new, worker.index, count);
            worker.tell(Command::Services {
                binds,
                served_by: Arc::clone(&served_by),
            });
        }
        self.config = new;
        self.settle().await;
        self.rules = common;
        self.steer(rules)
            .map_err(|error| format!("taken over, but new ports stay with the kernel: {error}"))?;
        Ok(format!("{} taken over", changed.join(", ")))
    }
}

/// Sections that differ and cannot change while running.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let own = |config: &Config| {
        let services = config.services.iter();
        services
            .flat_map(|service| service.own_addresses.clone())
            .collect::<Vec<_>>()
    };
    let latency = |config: &Config| (config.latency.enabled, config.latency.significant_digits);
    [
        ("interface", old.interface != new.interface),
        ("rings", old.rings != new.rings),
        ("busy_poll", old.busy_poll != new.busy_poll),
        ("workers", old.workers != new.workers),
        ("checksums", old.checksums != new.checksums),
        ("ip", old.ip != new.ip),
        ("reassembly", old.reassembly != new.reassembly),
        ("limits", old.limits != new.limits),
        ("control", old.control != new.control),
        (
            "latency.enabled or latency.significant_digits",
            latency(old) != latency(new),
        ),
        ("own_addresses", own(old) != own(new)),
    ]
    .into_iter()
    .filter_map(|(section, differs)| differs.then_some(section))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = Config::new("eth0");
        let mut new = Config::new("eth0");
        new.rings.rx = 64;
        new.ip.ttl = 9;
        new.latency.directory = Some("/tmp".into());
        assert_eq!(needs_restart(&old, &new), ["rings", "ip"]);
        assert!(needs_restart(&old, &old).is_empty());
    }
}
