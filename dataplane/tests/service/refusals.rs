//! What cannot work: one sentence that says what is wrong and what to do, and an exit code. 1 for what
//! the machine lacks, 2 for the command line and the configuration.

use crate::driver_support::{IN_DRIVER, IN_STACK, Redirect};
use crate::operating::assert_fails;
use crate::support::lab::{DEVICE, Lab, can_run, lab, serve};
use crate::support::process::{Finished, Process};
use crate::support::service::{Service, program};
use crate::support::{assert_says, until};
use dataplane::driver::{AfXdp, AfXdpOptions, attempts};
use std::process::Command;

/// Runs the program as whoever runs the tests.
#[track_caller]
fn run(arguments: &[&str]) -> Finished {
    let mut command = Command::new(program());
    command.args(arguments);
    Process::start(command, &arguments.join(" ")).finish()
}

/// Asserts that a service that had begun to start ended with one sentence, behind what it logged.
#[track_caller]
fn assert_gave_up(done: &Finished, words: &[&str]) {
    assert_eq!(done.status.code(), Some(1), "{done}");
    let sentence = done.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(sentence.starts_with("dataplane: "), "{done}");
    assert_says(sentence, words);
    assert_eq!(done.stderr.matches("dataplane: ").count(), 1, "{done}");
    assert!(!done.stderr.contains("panicked"), "{done}");
}

#[test]
fn bad_command_lines_end_with_2() {
    for (arguments, word) in [
        (&[][..], "Usage"),
        (&["dance"], "dance"),
        (&["run"], "--config"),
        (&["run", "--config"], "--config"),
        (&["run", "--confg", "x"], "--confg"),
        (&["stats", "--json", "--yaml"], "--yaml"),
        (
            &["stats", "--socket", "/a", "--config", "/b"],
            "cannot be used with",
        ),
    ] {
        let done = run(arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {done}");
        assert_says(&done.stderr, &[word]);
    }
    for arguments in [
        &["--help"][..],
        &["help", "run"],
        &["--version"],
        &["stats", "--help"],
    ] {
        assert!(run(arguments).status.success(), "{arguments:?}");
    }
}

#[test]
fn bad_configurations_end_with_2_and_name_file_line_and_key() {
    let path = std::env::temp_dir().join(format!("dataplane-bad-{}.toml", std::process::id()));
    let name = path.to_str().expect("the path is text");
    for (text, places) in [
        ("[interface\n", &[":1: "][..]),
        ("[interface]\nnmae = \"lo\"\n", &[":2: ", "interface.nmae"]),
        ("[interface]\nname = 7\n", &[":2: ", "interface.name = 7"]),
        (
            "[interface]\nname = \"lo\"\n[rings]\nrx = 100\n",
            &[":4: ", "rings.rx = 100", "power of two"],
        ),
        (
            "[interface]\nname = \"lo\"\n[rings]\nrx = 1\n[ip]\nttl = 0\n",
            &[":4: ", "rings.rx = 1", ":6: ", "ip.ttl = 0"],
        ),
    ] {
        std::fs::write(&path, text).expect("a file");
        for command in ["run", "check"] {
            let done = run(&[command, "--config", name]);
            assert_eq!(done.status.code(), Some(2), "{command}: {done}");
            assert_says(&done.stderr, &["dataplane: ", name]);
            assert_says(&done.stderr, places);
            assert_eq!(done.stdout, "");
        }
    }
    std::fs::remove_file(&path).expect("it is there");
    for command in ["run", "check"] {
        assert_fails(
            &run(&[command, "--config", name]),
            2,
            &[name, "No such file"],
        );
    }
    assert_fails(&run(&["run", "--config", "/"]), 2, &["/", "directory"]);
}

#[test]
fn configurations_that_ask_for_what_is_not_there_end_with_2() {
    let lab = lab!("configurations_that_ask_for_what_is_not_there_end_with_2", queues: 2);
    let own = "\n[[service]]\nname = \"own\"\napplication = \"echo\"\nprotocol = \"udp\"\n\
               listen = [\"[::]:7\"]\nown_addresses = [\"10.77.0.1/24\"]\n";
    for (config, words) in [
        (
            serve("echo", &["10.77.0.99:7"]),
            &["service[0].listen[0]", "10.77.0.99", "10.77.0.1"][..],
        ),
        (
            own.to_owned(),
            &["service[0].own_addresses[0]", "the kernel has this address"],
        ),
        (
            "queues = [0, 2]\n".into(),
            &["interface.queues[1]", "0 to 1"],
        ),
        (
            "\n[workers]\ncores = [4095]\n".into(),
            &["workers.cores[0]", "4095", "no such core"],
        ),
        (
            format!(
                "{}{}",
                serve("echo", &["[::]:7"]),
                serve("discard", &["10.77.0.1:7"])
            ),
            &["service[1].listen[0]", "10.77.0.1:7"],
        ),
    ] {
        assert_fails(&lab.start_in_vain(&config), 2, words);
    }
}

#[test]
fn without_privileges_there_is_one_sentence() {
    let test = "without_privileges_there_is_one_sentence";
    let lab = lab!("without_privileges_there_is_one_sentence", queues: 1, "setpriv");
    let nobody = |program: &str| {
        let mut command = lab.server.command("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ]);
        command.arg("--").arg(program);
        command
    };
    let readable = Process::start(nobody(&program()), "dataplane").finish();
    if readable.status.code() != Some(2) {
        println!("\nskipped: {test}: nobody may not run {}", program());
        return;
    }
    let config = lab.write_config(&serve("echo", &["[::]:7"]));
    let run = |command: &str| {
        let mut process = nobody(&program());
        process.args([command, "--config"]).arg(&config);
        Process::start(process, command).finish()
    };
    assert_fails(&run("run"), 1, &["CAP_NET_ADMIN", "root"]);
    // Looking needs no privileges.
    let check = run("check");
    assert!(check.status.success(), "{check}");
    let doctor = run("doctor");
    assert_eq!(doctor.status.code(), Some(1), "{doctor}");
    assert_says(&doctor.stdout, &["FAIL", "CAP_NET_ADMIN"]);
    // And the socket of a service of root's is not theirs.
    let _service = lab.start("");
    assert_fails(&run("stats"), 1, &["control.sock", "root"]);
}

#[test]
fn no_such_interface() {
    let lab = lab!("no_such_interface", queues: 1);
    lab.server.ip("link set dp0 down");
    lab.server.ip("link set dp0 name other0");
    assert_fails(&lab.start_in_vain(""), 1, &["dp0", "ip link"]);
}

#[test]
fn a_queue_that_is_taken() {
    let lab = lab!("a_queue_that_is_taken", queues: 2);
    let copy = attempts(config::Mode::Copy)[0];
    let taken = lab
        .server
        .run(|| AfXdp::open(&AfXdpOptions::new(DEVICE, vec![1], copy)));
    let taken = taken.expect("nobody has it yet");
    let refused = lab.start_in_vain(&serve("echo", &["[::]:7"]));
    assert_gave_up(&refused, &["queue 1", DEVICE, "AF_XDP"]);
    lab.until_no_program();
    // The other queue is free.
    lab.start(&format!("queues = [0]\n{}", serve("echo", &["[::]:7"])))
        .stop();
    drop(taken);
    lab.start(&serve("echo", &["[::]:7"])).stop();
}

#[test]
fn a_second_service_on_the_same_interface_does_not_harm_the_first() {
    let lab = lab!("a_second_service_on_the_same_interface_does_not_harm_the_first", queues: 1);
    let first = lab.start(&serve("echo", &["[::]:7"]));
    let client = lab.client("10.77.0.1:7");
    client.echoes(b"before");
    let rest = serve("echo", &["[::]:8"]);
    let config = lab.write_config_as("second.toml", &lab.path("second.sock"), &rest);
    let second = Service::launch(&lab.server, &config).finish();
    assert_gave_up(&second, &[DEVICE, "dataplane_steer"]);
    client.echoes(b"after");
    assert_eq!(first.counter("event", "udp_tx"), 2);
}

#[test]
fn a_control_socket_that_is_taken() {
    if !can_run("a_control_socket_that_is_taken", &["ip", "ethtool"]) {
        return;
    }
    let (one, other) = (Lab::new(1), Lab::new(1));
    let first = one.start(&serve("echo", &["[::]:7"]));
    let rest = serve("echo", &["[::]:7"]);
    let config = other.write_config_as("service.toml", &one.socket(), &rest);
    let second = Service::launch(&other.server, &config).finish();
    assert_gave_up(
        &second,
        &["control socket", "control.sock", "dataplane stop"],
    );
    other.until_no_program();
    one.client("10.77.0.1:7").echoes(b"unharmed");
    assert_eq!(first.ask_json("info")["pid"], first.pid());
}

#[test]
fn somebody_elses_xdp_program() {
    let lab = lab!("somebody_elses_xdp_program", queues: 1);
    for (flags, word) in [(IN_DRIVER, "xdpdrv"), (IN_STACK, "xdpgeneric")] {
        let other = lab.server.run(|| Redirect::attach(DEVICE, flags));
        for mode in ["auto", "copy", "generic"] {
            let refused = lab.start_in_vain(&format!("mode = \"{mode}\"\n"));
            assert_gave_up(&refused, &[DEVICE, "already has an XDP program", word]);
        }
        drop(other);
        lab.until_no_program();
    }
    lab.start("").stop();
}

#[test]
fn a_mode_asked_for_by_name_that_cannot_be_had() {
    let lab = lab!("a_mode_asked_for_by_name_that_cannot_be_had", queues: 1);
    let refused = lab.start_in_vain("mode = \"zero-copy\"\n");
    assert_gave_up(
        &refused,
        &["dp0", "veth", "zero-copy", "copy, generic or auto"],
    );
    lab.until_no_program();
}

#[test]
fn an_interface_that_is_deleted_ends_the_service() {
    let lab = lab!("an_interface_that_is_deleted_ends_the_service", queues: 2);
    let service = lab.start(&serve("echo", &["[::]:7"]));
    lab.client("10.77.0.1:7").echoes(b"here");
    lab.server.ip(&format!("link del {DEVICE}"));
    assert_gave_up(&service.finish(), &["dp0", "gone"]);
    until("its socket is gone, too", || !lab.socket().exists());
}
