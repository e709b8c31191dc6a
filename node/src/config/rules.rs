//! The rule of each setting, the same for the file, the environment and the flags.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::duration::parse_duration;
use super::error::Broken;
use super::{DEFAULT_PORT, JoinToken, PeerAddress};
use crate::timekeeping::ClockRule;

/// Longest friendly name of a node, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest join token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// The friendly name of a node: 1 to 64 bytes without control characters.
///
/// # Errors
/// [`Broken`] when it is not.
pub fn name(text: &str) -> Result<String, Broken> {
    let broken = Broken { rule: "1 to 64 bytes of text without control characters", example: "\"kitchen\"" };
    let text = text.trim();
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or(broken)
}

/// The address and port, UDP and TCP, on which the node listens. Port 0 takes any free one.
///
/// # Errors
/// [`Broken`] when it is not an IP address with a port.
pub fn listen(text: &str) -> Result<SocketAddr, Broken> {
    text.trim().parse().map_err(|_| Broken {
        rule: "an IP address with a port from 0 to 65535",
        example: "\"0.0.0.0:7843\"",
    })
}

/// A folder, by absolute or relative path.
///
/// # Errors
/// [`Broken`] when it is empty.
pub fn folder(text: &str) -> Result<PathBuf, Broken> {
    if text.is_empty() || text.contains('\0') {
        return Err(Broken { rule: "the path of a folder", example: "\"/var/lib/hearth\"" });
    }
    Ok(PathBuf::from(text))
}

/// An address under which others reach this node; without a port it has the port it listens on.
///
/// # Errors
/// [`Broken`] when it is not an IP address, or names port 0 or no machine.
pub fn advertise(text: &str) -> Result<(IpAddr, Option<u16>), Broken> {
    let broken = Broken {
        rule: "an IP address of this node, with or without a port",
        example: "\"192.168.1.5:7843\"",
    };
    let text = text.trim();
    let parsed = match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), Some(address.port())),
        Err(_) => (text.parse::<IpAddr>().map_err(|_| broken)?, None),
    };
    let usable = !parsed.0.is_unspecified() && !parsed.0.is_multicast() && parsed.1 != Some(0);
    usable.then_some(parsed).ok_or(broken)
}

/// The address of another node: host name or IP address, with or without a port (7843).
///
/// # Errors
/// [`Broken`] when it is neither.
pub fn peer(text: &str) -> Result<PeerAddress, Broken> {
    let broken = Broken {
        rule: "the host name or IP address of another node, with or without a port from 1 to 65535",
        example: "\"attic.local:7843\"",
    };
    let text = text.trim();
    if text.contains('%') {
        return scoped(text).ok_or(broken);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        let peer = PeerAddress { host: address.ip().to_string(), port: address.port() };
        return (peer.port != 0).then_some(peer).ok_or(broken);
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(PeerAddress { host: address.to_string(), port: DEFAULT_PORT });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| broken)?),
        None => (text, DEFAULT_PORT),
    };
    // RFC 1123 section 2.1: labels of letters, digits and hyphens, 253 bytes in all. Four
    // numbers with dots that are no address are a slip, not a name.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let fits = host.len() <= 253 && host.trim_end_matches('.').split('.').all(label) && !numeric && port != 0;
    fits.then(|| PeerAddress { host: host.to_owned(), port }).ok_or(broken)
}

/// A link-local IPv6 address with its interface: `fe80::1%eth0` or `[fe80::1%eth0]:7843` (RFC 4007,
/// section 11). The system's resolver takes the part before the port as it is.
fn scoped(text: &str) -> Option<PeerAddress> {
    let (host, port) = match text.strip_prefix('[') {
        None => (text, DEFAULT_PORT),
        Some(rest) => match rest.split_once(']')? {
            (host, "") => (host, DEFAULT_PORT),
            (host, port) => (host, port.strip_prefix(':')?.parse().ok()?),
        },
    };
    let (ip, zone) = host.split_once('%')?;
    let fits = ip.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_unicast_link_local()) && is_interface(zone);
    (fits && port != 0).then(|| PeerAddress { host: host.to_owned(), port })
}

/// How often QUIC is tried while a link is a WebSocket: at least a second.
///
/// # Errors
/// [`Broken`] when it is no duration, or a shorter one.
pub fn quic_retry(text: &str) -> Result<Duration, Broken> {
    let broken = Broken { rule: "a duration of at least 1s, such as 90s, 5m or 1h", example: "\"5m\"" };
    let parsed = parse_duration(text).map_err(|_| broken)?;
    (parsed >= Duration::from_secs(1)).then_some(parsed).ok_or(broken)
}

/// What is logged: a level, or a filter in the syntax of tracing-subscriber.
///
/// # Errors
/// [`Broken`] when it is neither.
pub fn log(text: &str) -> Result<String, Broken> {
    let broken = Broken {
        rule: "error, warn, info, debug, trace or off, or a list such as info,node::api=debug",
        example: "\"info\"",
    };
    let text = text.trim();
    // A word that is no level would silently be a target that matches nothing.
    let known = |part: &str| {
        let part = part.trim();
        part.contains(['=', '[']) || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part))
    };
    let fits = text.len() <= 1024 && text.split(',').all(known) && EnvFilter::try_new(text).is_ok();
    fits.then(|| text.to_owned()).ok_or(broken)
}

/// Whether this machine's clock counts as right.
///
/// # Errors
/// [`Broken`] when it is none of the three words.
pub fn clock(text: &str) -> Result<ClockRule, Broken> {
    let known = [ClockRule::Ask, ClockRule::Trusted, ClockRule::Untrusted];
    let found = known.into_iter().find(|rule| rule.as_str() == text.trim());
    found.ok_or(Broken { rule: "ask, trusted or untrusted", example: "\"ask\"" })
}

/// The levels of the log, as people write them.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What a switch must be.
pub const TRUTH: Broken = Broken { rule: "true or false", example: "true" };

/// A switch.
///
/// # Errors
/// [`Broken`] when it is neither true nor false.
pub fn truth(text: &str) -> Result<bool, Broken> {
    text.trim().parse().map_err(|_| TRUTH)
}

/// Room for the history on the disk in MiB.
///
/// # Errors
/// [`Broken`] when it is neither 0 nor 2 to 256.
pub fn megabytes(text: &str) -> Result<u32, Broken> {
    let number = text.trim().parse().ok().filter(|number| *number == 0 || (2..=256).contains(number));
    number.ok_or(Broken { rule: "a whole number of MiB from 2 to 256, or 0 for none", example: "12" })
}

/// The name of a network interface, as Linux takes it: 1 to 15 bytes without spaces and slashes.
///
/// # Errors
/// [`Broken`] when no interface can have that name.
pub fn interface(text: &str) -> Result<String, Broken> {
    let broken =
        Broken { rule: "the name of a network interface as `ip link` shows it", example: "\"eth0\"" };
    let text = text.trim();
    is_interface(text).then(|| text.to_owned()).ok_or(broken)
}

fn is_interface(text: &str) -> bool {
    let is_fit = |c: char| !c.is_whitespace() && !c.is_control() && !"/%:,".contains(c);
    (1..=15).contains(&text.len()) && text.chars().all(is_fit) && text != "." && text != ".."
}

/// The group that may open the Unix socket: a name of this system's groups.
///
/// # Errors
/// [`Broken`] when no group can have that name.
pub fn unix_group(text: &str) -> Result<String, Broken> {
    let fits = (1..=32).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let broken = Broken { rule: "the name of a group, 1 to 32 of A-Z a-z 0-9 _ . -", example: "\"hearth\"" };
    fits.then(|| text.to_owned()).ok_or(broken)
}

/// A token of `hearth invite`.
///
/// # Errors
/// [`Broken`], which never holds the token.
pub fn join_token(text: &str) -> Result<JoinToken, Broken> {
    let text = text.trim();
    let fits = (1..=MAX_TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let broken = Broken { rule: "a token as `hearth invite` prints it", example: "hearth run --join TOKEN" };
    fits.then(|| JoinToken(text.to_owned())).ok_or(broken)
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn peers_are_names_and_addresses() {
        for (text, shown) in [
            ("attic.local", "attic.local:7843"),
            ("attic:99", "attic:99"),
            ("10.0.0.1", "10.0.0.1:7843"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("fe80::1", "[fe80::1]:7843"),
            ("[fe80::1]", "[fe80::1]:7843"),
            ("[fe80::1]:5", "[fe80::1]:5"),
            ("fe80::1%eth0", "[fe80::1%eth0]:7843"),
            ("[fe80::1%2]", "[fe80::1%2]:7843"),
            ("[fe80::1%wlan0]:5", "[fe80::1%wlan0]:5"),
        ] {
            assert_eq!(peer(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "",
            "a b",
            "10.0.0",
            "10.0.0.256",
            "a:0",
            "a:x",
            "a:70000",
            "-:",
            "http://a",
            "a..b",
            "10.0.0.1:0",
            "fe80::1%",
            "10.0.0.1%eth0",
            "2001:db8::1%eth0",
            "[fe80::1%eth0]:0",
            "[fe80::1%eth0]5",
            "fe80::1%sixteen-bytes-xx",
        ] {
            assert!(peer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_nobody_can_reach_are_not_advertised() {
        assert_eq!(advertise("10.0.0.1").unwrap().1, None);
        assert_eq!(advertise("[::1]:9").unwrap().1, Some(9));
        for bad in ["0.0.0.0", "10.0.0.1:0", "224.0.0.1", "attic", ""] {
            assert!(advertise(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn switches_and_interfaces_follow_their_rules() {
        assert!(truth(" true ").unwrap() && !truth("false").unwrap());
        assert!(truth("yes").is_err() && truth("1").is_err());
        assert_eq!(interface(" eth0.7 ").unwrap(), "eth0.7");
        for bad in ["", ".", "..", "a b", "a/b", "eth0:1", "a,b", "sixteen-bytes-xx"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        assert!(log("info").is_ok() && log("warn,node::api=debug").is_ok() && log("TRACE").is_ok());
        for bad in ["", "verbose", "info,", "node=loud", "debg,node=info"] {
            assert!(log(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_groups_and_tokens_follow_their_rules() {
        assert_eq!(name("  Küche ").unwrap(), "Küche");
        assert!(name("").is_err() && name("a\u{7}").is_err() && name(&"x".repeat(65)).is_err());
        assert!(unix_group("hearth").is_ok() && unix_group("").is_err() && unix_group("a b").is_err());
        let secret = "not a token, sadly";
        let error = join_token(secret).unwrap_err();
        assert!(!error.to_string().contains("sadly"));
        assert_eq!(format!("{:?}", join_token("abc").unwrap()), "JoinToken(hidden)");
    }
}
