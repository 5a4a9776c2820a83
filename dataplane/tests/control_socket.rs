//! The control socket and the metrics, from both ends.
// The lint knows test functions, but not what helps them.
#![allow(clippy::unwrap_used)]

use dataplane::{
    control::{
        calls::{Call, ControlHandle, calls},
        client::{Client, ClientError},
        metrics::MetricsServer,
        server::{Server, SocketError},
    },
    observe::{
        counters::{Counters, Group, WorkerCounters},
        latency::{Stage, WorkerLatency},
        observation::{Info, Observation, WorkerHistograms},
        sockets::SocketsReport,
    },
};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dataplane-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn observation() -> Observation {
    let mut latency = WorkerLatency::new(3).unwrap();
    latency.record_n(Stage::Whole, 12_345, 7);
    let groups = vec![Group::counters(
        "event",
        [("frame_rx", "Frames received.", 42u64)],
    )];
    Observation {
        info: Info {
            version: "1.2.3".into(),
            pid: 4,
            ..Info::default()
        },
        counters: Counters {
            workers: vec![WorkerCounters { worker: 0, groups }],
            shared: vec![Group::gauges(
                "ring",
                [("fill", "Frames the kernel holds.", 5u64)],
            )],
        },
        latency: vec![WorkerHistograms { worker: 0, latency }],
    }
}

/// Answers calls as the service does, until it is stopped; the first reload is refused.
async fn service(mut receiver: tokio::sync::mpsc::Receiver<Call>) {
    let mut refuse = true;
    while let Some(call) = receiver.recv().await {
        match call {
            Call::Observe(sender) => drop(sender.send(observation())),
            Call::Sockets(query, sender) => drop(sender.send(SocketsReport::new(query))),
            Call::Reload(sender) => {
                let answer = if refuse {
                    Err("line 3: no")
                } else {
                    Ok("2 listeners added")
                };
                refuse = false;
                drop(sender.send(answer.map(String::from).map_err(String::from)));
            }
            Call::Stop(sender) => {
                sender.send(()).unwrap();
                return;
            }
        }
    }
}

/// Runs `server` on a thread of its own until the service is stopped through it.
fn run<F: Future<Output = ()>>(
    server: impl FnOnce(ControlHandle) -> F + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (handle, receiver) = calls();
            tokio::select! {
                () = server(handle) => {}
                () = service(receiver) => {
                    // The last answer is still on its way out.
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        });
    })
}

/// A control server at `path`, ready when this returns.
fn control_at(path: &Path) -> thread::JoinHandle<()> {
    let (ready, is_ready) = mpsc::channel();
    let path = path.to_owned();
    let thread = run(move |handle| async move {
        let server = Server::bind(&path).unwrap();
        assert_eq!(server.path(), path);
        let serving = tokio::spawn(server.serve(handle));
        ready.send(()).unwrap();
        serving.await.unwrap();
    });
    is_ready.recv().unwrap();
    thread
}

#[test]
fn every_command_makes_the_round() {
    let directory = Directory::new("round");
    // The directories are made.
    let path = directory.0.join("run/deep/control.sock");
    let server = control_at(&path);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let mut client = Client::connect(&path).unwrap();
    let want = observation();
    assert_eq!(client.info().unwrap(), want.info);
    // Names, values and help texts all arrive: the table is the same at both ends.
    assert_eq!(client.stats().unwrap(), want.counters);
    let report = client.latency().unwrap();
    assert_eq!(report.workers[0].worker, "all");
    assert_eq!(report.workers[1].stages[Stage::Whole as usize].count, 7);
    assert!(matches!(client.reload(), Err(ClientError::Refused(why)) if why == "line 3: no"));
    assert_eq!(client.reload().unwrap(), "2 listeners added");
    // Others are served meanwhile.
    assert_eq!(
        Client::connect(&path).unwrap().info().unwrap().version,
        "1.2.3"
    );
    assert_eq!(client.stop().unwrap(), "draining");
    server.join().unwrap();
    // Stopped, it leaves no socket behind.
    assert!(!path.exists());
    assert!(matches!(
        Client::connect(&path),
        Err(ClientError::NotRunning { .. })
    ));
}

/// The service of these tests is a thread of the process that asks, and so outlives its answer.
#[test]
fn a_service_that_does_not_end_is_reported() {
    let directory = Directory::new("lingering");
    let path = directory.0.join("control.sock");
    let server = control_at(&path);
    let patience = std::time::Duration::from_millis(20);
    let error = Client::connect(&path).unwrap().end(patience).unwrap_err();
    assert!(matches!(error, ClientError::StillRuns { .. }), "{error:?}");
    assert!(
        error.to_string().contains("still runs after 0.02 s"),
        "{error}"
    );
    server.join().unwrap();
}

#[test]
fn nonsense_is_answered_and_survived() {
    let directory = Directory::new("nonsense");
    let path = directory.0.join("control.sock");
    let server = control_at(&path);
    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        // The server may close before it has read all of this.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for nonsense in [
        "{}\n",
        "dance\n",
        "{\"command\":\"dance\"}\n",
        "[1,2",
        "\n",
        "\u{0}\n",
    ] {
        let answer = ask(nonsense.as_bytes());
        assert!(
            answer.starts_with("{\"error\":\"not a request: "),
            "{nonsense:?}: {answer}"
        );
    }
    assert!(ask(&[0xff, 0xfe, b'\n']).starts_with("{\"error\":"));
    assert_eq!(ask(b""), "");
    let long = ask(&vec![b' '; 5000]);
    assert_eq!(long, "{\"error\":\"a request has at most 4096 bytes\"}\n");
    // Several in one go are answered one by one.
    let two = ask(b"{\"command\":\"dance\"}\n{\"command\":\"info\"}\n");
    assert_eq!(two.lines().count(), 2);
    assert!(two.lines().nth(1).unwrap().starts_with("{\"info\":{"));

    Client::connect(&path).unwrap().stop().unwrap();
    server.join().unwrap();
}

#[test]
fn a_living_socket_is_never_taken() {
    let directory = Directory::new("living");
    let path = directory.0.join("control.sock");
    let server = control_at(&path);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let error = Server::bind(&path).unwrap_err();
    assert!(matches!(error, SocketError::InUse { .. }));
    let text = error.to_string();
    assert!(
        text.contains("another dataplane runs with this control socket"),
        "{text}"
    );
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    // It still answers.
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.info().unwrap().version, "1.2.3");
    client.stop().unwrap();
    server.join().unwrap();
}

#[test]
fn a_dead_socket_is_taken_over() {
    let directory = Directory::new("dead");
    let path = directory.0.join("control.sock");
    // The path stays when its listener goes, as after kill -9.
    drop(UnixListener::bind(&path).unwrap());
    let error = Client::connect(&path).unwrap_err();
    assert!(matches!(error, ClientError::NobodyListens { .. }));
    assert!(error.to_string().contains("has died"), "{error}");
    let server = control_at(&path);
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.info().unwrap().version, "1.2.3");
    client.stop().unwrap();
    server.join().unwrap();

    let file = directory.0.join("file");
    std::fs::write(&file, "").unwrap();
    let error = Client::connect(&file).unwrap_err();
    assert!(matches!(error, ClientError::NotASocket { .. }), "{error}");
}

#[test]
fn only_ones_own_socket_is_removed() {
    let directory = Directory::new("own");
    let path = directory.0.join("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let first = Server::bind(&path).unwrap();
    // Somebody moved it away and put another in its place.
    fs::rename(&path, directory.0.join("moved")).unwrap();
    let second = Server::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn what_is_in_the_way_is_named() {
    let directory = Directory::new("way");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let file = directory.0.join("file");
    fs::write(&file, "precious").unwrap();
    let error = Server::bind(&file).unwrap_err();
    assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let error = Server::bind(&file.join("control.sock")).unwrap_err();
    assert!(
        matches!(
            error,
            SocketError::Io {
                what: "make the directory",
                ..
            }
        ),
        "{error}"
    );

    let long = directory.0.join("x".repeat(120));
    let error = Server::bind(&long).unwrap_err();
    assert!(matches!(error, SocketError::PathTooLong { .. }), "{error}");
    assert!(error.to_string().contains("107"), "{error}");
}

/// Many services that start at once at a dead socket: one gets it, the others hear why.
#[test]
fn a_race_for_a_dead_socket_has_one_winner() {
    let directory = Directory::new("race");
    let path = directory.0.join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    let barrier = std::sync::Barrier::new(8);
    let results: Vec<_> = thread::scope(|scope| {
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let _guard = runtime.enter();
            barrier.wait();
            let result = Server::bind(&path).map_err(|error| error.to_string());
            // Nobody lets go before everybody has tried.
            barrier.wait();
            result.map(drop)
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        results.iter().filter(|result| result.is_ok()).count(),
        1,
        "{results:?}"
    );
    for error in results.into_iter().filter_map(Result::err) {
        assert!(error.contains("another dataplane runs"), "{error}");
    }
}

#[test]
fn metrics_are_served_over_http() {
    let (ready, address) = mpsc::channel();
    let (control, stop) = mpsc::channel();
    let server = run(move |handle| async move {
        let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        ready.send(server.local_addr().unwrap()).unwrap();
        control.send(handle.clone()).unwrap();
        server.serve(handle).await;
    });
    let address = address.recv().unwrap();
    let ask = |request: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "{request}\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let metrics = ask("GET /metrics HTTP/1.1");
    let (head, body) = metrics.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(
        head.to_lowercase()
            .contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    assert!(
        body.contains("dataplane_event_frame_rx_total{worker=\"0\"} 42\n"),
        "{body}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    assert!(ask("GET / HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert!(ask("POST /metrics HTTP/1.1").starts_with("HTTP/1.1 405"));
    assert!(ask("nonsense").starts_with("HTTP/1.1 400"));

    // An address that is taken is named.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime.block_on(MetricsServer::bind(address)).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    // Once the service is gone, a scrape says so instead of hanging.
    let handle: ControlHandle = stop.recv().unwrap();
    let answer = runtime.block_on(handle.answer(dataplane::control::protocol::Request::Stop));
    assert_eq!(
        answer,
        dataplane::control::protocol::Response::Done("draining".into())
    );
    server.join().unwrap();
}
