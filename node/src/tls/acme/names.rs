//! The names that a public certificate may be made out to.

use std::{fmt, str::FromStr};

use crate::config::Broken;

/// Longest name of a host, in bytes without its final dot (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 253;
/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 63;
/// Names that no public authority vouches for: reserved by RFC 2606, 6761, 6762, 7686, 8375 and 9476, or never delegated.
const PRIVATE: [&str; 13] = [
    "local",
    "localhost",
    "home.arpa",
    "arpa",
    "internal",
    "test",
    "example",
    "invalid",
    "onion",
    "alt",
    "lan",
    "home",
    "corp",
];

/// A public DNS name in lower case, or a wildcard `*.NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    base: String,
    wildcard: bool,
}

impl Domain {
    /// The name without `*.`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether it stands for every name one label below [`Domain::base`].
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether a certificate for it holds for this host (RFC 6125, section 6.4.3).
    pub fn covers(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match self.wildcard {
            false => host == self.base,
            true => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == self.base),
        }
    }

    /// The same with the names that no public authority vouches for: test authorities do.
    fn read(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let name = text.strip_suffix('.').unwrap_or(&text);
        let (wildcard, base) = name.strip_prefix("*.").map_or((false, name), |base| (true, base));
        let label = |label: &str| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last_is_a_number =
            base.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        let fits = base.len() <= MAX_NAME_BYTES
            && base.contains('.')
            && base.split('.').all(label)
            && !last_is_a_number;
        fits.then(|| Self { base: base.to_owned(), wildcard })
    }

    /// Whether it lies below a name that no public authority vouches for.
    pub fn is_private(&self) -> bool {
        PRIVATE.iter().any(|private| {
            self.base.strip_suffix(private).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.base)
    }
}

impl FromStr for Domain {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        Self::read(text).ok_or(Broken {
            rule: "a DNS name of at least two labels, or *.NAME for all names below it; other letters than a to z in \
                   their form that begins with xn--",
            example: "\"home.example.org\"",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_as_dns_has_them() {
        for (text, shown) in [
            ("home.example.org", "home.example.org"),
            (" Home.Example.ORG. ", "home.example.org"),
            ("*.example.org", "*.example.org"),
            ("xn--hrth-loa.example.org", "xn--hrth-loa.example.org"),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap().to_string(), shown);
        }
        let long = format!("{}.org", "a".repeat(64));
        let whole = format!("{}org", "abcdefgh.".repeat(30));
        for wrong in [
            "",
            ".",
            "*",
            "*.",
            "org",
            "*.*.org",
            "a.*.org",
            "-a.org",
            "a-.org",
            "a..org",
            "a_b.org",
            "hörth.org",
            "192.168.1.5",
            "[::1]",
            "a.org:443",
            "https://a.org",
            "a b.org",
            "a.org/x",
            "*a.org",
            "a\0.org",
            &long,
            &whole,
        ] {
            assert!(wrong.parse::<Domain>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let wild: Domain = "*.example.org".parse().unwrap();
        assert!(wild.covers("a.example.org") && wild.covers("A.Example.org."));
        assert!(
            !wild.covers("example.org") && !wild.covers("a.b.example.org") && !wild.covers(".example.org")
        );
        let one: Domain = "a.example.org".parse().unwrap();
        assert!(one.covers("A.example.org") && !one.covers("b.example.org"));
    }

    #[test]
    fn names_of_the_home_are_private() {
        for name in ["pi.local", "a.home.arpa", "a.test", "b.lan", "x.internal"] {
            assert!(name.parse::<Domain>().unwrap().is_private(), "{name}");
        }
        assert!(!"notlocal.org".parse::<Domain>().unwrap().is_private());
        assert!(!"xlocal.xn--p1ai".parse::<Domain>().unwrap().is_private());
    }
}
