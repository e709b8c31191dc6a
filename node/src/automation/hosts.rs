//! The hosts that automations may call over HTTP: none but those that the owner of the home allowed.
//!
//! Each has a field of its own in `home/main`, so that two people who allow and take back at the same time lose nothing.

use std::{collections::BTreeSet, fmt, str::FromStr};

use device_adapters::Target;
use mesh_proto::{FieldName, ObjectId, Value};

use crate::{
    api::ports::PortError,
    service::{ObjectView, Op},
};

/// The prefix of their fields.
const PREFIX: &str = "http.";
/// Most hosts.
const MAX_HOSTS: usize = 64;
/// Longest one, in bytes: a name of DNS and a port.
const MAX_BYTES: usize = 260;

/// A host that may be called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowedHost {
    /// In lower case; an IPv6 address in brackets.
    host: String,
    /// The only port; none for the usual one of the scheme.
    port: Option<u16>,
}

impl AllowedHost {
    /// Whether an address calls it.
    pub(super) fn takes(&self, target: &Target) -> bool {
        self.host == target.host() && self.port.unwrap_or(target.usual_port()) == target.port()
    }

    /// Its field; the name of a host may have what that of a field may not.
    fn field(&self) -> Option<FieldName> {
        let hash = blake3::hash(self.to_string().as_bytes()).to_hex();
        FieldName::new(&format!("{PREFIX}{}", hash.get(..16)?)).ok()
    }
}

impl FromStr for AllowedHost {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let text = text.trim();
        let wrong = || {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
            PortError::Invalid {
                detail: format!("`{shown}` is no host"),
                fix: "write HOST or HOST:PORT, such as example.org, 192.168.1.7:8080 or [fd00::7]; an international \
                      name as its xn-- form"
                    .to_owned(),
            }
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if text.len() > MAX_BYTES || !text.bytes().all(allowed) {
            return Err(wrong());
        }
        let target = Target::of(&format!("http://{text}")).map_err(|_| wrong())?;
        let behind = text.rsplit_once(']').map_or(text, |(_, behind)| behind);
        let port = behind.contains(':').then_some(target.port());
        Ok(Self { host: target.host().to_owned(), port })
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The hosts that the object of the home names.
pub(super) fn read(home: &ObjectView) -> BTreeSet<AllowedHost> {
    let fields = home.fields.iter().filter(|(name, _)| name.as_str().starts_with(PREFIX));
    fields.filter_map(|(_, field)| field.value.as_text()?.parse().ok()).collect()
}

/// The writes that allow some and take others back.
///
/// # Errors
/// [`PortError::Invalid`] for what is no host, was not allowed, or is one too many.
pub(super) fn change(
    home: &ObjectId,
    known: &BTreeSet<AllowedHost>,
    allow: &[String],
    deny: &[String],
) -> Result<Vec<Op>, PortError> {
    let (mut after, mut ops) = (known.clone(), Vec::new());
    for text in deny {
        let host: AllowedHost = text.parse()?;
        if !after.remove(&host) {
            return Err(PortError::Invalid {
                detail: format!("`{host}` is not among the hosts that may be called"),
                fix: "`hearth home` shows them; write it as it stands there".to_owned(),
            });
        }
        ops.extend(host.field().map(|field| Op::Unset(home.clone(), field)));
    }
    for text in allow {
        let host: AllowedHost = text.parse()?;
        let value = Value::Text(host.to_string().as_str().into());
        ops.extend(host.field().map(|field| Op::Set(home.clone(), field, value)));
        after.insert(host);
    }
    if after.len() > MAX_HOSTS {
        let (detail, fix) =
            (format!("{} hosts: {MAX_HOSTS} are the most", after.len()), "--deny-http HOST takes one back");
        return Err(PortError::Invalid { detail, fix: fix.to_owned() });
    }
    Ok(ops)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn takes(host: &str, url: &str) -> bool {
        host.parse::<AllowedHost>().unwrap().takes(&Target::of(url).unwrap())
    }

    #[test]
    fn a_host_is_allowed_with_its_port_or_the_usual_one() {
        for (host, url) in [
            ("example.org", "http://example.org/x"),
            ("example.org", "https://example.org/x"),
            ("Example.org", "https://EXAMPLE.org:443/x"),
            ("example.org:443", "https://example.org/x"),
            ("example.org:80", "http://example.org/x"),
            ("example.org:8080", "http://example.org:8080/x"),
            ("[::1]:81", "http://[0:0:0:0:0:0:0:1]:81/"),
        ] {
            assert!(takes(host, url), "{host} {url}");
        }
        for (host, url) in [
            ("example.org", "http://example.org:8080/"),
            ("example.org", "http://example.org:443/"),
            ("example.org:443", "http://example.org/"),
            ("example.org:8080", "http://example.org/"),
            ("example.org", "http://www.example.org/"),
            ("example.org", "http://example.org.evil.net/"),
            ("example.org", "http://evil.net/example.org"),
            ("example.org", "http://evil.net?example.org"),
            ("[::1]", "http://[::2]/"),
        ] {
            assert!(!takes(host, url), "{host} {url}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_in_words() {
        for wrong in
            ["", "http://a", "a/b", "me@a", "a b", "a:99999", "a:", "::1", "[::1", "bücher.de", "a?b", "a#b"]
        {
            let refused = wrong.parse::<AllowedHost>().unwrap_err();
            assert!(
                matches!(&refused, PortError::Invalid { fix, .. } if fix.contains("example.org")),
                "{wrong}"
            );
        }
        assert!("x".repeat(300).parse::<AllowedHost>().is_err());
    }

    #[test]
    fn hosts_are_allowed_and_taken_back() {
        let home = ObjectId::new("home/main").unwrap();
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let known: BTreeSet<AllowedHost> = BTreeSet::from(["a".parse().unwrap(), "b:81".parse().unwrap()]);
        let ops = change(&home, &known, &texts(&["C:8080"]), &texts(&["B:81"])).unwrap();
        let [Op::Unset(_, gone), Op::Set(_, new, value)] = &ops[..] else { panic!("{ops:?}") };
        assert_eq!(value.as_text(), Some("c:8080"));
        assert!(gone != new && new.as_str().starts_with("http."));
        let refused = change(&home, &known, &[], &texts(&["b"])).unwrap_err();
        assert!(refused.to_string().contains("`b` is not among"), "{refused}");
        let many: Vec<String> = (0..MAX_HOSTS).map(|number| format!("h{number}")).collect();
        assert!(change(&home, &known, &many, &[]).unwrap_err().to_string().contains("64 are the most"));
        assert!(change(&home, &known, &many, &texts(&["a", "b:81"])).is_ok());
    }
}
