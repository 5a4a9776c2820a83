//! Which CPUs threads run on, and how much time they and whole processes used.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A list of CPU numbers as `taskset -c` takes it: `0`, `0,2`, `4-7`, `0,4-7`. Order is kept (the
/// first thread goes to the first CPU) and no CPU is named twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// The CPUs in the order they were named; never empty.
    #[must_use]
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu_number(first)?, cpu_number(last)?);
            if first > last {
                return Err(format!("`{part}` counts down: write {last}-{first}"));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("CPU {cpu} is named twice"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cpu) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{cpu}")?;
        }
        Ok(())
    }
}

fn cpu_number(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(cpu) if cpu < CpuSet::MAX_CPU => Ok(cpu),
        Ok(cpu) => Err(format!(
            "CPU {cpu} is above the highest one possible, {}",
            MAX_CPU
        )),
        Err(_) => Err(format!(
            "`{text}` is not a CPU number: expected a list like 0,2 or 4-7"
        )),
    }
}

const MAX_CPU: usize = CpuSet::MAX_CPU - 1;

/// Moves the calling thread to one CPU for good.
///
/// # Errors
/// A sentence that names the CPU: it does not exist, is offline, or is outside this process's
/// cpuset (sched_setaffinity(2)).
pub fn pin_current_thread(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    if cpu > MAX_CPU {
        return Err(format!(
            "CPU {cpu} is above the highest one possible, {MAX_CPU}"
        ));
    }
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| {
        let usable = match sched_getaffinity(None) {
            Ok(allowed) => (0..CpuSet::MAX_CPU)
                .filter(|&cpu| allowed.is_set(cpu))
                .map(|cpu| cpu.to_string())
                .collect::<Vec<_>>()
                .join(","),
            Err(_) => "unknown".into(),
        };
        format!("cannot pin a thread to CPU {cpu}: {error}; usable CPUs: {usable}")
    })
}

/// What one CPU did since boot, in clock ticks (`/proc/stat`, proc_stat(5)). Differences of two
/// readings are what is meaningful.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTime {
    /// User code, niced or not.
    pub user_ticks: u64,
    /// The kernel on behalf of processes.
    pub system_ticks: u64,
    /// Hardware interrupts.
    pub irq_ticks: u64,
    /// Software interrupts: most of the network stack's receive side.
    pub softirq_ticks: u64,
    /// Taken by the hypervisor for others; neither ours nor idle.
    pub steal_ticks: u64,
    /// Idle, waiting for a disk or not.
    pub idle_ticks: u64,
}

impl CoreTime {
    /// Reads the line `cpu<N>` of `/proc/stat`.
    ///
    /// # Errors
    /// When the file cannot be read or the CPU is not in it.
    pub fn of(cpu: usize) -> io::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat")?, cpu).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("/proc/stat has no cpu{cpu}"),
            )
        })
    }

    fn parse(stat: &str, cpu: usize) -> Option<Self> {
        let name = format!("cpu{cpu}");
        let line = stat
            .lines()
            .find(|line| line.split_ascii_whitespace().next() == Some(&name))?;
        let ticks: Vec<u64> = line
            .split_ascii_whitespace()
            .skip(1)
            .map_while(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is inside user already.
        let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
            return None;
        };
        Some(Self {
            user_ticks: user + nice,
            system_ticks: system,
            irq_ticks: irq,
            softirq_ticks: softirq,
            steal_ticks: steal,
            idle_ticks: idle + iowait,
        })
    }

    /// What happened between `earlier` and this reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        // The kernel lets idle and iowait step back now and then (proc_stat(5)).
        Self {
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            irq_ticks: self.irq_ticks.saturating_sub(earlier.irq_ticks),
            softirq_ticks: self.softirq_ticks.saturating_sub(earlier.softirq_ticks),
            steal_ticks: self.steal_ticks.saturating_sub(earlier.steal_ticks),
            idle_ticks: self.idle_ticks.saturating_sub(earlier.idle_ticks),
        }
    }

    /// Ticks in which the CPU worked: user, system, and both kinds of interrupt.
    #[must_use]
    pub fn busy_ticks(&self) -> u64 {
        self.user_ticks + self.system_ticks + self.irq_ticks + self.softirq_ticks
    }

    /// Work as a share of all time, 0 to 1; 0 when no tick passed.
    #[must_use]
    pub fn busy_share(&self) -> f64 {
        self.share(self.busy_ticks())
    }

    /// Software interrupts as a share of all time, 0 to 1; 0 when no tick passed.
    #[must_use]
    pub fn softirq_share(&self) -> f64 {
        self.share(self.softirq_ticks)
    }

    /// Time the hypervisor took as a share of all time, 0 to 1: above a few percent, distrust the
    /// measurement.
    #[must_use]
    pub fn steal_share(&self) -> f64 {
        self.share(self.steal_ticks)
    }

    fn share(&self, ticks: u64) -> f64 {
        let all = self.busy_ticks() + self.steal_ticks + self.idle_ticks;
        if all == 0 {
            0.0
        } else {
            ticks as f64 / all as f64
        }
    }

    /// The time in which the CPU worked.
    #[must_use]
    pub fn busy(&self) -> Duration {
        ticks_to_duration(self.busy_ticks())
    }
}

/// CPU time a process used so far, user and system, all threads (`/proc/PID/stat`). Interrupts that
/// happened to run while it was on the CPU are not in it where the kernel accounts them apart.
///
/// # Errors
/// When there is no such process.
pub fn process_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    process_ticks(&stat).map(ticks_to_duration).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("cannot read /proc/{pid}/stat"),
        )
    })
}

/// `utime` + `stime`, fields 14 and 15 (proc_pid_stat(5)). The second field is the program's name
/// in brackets and may itself hold spaces and brackets, so counting starts after the last bracket.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn ticks_to_duration(ticks: u64) -> Duration {
    // 100 everywhere in practice (USER_HZ), so a tick is 10 ms.
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        let parse = |text: &str| text.parse::<CpuList>().map(|list| list.0);
        assert_eq!(parse("0"), Ok(vec![0]));
        assert_eq!(parse("2,0"), Ok(vec![2, 0]));
        assert_eq!(parse("1,4-6"), Ok(vec![1, 4, 5, 6]));
        assert_eq!("3,1-2".parse::<CpuList>().unwrap().to_string(), "3,1,2");
        for bad in [
            "", "a", "1,", "-1", "3-1", "1,1", "0-2,2", "99999999", "1-2-3",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_told() {
        let allowed = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU)
            .rfind(|&cpu| allowed.is_set(cpu))
            .unwrap();
        std::thread::spawn(move || {
            pin_current_thread(cpu).unwrap();
            assert_eq!(rustix::thread::sched_getcpu(), cpu);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named() {
        let error = pin_current_thread(MAX_CPU).unwrap_err();
        assert!(
            error.contains(&MAX_CPU.to_string()) && error.contains("usable"),
            "{error}"
        );
        assert!(pin_current_thread(usize::MAX).is_err());
    }

    const STAT: &str = "cpu  9 9 9 9 9 9 9 9 9 9\n\
                        cpu0 1 2 3 4 5 6 7 8 0 0\n\
                        cpu1 100 0 50 40 0 0 10 0 0 0\n\
                        cpu10 7 7 7 7 7 7 7 7 7 7\n\
                        intr 1 2 3\n";

    #[test]
    fn core_time() {
        let zero = CoreTime::parse(STAT, 0).unwrap();
        assert_eq!(
            zero,
            CoreTime {
                user_ticks: 3,
                system_ticks: 3,
                irq_ticks: 6,
                softirq_ticks: 7,
                steal_ticks: 8,
                idle_ticks: 9
            }
        );
        let one = CoreTime::parse(STAT, 1).unwrap();
        assert_eq!(one.busy_ticks(), 160);
        assert!((one.busy_share() - 0.8).abs() < 1e-9);
        assert!((one.softirq_share() - 0.05).abs() < 1e-9);
        assert_eq!(CoreTime::parse(STAT, 2), None);
        assert_eq!(one.since(&one).busy_share(), 0.0);
        // A reading that stepped back counts as no time rather than as an age.
        assert_eq!(zero.since(&one).user_ticks, 0);
    }

    #[test]
    fn process_time_survives_a_program_name_with_brackets() {
        let stat = "7 (a) b) c) R 1 7 7 0 -1 4194304 1 2 3 4 11 31 0 0 20 0 1 0 5 6 7";
        assert_eq!(process_ticks(stat), Some(42));
        assert_eq!(process_ticks("7 (a) R 1 2"), None);
        assert!(process_time(std::process::id()).is_ok());
    }
}
