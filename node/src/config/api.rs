//! The rules of `[api]`: names, pages and proxies.

use super::error::Broken;
use crate::api::guards::Network;

/// A name of this node: letters, digits, `-` and `_` between dots, in lower case. Without a port.
///
/// # Errors
/// [`Broken`] when it is not.
pub fn host(text: &str) -> Result<String, Broken> {
    let broken = Broken { rule: "a host name without scheme and port", example: "\"home.example.org\"" };
    let name = text.trim().trim_end_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let fits = name.len() <= 253 && name.split('.').all(is_label);
    fits.then_some(name).ok_or(broken)
}

/// Whose pages may use the API: a scheme and a host, with or without a port, in lower case.
///
/// # Errors
/// [`Broken`] when it is not.
pub fn origin(text: &str) -> Result<String, Broken> {
    let broken = Broken {
        rule: "http or https, a host, and a port if it is not the usual one",
        example: "\"https://panel.example\"",
    };
    let origin = text.trim().trim_end_matches('/').to_ascii_lowercase();
    let place = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")).ok_or(broken)?;
    let (name, port) = match place.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (place, None),
    };
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_port && (is_address || host(name).is_ok()) { Ok(origin) } else { Err(broken) }
}

/// A proxy that is believed: an address, or a network as address and number of bits.
///
/// # Errors
/// [`Broken`] when it is not.
pub fn proxy(text: &str) -> Result<Network, Broken> {
    let broken = Broken { rule: "an IP address or a network", example: "\"10.0.0.0/24\"" };
    text.trim().parse().map_err(|()| broken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_origins_and_proxies_are_told_from_what_is_none() {
        assert_eq!(host(" Home.Example.ORG. ").unwrap(), "home.example.org");
        for bad in ["", ".", "a..b", "https://a", "a:1", "a b", "*", "ä.de"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        assert_eq!(origin("HTTPS://Panel.example:8443/").unwrap(), "https://panel.example:8443");
        assert!(origin("http://[fd00::1]:80").is_ok() && origin("http://192.168.1.5").is_ok());
        for bad in ["", "null", "*", "panel.example", "https://", "https://a/b", "https://a:0", "ftp://a"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
        assert!(proxy("10.0.0.0/8").is_ok() && proxy("::1").is_ok());
        assert!(proxy("proxy.lan").is_err() && proxy("10.0.0.0/40").is_err());
    }
}
