//! `dataplane doctor`: looks at the machine before the service runs on it, and says what would go
//! wrong or slow and what to do. Changes nothing.

use super::{ServiceError, machine};
use crate::driver::Interface;
use crate::observe::report::plural;
use crate::steering::{attached, preflight};
use config::{Config, HugePages, Machine, Mode, Queues};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// The service runs, but slower or with less than it could have.
    Warning,
    /// The service would not start.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, and what to do where something is.
    pub finding: String,
}

/// What a check of the configuration is called.
const CONFIG: &str = "config";

/// Everything that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// In the order of a start.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Whether the service would start.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        !self
            .checks
            .iter()
            .any(|check| check.outcome == Outcome::Failure)
    }

    /// What `dataplane doctor` ends with: 0 when the service would start, 2 where the configuration is
    /// what keeps it from that, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let failed = |check: &&Check| check.outcome == Outcome::Failure;
        match self.checks.iter().find(failed) {
            None => 0,
            Some(first) if first.name == CONFIG => 2,
            Some(_) => 1,
        }
    }

    fn add(&mut self, name: &'static str, outcome: Outcome, finding: impl Into<String>) {
        self.checks.push(Check {
            name,
            outcome,
            finding: finding.into(),
        });
    }

    fn add_result<E: fmt::Display>(&mut self, name: &'static str, result: Result<String, E>) {
        match result {
            Ok(finding) => self.add(name, Outcome::Ok, finding),
            Err(error) => self.add(name, Outcome::Failure, error.to_string()),
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check {
            name,
            outcome,
            finding,
        } in &self.checks
        {
            let mark = match outcome {
                Outcome::Ok => "ok  ",
                Outcome::Warning => "warn",
                Outcome::Failure => "FAIL",
            };
            writeln!(
                f,
                "{mark}  {name:<12} {}",
                finding.replace('\n', "\n                    ")
            )?;
        }
        Ok(())
    }
}

/// Looks at the machine; with a configuration, at what that asks of it.
#[must_use]
pub fn diagnose(path: Option<&Path>) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    diagnosis.add_result("kernel", preflight::check().map(|()| release()));
    let btf = Path::new("/sys/kernel/btf/vmlinux");
    let lacking = "no /sys/kernel/btf/vmlinux: use a kernel with CONFIG_DEBUG_INFO_BTF";
    diagnosis.add_result(
        "btf",
        if btf.exists() {
            Ok("there".into())
        } else {
            Err(lacking)
        },
    );
    let Some(path) = path else { return diagnosis };
    match Config::load(path) {
        Ok(config) => look_at(&config, &mut diagnosis),
        Err(errors) => diagnosis.add(CONFIG, Outcome::Failure, errors.to_string().trim_end()),
    }
    diagnosis
}

fn look_at(config: &Config, diagnosis: &mut Diagnosis) {
    let (interface, machine) = match look(config) {
        Ok(found) => found,
        Err(error) => return diagnosis.add("interface", Outcome::Failure, error.to_string()),
    };
    let Interface {
        name,
        driver,
        mtu,
        up,
        carrier,
        rx_queues,
        tx_queues,
        ..
    } = &interface;
    diagnosis.add(
        "interface",
        if *carrier {
            Outcome::Ok
        } else {
            Outcome::Warning
        },
        format!(
            "{name}: driver {driver}, MTU {mtu}, {rx_queues} RX and {tx_queues} TX queues, {}",
            match (up, carrier) {
                (_, true) => "carrier",
                (true, false) => "no carrier: packets come when there is one",
                (false, false) => "down: `ip link set dev DEVICE up`",
            }
        ),
    );
    let fits = config.check_against(&machine);
    diagnosis.add_result(CONFIG, fits.map(|()| "fits this machine".into()));
    match attached::query(interface.index) {
        Ok(None) => diagnosis.add("xdp", Outcome::Ok, "no program is attached"),
        Ok(Some(ours)) if ours.is_ours() => diagnosis.add(
            "xdp",
            Outcome::Warning,
            format!("a dataplane runs on {name}: {ours}; another one has to wait until it is stopped"),
        ),
        Ok(Some(other)) => diagnosis.add(
            "xdp",
            Outcome::Failure,
            format!("{other} is attached to {name}: stop what put it there, or `ip link set dev {name} xdp off`"),
        ),
        Err(error) => diagnosis.add("xdp", Outcome::Warning, error.to_string()),
    }
    vlan(config, &interface, diagnosis);
    queues(config, &interface, &machine, diagnosis);
    mode(config, &interface, diagnosis);
    huge_pages(config, &interface, diagnosis);
    cores(config, &machine, diagnosis);
    busy_poll(config, &interface, diagnosis);
    checksums(config, &interface, diagnosis);
    ports(config, &machine, diagnosis);
}

/// The local ports of connections that services open.
fn ports(config: &Config, machine: &Machine, diagnosis: &mut Diagnosis) {
    if !config.opens_connections() {
        return;
    }
    let range = config.tcp.ports;
    let facts = machine.interface.iter();
    let addresses: Vec<IpAddr> = facts
        .flat_map(|facts| facts.addresses.iter().map(|local| local.address))
        .collect();
    let unused = super::ports::check_unused(range, &addresses);
    diagnosis.add_result("ports", unused.and_then(|()| super::ports::look(range)));
}

fn look(config: &Config) -> Result<(Interface, Machine), ServiceError> {
    let interface = Interface::by_name(&config.interface.name)?;
    Ok((interface, machine::look(config)?))
}

fn vlan(config: &Config, interface: &Interface, diagnosis: &mut Diagnosis) {
    if config.interface.vlan.is_empty() {
        return;
    }
    match stripped_vlan_tags(config, interface) {
        Some(finding) => diagnosis.add("vlan", Outcome::Failure, finding),
        None => diagnosis.add("vlan", Outcome::Ok, "tags stay in packets"),
    }
}

/// What is wrong if packets of our VLANs arrive without their tags.
pub(super) fn stripped_vlan_tags(config: &Config, interface: &Interface) -> Option<String> {
    let name = &interface.name;
    (!config.interface.vlan.is_empty() && interface.strips_vlan_tags).then(|| {
        format!(
            "{name} takes VLAN tags out of packets, so that none can be recognised as ours: \
             `ethtool -K {name} rxvlan off`"
        )
    })
}

fn queues(config: &Config, interface: &Interface, machine: &Machine, diagnosis: &mut Diagnosis) {
    let queues = config.queue_ids(interface.queues());
    let workers = config.worker_cores(machine).len();
    let name = &interface.name;
    if let Queues::List(_) = config.interface.queues
        && queues.len() < interface.queues() as usize
    {
        let finding = format!(
            "{} of {} queues are ours: packets that RSS puts on others stay with the kernel; \
             `ethtool -x {name}` shows and `ethtool -X {name}` sets where they go",
            queues.len(),
            interface.queues()
        );
        return diagnosis.add("queues", Outcome::Warning, finding);
    }
    diagnosis.add(
        "queues",
        Outcome::Ok,
        format!("{queues:?} on {}", plural(workers, "worker")),
    );
}

fn mode(config: &Config, interface: &Interface, diagnosis: &mut Diagnosis) {
    let (mode, driver) = (config.interface.mode, &interface.driver);
    let (outcome, finding) = match (mode, driver.as_str()) {
        (Mode::ZeroCopy, "veth") => (
            Outcome::Failure,
            "veth has no zero-copy: ask for copy".into(),
        ),
        (Mode::Generic, _) => (
            Outcome::Warning,
            "generic: the kernel's receive path runs first; copy or zero-copy is faster where the \
             driver has it"
                .into(),
        ),
        (Mode::Auto, _) => (
            Outcome::Ok,
            "auto: what is obtained is printed at start and in `info`".into(),
        ),
        (mode, driver) => (
            Outcome::Ok,
            format!("{mode}, if {driver} has it; else an error"),
        ),
    };
    diagnosis.add("mode", outcome, finding);
}

fn huge_pages(config: &Config, interface: &Interface, diagnosis: &mut Diagnosis) {
    const PAGE: u64 = 2 << 20;
    let queues = config.queue_ids(interface.queues()).len() as u64;
    let bytes = u64::from(config.rings.frames) * u64::from(config.rings.frame_size);
    let needed = bytes.saturating_mul(queues).div_ceil(PAGE);
    let free = number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or(0);
    let enough = free >= needed;
    let finding = format!("{free} free pages of 2 MiB, about {needed} wanted");
    let advice = format!("{finding}: `sysctl vm.nr_hugepages={needed}` or more");
    match (config.rings.huge_pages, enough) {
        (HugePages::Never, _) => diagnosis.add("huge pages", Outcome::Ok, "not asked for"),
        (_, true) => diagnosis.add("huge pages", Outcome::Ok, finding),
        (HugePages::Auto, false) => diagnosis.add("huge pages", Outcome::Warning, advice),
        (HugePages::Require, false) => diagnosis.add("huge pages", Outcome::Failure, advice),
    }
}

fn cores(config: &Config, machine: &Machine, diagnosis: &mut Diagnosis) {
    let cores = config.worker_cores(machine);
    let slow: Vec<usize> = cores
        .iter()
        .copied()
        .filter(|core| {
            let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            fs::read_to_string(path).is_ok_and(|governor| governor.trim() != "performance")
        })
        .collect();
    if !slow.is_empty() {
        let finding = format!(
            "cores {slow:?} change their frequency with load; `cpupower frequency-set -g \
             performance` keeps tail latency down"
        );
        return diagnosis.add("cores", Outcome::Warning, finding);
    }
    if cores.len() >= machine.cores.len() {
        let finding =
            format!("workers on {cores:?} leave no core to the control plane and everything else");
        return diagnosis.add("cores", Outcome::Warning, finding);
    }
    diagnosis.add("cores", Outcome::Ok, format!("workers on {cores:?}"));
}

fn busy_poll(config: &Config, interface: &Interface, diagnosis: &mut Diagnosis) {
    if !config.busy_poll.enabled {
        return;
    }
    let name = &interface.name;
    let of = |file: &str| number(&format!("/sys/class/net/{name}/{file}")).unwrap_or(0);
    if of("napi_defer_hard_irqs") == 0 || of("gro_flush_timeout") == 0 {
        let finding = format!(
            "interrupts go on beside busy polling: set /sys/class/net/{name}/napi_defer_hard_irqs \
             to 2 and gro_flush_timeout to 200000"
        );
        return diagnosis.add("busy poll", Outcome::Warning, finding);
    }
    diagnosis.add("busy poll", Outcome::Ok, "interrupts are deferred");
}

fn checksums(config: &Config, interface: &Interface, diagnosis: &mut Diagnosis) {
    let virtual_link = matches!(interface.driver.as_str(), "veth" | "virtio_net" | "tun");
    let (outcome, finding) = match (config.checksums.accept_incomplete, virtual_link) {
        (true, _) => (
            Outcome::Warning,
            "incomplete checksums are accepted: corruption on the way goes unnoticed",
        ),
        (false, true) => (
            Outcome::Warning,
            "peers on a virtual link may send incomplete checksums, which are dropped and \
             counted (udp_checksum_incomplete): `ethtool -K DEVICE tx off` at the peer",
        ),
        (false, false) => (Outcome::Ok, "verified"),
    };
    diagnosis.add("checksums", outcome, finding);
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "unknown".into(), |release| release.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_exist_is_a_failure() {
        let directory = std::env::temp_dir().join(format!("doctor-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let path = directory.join("config.toml");
        fs::write(&path, "[interface]\nname = \"nosuchnic\"\n").expect("a temporary file");
        let diagnosis = diagnose(Some(&path));
        fs::remove_dir_all(&directory).expect("our own directory");
        assert!(!diagnosis.is_fit());
        let last = diagnosis.checks.last().expect("a check");
        assert!(last.finding.contains("nosuchnic"), "{diagnosis}");
    }

    #[test]
    fn a_broken_configuration_is_told_from_a_machine_that_will_not_do() {
        let code = |checks: &[(&'static str, Outcome)]| {
            let mut diagnosis = Diagnosis::default();
            for (name, outcome) in checks {
                diagnosis.add(name, *outcome, "");
            }
            diagnosis.exit_code()
        };
        assert_eq!(
            code(&[("kernel", Outcome::Ok), ("mode", Outcome::Warning)]),
            0
        );
        assert_eq!(
            code(&[("kernel", Outcome::Ok), (CONFIG, Outcome::Failure)]),
            2
        );
        // What comes first is what a start would end with.
        assert_eq!(
            code(&[("kernel", Outcome::Failure), (CONFIG, Outcome::Failure)]),
            1
        );
    }

    #[test]
    fn the_table_marks_outcomes() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.add("mode", Outcome::Warning, "slow");
        assert!(diagnosis.is_fit());
        assert_eq!(diagnosis.to_string(), "warn  mode         slow\n");
    }
}
