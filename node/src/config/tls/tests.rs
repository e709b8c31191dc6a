#![allow(clippy::unwrap_used, clippy::panic)]
use std::path::Path;

use super::*;
use crate::cli::testing::TempDir;
use crate::config::{Config, Environment, Flags, load, shown};

/// Loads a file of this text with these variables.
fn loaded(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = TempDir::new();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    let env = Environment {
        variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        host_name: None,
        system_file: Path::new("/nowhere/hearth.toml").to_owned(),
        system_state_dir: Path::new("/nowhere").to_owned(),
    };
    let flags = Flags { config: Some(path), state_dir: Some("/s".into()), ..Flags::default() };
    load(&flags, &env)
}

#[test]
fn every_setting_is_read_and_shown_with_its_place() {
    let text = "[tls]\ndomains = [\"*.example.org\", \"Home.example.org.\", \"home.example.org\"]\ncontact = \"mailto:me@example.org\"\n\
        directory = \"letsencrypt\"\nprofile = \"shortlived\"\nchallenge = \"dns-01\"\nhttp = \"off\"\n\
        [tls.dns]\nprovider = \"rfc2136\"\nserver = \"[fd00::1]:5353\"\nzone = \"Example.org.\"\nkey_name = \"hearth.\"\n\
        key_algorithm = \"hmac-sha512\"\nkey_file = \"/k\"\npropagation_s = 5\nresolvers = [\"9.9.9.9\", \"[::1]:54\"]\n";
    let config = loaded(text, &[]).unwrap();
    let tls = &config.tls;
    let names: Vec<String> = tls.domains.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["*.example.org", "home.example.org"]);
    assert_eq!((tls.contact.as_deref(), tls.http), (Some("me@example.org"), None));
    assert_eq!(tls.directory.url(), LETS_ENCRYPT);
    let key =
        TsigKeyConfig { name: "hearth".into(), algorithm: TsigAlgorithm::HmacSha512, file: "/k".into() };
    let provider = DnsProviderConfig::Rfc2136 {
        host: "fd00::1".into(),
        port: 5353,
        zone: Some("example.org".into()),
        key: Some(key),
    };
    let dns = tls.dns.as_ref().unwrap();
    assert_eq!(dns.provider, provider);
    assert_eq!((dns.propagation, dns.resolvers.len()), (Duration::from_secs(5), 2));
    let shown = shown(&config);
    let of = |key: &str| shown.iter().find(|setting| setting.key == key).unwrap();
    assert_eq!(of("tls.dns.server").value, "[fd00::1]:5353");
    assert!(of("tls.dns.server").origin.ends_with("c.toml:10"), "{:?}", of("tls.dns.server"));
    assert!(of("tls.http").origin.ends_with("c.toml:7"));
}

#[test]
fn without_a_word_there_is_no_public_certificate_and_tries_go_where_they_do_no_harm() {
    let tls = loaded("", &[]).unwrap().tls;
    assert_eq!(tls, TlsConfig::default());
    assert!(tls.domains.is_empty());
    assert_eq!(tls.http.unwrap().to_string(), "0.0.0.0:80");
    let word = if cfg!(debug_assertions) { "staging" } else { "letsencrypt" };
    assert_eq!(tls.directory.to_string(), word);
}

#[test]
fn variables_go_before_the_file() {
    let variables =
        [("HEARTH_TLS_DOMAINS", "a.example.org, b.example.org"), ("HEARTH_TLS_DIRECTORY", "letsencrypt")];
    let config = loaded("[tls]\ndomains = [\"c.example.org\"]\n", &variables).unwrap();
    assert_eq!(config.tls.domains.len(), 2);
    assert_eq!(config.tls.directory, Directory::LetsEncrypt);
    assert_eq!(config.origins.of("tls.domains"), Origin::Variable("HEARTH_TLS_DOMAINS"));
    let error = loaded("", &[("HEARTH_TLS_DOMAINS", "*.example.org")]).unwrap_err().to_string();
    assert!(error.contains("HEARTH_TLS_DOMAINS") && error.contains("dns-01"), "{error}");
}

#[test]
fn each_wrong_setting_is_refused_with_its_line_and_its_rule() {
    let dns = "[tls.dns]\nprovider = \"rfc2136\"\nserver = \"ns\"\n";
    for (text, line, says) in [
        ("[tls]\ndomains = \"a.example.org\"", 2, "a list"),
        ("[tls]\ndomains = [\"org\"]", 2, "two labels"),
        ("[tls]\ndomains = [\"pi.local\"]", 2, "local authority"),
        ("[tls]\ndomains = [\"*.example.org\"]", 2, "tls.challenge = \"dns-01\""),
        ("[tls]\ndomains = [\"a.example.org\"]\nchallenge = \"dns-01\"", 3, "[tls.dns]"),
        ("[tls]\nchallenge = \"dns\"", 2, "http-01, tls-alpn-01 or dns-01"),
        ("[tls]\ncontact = \"me\"", 2, "e-mail"),
        ("[tls]\ncontact = \"a@b.org,c@d.org\"", 2, "e-mail"),
        ("[tls]\ndirectory = \"http://ca.example.org/dir\"", 2, "https URL"),
        ("[tls]\ndirectory = \"https://me:secret@ca.example.org/dir\"", 2, "https URL"),
        ("[tls]\ndirectory_root = \"root.pem\"", 2, "whole path"),
        ("[tls]\nprofile = \"a b\"", 2, "profile"),
        ("[tls]\nhttp = \"80\"", 2, "off, or an IP address"),
        ("[tls]\nhttp = false", 2, "off, or an IP address"),
        ("[tls]\ndomain = [\"a.example.org\"]", 2, "did you mean `domains`"),
        ("[tls.dns]\nprovider = \"bind\"", 2, "rfc2136, hook or duckdns"),
        ("[tls.dns]\nserver = \"ns\"", 1, "given `provider`"),
        ("[tls.dns]\nprovider = \"rfc2136\"", 1, "given `server`"),
        ("[tls.dns]\nprovider = \"hook\"", 1, "given `command`"),
        ("[tls.dns]\nprovider = \"duckdns\"", 1, "given `token_file`"),
        ("[tls.dns]\nprovider = \"hook\"\ncommand = \"/h\"\nserver = \"ns\"", 4, "hook takes command"),
        ("[tls.dns]\nprovider = \"hook\"\ncommand = \"h\"", 3, "whole path"),
        (&format!("{dns}key_name = \"k\""), 1, "both key_name and key_file"),
        (&format!("{dns}key_algorithm = \"hmac-md5\""), 4, "hmac-sha256"),
        (&format!("{dns}propagation_s = 0"), 4, "1 to 3600"),
        (&format!("{dns}propagation_s = \"120\""), 4, "1 to 3600"),
        (&format!("{dns}resolvers = [\"dns.example.org\"]"), 4, "an IP address"),
        (&format!("{dns}zone = \"a..b\""), 4, "a name in the DNS"),
        ("[tls.dns]\nprovider = \"rfc2136\"\nserver = \"ns:0\"", 3, "name server"),
        ("[tls.dns]\nprovider = \"rfc2136\"\nserver = \"10.0.0.256\"", 3, "name server"),
    ] {
        let error = match loaded(text, &[]) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{text} was taken"),
        };
        assert!(error.contains(&format!("c.toml:{line}:")) && error.contains(says), "{text}\n{error}");
        assert!(!error.contains("secret@"), "{error}");
    }
}

#[test]
fn another_authority_may_vouch_for_names_of_the_home() {
    let text = "[tls]\ndomains = [\"pi.test\"]\ndirectory = \"https://localhost:14000/dir\"\ndirectory_root = \"/r.pem\"\n";
    let tls = loaded(text, &[]).unwrap().tls;
    assert_eq!(tls.directory, Directory::Other("https://localhost:14000/dir".into()));
    assert_eq!(rules::directory(LETS_ENCRYPT_STAGING).unwrap(), Directory::Staging, "by its URL, too");
}
