//! What the trail says of one deed.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Longest text of a record, in bytes: names that others choose must not fill a disk.
const MAX_TEXT: usize = 160;

/// Which ring a record lies in: what comes often never drives out what comes seldom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Sign-ins, tokens, users, the setup code, members: on the disk at once.
    Security,
    /// Everything else that somebody did.
    Deed,
    /// What was refused.
    Refused,
}

/// Something that somebody did or tried. Holds no bodies and no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub(super) class: Class,
    pub(super) who: String,
    pub(super) from: Option<IpAddr>,
    pub(super) via: Option<IpAddr>,
    pub(super) what: String,
    pub(super) object: Option<String>,
    pub(super) command: Option<String>,
    pub(super) outcome: String,
}

impl Entry {
    /// Who did what, and what came of it: a [`crate::auth::Who`] or `nobody`; a method with its
    /// route, or a word such as `sign-in`; a status, or a word such as `confirmed`.
    pub fn new(class: Class, who: impl fmt::Display, what: &str, outcome: impl fmt::Display) -> Self {
        Self {
            class,
            who: clipped(&who.to_string()),
            from: None,
            via: None,
            what: clipped(what),
            object: None,
            command: None,
            outcome: clipped(&outcome.to_string()),
        }
    }

    /// From which address, and through which proxy.
    #[must_use]
    pub fn from(mut self, client: Option<IpAddr>, via: Option<IpAddr>) -> Self {
        (self.from, self.via) = (client, via);
        self
    }

    /// To which object or device.
    #[must_use]
    pub fn object(mut self, object: Option<&str>) -> Self {
        self.object = object.map(clipped);
        self
    }

    /// By which command.
    #[must_use]
    pub fn command(mut self, id: Option<&str>) -> Self {
        self.command = id.map(clipped);
        self
    }

    /// As it is written; `at_ms` is when, in milliseconds since 1970.
    pub(super) fn record(self, at_ms: u64) -> Record {
        let Self { class: _, who, from, via, what, object, command, outcome } = self;
        Record { seq: 0, at: at_ms, who, from, via, what, object, command, outcome, count: 1, since: None }
    }
}

/// One line of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number on this node; a later one is higher.
    pub seq: u64,
    /// When, in milliseconds since 1970; of several the last time.
    pub at: u64,
    /// Who, as [`crate::auth::Who`] reads, or `nobody`.
    pub who: String,
    /// The address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The proxy that it came through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// What was done.
    pub what: String,
    /// To what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The command, of several the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What came of it.
    pub outcome: String,
    /// How often.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// Of several the first time, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// Whoever is behind it: `user:ben` of `scene:evening by user:ben`. Only a scene says so; what an outside issuer
/// calls somebody is taken as it is.
pub(super) fn behind(who: &str) -> &str {
    let by = who.strip_prefix("scene:").and_then(|rest| rest.split_once(" by "));
    by.map_or(who, |(_, who)| behind(who))
}

/// Whether a name, or with a colon at its end a kind, is that of whoever did it, or of a scene that it went through.
pub(super) fn is_by(who: &str, wanted: &str) -> bool {
    let is = |name: &str| name == wanted || (wanted.ends_with(':') && name.starts_with(wanted));
    let through = who.strip_prefix("scene:").and_then(|_| who.split_once(" by "));
    is(who) || through.is_some_and(|(scene, rest)| is(scene) || is_by(rest, wanted))
}

fn once() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_once(count: &u64) -> bool {
    *count == 1
}

/// Without what would break a terminal, and not too long.
fn clipped(text: &str) -> String {
    let mut kept = String::new();
    for letter in text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }) {
        if kept.len() + letter.len_utf8() > MAX_TEXT {
            break;
        }
        kept.push(letter);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_a_scene_is_found_as_whoever_does_it_himself() {
        assert_eq!(behind("user:ben"), "user:ben");
        assert_eq!(behind("scene:evening by user:ben"), "user:ben");
        assert_eq!(behind("scene:evening by scene:late by automation:dusk"), "automation:dusk");
        assert_eq!(
            behind("issuer:sso/x by user:ann"),
            "issuer:sso/x by user:ann",
            "that is how it is called"
        );
        let scene = "scene:evening by user:ben";
        for found in ["user:ben", "user:", "scene:evening", "scene:", scene] {
            assert!(is_by(scene, found), "{found}");
        }
        for other in ["user:be", "user:benny", "scene:even", "user", "ben", "token:"] {
            assert!(!is_by(scene, other), "{other}");
        }
        assert!(is_by("user:ben", "user:ben") && !is_by("user:benny", "user:ben"));
        assert!(!is_by("issuer:sso/x by user:ann", "user:ann"));
        assert!(!is_by("scene:evening by issuer:sso/x by user:ann", "user:ann"));
    }

    #[test]
    fn texts_are_bounded_and_break_no_terminal() {
        let entry = Entry::new(Class::Deed, "a\u{1b}[31m\nb", &"ä".repeat(500), 200);
        assert_eq!(entry.who, "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(entry.what.len(), MAX_TEXT);
    }
}
