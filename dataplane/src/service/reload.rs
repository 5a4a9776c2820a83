//! Taking over a changed configuration while packets flow.

use super::operate::Service;
use super::ports::Reservation;
use super::{bring_up, links};
use crate::handler::dial;
use crate::worker::command::Command;
use config::Changes;
use std::sync::Arc;

impl Service {
    /// Reads the file again and takes over what can change while running: services, the deny list,
    /// where latency reports go. Says what changed, once it is in force; what needs a restart is
    /// refused, whole.
    pub(super) async fn reload(&mut self) -> Result<String, String> {
        let new = super::load(&self.path).map_err(|error| error.to_string())?;
        let Changes {
            live: changed,
            restart,
        } = self.config.changes_to(&new);
        if !restart.is_empty() {
            return Err(format!(
                "a change of {} needs a restart",
                restart.join(", ")
            ));
        }
        if changed.is_empty() {
            return Ok("nothing changed".into());
        }
        // The ports of connections are reserved before they are used, and given back after.
        let opens = new.opens_connections();
        if opens && self.reservation.is_none() {
            self.check_ports(&new).map_err(|error| error.to_string())?;
            let taken = Reservation::take(new.tcp.ports);
            self.reservation = Some(taken.map_err(|error| error.to_string())?);
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
            // What is opened anew has to wait until what comes back is steered here.
            let old = bring_up::dials(&self.config, worker.index, count);
            let new = bring_up::dials(&new, worker.index, count);
            worker.tell(Command::Connect(dial::common(&old, &new)));
        }
        self.config = new;
        self.settle().await;
        self.rules = common;
        self.steer(rules)
            .map_err(|error| format!("taken over, but new ports stay with the kernel: {error}"))?;
        if !opens {
            self.reservation = None;
        }
        self.dial();
        Ok(format!("{} taken over", changed.join(", ")))
    }
}
