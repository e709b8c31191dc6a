//! How it is with this node's public certificate, for people.

use serde_json::{Value, json};

use crate::api::json::timestamp;

/// The port that a URL with `https` need not name.
const HTTPS: u16 = 443;

/// What is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The names that are configured.
    pub names: Vec<String>,
    /// Who signs: `letsencrypt`, `staging`, or the URL of a directory.
    pub directory: String,
    /// How names are proven.
    pub challenge: &'static str,
    /// Until when the certificate holds that is served, in seconds since 1970; none is served without.
    pub until: Option<u64>,
    /// What the certificate that is served is made out to.
    pub served: Vec<String>,
    /// When it is renewed, in seconds since 1970, and why then.
    pub renewal: Option<Renewal>,
    /// What is being done, or waited for.
    pub doing: String,
    /// When is tried next, in seconds since 1970, while something is wrong or awaited.
    pub next_try: Option<u64>,
    /// What was wrong last, until there is a certificate.
    pub error: Option<Wrong>,
    /// Attempts since the start of this node.
    pub attempts: u64,
    /// Of them those that failed.
    pub failures: u64,
}

impl Report {
    /// Where this node is reached under a certificate that everybody trusts; a wildcard names no place.
    pub fn public(&self, port: u16) -> Vec<String> {
        let port = if port == HTTPS { String::new() } else { format!(":{port}") };
        let names = self.served.iter().filter(|name| !name.starts_with("*."));
        names.map(|name| format!("https://{name}{port}")).collect()
    }

    /// As the API shows it; nothing where no names are configured.
    pub fn json(&self) -> Value {
        if self.names.is_empty() {
            return Value::Null;
        }
        let moment = |at: u64| timestamp(at.saturating_mul(1_000));
        json!({
            "names": self.names,
            "directory": self.directory,
            "challenge": self.challenge,
            "until": self.until.map(moment),
            "renewal": self.renewal.as_ref().map(|renewal| json!({ "at": moment(renewal.at), "why": renewal.why })),
            "doing": self.doing,
            "next_try": self.next_try.map(moment),
            "error": self.error.as_ref().map(|wrong| json!({ "at": moment(wrong.at), "words": wrong.words })),
            "attempts": self.attempts,
            "failures": self.failures,
        })
    }
}

/// When a certificate is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// In seconds since 1970.
    pub at: u64,
    /// Why then.
    pub why: &'static str,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// When, in seconds since 1970.
    pub at: u64,
    /// In the authority's own words, if it was the authority that said so.
    pub words: String,
}

/// What is being done where all is well.
pub const SERVED: &str = "is served";
/// What is being done while an order is under way.
pub const ORDERS: &str = "orders";
/// Why a certificate is renewed at its moment: its authority suggests it.
pub const SUGGESTED: &str = "a moment by chance in the window that the authority suggests";
/// Why a certificate is renewed at its moment: its authority suggests nothing.
pub const BY_LIFE: &str = "two thirds of its life, and a little by chance; the authority suggests nothing";
/// Why a certificate is renewed at once.
pub const OTHER_SETTINGS: &str = "the settings ask for other names, another authority or another profile";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_reached_by_the_names_that_are_served() {
        let report = Report { names: vec!["new.example.org".into()], ..Report::default() };
        assert!(report.public(443).is_empty(), "what is only configured is served to nobody");
        let served = vec!["a.example.org".into(), "*.a.example.org".into(), "b.example.org".into()];
        let report = Report { served, ..report };
        assert_eq!(report.public(443), ["https://a.example.org", "https://b.example.org"]);
        assert_eq!(report.public(7843), ["https://a.example.org:7843", "https://b.example.org:7843"]);
    }

    #[test]
    fn what_is_shown_has_moments_that_people_read() {
        assert_eq!(Report::default().json(), Value::Null);
        let report = Report {
            names: vec!["a.example.org".into()],
            directory: "letsencrypt".into(),
            challenge: "http-01",
            until: Some(1_800_000_000),
            renewal: Some(Renewal { at: 1_790_000_000, why: BY_LIFE }),
            doing: "is served".into(),
            error: Some(Wrong { at: 5, words: "no".into() }),
            ..Report::default()
        };
        let shown = report.json();
        assert_eq!(shown["until"], "2027-01-15T08:00:00.000Z");
        assert_eq!(shown["renewal"]["at"], "2026-09-21T14:13:20.000Z");
        assert_eq!((&shown["next_try"], &shown["error"]["words"]), (&Value::Null, &json!("no")));
    }
}
