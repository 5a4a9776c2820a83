//! An interface's queues with the steering program in front of them, in the best mode that can be had:
//! what the reflector and the load generator's AF_XDP engine begin with.

use config::Mode;
use dataplane::driver::{AfXdp, AfXdpOptions, Attempt, DriverError, attempts};
use dataplane::steering::{Steering, SteeringConfig, SteeringError};

/// Opened queues. Steering is loaded and attached, and not yet switched on.
#[derive(Debug)]
pub struct Queues {
    /// One driver for each of the options asked for.
    pub drivers: Vec<AfXdp>,
    /// The program. Dropped, it gives the interface back to the kernel.
    pub steering: Steering,
    /// Modes that could not be had, and why.
    pub refusals: Vec<String>,
}

/// Attaches the program to `interface`, opens what `options` asks for in each mode, and puts the
/// sockets into the program's map.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub fn open(
    interface: &str,
    mode: Mode,
    vlan: &[u16],
    options: impl Fn(Attempt) -> Vec<AfXdpOptions>,
) -> Result<Queues, String> {
    let mut refusals = Vec::new();
    let attempts = attempts(mode);
    for (position, &attempt) in attempts.iter().enumerate() {
        let last = position + 1 == attempts.len();
        let (error, refusal) = match try_mode(interface, attempt, vlan, &options(attempt)) {
            Ok((drivers, steering)) => {
                return Ok(Queues {
                    drivers,
                    steering,
                    refusals,
                });
            }
            Err(Failed::Driver(error)) => (error.to_string(), error.mode_refusal()),
            Err(Failed::Steering(error)) => (error.to_string(), error.mode_refusal()),
        };
        match refusal {
            Some(refusal) if !last => {
                refusals.push(format!("{} is not to be had: {refusal}", attempt.obtains()));
            }
            _ => return Err(error),
        }
    }
    unreachable!("invariant: every mode has an attempt, and the last one returns")
}

enum Failed {
    Driver(DriverError),
    Steering(SteeringError),
}

impl From<DriverError> for Failed {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl From<SteeringError> for Failed {
    fn from(error: SteeringError) -> Self {
        Self::Steering(error)
    }
}

fn try_mode(
    interface: &str,
    attempt: Attempt,
    vlan: &[u16],
    options: &[AfXdpOptions],
) -> Result<(Vec<AfXdp>, Steering), Failed> {
    let mut steering = Steering::load(&SteeringConfig {
        vlan: vlan.to_vec(),
        ..SteeringConfig::default()
    })?;
    // Before the sockets: some drivers (gve) want it so.
    steering.attach(interface, attempt.attach)?;
    let drivers: Vec<AfXdp> = options.iter().map(AfXdp::open).collect::<Result<_, _>>()?;
    for (queue, socket) in drivers.iter().flat_map(AfXdp::sockets) {
        steering.register_socket(queue, socket)?;
    }
    Ok((drivers, steering))
}
