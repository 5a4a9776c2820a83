//! The files people start from are right, and `default.toml` documents every key there is with the
//! value it has.

use config::{Cidr, Config, InterfaceFacts, Machine, ServiceWorkers};
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn load(name: &str) -> Config {
    Config::load(file(name)).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `default.toml` is the built-in defaults, apart from what has none: the interface's name and the
/// required keys of a service.
#[test]
fn default_toml_is_the_defaults() {
    let mut written = load("default.toml");
    let service = written.services.pop().expect("one service shows the keys");
    assert_eq!(written, Config::new("eth0"));
    assert!(!service.v6only);
    assert!(service.own_addresses.is_empty());
    assert_eq!(service.workers, ServiceWorkers::All);
    // And the service's keys really have these values when they are left out.
    let required = "[interface]\nname = \"eth0\"\n[[service]]\nname = \"echo\"\n\
                    application = \"echo\"\nprotocol = \"udp\"\nlisten = [\"[::]:7\"]\n";
    let required = Config::parse(required, "t").expect("right");
    assert_eq!(required.services, [service]);
}

/// Every key of the serialized configuration is in `default.toml`, with a comment above it.
#[test]
fn default_toml_documents_every_key() {
    let text = std::fs::read_to_string(file("default.toml")).expect("readable");
    let documented = documented_keys(&text);
    let effective = load("default.toml").to_toml();
    let tree: toml::Table = effective.parse().expect("TOML");
    let mut expected = Vec::new();
    for (section, value) in &tree {
        let table = match value {
            toml::Value::Table(table) => table,
            toml::Value::Array(array) => array[0].as_table().expect("[[service]]"),
            _ => panic!("{section} is no section"),
        };
        expected.extend(table.keys().map(|key| format!("{section}.{key}")));
    }
    assert!(expected.len() > 40, "the walk found the keys");
    for key in &expected {
        assert!(
            documented.contains(key),
            "{key} is not explained in default.toml"
        );
    }
    assert_eq!(
        documented.len(),
        expected.len(),
        "default.toml has a key twice"
    );
}

/// The keys of `text` that have a comment directly above, as `section.key`.
fn documented_keys(text: &str) -> Vec<String> {
    let mut section = "";
    let mut above = "";
    let mut keys = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        } else if let Some((key, _)) = line.split_once(" = ")
            && !line.starts_with('#')
            && above.starts_with('#')
        {
            keys.push(format!("{section}.{key}"));
        }
        // The first key of a section may share the section's comment.
        if !line.is_empty() && !line.starts_with('[') {
            above = line;
        }
    }
    keys
}

#[test]
fn demo_runs_on_its_veth_pair() {
    let demo = load("demo.toml");
    let machine = Machine {
        cores: vec![0, 1],
        interface: Some(InterfaceFacts {
            name: demo.interface.name.clone(),
            queues: 2,
            addresses: vec!["10.77.0.1/24".parse::<Cidr>().expect("an address")],
            mtu: 1500,
        }),
    };
    assert_eq!(demo.check_against(&machine), Ok(()));
}

#[test]
fn examples_are_right() {
    let mut count = 0;
    for entry in std::fs::read_dir(file("examples")).expect("a directory") {
        let path = entry.expect("readable").path();
        Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        count += 1;
    }
    assert!(count >= 2, "there are examples");
}
