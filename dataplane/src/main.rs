//! The command line.

use clap::{Args, Parser, Subcommand};
use config::Config;
use dataplane::control::client::{Client, ClientError};
use dataplane::control::protocol::{SOCKETS_DEFAULT, SOCKETS_MAX, SocketQuery, StateFilter};
use dataplane::service;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A user-space UDP dataplane on the queues of an ordinary Linux NIC.
///
/// Runs beside the kernel: flows of its services come to it through AF_XDP, everything else stays
/// the kernel's.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service in the foreground.
    ///
    /// SIGTERM and SIGINT drain and end it, SIGUSR1 prints latency histograms, SIGHUP reloads the
    /// configuration.
    Run {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Check a configuration against this machine and print what it amounts to.
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Look at the machine before the service runs on it: what would fail, what would be slow, and
    /// what to do.
    Doctor {
        /// Look at what this configuration asks of the machine, too.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON.
        #[arg(short, long)]
        json: bool,
    },
    /// What runs, where and how: mode obtained, workers, queues, services.
    Info {
        #[command(flatten)]
        ask: Ask,
    },
    /// Counters of a running service.
    Stats {
        #[command(flatten)]
        ask: Ask,
        /// Show counters that are zero, too.
        #[arg(short, long)]
        verbose: bool,
    },
    /// TCP listeners and connections of a running service, as `ss -ti` shows the kernel's.
    Sockets {
        #[command(flatten)]
        ask: Ask,
        /// Show only those in this state.
        #[arg(long, value_enum, value_name = "STATE")]
        state: Option<StateFilter>,
        /// Show so many at most.
        #[arg(short = 'n', long, value_name = "N", default_value_t = SOCKETS_DEFAULT,
              value_parser = clap::value_parser!(u32).range(1..=i64::from(SOCKETS_MAX)))]
        limit: u32,
    },
    /// Latency histograms of a running service, stage by stage.
    Latency {
        #[command(flatten)]
        ask: Ask,
    },
    /// Make a running service read its configuration again.
    Reload {
        #[command(flatten)]
        ask: Ask,
    },
    /// Make a running service drain and end, and wait until it has.
    Stop {
        #[command(flatten)]
        ask: Ask,
        /// How long to wait for its end, in seconds; 0 does not wait.
        #[arg(short, long, value_name = "SECONDS", default_value_t = 30)]
        timeout: u32,
    },
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration; config/default.toml documents every key.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Args)]
struct Ask {
    /// The service's control socket [default: /run/dataplane/control.sock].
    #[arg(short, long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// Take the control socket's path from this configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(short, long)]
    json: bool,
}

/// Why a command failed: one sentence (or one line for each error of a configuration), and the exit
/// code.
struct Failure(String, u8);

impl From<service::ServiceError> for Failure {
    fn from(error: service::ServiceError) -> Self {
        Self(error.to_string(), error.exit_code())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self(error.to_string(), 1)
    }
}

fn main() -> ExitCode {
    // Exit code 2 for a bad command line is clap's own.
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence, code)) => {
            eprintln!("dataplane: {sentence}");
            ExitCode::from(code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { config } => service::run(&config.config)?,
        Command::Check { config } => print(&service::load(&config.config)?.to_string()),
        Command::Doctor { config, json } => {
            let diagnosis = service::doctor::diagnose(config.as_deref());
            if json {
                print_json(&diagnosis);
            } else {
                print(&diagnosis.to_string());
            }
            if !diagnosis.is_fit() {
                return Err(Failure(
                    "the service would not start here, see FAIL".into(),
                    diagnosis.exit_code(),
                ));
            }
        }
        Command::Info { ask } => {
            let info = ask.connect()?.info()?;
            if ask.json {
                print_json(&info);
            } else {
                print(&info.to_string());
            }
        }
        Command::Stats { ask, verbose } => {
            let counters = ask.connect()?.stats()?;
            if ask.json {
                print_json(&counters.json());
            } else {
                print(&counters.table(verbose));
            }
        }
        Command::Sockets { ask, state, limit } => {
            let report = ask.connect()?.sockets(SocketQuery { state, limit })?;
            if ask.json {
                print_json(&report);
            } else {
                print(&report.to_string());
            }
        }
        Command::Latency { ask } => {
            let report = ask.connect()?.latency()?;
            if ask.json {
                print_json(&report);
            } else {
                print(&report.table());
            }
        }
        Command::Reload { ask } => {
            let done = ask.connect()?.reload()?;
            ask.print_done(&done);
        }
        Command::Stop { ask, timeout: 0 } => {
            let done = ask.connect()?.stop()?;
            ask.print_done(&done);
        }
        Command::Stop { ask, timeout } => {
            ask.connect()?.end(Duration::from_secs(timeout.into()))?;
            ask.print_done("stopped");
        }
    }
    Ok(())
}

impl Ask {
    fn connect(&self) -> Result<Client, Failure> {
        let socket = match (&self.socket, &self.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(file)) => socket_of(file)?,
            (None, None) => Config::new("any").control.socket,
        };
        Ok(Client::connect(&socket)?)
    }

    fn print_done(&self, done: &str) {
        if self.json {
            print_json(&serde_json::json!({ "done": done }));
        } else {
            print(&format!("{done}\n"));
        }
    }
}

fn socket_of(file: &Path) -> Result<PathBuf, Failure> {
    let config = Config::load(file).map_err(service::ServiceError::from)?;
    Ok(config.control.socket)
}

fn print_json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value);
    let text = text.expect("invariant: reports are maps with text keys");
    print(&format!("{text}\n"));
}

/// Prints what was asked for. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn help_names_the_default_control_socket() {
        let mut command = Cli::command();
        let stats = command.find_subcommand_mut("stats").expect("there is one");
        let help = stats.render_help().to_string();
        let socket = Config::new("any").control.socket;
        let socket = socket.to_str().expect("text");
        assert!(help.contains(&format!("[default: {socket}]")), "{help}");
    }
}
