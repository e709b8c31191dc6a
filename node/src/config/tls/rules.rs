//! The rule of each setting of `[tls]`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{Challenge, Directory, TsigAlgorithm};
use crate::config::Broken;
use crate::tls::acme::Domain;

/// The most names of one certificate; authorities take no more.
pub const MAX_DOMAINS: usize = 100;
/// The port of DNS.
const DNS_PORT: u16 = 53;
/// The longest time that DNS may take, in seconds.
const MAX_PROPAGATION_S: u64 = 3_600;

/// What a name must be beside a public authority.
pub const PUBLIC: Broken = Broken {
    rule: "a name below a public domain while `tls.directory` is a public authority's: for names of the home alone the \
           local authority makes certificates without any setting",
    example: "\"home.example.org\"",
};
/// What a wildcard demands.
pub const WILDCARD: Broken = Broken {
    rule: "proven by DNS, since it is a wildcard: set `tls.challenge = \"dns-01\"` and `[tls.dns]`, or name each host",
    example: "\"home.example.org\"",
};
/// What DNS-01 demands.
pub const NEEDS_DNS: Broken = Broken {
    rule: "accompanied by `[tls.dns]`, which says who changes the DNS",
    example: "[tls.dns] with provider = \"hook\" and command = \"/usr/local/bin/dns-hook\"",
};
/// How many names there may be.
pub const FEWER: Broken = Broken { rule: "at most 100 names", example: "[\"home.example.org\"]" };
/// What says who changes the DNS.
pub const PROVIDER: Broken = Broken { rule: "rfc2136, hook or duckdns", example: "\"rfc2136\"" };

/// A name for the certificate.
///
/// # Errors
/// [`Broken`] when it is no DNS name.
pub fn domain(text: &str) -> Result<Domain, Broken> {
    text.parse()
}

/// An e-mail address.
///
/// # Errors
/// [`Broken`] when it is none.
pub fn contact(text: &str) -> Result<String, Broken> {
    let broken = Broken { rule: "one e-mail address", example: "\"me@example.org\"" };
    let text = text.trim();
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    let fits = text.len() <= 254
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>()[]\\,;:?\"".contains(&byte))
        && text
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.parse::<Domain>().is_ok());
    fits.then(|| text.to_owned()).ok_or(broken)
}

/// The authority's directory.
///
/// # Errors
/// [`Broken`] when it is neither a known word nor an https URL.
pub fn directory(text: &str) -> Result<Directory, Broken> {
    let broken = Broken {
        rule: "letsencrypt, staging, or the https URL of the directory of an ACME authority",
        example: "\"https://ca.example.org/acme/directory\"",
    };
    match text.trim() {
        "letsencrypt" => return Ok(Directory::LetsEncrypt),
        "staging" => return Ok(Directory::Staging),
        _ => {}
    }
    let url: hyper::Uri = text.trim().parse().map_err(|_| broken)?;
    let host = url.host().unwrap_or_default();
    let fits = url.scheme_str() == Some("https")
        && !host.is_empty()
        // A name and a password would stand in logs.
        && !url.authority().is_some_and(|authority| authority.as_str().contains('@'))
        && text.len() <= 1_024;
    let known =
        [Directory::LetsEncrypt, Directory::Staging].into_iter().find(|known| known.url() == text.trim());
    fits.then(|| known.unwrap_or_else(|| Directory::Other(text.trim().to_owned()))).ok_or(broken)
}

/// The path of a file.
///
/// # Errors
/// [`Broken`] when it is not absolute.
pub fn file(text: &str) -> Result<PathBuf, Broken> {
    let path = PathBuf::from(text);
    let fits = path.is_absolute() && !text.contains('\0');
    fits.then_some(path)
        .ok_or(Broken { rule: "the whole path of a file", example: "\"/etc/hearth/dns.key\"" })
}

/// A profile of the authority.
///
/// # Errors
/// [`Broken`] when none can have that name.
pub fn profile(text: &str) -> Result<String, Broken> {
    let text = text.trim();
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or(Broken {
        rule: "the name of a profile that the authority's directory lists, 1 to 64 characters without spaces",
        example: "\"shortlived\"",
    })
}

/// How names are proven.
///
/// # Errors
/// [`Broken`] when it is none of the three.
pub fn challenge(text: &str) -> Result<Challenge, Broken> {
    let known = [Challenge::Http, Challenge::TlsAlpn, Challenge::Dns];
    let found = known.into_iter().find(|challenge| challenge.as_str() == text.trim());
    found.ok_or(Broken { rule: "http-01, tls-alpn-01 or dns-01", example: "\"http-01\"" })
}

/// Where challenges and redirects are served.
///
/// # Errors
/// [`Broken`] when it is neither `off` nor an address with a port.
pub fn http(text: &str) -> Result<Option<SocketAddr>, Broken> {
    if text.trim() == "off" {
        return Ok(None);
    }
    let address = text.trim().parse().map(Some);
    address.map_err(|_| Broken { rule: "off, or an IP address with a port", example: "\"0.0.0.0:80\"" })
}

/// A name server: host name or IP address, with or without a port (53).
///
/// # Errors
/// [`Broken`] when it is neither.
pub fn server(text: &str) -> Result<(String, u16), Broken> {
    let broken = Broken {
        rule: "the host name or IP address of a name server, with or without a port from 1 to 65535",
        example: "\"192.168.1.2:53\"",
    };
    if let Ok(address) = resolver(text) {
        return Ok((address.ip().to_string(), address.port()));
    }
    let text = text.trim();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| broken)?),
        None => (text, DNS_PORT),
    };
    let host = dns_name(host).map_err(|_| broken)?;
    let is_a_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    (port != 0 && !is_a_number).then_some((host, port)).ok_or(broken)
}

/// A resolver: an IP address, with or without a port (53).
///
/// # Errors
/// [`Broken`] when it is none.
pub fn resolver(text: &str) -> Result<SocketAddr, Broken> {
    let broken =
        Broken { rule: "an IP address, with or without a port from 1 to 65535", example: "\"192.168.1.2\"" };
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, DNS_PORT),
        Err(_) => text.parse().map_err(|_| broken)?,
    };
    let usable = !address.ip().is_unspecified() && address.port() != 0;
    usable.then_some(address).ok_or(broken)
}

/// A name in the DNS: of a zone, or of a key. In lower case, without its final dot.
///
/// # Errors
/// [`Broken`] when it is none.
pub fn dns_name(text: &str) -> Result<String, Broken> {
    let text = text.trim().to_ascii_lowercase();
    let name = text.strip_suffix('.').unwrap_or(&text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let fits = name.len() <= 253 && name.split('.').all(label);
    fits.then(|| name.to_owned()).ok_or(Broken {
        rule: "a name in the DNS: labels of letters, digits, - and _ with dots between them",
        example: "\"example.org\"",
    })
}

/// What a key of updates signs with.
///
/// # Errors
/// [`Broken`] when it is none of the three.
pub fn key_algorithm(text: &str) -> Result<TsigAlgorithm, Broken> {
    let known = [TsigAlgorithm::HmacSha256, TsigAlgorithm::HmacSha384, TsigAlgorithm::HmacSha512];
    let found = known.into_iter().find(|algorithm| algorithm.as_str() == text.trim());
    found.ok_or(Broken { rule: "hmac-sha256, hmac-sha384 or hmac-sha512", example: "\"hmac-sha256\"" })
}

/// How long a change of DNS may take, in seconds.
///
/// # Errors
/// [`Broken`] when it is not from 1 to 3600.
pub fn propagation_s(text: &str) -> Result<Duration, Broken> {
    let number = text.trim().parse().ok().filter(|number| (1..=MAX_PROPAGATION_S).contains(number));
    number
        .map(Duration::from_secs)
        .ok_or(Broken { rule: "a whole number of seconds from 1 to 3600", example: "120" })
}
