//! The head of a request (RFC 9112), read strictly: what two readers could understand differently is refused.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Largest head, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 8 << 10;
/// What ends a head.
const END: &[u8] = b"\r\n\r\n";
/// Longest method.
const MAX_METHOD_BYTES: usize = 16;
/// Longest name of a host (RFC 1035, section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// What of the head of a request is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The method, in capitals.
    pub method: String,
    /// Path and query; begins with a slash, and holds visible ASCII alone.
    pub path: String,
    /// Whether it speaks HTTP/1.0.
    pub is_old: bool,
    /// Whom it is for, if it says so.
    pub host: Option<Host>,
}

impl Head {
    /// Reads a head with the empty line at its end; none when it breaks a rule.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = bytes.strip_suffix(END)?;
        // Line ends are CR LF; neither stands alone anywhere, nor does another control character.
        let mut lines = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
            let (line, after) = rest.split_at_checked(at)?;
            lines.push(line);
            rest = after.get(2..)?;
        }
        lines.push(rest);
        if lines.iter().any(|line| line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')) {
            return None;
        }
        let (first, headers) = lines.split_first()?;
        let (method, target, version) = request_line(first)?;
        let is_old = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ => return None,
        };
        let said = hosts(headers)?;
        let host = match said.as_slice() {
            [] if is_old => None,
            [""] => None,
            [host] => Some(Host::parse(host)?),
            _ => return None,
        };
        let (host, path) = match target.split_at_checked(7) {
            // The absolute form, which goes before the header (RFC 9112, section 3.2.2).
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
                let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (Some(Host::parse(authority)?), path)
            }
            _ => (host, target),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // `OPTIONS *` and `CONNECT host:port` are refused for their methods.
        Some(Self { method: method.to_owned(), path, is_old, host })
    }
}

/// Method, target and version, each parted by one space.
fn request_line(line: &[u8]) -> Option<(&str, &str, &str)> {
    let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii())?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_method = (1..=MAX_METHOD_BYTES).contains(&method.len())
        && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    let is_target = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
    (is_method && is_target && words.next().is_none()).then_some((method, target, version))
}

/// What the headers `Host` say; none when a line is no header. One that goes on in the next line is none.
fn hosts<'a>(headers: &[&'a [u8]]) -> Option<Vec<&'a str>> {
    let mut hosts = Vec::new();
    for line in headers {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
        let is_name = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic());
        if !is_name {
            return None;
        }
        if name.eq_ignore_ascii_case(b"host") {
            hosts.push(std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']));
        }
    }
    Some(hosts)
}

/// A host, and the port that it was asked for at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its name or address.
    pub name: HostName,
    /// The port, if one was named.
    pub port: Option<u16>,
}

/// A name in lower case without a final dot, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostName {
    /// Letters, digits, `-`, `_` and single dots.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// Reads `NAME`, `ADDRESS` or `[ADDRESS]` with or without `:PORT`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
                (HostName::Address(address.into()), port)
            }
            None => {
                let (host, port) =
                    text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                (HostName::parse(host)?, port)
            }
        };
        let port = match port {
            // A colon without a number is the usual port (RFC 3986, section 3.2.3).
            None | Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { name: host, port })
    }
}

impl HostName {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        (name.len() <= MAX_HOST_BYTES && name.split('.').all(label)).then_some(Self::Name(name))
    }
}

impl fmt::Display for HostName {
    /// As it stands in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHead {
    /// The connection ended.
    Gone,
    /// It is longer than [`MAX_HEAD_BYTES`].
    TooLong,
}

/// Reads up to the empty line; what has come behind it is dropped.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, NoHead> {
    let (mut piece, mut head) = ([0; 1_024], Vec::new());
    loop {
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0).ok_or(NoHead::Gone)?;
        // The end may have begun in the piece before.
        let from = head.len().saturating_sub(END.len() - 1);
        head.extend(piece.iter().take(count));
        let new = head.get(from..).unwrap_or_default();
        let end = new.windows(END.len()).position(|four| four == END).map(|at| from + at + END.len());
        match end {
            Some(end) if end <= MAX_HEAD_BYTES => {
                head.truncate(end);
                return Ok(head);
            }
            Some(_) => return Err(NoHead::TooLong),
            None if head.len() >= MAX_HEAD_BYTES => return Err(NoHead::TooLong),
            None => {}
        }
    }
}

/// For the fuzz target, and for the properties of the tests.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use super::{Head, Host};

    /// The head of a request.
    ///
    /// # Panics
    /// When what was read could say something else where it is written again.
    pub fn run(data: &[u8]) {
        let Some(head) = Head::parse(data) else { return };
        assert!(head.path.starts_with('/') && head.path.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(head.method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-'));
        if let Some(host) = head.host {
            let shown = host.name.to_string();
            assert_eq!(Host::parse(&shown).map(|again| again.name), Some(host.name));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn head(text: &str) -> Option<Head> {
        Head::parse(text.as_bytes())
    }

    #[test]
    fn a_request_is_read_in_both_forms() {
        let plain =
            head("GET /a?b=%2F HTTP/1.1\r\nUser-Agent: x\r\nhOSt:  Home.Example.ORG.:80 \r\n\r\n").unwrap();
        assert_eq!((plain.method.as_str(), plain.path.as_str(), plain.is_old), ("GET", "/a?b=%2F", false));
        let name = HostName::Name("home.example.org".into());
        assert_eq!(plain.host, Some(Host { name: name.clone(), port: Some(80) }));
        let absolute =
            head("HEAD HTTP://home.example.org?q HTTP/1.1\r\nHost: other.example\r\n\r\n").unwrap();
        assert_eq!((absolute.path.as_str(), absolute.host.unwrap().name), ("/?q", name));
        let old = head("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(old.is_old && old.host.is_none());
        assert_eq!(head("GET / HTTP/1.1\r\nHost:\r\n\r\n").unwrap().host, None);
        assert!(Head::parse(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: h\xf6rth\r\n\r\n").is_some());
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        for wrong in [
            "",
            "\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET /\u{f6} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [fe80::1%eth0]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [a]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n",
            "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(head(wrong), None, "{wrong:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a.".repeat(200));
        assert_eq!(head(&long), None);
    }

    #[test]
    fn a_host_is_shown_as_it_stands_in_a_url() {
        for (text, shown, port) in [
            ("[::1]:7843", "[::1]", Some(7843)),
            ("[FD00::0:1]", "[fd00::1]", None),
            ("192.168.1.5:80", "192.168.1.5", Some(80)),
            ("Pi.Local:", "pi.local", None),
            ("my_pi", "my_pi", None),
        ] {
            let host = Host::parse(text).unwrap();
            assert_eq!((host.name.to_string().as_str(), host.port), (shown, port));
        }
    }

    #[tokio::test]
    async fn a_head_ends_at_its_empty_line_wherever_it_is_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 1..text.len() {
            let whole = [text.as_slice(), b"a body that nobody reads"].concat();
            let (one, two) = whole.split_at(cut);
            let mut stream = one.chain(two);
            assert_eq!(read_head(&mut stream).await.unwrap(), text, "cut at {cut}");
        }
        assert_eq!(read_head(&mut &text[..20]).await, Err(NoHead::Gone));
        assert_eq!(read_head(&mut &b""[..]).await, Err(NoHead::Gone));
        let long = vec![b'a'; MAX_HEAD_BYTES + 1];
        assert_eq!(read_head(&mut &long[..]).await, Err(NoHead::TooLong));
        let mut just_too_long = vec![b'a'; MAX_HEAD_BYTES - 3];
        just_too_long.extend(END);
        assert_eq!(read_head(&mut &just_too_long[..]).await, Err(NoHead::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_can_go_into_a_header(
            mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            path in "/[ -~\r\n\t\u{e9}]{0,20}",
            host in "[a-zA-Z0-9.:@\\[\\]<\" -]{0,20}",
        ) {
            let texts = [std::mem::take(&mut bytes), format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()];
            texts.iter().for_each(|text| super::fuzzing::run(text));
        }
    }
}
