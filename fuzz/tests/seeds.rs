//! The seeds are right inputs, and every target is built, listed and passes them.

#[test]
fn every_target_passes_its_seeds() {
    for (name, target) in fuzz::TARGETS {
        let seeds = fuzz::seeds::of(name);
        assert!(seeds.len() >= 2, "{name}");
        for seed in seeds {
            target(&seed);
        }
    }
}

#[test]
fn every_target_has_a_file() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz_targets");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    let mut names: Vec<String> = fuzz::TARGETS
        .iter()
        .map(|(name, _)| format!("{name}.rs"))
        .collect();
    files.sort();
    names.sort();
    assert_eq!(files, names);
}

/// Seeds that everybody drops at the first header would start no one off.
#[test]
fn seeds_reach_the_end_of_their_headers() {
    use stack::wire::{arp, icmpv4, ipv4, ipv6};
    let good = |name: &str, is_good: &dyn Fn(&[u8]) -> bool| {
        let seeds = fuzz::seeds::of(name);
        let count = seeds.iter().filter(|seed| is_good(seed)).count();
        assert!(
            count * 2 >= seeds.len(),
            "{name}: {count} of {}",
            seeds.len()
        );
    };
    good("arp", &|seed| arp::Repr::parse(seed, 0).is_ok());
    good("ipv4", &|seed| ipv4::Packet::new_checked(seed, 0).is_ok());
    good("ipv6", &|seed| ipv6::Packet::new_checked(seed, 0).is_ok());
    good("icmpv4", &|seed| {
        icmpv4::Packet::new_checked(seed, 0..seed.len()).is_ok()
    });
    good("config", &|seed| {
        let text = std::str::from_utf8(seed).expect("UTF-8");
        config::Config::parse(text, "seed").is_ok()
    });
}
