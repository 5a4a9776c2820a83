//! What a command line comes to, and carrying it out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::live::Snapshot;
use super::merge::MergePlan;
use super::pacing::{Arrivals, Rate};
use super::report::Report;
use super::run::{self, Kind, Plan};
use super::sweep::SweepPlan;
use super::tcp::run::{Mode, TcpPlan};
use super::tcp::serve::ServePlan;
use super::{report, tcp};

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Job {
    /// One run.
    Load(Load),
    /// Runs at rising rates.
    Sweep(Box<SweepPlan>),
    /// Adding results up.
    Merge(MergePlan),
    /// Being the target.
    Serve(ServePlan),
}

/// One run, over datagrams or connections.
#[derive(Clone, Debug)]
pub enum Load {
    /// Over UDP.
    Udp(Box<Plan>),
    /// Over TCP.
    Tcp(Box<TcpPlan>),
}

impl Load {
    /// Carries it out; see [`run::run`] and [`tcp::run::run`].
    ///
    /// # Errors
    /// A sentence.
    pub fn run(
        &self,
        stop: &Arc<AtomicBool>,
        progress: impl FnMut(Duration, &Snapshot),
    ) -> Result<Report, String> {
        match self {
            Self::Udp(plan) => {
                let outcome = run::run(plan, stop, progress)?;
                Ok(Report::new(plan, &outcome))
            }
            Self::Tcp(plan) => {
                let outcome = tcp::run::run(plan, stop, progress)?;
                Ok(Report::of_tcp(plan, &outcome))
            }
        }
    }

    /// What it is about to do, in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        match self {
            Self::Udp(plan) => report::headline(plan),
            Self::Tcp(plan) => tcp::report::headline(plan),
        }
    }

    /// Time before the counted time.
    #[must_use]
    pub fn lead(&self) -> Duration {
        match self {
            Self::Udp(plan) => plan.warmup,
            Self::Tcp(plan) => plan.ramp() + plan.warmup,
        }
    }

    /// Whether it has requests with replies, which have a latency.
    #[must_use]
    pub fn asks(&self) -> bool {
        match self {
            Self::Udp(plan) => !matches!(plan.kind, Kind::Flood { .. }),
            Self::Tcp(plan) => !matches!(plan.mode, Mode::Stream { .. }),
        }
    }

    /// Whether bytes are counted, for want of requests.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Tcp(plan) if matches!(plan.mode, Mode::Stream { .. }))
    }

    /// The rate of an open loop.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        match self {
            Self::Udp(plan) => match plan.kind {
                Kind::ClosedLoop => None,
                Kind::OpenLoop { rate, .. } => Some(rate),
                Kind::Flood { rate } => rate,
            },
            Self::Tcp(plan) => plan.pace.map(|(rate, _)| rate),
        }
    }

    /// The same as an open loop of that rate.
    #[must_use]
    pub fn at_rate(&self, rate: Rate) -> Self {
        // Arrivals of many clients that know nothing of each other.
        let arrivals = Arrivals::Poisson;
        let mut load = self.clone();
        match &mut load {
            Self::Udp(plan) => plan.kind = Kind::OpenLoop { rate, arrivals },
            Self::Tcp(plan) => plan.pace = Some((rate, arrivals)),
        }
        load
    }
}
