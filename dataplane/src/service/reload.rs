//! Taking over a changed configuration while packets flow.

use super::operate::Service;
use super::{bring_up, links};
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
