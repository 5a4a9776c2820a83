//! Over many texts: parsing never panics, and what it accepts prints as a file it reads the same.

use config::Config;
use proptest::prelude::*;

/// Texts near to a configuration: `default.toml` with some of its parts replaced.
fn mutated() -> impl Strategy<Value = String> {
    const DEFAULT: &str = include_str!("../default.toml");
    let piece = prop_oneof![
        Just(String::new()),
        Just("\n[[service]]\n".to_owned()),
        Just(" = ".to_owned()),
        Just("[[[[".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("\r\n".to_owned()),
        Just("é\u{0}\u{feff}".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-z_.\"\\[\\]{}=0-9:/ \n-]{0,12}",
    ];
    proptest::collection::vec((any::<prop::sample::Index>(), 0..20_usize, piece), 1..6).prop_map(
        |edits| {
            // Comments are most of the text, and edits within them change nothing.
            let mut text: String = DEFAULT
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .flat_map(|line| [line, "\n"])
                .collect();
            for (at, length, piece) in edits {
                let boundary = |at: usize| (at..=text.len()).find(|at| text.is_char_boundary(*at));
                let from = boundary(at.index(text.len() + 1)).unwrap_or(text.len());
                let to = boundary(from.saturating_add(length)).unwrap_or(text.len());
                text.replace_range(from..to, &piece);
            }
            text
        },
    )
}

fn or<T: Clone + std::fmt::Debug + 'static>(
    value: T,
    other: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![Just(value), other].boxed()
}

/// Files that are right, with values all over their ranges.
fn right() -> impl Strategy<Value = String> {
    let rings = (6..=15_u32, 6..=15_u32, 0..=9_u32, 6..=15_u32);
    let numbers = (
        1..=64_u32,
        0..=3600_u32,
        1..=255_u32,
        or(0_u64, 65_536..=1_u64 << 30),
    );
    let words = (
        prop_oneof![
            Just("auto"),
            Just("zero-copy"),
            Just("copy"),
            Just("generic")
        ],
        prop_oneof![Just("\"all\""), Just("[3, 0]"), Just("[1, 2, 7]")],
        prop_oneof![Just("\"auto\""), Just("[5]"), Just("[4, 0]")],
        prop_oneof![Just("[]"), Just("[1]"), Just("[4094, 7]")],
        prop_oneof![Just(""), Just("127.0.0.1:9464"), Just("[::1]:1")],
        any::<bool>(),
    );
    let services = proptest::collection::vec(
        (
            any::<std::net::Ipv6Addr>(),
            prop_oneof![Just("echo"), Just("discard")],
            any::<bool>(),
        ),
        0..5,
    );
    let deny = proptest::collection::btree_set((1_u16.., any::<Option<std::net::IpAddr>>()), 0..4);
    (rings, numbers, words, services, deny).prop_map(
        |((rx, tx, fill, completion), (batch, wait, ttl, memory), words, services, deny)| {
            use std::fmt::Write;
            let (mode, queues, cores, vlan, metrics, flag) = words;
            let deny: Vec<_> = deny
                .iter()
                .map(|(port, address)| match address {
                    Some(address) => format!("\"tcp/{port}@{address}\""),
                    None => format!("\"udp/{port}@10.9.8.7\""),
                })
                .collect();
            let mut text = format!(
                "interface = {{ name = \"eth0\", queues = {queues}, mode = \"{mode}\", vlan = {vlan}, link_wait_s = {wait} }}\n\
                 workers = {{ cores = {cores}, batch = {batch} }}\n\
                 ip.ttl = {ttl}\n\
                 reassembly.memory_bytes = {memory}\n\
                 control.metrics = \"{metrics}\"\n\
                 busy_poll.enabled = {flag}\n\
                 steering.deny = [{}]\n\
                 rings = {{ rx = {}, tx = {}, fill = {}, completion = {} }}\n",
                deny.join(", "),
                1 << rx,
                1 << tx,
                1 << (rx + fill).min(15),
                1 << completion.max(tx),
            );
            for (index, (address, application, v6only)) in services.iter().enumerate() {
                // Unicast and of one owner by construction; ports differ, so that nothing overlaps.
                let mut octets = address.octets();
                octets[0] = 0x20 + u8::try_from(index).expect("few services");
                let address = std::net::Ipv6Addr::from(octets);
                let _ = write!(
                    text,
                    "[[service]]\nname = \"s{index}\"\napplication = \"{application}\"\n\
                     protocol = \"udp\"\nlisten = [\"[::]:{}\", \"[{address}]:{}\"]\n\
                     v6only = {v6only}\nown_addresses = [\"{address}/{}\"]\nworkers = [0]\n",
                    2 * index + 1,
                    2 * index + 2,
                    index + 1,
                );
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn any_text_is_judged(text in any::<String>()) {
        let _ = Config::parse(&text, "t");
    }

    #[test]
    fn almost_right_text_is_judged(text in mutated()) {
        match Config::parse(&text, "t") {
            Ok(config) => prop_assert_eq!(Config::parse(&config.to_toml(), "t"), Ok(config)),
            Err(errors) => {
                let lines = text.lines().count() + 1;
                prop_assert!(errors.len() > 0);
                for error in &errors {
                    prop_assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{}", error);
                    prop_assert_eq!(error.to_string().lines().count(), 1, "{:?}", error);
                }
            }
        }
    }

    #[test]
    fn printed_configurations_read_the_same(text in right()) {
        let config = Config::parse(&text, "t").map_err(|errors| TestCaseError::fail(format!("{errors}\n{text}")))?;
        let printed = config.to_string();
        let again = Config::parse(&printed, "printed").map_err(|errors| TestCaseError::fail(format!("{errors}\n{printed}")))?;
        prop_assert_eq!(&again, &config);
        prop_assert_eq!(again.to_string(), printed);
    }
}
