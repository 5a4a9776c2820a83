//! Every mistake is found, named with line, key, value and what is allowed, and none hides another.

use config::{Cidr, Config, InterfaceFacts, Machine};

/// The errors in `text`, as people see them; none where it is right.
fn errors(text: &str) -> Vec<String> {
    match Config::parse(text, "t") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// A whole file around `section`, whose first line is line 3.
fn with(section: &str) -> String {
    format!("[interface]\nname = \"eth0\"\n{section}\n")
}

/// A whole file with one service, whose keys besides the required ones are `keys`; `listen` is on
/// line 7 and `keys` begin on line 8.
fn with_service(listen: &str, keys: &str) -> String {
    with(&format!(
        "[[service]]\nname = \"a\"\napplication = \"echo\"\nprotocol = \"udp\"\nlisten = {listen}\n{keys}"
    ))
}

/// `text` has exactly one error, and it reads `expected`.
#[track_caller]
fn one(text: &str, expected: &str) {
    assert_eq!(errors(text), [expected], "in:\n{text}");
}

/// `text` is right.
#[track_caller]
fn right(text: &str) {
    assert_eq!(errors(text), [""; 0], "in:\n{text}");
}

#[test]
fn every_error_at_once_in_file_order() {
    let text = r#"
[interface]
name = "eth0"
queues = [0, 1, 1]
[rings]
rx = 1000
fil = 3
[workers]
batch = "64"
cores = [1, 1]
rx = 7
[ring]
tx = 64
[[service]]
aplication = "echo"
name = "a"
protocol = "sctp"
listen = ["[::]:7"]
"#;
    assert_eq!(
        errors(text),
        [
            "t:4: interface.queues[2] = 1: must appear once; it is interface.queues[1] already \
             (line 4)",
            "t:6: rings.rx = 1000: must be a power of two from 64 to 32768",
            "t:7: rings.fil = 3: unknown key; did you mean \"fill\"?",
            "t:9: workers.batch = \"64\": must be a whole number from 1 to 256, without quotes",
            "t:10: workers.cores[1] = 1: must appear once; it is workers.cores[0] already (line 10)",
            "t:11: workers.rx = 7: unknown key; did you mean \"rings.rx\"?",
            "t:12: ring: unknown section; did you mean [rings]?",
            "t:14: service[0].application: missing: \"echo\" or \"discard\" or \"source\"",
            "t:15: service[0].aplication = \"echo\": unknown key; did you mean \"application\"?",
            "t:17: service[0].protocol = \"sctp\": must be one of \"udp\", \"tcp\"",
        ]
    );
}

#[test]
fn not_toml() {
    let found = errors("[interface\nname = 'x'\n[rings]\nrx = = 3\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("t:1: column 11: not valid TOML: "),
        "{}",
        found[0]
    );
    assert!(
        found[1].starts_with("t:4: column 6: not valid TOML: "),
        "{}",
        found[1]
    );
    let found = errors("[interface]\nname = 'a'\nname = 'b'\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("t:3: "), "{}", found[0]);
}

#[test]
fn files_that_cannot_be_read() {
    let missing = Config::load("/nonexistent/x.toml").expect_err("there is no such file");
    assert!(
        missing
            .to_string()
            .starts_with("/nonexistent/x.toml: cannot be read: No such file"),
        "{missing}"
    );
    let endless = Config::load("/dev/zero").expect_err("no configuration");
    assert_eq!(
        endless.to_string(),
        "/dev/zero: cannot be read: longer than 4194304 bytes: not a configuration"
    );
    let directory = Config::load("/").expect_err("a directory");
    assert!(
        directory.to_string().starts_with("/: cannot be read: "),
        "{directory}"
    );
}

#[test]
fn sections_of_the_wrong_kind() {
    one(
        "",
        "t: interface.name: missing: the name of an interface, as `ip link` shows it",
    );
    one(
        "interface = 5",
        "t:1: interface = 5: must be a table: write [interface], and its keys below",
    );
    one(
        "[[interface]]\nname = \"eth0\"",
        "t:1: interface: must be one table: write [interface]",
    );
    one(
        &with("[service]\nname = \"a\""),
        "t:3: service: must be an array of tables: write [[service]]",
    );
    one(
        "rx = 64\n[interface]\nname = \"eth0\"",
        "t:1: rx = 64: unknown key; did you mean \"rings.rx\"?",
    );
    one(
        "colour = 64\n[interface]\nname = \"eth0\"",
        "t:1: colour = 64: unknown key; every key belongs to a section, such as [interface]",
    );
    one(
        &with("[ip]\ncolour = 64"),
        "t:4: ip.colour = 64: unknown key; [ip] has ttl, icmp_rate_per_s, icmp_burst",
    );
    // The same table in its three spellings.
    right("interface.name = \"eth0\"\nrings.rx = 64");
    right("interface = { name = \"eth0\" }\nrings = { rx = 64 }");
    right(&with(
        "service = [{ name = \"a\", application = \"echo\", protocol = \"udp\", listen = [\"[::]:7\"] }]"
    )
    .replace("[interface]\nname", "interface.name"));
}

#[test]
fn interface() {
    let allowed = "must be the name of an interface, as `ip link` shows it: 1 to 15 bytes without \
                   spaces, \"/\" and \":\"";
    for name in ["", "sixteen-letters-", "a b", "a/b", "eth0:1", ".", ".."] {
        let text = format!("[interface]\nname = \"{name}\"");
        one(
            &text,
            &format!("t:2: interface.name = \"{name}\": {allowed}"),
        );
    }
    one(
        "[interface]\nname = 0",
        "t:2: interface.name = 0: must be the name of an interface, as `ip link` shows it, in quotes",
    );
    one(
        &with("queues = 0"),
        "t:3: interface.queues = 0: must be \"all\" or a list of queues such as [0, 1]",
    );
    one(
        &with("queues = []"),
        "t:3: interface.queues = []: must be \"all\" or one queue at least",
    );
    one(
        &with("queues = [0, \"1\"]"),
        "t:3: interface.queues[1] = \"1\": must be a whole number from 0 to 65535, without quotes",
    );
    one(
        &with("mode = \"zerocopy\""),
        "t:3: interface.mode = \"zerocopy\": must be one of \"auto\", \"zero-copy\", \"copy\", \
         \"generic\"; did you mean \"zero-copy\"?",
    );
    one(
        &with("vlan = [4095]"),
        "t:3: interface.vlan[0] = 4095: must be a whole number from 1 to 4094",
    );
    one(
        &with("vlan = [1, 2, 3]"),
        "t:3: interface.vlan = [1, 2, 3]: must be at most two VLAN identifiers: more tags are not \
         steered",
    );
    right(&with(
        "queues = [1, 0]\nmode = \"zero-copy\"\nvlan = [7, 7]\nlink_wait_s = 0",
    ));
}

#[test]
fn numbers() {
    for (section, key, from, to) in [
        ("interface", "link_wait_s", 0, 3600),
        ("rings", "frames", 1, 262_144),
        ("busy_poll", "usecs", 1, 1000),
        ("busy_poll", "budget", 1, 1024),
        ("workers", "batch", 1, 256),
        ("workers", "spin_us", 0, 1_000_000),
        ("workers", "sleep_ms", 1, 1000),
        ("workers", "drain_ms", 1, 60_000),
        ("ip", "ttl", 1, 255),
        ("ip", "icmp_rate_per_s", 0, 1_000_000),
        ("ip", "icmp_burst", 1, 100_000),
        ("reassembly", "datagrams", 1, 65_536),
        ("reassembly", "timeout_s", 1, 120),
        ("limits", "neighbors", 16, 65_536),
        ("limits", "routes", 16, 65_536),
        ("limits", "udp_sockets", 1, 65_534),
        ("limits", "udp_queue", 1, 65_536),
        ("limits", "egress_queue", 64, 65_536),
        ("latency", "significant_digits", 2, 3),
    ] {
        let text = |value: &str| format!("interface.name = \"eth0\"\n{section}.{key} = {value}");
        let wrong = [
            i64::MIN,
            -1,
            from - 1,
            to + 1,
            4_294_967_296 + from,
            i64::MAX,
        ];
        let wrong = wrong.iter().map(ToString::to_string);
        for value in
            wrong.chain(["1.5", "true", "[1]", "{}", "99999999999999999999"].map(Into::into))
        {
            one(
                &text(&value),
                &format!(
                    "t:2: {section}.{key} = {value}: must be a whole number from {from} to {to}"
                ),
            );
        }
        for value in [from, to] {
            // Both ends are in range; a relation may still object.
            for error in errors(&text(&value.to_string())) {
                assert!(error.contains("must be at least"), "{error}");
            }
        }
    }
    right(&with("[ip]\nttl = 0x40"));
    right(&with("[workers]\nspin_us = 1_000"));
}

#[test]
fn powers_of_two() {
    for (key, to) in [
        ("rings.rx", 32_768),
        ("rings.tx", 32_768),
        ("rings.fill", 32_768),
        ("rings.completion", 32_768),
        ("workers.handoff_queue", 65_536),
    ] {
        for value in [
            "0", "1", "32", "63", "65", "1000", "131072", "-64", "\"64\"", "64.0",
        ] {
            one(
                &format!("interface.name = \"eth0\"\n{key} = {value}"),
                &format!("t:2: {key} = {value}: must be a power of two from 64 to {to}"),
            );
        }
    }
}

#[test]
fn words_and_switches() {
    one(
        &with("[rings]\nneed_wakeup = \"true\""),
        "t:4: rings.need_wakeup = \"true\": must be true or false, without quotes",
    );
    one(
        &with("[busy_poll]\nenabled = 1"),
        "t:4: busy_poll.enabled = 1: must be true or false",
    );
    one(
        &with("[rings]\nhuge_pages = true"),
        "t:4: rings.huge_pages = true: must be one of \"auto\", \"require\", \"never\"",
    );
    one(
        &with("[workers]\nidle = \"adaptiv\""),
        "t:4: workers.idle = \"adaptiv\": must be one of \"spin\", \"adaptive\"; did you mean \
         \"adaptive\"?",
    );
    one(
        &with("[rings]\nframe_size = 3000"),
        "t:4: rings.frame_size = 3000: must be 2048 or 4096",
    );
    one(
        &with("[reassembly]\nmemory_bytes = 1000"),
        "t:4: reassembly.memory_bytes = 1000: must be 0 (off) or a number of bytes from 65536 to \
         1073741824",
    );
    right(&with("[reassembly]\nmemory_bytes = 0"));
}

#[test]
fn ring_relations() {
    one(
        &with("[rings]\nrx = 4096\nfill = 2048"),
        "t:5: rings.fill = 2048: must be at least rings.rx = 4096 (line 4): the NIC cannot fill an \
         RX ring it has fewer empty frames for",
    );
    one(
        &with("[rings]\nfill = 1024"),
        "t:4: rings.fill = 1024: must be at least rings.rx = 2048 (by default): the NIC cannot fill \
         an RX ring it has fewer empty frames for",
    );
    one(
        &with("[rings]\nrx = 64\n[workers]\nbatch = 65"),
        "t:6: workers.batch = 65: must be at most rings.rx = 64 (line 4): a batch is one turn of \
         the ring",
    );
    let sum = "rx 64 + tx 128 + fill 256 + completion 512 + workers.batch 10, so that no ring \
               starves another";
    let rings = "[workers]\nbatch = 10\n[rings]\nrx = 64\ntx = 128\nfill = 256\ncompletion = 512";
    one(
        &with(&format!("{rings}\nframes = 969")),
        &format!("t:10: rings.frames = 969: must be at least 970: {sum}"),
    );
    right(&with(&format!("{rings}\nframes = 970")));
    // A ring that is wrong by itself says nothing about the others.
    one(
        &with("[rings]\nrx = 5000\nfill = 1024\nframes = 1"),
        "t:4: rings.rx = 5000: must be a power of two from 64 to 32768",
    );
}

#[test]
fn every_packet_sent_needs_room_to_come_back() {
    one(
        &with("[rings]\ntx = 2048\ncompletion = 64"),
        "t:5: rings.completion = 64: must be at least rings.tx = 2048 (line 4): every packet sent \
         comes back through it",
    );
}

#[test]
fn defaults_follow_what_is_set() {
    let rings = |text: &str| Config::parse(&with(text), "t").expect("right").rings;
    let deep = rings("[rings]\nrx = 8192\ntx = 4096");
    assert_eq!((deep.fill, deep.completion), (16_384, 4096));
    assert_eq!(
        deep.frames,
        (8192 + 4096 + 16_384 + 4096 + 64_u32).next_multiple_of(1024)
    );
    let deepest = rings("[workers]\nbatch = 256\n[rings]\nrx = 32768\ntx = 32768");
    assert_eq!((deepest.fill, deepest.completion), (32_768, 32_768));
    assert!(deepest.frames >= deepest.frames_needed(256));
}

#[test]
fn queues_hold_a_batch() {
    one(
        &with("[limits]\negress_queue = 64\n[workers]\nbatch = 65"),
        "t:4: limits.egress_queue = 64: must be at least workers.batch = 65 (line 6): the answers \
         to one batch wait here",
    );
    one(
        &format!(
            "{}[limits]\nudp_sockets = 1\n",
            with_service("[\"[::]:7\", \"[::]:9\"]", "")
        ),
        "t:10: limits.udp_sockets = 1: must be at least 2, the number of listeners below",
    );
}

#[test]
fn cores_and_workers() {
    one(
        &with("[workers]\ncores = []"),
        "t:4: workers.cores = []: must be \"auto\" or one core at least",
    );
    one(
        &with("[workers]\ncores = 3"),
        "t:4: workers.cores = 3: must be \"auto\" or a list of cores such as [1, 2]",
    );
    one(
        &with("queues = [0]\n[workers]\ncores = [1, 2]"),
        "t:5: workers.cores = [1, 2]: 2 cores for 1 of interface.queues (line 3): a worker without a \
         queue would never receive",
    );
    let file = |workers: &str| {
        format!(
            "{}\n[workers]\ncores = [4, 5]",
            with_service("[\"[::]:7\"]", workers)
        )
    };
    right(&file("workers = [1, 0]"));
    one(
        &file("workers = [0, 2]"),
        "t:8: service[0].workers[1] = 2: must be the index of a worker, from 0 to 1: workers.cores \
         has 2 (line 11)",
    );
    one(
        &file("workers = [1, 1]"),
        "t:8: service[0].workers[1] = 1: must appear once; it is service[0].workers[0] already \
         (line 8)",
    );
    one(
        &file("workers = []"),
        "t:8: service[0].workers = []: must be \"all\" or one worker at least",
    );
}

#[test]
fn services_need_their_keys() {
    assert_eq!(
        errors(&with("[[service]]")),
        [
            "t:3: service[0].name: missing: 1 to 63 letters, digits, \"-\", \"_\" and \".\"",
            "t:3: service[0].application: missing: \"echo\" or \"discard\" or \"source\"",
            "t:3: service[0].protocol: missing: \"udp\" or \"tcp\"",
            "t:3: service[0].listen: missing: a list of addresses and ports such as [\"[::]:7\"]",
        ]
    );
    one(
        &with_service("[]", ""),
        "t:7: service[0].listen = []: must be one address and port at least",
    );
    for name in ["", "a b", "ä", &"x".repeat(64)] {
        let text =
            with_service("[\"[::]:7\"]", "").replace("name = \"a\"", &format!("name = \"{name}\""));
        assert!(
            errors(&text)[0].contains("must be 1 to 63 letters"),
            "{name}"
        );
    }
}

#[test]
fn listen_addresses() {
    let allowed = "must be an address and port such as \"0.0.0.0:7\" or \"[::]:7\"";
    for (address, expected) in [
        ("*:7", format!("{allowed}; for every address write \"[::]:7\"")),
        (":7", format!("{allowed}; for every address write \"[::]:7\"")),
        ("192.0.2.1", format!("{allowed}; here the port is missing")),
        ("2001:db8::1", format!("{allowed}; here the port is missing")),
        ("fe80:1:2:3:4:5:6:7:8", format!("{allowed}; an IPv6 address goes in brackets: \"[fe80:1:2:3:4:5:6:7]:8\"")),
        ("localhost:7", format!("{allowed}; the port is from 1 to 65535")),
        ("192.0.2.1:65536", format!("{allowed}; the port is from 1 to 65535")),
        ("[::]:0", "port 0 is none: the port must be from 1 to 65535".into()),
        ("[fe80::1%2]:7", "must be without a scope: the interface is the one of [interface]: write \"[fe80::1]:7\"".into()),
        ("[fe80::1%dp0]:7", "must be without a scope: the interface is the one of [interface]: write \"[fe80::1]:7\"".into()),
        ("224.0.0.1:7", "must be a unicast address; 224.0.0.1 is a multicast address".into()),
        ("[ff02::1]:7", "must be a unicast address; ff02::1 is a multicast address".into()),
        ("255.255.255.255:7", "must be a unicast address; 255.255.255.255 is the broadcast address".into()),
        ("0.0.0.1:7", "must be a unicast address; 0.0.0.1 is an address of \"this network\"".into()),
        (
            "127.0.0.1:7",
            "must be a unicast address; 127.0.0.1 is a loopback address, which no packet on a link \
             carries"
                .into(),
        ),
        ("[::ffff:192.0.2.1]:7", "must be unicast: write the IPv4 address 192.0.2.1 as such".into()),
    ] {
        one(
            &with_service(&format!("[\"{address}\"]"), ""),
            &format!("t:7: service[0].listen[0] = \"{address}\": {expected}"),
        );
    }
}

/// Which pairs of listeners Linux refuses (EADDRINUSE without SO_REUSEADDR), for one service and for
/// two.
#[test]
fn listeners_that_conflict() {
    let v4_any = "0.0.0.0:7";
    let v6_any = "[::]:7";
    let v4 = "192.0.2.1:7";
    let v6 = "[2001:db8::1]:7";
    for (a, b, dual, v6only) in [
        (v4_any, v4_any, true, true),
        (v4_any, v6_any, true, false),
        (v4_any, v4, true, true),
        (v4_any, v6, false, false),
        (v6_any, v6_any, true, true),
        (v6_any, v4, true, false),
        (v6_any, v6, true, true),
        (v4, v4, true, true),
        (v4, v6, false, false),
        (v4, "192.0.2.2:7", false, false),
        (v6_any, "[::]:9", false, false),
    ] {
        for (first, second) in [(a, b), (b, a)] {
            for (only, conflict) in [(false, dual), (true, v6only)] {
                let keys = format!("v6only = {only}\n");
                let same = with_service(&format!("[\"{first}\", \"{second}\"]"), &keys);
                assert_eq!(
                    errors(&same).len(),
                    usize::from(conflict),
                    "{first} {second} {only}"
                );
                let other = with_service(&format!("[\"{second}\"]"), &keys)
                    .replace("[interface]\nname = \"eth0\"\n", "")
                    .replace("\"a\"", "\"b\"");
                let two = with_service(&format!("[\"{first}\"]"), &keys) + &other;
                assert_eq!(
                    errors(&two).len(),
                    usize::from(conflict),
                    "{first} | {second} {only}"
                );
            }
        }
    }
    one(
        &with_service("[\"0.0.0.0:7\", \"[::]:7\"]", ""),
        "t:7: service[0].listen[1] = \"[::]:7\": this service listens on udp 7 already \
         (service[0].listen[0] = \"0.0.0.0:7\", line 7): two listeners need two addresses or two \
         ports; \"[::]\" takes IPv4 as well unless v6only = true, so \"[::]\" alone serves both",
    );
}

#[test]
fn names_are_unique() {
    let other = with_service("[\"[::]:9\"]", "").replace("[interface]\nname = \"eth0\"\n", "");
    one(
        &(with_service("[\"[::]:7\"]", "") + &other),
        "t:10: service[1].name = \"a\": must be a name of its own; another service has it (line 4)",
    );
}

#[test]
fn own_addresses() {
    for (address, expected) in [
        (
            "192.0.2.50",
            "must be an address with its prefix length, such as \"192.0.2.50/24\"",
        ),
        ("host/24", "\"host\" is not an IPv4 or IPv6 address"),
        (
            "192.0.2.50/33",
            "the prefix length after \"/\" must be from 0 to 32",
        ),
        (
            "192.0.2.50/+8",
            "the prefix length after \"/\" must be from 0 to 32",
        ),
        (
            "2001:db8::50/129",
            "the prefix length after \"/\" must be from 0 to 128",
        ),
        (
            "0.0.0.0/8",
            "must be one address: nobody can own the unspecified one",
        ),
        (
            "::/64",
            "must be one address: nobody can own the unspecified one",
        ),
        (
            "239.0.0.1/24",
            "must be a unicast address; 239.0.0.1 is a multicast address",
        ),
        (
            "192.0.2.0/24",
            "must be a host: this is the address of the subnet itself",
        ),
        (
            "192.0.2.255/24",
            "must be a host: this is the broadcast address of the subnet",
        ),
        (
            "192.0.2.50/0",
            "the prefix length must not be 0: that would put the whole Internet on the link",
        ),
    ] {
        one(
            &with_service("[\"[::]:7\"]", &format!("own_addresses = [\"{address}\"]")),
            &format!("t:8: service[0].own_addresses[0] = \"{address}\": {expected}"),
        );
    }
    // RFC 3021: both addresses of a /31 are hosts.
    right(&with_service(
        "[\"[::]:7\"]",
        "own_addresses = [\"192.0.2.0/31\", \"192.0.2.255/32\", \"fe80::1/64\"]",
    ));
    one(
        &with_service(
            "[\"[::]:7\"]",
            "own_addresses = [\"192.0.2.50/24\", \"192.0.2.50/25\"]",
        ),
        "t:8: service[0].own_addresses[1] = \"192.0.2.50/25\": an address has one owner, and \
         service[0].own_addresses[0] (line 8) has it already",
    );
}

#[test]
fn denied_ports() {
    let allowed = "must be a protocol and a port, such as \"tcp/22\", or with one local address \
                   \"udp/53@192.0.2.1\"";
    for (entry, expected) in [
        ("22", allowed),
        ("", allowed),
        (
            "sctp/22",
            "the protocol before \"/\" must be \"tcp\" or \"udp\"",
        ),
        (
            "tcp/0",
            "the port after \"/\" must be a number from 1 to 65535",
        ),
        (
            "tcp/+22",
            "the port after \"/\" must be a number from 1 to 65535",
        ),
        (
            "tcp/ssh",
            "the port after \"/\" must be a number from 1 to 65535",
        ),
        ("tcp/22@host", "\"host\" is not an IPv4 or IPv6 address"),
    ] {
        one(
            &with(&format!("[steering]\ndeny = [\"{entry}\"]")),
            &format!("t:4: steering.deny[0] = \"{entry}\": {expected}"),
        );
    }
    one(
        &with("[steering]\ndeny = [\"tcp/22\", \"tcp/22\"]"),
        "t:4: steering.deny[1] = \"tcp/22\": must appear once; it is steering.deny[0] already (line 4)",
    );
    let file = |deny: &str, listen: &str| {
        format!(
            "{}\n[steering]\ndeny = [\"{deny}\"]",
            with_service(&format!("[\"{listen}\"]"), "")
        )
    };
    one(
        &file("udp/7", "[::]:7"),
        "t:7: service[0].listen[0] = \"[::]:7\": steering.deny[0] = \"udp/7\" (line 11) leaves this \
         port to the kernel: deny another port or listen on another",
    );
    assert_eq!(errors(&file("udp/7@192.0.2.1", "192.0.2.1:7")).len(), 1);
    right(&file("udp/7@192.0.2.1", "[::]:7"));
    right(&file("udp/7@192.0.2.1", "192.0.2.2:7"));
    right(&file("tcp/7", "[::]:7"));
}

#[test]
fn control_and_latency() {
    let path = "must be the absolute path of a Unix socket, at most 107 bytes long";
    for socket in [
        "",
        "control.sock",
        "/run/",
        &format!("/{}", "x".repeat(107)),
    ] {
        let text = with(&format!("[control]\nsocket = \"{socket}\""));
        let found = errors(&text);
        assert!(found.len() == 1 && found[0].ends_with(path), "{found:?}");
    }
    right(&with(&format!(
        "[control]\nsocket = \"/{}\"",
        "x".repeat(106)
    )));
    for metrics in ["9464", "127.0.0.1:0", "localhost:9464"] {
        one(
            &with(&format!("[control]\nmetrics = \"{metrics}\"")),
            &format!(
                "t:4: control.metrics = \"{metrics}\": must be an address and port such as \
                 \"127.0.0.1:9464\", or \"\" for no metrics"
            ),
        );
    }
    for log in ["", "loud", "info,", "=debug", "a b=info", "info,x=loud"] {
        assert_eq!(
            errors(&with(&format!("[control]\nlog = \"{log}\""))).len(),
            1,
            "{log}"
        );
    }
    right(&with(
        "[control]\nlog = \"warn,dataplane::driver=trace\"\nmetrics = \"[::1]:9464\"",
    ));
    one(
        &with("[latency]\ndirectory = false"),
        "t:4: latency.directory = false: must be a directory, or \"\" to write no files, in quotes",
    );
}

/// A machine with cores 0 to 3 and a two-queue interface.
fn machine() -> Machine {
    let cidr = |text: &str| text.parse::<Cidr>().expect("an address");
    Machine {
        cores: vec![0, 1, 2, 3],
        interface: Some(InterfaceFacts {
            name: "eth0".into(),
            queues: 2,
            addresses: vec![cidr("192.0.2.1/24"), cidr("2001:db8::1/64")],
            mtu: 1500,
        }),
    }
}

/// The errors of a right file on [`machine`].
fn machine_errors(text: &str) -> Vec<String> {
    let config = Config::parse(text, "t").expect("right by itself");
    match config.check_against(&machine()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn machine_lacks_cores_and_queues() {
    assert_eq!(
        machine_errors(&with("queues = [0, 2]\n[workers]\ncores = [1, 7]")),
        [
            "t:3: interface.queues[1] = 2: no such queue: eth0 has queues 0 to 1",
            "t:5: workers.cores[1] = 7: no such core: this process may run on 0-3",
        ]
    );
    assert_eq!(
        machine_errors(&with("[workers]\ncores = [1, 2, 3]")),
        [
            "t:4: workers.cores = [1, 2, 3]: 3 cores for the 2 queues of eth0: a worker without a queue \
          would never receive"
        ]
    );
    assert_eq!(
        machine_errors(&with_service("[\"[::]:7\"]", "workers = [0, 1, 2]")),
        [
            "t:8: service[0].workers[2] = 2: must be the index of a worker, from 0 to 1: workers.cores = \
          \"auto\" gives 2 on this machine"
        ]
    );
}

#[test]
fn machine_lacks_addresses() {
    let listen = "[\"192.0.2.1:7\", \"192.0.2.9:7\", \"[2001:db8::2]:7\", \"[2001:db8::9]:7\"]";
    assert_eq!(
        machine_errors(&with_service(
            listen,
            "own_addresses = [\"2001:db8::2/64\"]"
        )),
        [
            "t:7: service[0].listen[1] = \"192.0.2.9:7\": eth0 does not have this address, and no \
             own_addresses do; there are 192.0.2.1, 2001:db8::1, 2001:db8::2",
            "t:7: service[0].listen[3] = \"[2001:db8::9]:7\": eth0 does not have this address, and no \
             own_addresses do; there are 192.0.2.1, 2001:db8::1, 2001:db8::2",
        ]
    );
    assert_eq!(
        machine_errors(&with_service(
            "[\"[::]:7\"]",
            "own_addresses = [\"192.0.2.1/25\"]"
        )),
        [
            "t:8: service[0].own_addresses[0] = \"192.0.2.1/25\": the kernel has this address on eth0: \
          remove it there (ip address del 192.0.2.1/25 dev eth0), or here and only listen on it"
        ]
    );
}

#[test]
fn machine_has_long_packets() {
    let mut machine = machine();
    let mut check = |mtu: u32, text: &str| {
        if let Some(interface) = &mut machine.interface {
            interface.mtu = mtu;
        }
        let config = Config::parse(&with(text), "t").expect("right by itself");
        config
            .check_against(&machine)
            .map_err(|errors| errors.to_string())
    };
    assert_eq!(check(1770, ""), Ok(()));
    assert_eq!(
        check(1771, "").expect_err("too long"),
        "t: rings.frame_size = 2048 (default): the MTU of eth0 is 1771, and a frame holds packets of \
         1770 bytes: set it to 4096"
    );
    assert_eq!(check(3818, "[rings]\nframe_size = 4096"), Ok(()));
    assert_eq!(
        check(9000, "[rings]\nframe_size = 4096").expect_err("too long"),
        "t:4: rings.frame_size = 4096: the MTU of eth0 is 9000, and a frame holds packets of 3818 \
         bytes: no frame is that large: ip link set eth0 mtu 3818"
    );
}

#[test]
fn auto_cores_leave_the_lowest() {
    let cores = |text: &str, cores: &[usize], queues: u32| {
        let mut machine = machine();
        machine.cores = cores.to_vec();
        machine.interface = machine
            .interface
            .map(|facts| InterfaceFacts { queues, ..facts });
        Config::parse(&with(text), "t")
            .expect("right")
            .worker_cores(&machine)
    };
    assert_eq!(cores("", &[0, 1, 2, 3], 2), [1, 2]);
    assert_eq!(cores("", &[6, 4, 5], 8), [5, 6]);
    assert_eq!(cores("", &[3], 2), [3]);
    assert_eq!(cores("queues = [5]", &[0, 1, 2, 3], 8), [1]);
    assert_eq!(cores("[workers]\ncores = [3, 0]", &[0, 1, 2, 3], 2), [3, 0]);
}

#[test]
fn tcp_services() {
    let tcp = |keys: &str| with_service("[\"[::]:7\"]", keys).replace("\"udp\"", "\"tcp\"");
    right(&tcp(
        "congestion = \"new_reno\"\nnodelay = false\nbacklog = 1",
    ));
    one(
        &tcp("congestion = \"reno\""),
        "t:8: service[0].congestion = \"reno\": must be one of \"cubic\", \"new_reno\"",
    );
    one(
        &tcp("backlog = 0"),
        "t:8: service[0].backlog = 0: must be a whole number from 1 to 65535",
    );
    // One port, two protocols.
    let udp = with_service("[\"[::]:7\"]", "");
    let both = "[[service]]\nname = \"b\"\napplication = \"echo\"\nprotocol = \"tcp\"\n\
                listen = [\"0.0.0.0:7\"]";
    right(&format!("{udp}\n{both}"));
    // A source has no end over UDP.
    right(&tcp("").replace("\"echo\"", "\"source\""));
    one(
        &udp.replace("\"echo\"", "\"source\""),
        "t:5: service[0].application = \"source\": needs protocol = \"tcp\" (line 6): over UDP nobody \
         would tell it to stop",
    );
    one(
        &with(
            "[limits]\ntcp_listeners = 1\n[[service]]\nname = \"a\"\napplication = \"echo\"\n\
               protocol = \"tcp\"\nlisten = [\"[::]:7\", \"[::]:8\"]",
        ),
        "t:4: limits.tcp_listeners = 1: must be at least 2, the number of listeners below",
    );
}

#[test]
fn tcp_memory_of_one_fits_that_of_all() {
    one(
        &with("[limits]\ntcp_send_memory = 65536"),
        "t: limits.tcp_send_buffer = 1048576 (default): must be at most limits.tcp_send_memory = 65536 (line 4): \
         one connection cannot hold more than all have",
    );
    one(
        &with("[limits]\ntcp_receive_buffer_max = 65535"),
        "t: limits.tcp_receive_buffer = 65536 (default): must be at most limits.tcp_receive_buffer_max = 65535 \
         (line 4): it grows from the one to the other",
    );
    one(
        &with("[tcp]\nkeepalive_idle_s = -1"),
        "t:4: tcp.keepalive_idle_s = -1: must be 0 (off) or a number of seconds from 1 to 86400",
    );
    one(
        &with("[tcp]\nsyn_cookies = \"when_full\""),
        "t:4: tcp.syn_cookies = \"when_full\": must be one of \"never\", \"when-full\", \"always\"; did \
         you mean \"when-full\"?",
    );
}

#[test]
fn connections_that_services_open() {
    let file = |keys: &str| {
        with(&format!(
            "[[service]]\nname = \"a\"\napplication = \"echo\"\nprotocol = \"tcp\"\n{keys}"
        ))
    };
    let to = "connect = [\"192.0.2.1:7\", \"[2001:db8::1]:7\"]";
    right(&file(to));
    right(&file(&format!("{to}\nconnections = 4536")));
    right(&file(&format!("listen = [\"[::]:7\"]\n{to}")));
    // Neither the one nor the other.
    one(
        &file("connect = []\nlisten = []"),
        "t:8: service[0].listen = []: must be one address and port at least, or there must be some to \
         connect to",
    );
    for (address, reason) in [
        (
            "0.0.0.0:7",
            "must be the address of a host: nobody is at the unspecified one",
        ),
        (
            "192.0.2.1:0",
            "port 0 is none: the port must be from 1 to 65535",
        ),
        (
            "224.0.0.1:7",
            "must be a unicast address; 224.0.0.1 is a multicast address",
        ),
    ] {
        one(
            &file(&format!("connect = [\"{address}\"]")),
            &format!("t:7: service[0].connect[0] = \"{address}\": {reason}"),
        );
    }
    one(
        &file("connect = [\"192.0.2.1:7\", \"192.0.2.1:7\"]"),
        "t:7: service[0].connect[1] = \"192.0.2.1:7\": must appear once; it is service[0].connect[0] \
         already (line 7)",
    );
    one(
        &file(&format!("{to}\nown_addresses = [\"192.0.2.1/24\"]")),
        "t:7: service[0].connect[0] = \"192.0.2.1:7\": a service owns this address: nothing comes back \
         from a wire that goes to ourselves",
    );
    one(
        &file(&format!("{to}\nconnections = 4537")),
        "t:8: service[0].connections = 4537: must be at most 4536, the number of tcp.ports = \
         \"61000-65535\" (by default): each connection to an address has a port of its own",
    );
    one(
        &format!(
            "{}\n[limits]\ntcp_connections = 9",
            file(&format!("{to}\nconnections = 10"))
        ),
        "t:11: limits.tcp_connections = 9: must be at least 10, the connections that services open",
    );
    one(
        &format!(
            "{}\n[tcp]\nports = \"1000-2000\"\n[steering]\ndeny = [\"tcp/22\", \"tcp/1500@192.0.2.9\"]",
            file(to)
        ),
        "t:10: tcp.ports = \"1000-2000\": steering.deny[1] = \"tcp/1500@192.0.2.9\" (line 12) leaves one \
         of these ports to the kernel, but services connect from them: choose a range without it",
    );
    one(
        &with("[tcp]\nports = \"9-8\""),
        "t:4: tcp.ports = \"9-8\": must be a range of ports such as \"61000-65535\", the lower one first, \
         from 1 to 65535",
    );
    one(
        &with_service("[\"[::]:7\"]", to),
        "t:8: service[0].connect = [\"192.0.2.1:7\", \"[2001:db8::1]:7\"]: needs protocol = \"tcp\" (line \
         6): UDP has no connections",
    );
}

#[test]
fn connections_and_the_machine() {
    let text = with(
        "[tcp]\nports = \"61000\"\n[[service]]\nname = \"a\"\napplication = \"echo\"\nprotocol = \"tcp\"\n\
         connect = [\"192.0.2.99:7\"]",
    );
    let config = Config::parse(&text, "t").expect("right by itself");
    let mut machine = machine();
    machine.cores = vec![0, 1, 2];
    if let Some(interface) = &mut machine.interface {
        interface.queues = 2;
        interface.addresses = vec!["192.0.2.99/24".parse().expect("an address")];
    }
    let errors = config.check_against(&machine).expect_err("two reasons");
    let errors: Vec<String> = errors.iter().map(|error| error.to_string()).collect();
    assert_eq!(
        errors,
        [
            "t:4: tcp.ports = \"61000\": must be 2 ports at least, one for each worker, since services open \
             connections",
            "t:9: service[0].connect[0] = \"192.0.2.99:7\": eth0 has this address itself: nothing comes back \
             from a wire that goes to ourselves",
        ]
    );
}
