#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::cli::testing::TempDir;
use crate::config::place::client_state_dir;

fn surroundings(folder: &Path, variables: &[(&str, &str)]) -> Environment {
    let variables: BTreeMap<_, _> =
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Environment {
        variables,
        host_name: Some("board\n".into()),
        system_file: folder.join("etc.toml"),
        system_state_dir: folder.join("var"),
    }
}

#[test]
fn defaults_hold_when_nothing_is_said() {
    let folder = TempDir::new();
    let env = surroundings(folder.path(), &[("HOME", "/home/pi")]);
    let config = load(&Flags::default(), &env).unwrap();
    assert_eq!(config.name, "board");
    assert_eq!(config.listen.to_string(), "0.0.0.0:7843");
    assert_eq!(config.state_dir, Path::new("/home/pi/.local/state/hearth"));
    assert_eq!((config.log.as_str(), config.api.unix_group.as_str()), ("info", "hearth"));
    assert!(config.file.is_none() && config.join.is_none() && config.warnings.is_empty());
    assert_eq!(config.origins.of("listen"), Origin::Default);
    assert_eq!((config.history.enabled, config.history.megabytes), (true, 12));
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let folder = TempDir::new();
    let text = "name = \"file\"\nlisten = \"127.0.0.1:1\"\nlog = \"warn\"\npeers = [\"file.local\"]\n";
    std::fs::write(folder.path().join("hearth.toml"), text).unwrap();
    let dir = folder.path().to_str().unwrap();
    let variables =
        [("HEARTH_STATE_DIR", dir), ("HEARTH_LISTEN", "127.0.0.1:2"), ("HEARTH_NAME", "variable")];
    let env = surroundings(folder.path(), &variables);
    let flags = Flags { listen: Some("127.0.0.1:3".parse().unwrap()), ..Flags::default() };
    let config = load(&flags, &env).unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.origins.of("listen"), Origin::Flag("--listen"));
    assert_eq!(config.name, "variable");
    assert_eq!(config.origins.of("name"), Origin::Variable("HEARTH_NAME"));
    assert_eq!(config.log, "warn");
    assert!(config.origins.of("log").to_string().ends_with("hearth.toml:3"));
    assert_eq!(config.peers[0].to_string(), "file.local:7843");
    assert_eq!(config.api.unix_group, "hearth");
}

#[test]
fn the_first_file_that_exists_is_read_and_a_named_one_must_exist() {
    let folder = TempDir::new();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(folder.path().join("etc.toml"), "name = \"system\"").unwrap();
    let env = surroundings(folder.path(), &[("HEARTH_STATE_DIR", state.to_str().unwrap())]);
    assert_eq!(load(&Flags::default(), &env).unwrap().name, "system");
    std::fs::write(state.join("hearth.toml"), "name = \"state\"").unwrap();
    assert_eq!(load(&Flags::default(), &env).unwrap().name, "state");
    let missing = Flags { config: Some(folder.path().join("none.toml")), ..Flags::default() };
    let error = load(&missing, &env).unwrap_err().to_string();
    assert!(error.contains("none.toml") && error.contains("--config"), "{error}");
}

#[test]
fn a_file_in_the_state_folder_cannot_move_the_state_folder() {
    let folder = TempDir::new();
    std::fs::write(folder.path().join("hearth.toml"), "\nstate_dir = \"/elsewhere\"").unwrap();
    let flags = Flags { state_dir: Some(folder.path().into()), ..Flags::default() };
    let error = load(&flags, &surroundings(folder.path(), &[])).unwrap_err().to_string();
    assert!(error.contains("hearth.toml:2:1: `state_dir`"), "{error}");
    // The system's file may.
    std::fs::remove_file(folder.path().join("hearth.toml")).unwrap();
    std::fs::write(folder.path().join("etc.toml"), "state_dir = \"/elsewhere\"").unwrap();
    let env = surroundings(folder.path(), &[("HOME", "/home/pi")]);
    assert_eq!(load(&Flags::default(), &env).unwrap().state_dir, Path::new("/elsewhere"));
    assert_eq!(client_state_dir(&Flags::default(), &env).unwrap(), Path::new("/elsewhere"));
}

#[test]
fn variables_that_break_a_rule_are_named_and_secrets_are_not_shown() {
    let folder = TempDir::new();
    for (name, value, expected) in [
        ("HEARTH_LISTEN", "x", "the variable HEARTH_LISTEN is \"x\", but it must be an IP address"),
        ("HEARTH_PEERS", "a.local, b:0", "the variable HEARTH_PEERS is \"a.local, b:0\""),
        ("HEARTH_LOG", "loud", "unset HEARTH_LOG"),
    ] {
        let env = surroundings(folder.path(), &[("HOME", "/h"), (name, value)]);
        let error = load(&Flags::default(), &env).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let env = surroundings(folder.path(), &[("HOME", "/h"), ("HEARTH_JOIN", "my secret")]);
    let error = load(&Flags::default(), &env).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn lists_and_tokens_come_from_variables_and_unknown_ones_are_told() {
    let folder = TempDir::new();
    let variables = [
        ("HOME", "/h"),
        ("HEARTH_ADVERTISE", "10.0.0.1, 10.0.0.2:9"),
        ("HEARTH_HISTORY_ENABLED", "false"),
        ("HEARTH_JOIN", "abc"),
        ("HEARTH_LISTEN", "127.0.0.1:5"),
        ("HEARTH_LISTNE", "x"),
        ("HEARTH_NAME", ""),
    ];
    let config = load(&Flags::default(), &surroundings(folder.path(), &variables)).unwrap();
    let shown: Vec<String> = config.advertise.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.1:5", "10.0.0.2:9"]);
    assert_eq!((config.history.enabled, config.history.megabytes), (false, 12));
    assert_eq!(config.name, "board", "an empty variable is one that is not set");
    assert_eq!(config.join.as_ref().unwrap().expose(), "abc");
    assert!(!format!("{config:?}").contains("abc"));
    assert_eq!(config.warnings, ["the variable HEARTH_LISTNE sets nothing that hearth knows"]);
}

#[test]
fn the_state_folder_follows_systemd_then_xdg_then_home() {
    let folder = TempDir::new();
    let all = [("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
    let of = |variables: &[(&str, &str)]| default_state_dir(&surroundings(folder.path(), variables));
    assert_eq!(of(&all).unwrap(), Path::new("/var/lib/a"));
    assert_eq!(of(&all[1..]).unwrap(), Path::new("/x/hearth"));
    assert_eq!(
        of(&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]).unwrap(),
        Path::new("/h/.local/state/hearth")
    );
    assert_eq!(
        of(&[("STATE_DIRECTORY", ""), ("XDG_STATE_HOME", ""), ("HOME", "/h")]).unwrap(),
        Path::new("/h/.local/state/hearth"),
        "an empty variable is one that is not set"
    );
    assert!(matches!(of(&[]).unwrap_err(), ConfigError::NoStateDir));
}

#[test]
fn a_state_folder_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt;
    let folder = TempDir::new();
    let mut env = surroundings(folder.path(), &[]);
    let path = std::ffi::OsString::from_vec(b"/s/\xff".to_vec());
    env.variables.insert("HEARTH_STATE_DIR".into(), path.clone());
    assert_eq!(load(&Flags::default(), &env).unwrap().state_dir, Path::new(&path));
}

#[test]
fn a_client_finds_the_service_of_the_system_when_there_is_no_own_one() {
    let folder = TempDir::new();
    let home = folder.path().join("home");
    let own = home.join(".local/state/hearth");
    let env = surroundings(folder.path(), &[("HOME", home.to_str().unwrap())]);
    let flags = Flags::default();
    assert_eq!(client_state_dir(&flags, &env).unwrap(), own);
    std::fs::create_dir(folder.path().join("var")).unwrap();
    std::fs::write(folder.path().join("var/hearth.sock"), "").unwrap();
    assert_eq!(client_state_dir(&flags, &env).unwrap(), folder.path().join("var"));
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("hearth.sock"), "").unwrap();
    assert_eq!(client_state_dir(&flags, &env).unwrap(), own);
    let flags = Flags { state_dir: Some("/told".into()), ..flags };
    assert_eq!(client_state_dir(&flags, &env).unwrap(), Path::new("/told"));
}
