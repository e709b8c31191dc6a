#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn parsed(text: &str) -> Result<FileSettings, ConfigError> {
    parse(Path::new("/etc/hearth/hearth.toml"), text)
}

#[test]
fn a_whole_file_is_read() {
    let settings = parsed(
        "name = \"attic\"\nlisten = \"[::]:9\"\nstate_dir = \"/s\"\nadvertise = [\"10.0.0.1\"]\n\
         peers = [\"a.local\", \"10.0.0.2:5\"]\nlog = \"debug\"\n[api]\nunix_group = \"home\"\n\
         [history]\nenabled = false\nmegabytes = 30\n\
         [adapters.lifx]\nenabled = false\npoll_s = 2.5\naddresses = [\"10.0.0.9\"]\n[adapters.lifx.x]\ny = 3\n",
    )
    .unwrap();
    assert_eq!(settings.name.as_deref(), Some("attic"));
    assert_eq!(settings.peers.unwrap()[1].to_string(), "10.0.0.2:5");
    assert_eq!((settings.history_enabled, settings.history_megabytes), (Some(false), Some(30)));
    let lifx = &settings.adapters["lifx"];
    assert!(!lifx.enabled);
    assert_eq!(lifx.settings, json!({"poll_s": 2.5, "addresses": ["10.0.0.9"], "x": {"y": 3}}));
    assert_eq!(settings.places["adapters.lifx.poll_s"].line, 14);
}

#[test]
fn every_mistake_names_file_line_column_and_key() {
    let cases = [
        (
            "listne = \"x\"",
            "1:1: unknown key `listne`: did you mean `listen`? Else remove it, or see `hearth config default` for every key",
        ),
        (
            "zzzzzzzz = 1",
            "1:1: unknown key `zzzzzzzz`: remove it, or see `hearth config default` for every key",
        ),
        (
            "\n[api]\nunix-group = \"x\"",
            "3:1: unknown key `api.unix-group`: did you mean `unix_group`? Else remove it, or see `hearth config default` for every key",
        ),
        (
            "listen = \"7843\"",
            "1:10: `listen` is \"7843\", but it must be an IP address with a port from 0 to 65535, for example \"0.0.0.0:7843\"",
        ),
        (
            "listen = 7843",
            "1:10: `listen` is 7843, but it must be an IP address with a port from 0 to 65535, for example \"0.0.0.0:7843\"",
        ),
        (
            "name = \"\"",
            "1:8: `name` is \"\", but it must be 1 to 64 bytes of text without control characters, for example \"kitchen\"",
        ),
        (
            "name = true",
            "1:8: `name` is true, but it must be 1 to 64 bytes of text without control characters, for example \"kitchen\"",
        ),
        (
            "log = \"loud\"",
            "1:7: `log` is \"loud\", but it must be error, warn, info, debug, trace or off, or a list such as info,node::api=debug, for example \"info\"",
        ),
        (
            "state_dir = [1]",
            "1:13: `state_dir` is of type array, but it must be the path of a folder, for example \"/var/lib/hearth\"",
        ),
        (
            "peers = \"a\"",
            "1:9: `peers` is \"a\", but it must be a list of at most 256 texts, for example [\"192.168.1.5\"], or []",
        ),
        (
            "peers = [\n  \"a.local\",\n  \"b:0\",\n]",
            "3:3: `peers` is \"b:0\", but it must be the host name or IP address of another node, with or without a port from 1 to 65535, for example \"attic.local:7843\"",
        ),
        (
            "advertise = [\"0.0.0.0\"]",
            "1:14: `advertise` is \"0.0.0.0\", but it must be an IP address of this node, with or without a port, for example \"192.168.1.5:7843\"",
        ),
        (
            "[history]\nmegabytes = 1",
            "2:13: `history.megabytes` is 1, but it must be a whole number of MiB from 2 to 256, or 0 for none, for example 12",
        ),
        (
            "[history]\nmegabytes = \"12\"",
            "2:13: `history.megabytes` is \"12\", but it must be a whole number of MiB from 2 to 256, or 0 for none, for example 12",
        ),
        (
            "[history]\nmegabits = 1",
            "2:1: unknown key `history.megabits`: did you mean `megabytes`? Else remove it, or see `hearth config default` for every key",
        ),
        (
            "api = 3",
            "1:7: `api` is 3, but it must be a table of settings, for example [api] on a line of its own",
        ),
        (
            "[adapters.lifx]\nenabled = \"yes\"",
            "2:11: `adapters.lifx.enabled` is \"yes\", but it must be true or false, for example true",
        ),
        (
            "[adapters.lifx]\npoll_s = inf",
            "2:10: `adapters.lifx.poll_s` is of type float, but it must be a finite number of 64 bits, for example 30",
        ),
        (
            "name = \"a\"\n\n[adapters.zigbee]\nenabled = false",
            "3:11: unknown adapter `adapters.zigbee`: this version has ADAPTERS; correct the name, or remove the table",
        ),
        (
            "adapters.lifx.poll_s = 3\nadapters.lifix = {}",
            "2:10: unknown adapter `adapters.lifix`: this version has ADAPTERS; correct the name, or remove the table",
        ),
        (
            "adapters = [1]",
            "1:12: `adapters` is of type array, but it must be a table of settings, for example [api] on a line of its own",
        ),
    ];
    let adapters: Vec<_> = device_adapters::registry().iter().map(|adapter| adapter.descriptor.id).collect();
    for (text, expected) in cases {
        let expected = expected.replace("ADAPTERS", &adapters.join(", "));
        let error = parsed(text).unwrap_err().to_string();
        assert_eq!(error, format!("/etc/hearth/hearth.toml:{expected}"), "{text}");
    }
}

#[test]
fn broken_toml_names_the_line_and_the_key_on_it() {
    for (text, place, key) in [
        ("name = \"attic\"\nlisten = 0.0.0.0:7843\n", "hearth.toml:2:", "`listen`"),
        ("name = \"attic", "hearth.toml:1:", "`name`"),
        ("name =", "hearth.toml:1:", "`name`"),
        ("name = \"a\"\nname = \"b\"", "hearth.toml:2:1", "`name`"),
        ("\n\n[api\nunix_group = \"x\"", "hearth.toml:3:", "not TOML"),
        ("é = 1\n€ € = 2", "hearth.toml:2:3", "`€ €`"),
    ] {
        let error = parsed(text).unwrap_err();
        assert!(matches!(error, ConfigError::Syntax { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(place) && error.contains(key) && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn files_that_are_too_large_or_no_text_are_refused() {
    let folder = crate::cli::testing::TempDir::new();
    let path = folder.path().join("hearth.toml");
    assert!(read(&path).unwrap().is_none());
    std::fs::write(&path, b"name = \"a\"\nlog = \"\xff\"").unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("hearth.toml:2:8: the file is not UTF-8"), "{error}");
    std::fs::write(&path, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(matches!(read(&path).unwrap_err(), ConfigError::TooLarge { bytes: 1_048_577, .. }));
    assert!(matches!(read(folder.path()).unwrap_err(), ConfigError::Unreadable { .. }));
}

#[test]
fn deep_nesting_is_an_error_and_not_the_end() {
    let text = format!("[adapters.x]\ny = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(parsed(&text).unwrap_err(), ConfigError::Syntax { .. }));
}

proptest! {
    #[test]
    fn no_text_panics(text in "([a-z_.]{1,12} = (\"[ -~é]{0,8}\"|[0-9.]{1,5}|\\[.{0,6}\\])\n|\\[[a-z.]{1,9}\\]\n|.{0,9}){0,6}") {
        let _ = parsed(&text);
    }
}
