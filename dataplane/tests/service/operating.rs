//! What operators do with a running service: signals, reload, and the commands that ask it.

use crate::support::kernel::{KERNEL, Server, Udp};
use crate::support::lab::{Lab, lab, serve, serve_as};
use crate::support::process::Finished;
use crate::support::{assert_says, eventually, until};
use rustix::process::Signal;
use serde_json::Value;

/// Echoes so many datagrams.
#[track_caller]
fn use_it(client: &Udp, times: u64) {
    for round in 0..times {
        client.echoes(&round.to_be_bytes());
    }
}

/// The `whole` stage of a latency table: (count, rest of the row).
#[track_caller]
fn whole(table: &str) -> Option<u64> {
    let row = table
        .lines()
        .rev()
        .find(|line| line.starts_with("whole "))?;
    row.split_whitespace().last()?.parse().ok()
}

#[test]
fn histograms_come_on_sigusr1_and_on_exit_and_as_files() {
    let lab = lab!("histograms_come_on_sigusr1_and_on_exit_and_as_files", queues: 1);
    let directory = lab.path("latency");
    let service = lab.start(&format!(
        "\n[latency]\ndirectory = \"{}\"\n{}",
        directory.display(),
        serve("echo", &["[::]:7"])
    ));
    let client = lab.client("10.77.0.1:7");
    use_it(&client, 10);
    service.signal(Signal::USR1);
    let first = eventually("the report is printed", || whole(&service.stdout()));
    assert_eq!(first, 10);
    assert_says(
        &service.stdout(),
        &[
            "p50",
            "p99.99",
            "arrival_to_taken",
            "delivered_to_answered",
            "udp_tx",
        ],
    );
    let report = eventually("the report is written", || count_in_files(&directory));
    assert_eq!(report, 10);

    use_it(&client, 5);
    let done = service.stop();
    assert_eq!(whole(&done.stdout), Some(15), "{done}");
    assert_eq!(count_in_files(&directory), Some(15));
    let names = std::fs::read_dir(&directory).expect("it was made");
    let names: Vec<_> = names
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    let is_hgrm = |name: &&std::ffi::OsString| name.to_string_lossy().ends_with(".hgrm");
    assert!(names.iter().filter(is_hgrm).count() >= 5, "{names:?}");
}

/// How many whole journeys `latency.json` knows of.
fn count_in_files(directory: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(directory.join("latency.json")).ok()?;
    let report: Value = serde_json::from_str(&text).expect("written whole");
    count_of_whole(&report)
}

fn count_of_whole(report: &Value) -> Option<u64> {
    let stages = report["workers"][0]["stages"].as_array()?;
    stages.iter().find(|stage| stage["stage"] == "whole")?["count"].as_u64()
}

#[test]
fn a_reload_takes_services_over_and_gives_ports_back() {
    let lab = lab!("a_reload_takes_services_over_and_gives_ports_back", queues: 2);
    let _kernel = ["10.77.0.1:7", "10.77.0.1:8"].map(|local| Server::udp(&lab.server, local));
    let service = lab.start(&serve("echo", &["[::]:7"]));
    let (seven, eight) = (lab.client("10.77.0.1:7"), lab.client("10.77.0.1:8"));
    use_it(&seven, 1);
    assert_eq!(eight.ask(b"8"), [KERNEL, b"8"].concat());

    // One more, by signal.
    lab.write_config(&format!(
        "{}{}",
        serve("echo", &["[::]:7"]),
        serve_as("more", "echo", &["[::]:8"], "")
    ));
    assert_says(&service.reload_by_signal(), &["services taken over"]);
    use_it(&eight, 1);
    use_it(&seven, 1);

    // One fewer, by command.
    lab.write_config(&serve_as("more", "echo", &["[::]:8"], ""));
    let done = service.ask("reload");
    assert!(done.status.success(), "{done}");
    assert_says(&done.stdout, &["services taken over"]);
    assert_eq!(seven.ask(b"7"), [KERNEL, b"7"].concat());
    use_it(&eight, 1);
    let listeners = service.ask_json("info")["services"].to_string();
    assert!(
        listeners.contains(":8") && !listeners.contains(":7"),
        "{listeners}"
    );

    let done = service.ask_json("reload");
    assert_says(&done.to_string(), &["nothing changed"]);
}

#[test]
fn a_reload_that_cannot_be_taken_over_changes_nothing() {
    let lab = lab!("a_reload_that_cannot_be_taken_over_changes_nothing", queues: 1);
    let service = lab.start(&serve("echo", &["[::]:7"]));
    let client = lab.client("10.77.0.1:7");
    use_it(&client, 1);

    lab.write_config(&format!(
        "\n[rings]\nrx = 64\n{}",
        serve("echo", &["[::]:8"])
    ));
    assert_says(
        &service.reload_by_signal(),
        &["refused", "nothing changed", "rings", "restart"],
    );
    let refused = service.ask("reload");
    assert_fails(&refused, 1, &["rings", "restart"]);
    use_it(&client, 1);

    lab.write_config("this is no configuration\n");
    assert_says(
        &service.reload_by_signal(),
        &["refused", "nothing changed", "service.toml:6"],
    );
    assert_fails(&service.ask("reload"), 1, &["service.toml:6"]);
    use_it(&client, 1);

    std::fs::remove_file(lab.path("service.toml")).expect("it is there");
    assert_fails(&service.ask("reload --json"), 1, &["service.toml"]);
    use_it(&client, 1);
    assert_eq!(service.counter("event", "udp_tx"), 4);
}

/// Asserts that a command failed with this exit code and one sentence.
#[track_caller]
pub(crate) fn assert_fails(done: &Finished, code: i32, words: &[&str]) {
    assert_eq!(done.status.code(), Some(code), "{done}");
    assert_eq!(done.stderr.trim_end().lines().count(), 1, "{done}");
    assert!(done.stderr.starts_with("dataplane: "), "{done}");
    assert_eq!(done.stdout, "", "{done}");
    assert_says(&done.stderr, words);
}

#[test]
fn every_command_answers_people_and_machines() {
    let lab = lab!("every_command_answers_people_and_machines", queues: 1);
    let service = lab.start(&serve("echo", &["[::]:7"]));
    use_it(&lab.client("10.77.0.1:7"), 3);
    let said = |command: &str| {
        let done = service.ask(command);
        assert!(done.status.success(), "{command}: {done}");
        assert_eq!(done.stderr, "", "{command}");
        done.stdout
    };
    assert_says(
        &said("info"),
        &[
            "dp0",
            "veth",
            "copy",
            "echo",
            "need_wakeup on",
            "busy polling off",
        ],
    );
    assert_says(&said("stats"), &["udp_rx", "Datagrams sent"]);
    assert!(!said("stats").contains("udp_queue_full"));
    assert_says(&said("stats --verbose"), &["udp_queue_full"]);
    assert_eq!(whole(&said("latency")), Some(3));

    let info = service.ask_json("info");
    assert_eq!(info["pid"], service.pid());
    assert_eq!(info["interface"]["name"], "dp0");
    assert_eq!(info["mode"]["obtained"], "copy");
    assert_eq!(count_of_whole(&service.ask_json("latency")), Some(3));
    assert_eq!(service.counter("event", "udp_tx"), 3);

    // The socket's path may also come from the configuration.
    let config = lab.path("service.toml");
    let mut command = lab.dataplane();
    command.args(["stats", "--json", "--config"]).arg(config);
    let done = crate::support::process::Process::start(command, "dataplane stats").finish();
    assert!(done.status.success(), "{done}");

    assert_says(&said("stop --json"), &["\"done\": \"stopped\""]);
    assert!(service.has_ended(), "stop waits for the end");
    let done = service.finish();
    assert!(done.status.success(), "{done}");
    assert_eq!(whole(&done.stdout), Some(3));
    for command in ["info", "stats", "latency", "reload", "stop"] {
        assert_fails(
            &ask_nobody(&lab, command),
            1,
            &["no dataplane runs", "control.sock"],
        );
    }
}

#[track_caller]
fn ask_nobody(lab: &Lab, command: &str) -> Finished {
    let mut process = lab.dataplane();
    process.args([command, "--socket"]).arg(lab.socket());
    crate::support::process::Process::start(process, command).finish()
}

#[test]
fn a_service_that_was_killed_is_told_from_one_that_never_was() {
    let lab = lab!("a_service_that_was_killed_is_told_from_one_that_never_was", queues: 1);
    assert_fails(&ask_nobody(&lab, "stats"), 1, &["does not exist"]);
    lab.start("").kill();
    assert_fails(&ask_nobody(&lab, "stats"), 1, &["has died"]);
    // The next one takes the socket over.
    lab.start("").stop();
}

#[test]
fn metrics_are_served_over_http() {
    let lab = lab!("metrics_are_served_over_http", queues: 1);
    // A port of the namespace's own loopback.
    let config = serve("echo", &["[::]:7"]);
    let path = lab.write_config(&config);
    let text = std::fs::read_to_string(&path).expect("just written");
    let text = text.replace("[control]\n", "[control]\nmetrics = \"127.0.0.1:9464\"\n");
    std::fs::write(&path, text).expect("a file");
    let service = crate::support::service::Service::start(&lab.server, &path, &lab.socket());
    use_it(&lab.client("10.77.0.1:7"), 3);
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    until("the metrics are there", || {
        answer = lab.server.run(|| http(request)).unwrap_or_default();
        answer.contains("udp_tx")
    });
    assert_says(&answer, &["HTTP/1.1 200", "# HELP", "# EOF"]);
    service.stop();
}

fn http(request: &[u8]) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut connection = std::net::TcpStream::connect("127.0.0.1:9464")?;
    connection.set_read_timeout(Some(crate::support::PATIENCE))?;
    connection.write_all(request)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn metrics_at_an_address_that_is_not_ours_are_refused_once() {
    let lab = lab!("metrics_at_an_address_that_is_not_ours_are_refused_once", queues: 1);
    let path = lab.write_config(&serve("echo", &["[::]:7"]));
    let text = std::fs::read_to_string(&path).expect("just written");
    let text = text.replace("[control]\n", "[control]\nmetrics = \"192.0.2.1:9464\"\n");
    std::fs::write(&path, text).expect("a file");
    let refused = crate::support::service::Service::launch(&lab.server, &path).finish();
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    let last = refused.stderr.lines().next_back().unwrap_or_default();
    assert_says(last, &["dataplane: cannot serve metrics", "192.0.2.1:9464"]);
    assert_eq!(last.matches("metrics").count(), 1, "{last}");
}

#[test]
fn doctor_and_check_look_without_changing_anything() {
    let lab = lab!("doctor_and_check_look_without_changing_anything", queues: 1);
    let path = lab.write_config(&serve("echo", &["[::]:7"]));
    let run = |arguments: &[&str]| {
        let mut command = lab.dataplane();
        command.args(arguments).arg("--config").arg(&path);
        crate::support::process::Process::start(command, arguments[0]).finish()
    };
    let check = run(&["check"]);
    assert!(check.status.success(), "{check}");
    // The effective configuration is one: it names what the file left out.
    assert_says(
        &check.stdout,
        &["name = \"dp0\"", "frame_size = 2048", "\"tcp/22\""],
    );
    let doctor = run(&["doctor"]);
    assert!(doctor.status.success(), "{doctor}");
    assert!(!doctor.stdout.contains("FAIL"), "{doctor}");
    let json: Value = serde_json::from_str(&run(&["doctor", "--json"]).stdout).expect("JSON");
    assert!(
        json["checks"]
            .as_array()
            .is_some_and(|checks| checks.len() > 2),
        "{json}"
    );

    // Beside the running service: it is known.
    let service = lab.start(&serve("echo", &["[::]:7"]));
    let doctor = run(&["doctor"]);
    assert!(doctor.status.success(), "{doctor}");
    assert_says(&doctor.stdout, &["a dataplane runs on dp0"]);
    service.stop();

    let broken = lab.write_config_as("broken.toml", &lab.socket(), "mode = \"fast\"\n");
    let mut command = lab.dataplane();
    command.args(["doctor", "--config"]).arg(&broken);
    let doctor = crate::support::process::Process::start(command, "doctor").finish();
    assert_eq!(doctor.status.code(), Some(2), "{doctor}");
    assert_says(&doctor.stdout, &["FAIL", "interface.mode"]);

    lab.server.ip("link del dp0");
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1), "{doctor}");
    assert_says(&doctor.stdout, &["FAIL", "dp0"]);
    assert_fails(&run(&["check"]), 1, &["dp0"]);
}
