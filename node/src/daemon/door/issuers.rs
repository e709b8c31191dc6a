//! Outside issuers: how it is with their keys, for `hearth doctor` and `/metrics`.

use crate::{
    api::{
        metrics::{Kind, Sample},
        ports::{Check, CheckStatus},
    },
    auth::jwt::{Issuer, Known},
    daemon::metrics::samples,
};

/// How it is with the keys of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Those that it published last are here.
    Current,
    /// They cannot be fetched; those from before count.
    Kept,
    /// There are none: no token of it opens anything.
    Missing,
}

impl Standing {
    const ALL: [(Self, &str); 3] =
        [(Self::Current, "current"), (Self::Kept, "kept"), (Self::Missing, "missing")];

    fn of(issuer: &Issuer) -> Self {
        match (&issuer.keys, &issuer.error) {
            (None, _) => Self::Missing,
            (Some(_), Some(_)) => Self::Kept,
            (Some(_), None) => Self::Current,
        }
    }
}

/// What `hearth doctor` says of each of them.
pub(in crate::daemon) fn checks(known: &Known, now_ms: u64) -> Vec<Check> {
    known.iter().map(|(name, issuer)| check(name, issuer, now_ms)).collect()
}

fn check(name: &str, issuer: &Issuer, now_ms: u64) -> Check {
    let ago = |ms: u64| now_ms.saturating_sub(ms) / 60_000;
    let kept = match (&issuer.keys, issuer.fetched_ms) {
        (Some(keys), Some(at)) => format!("{} keys, fetched {} min ago", keys.count(), ago(at)),
        (Some(keys), None) => format!("{} keys", keys.count()),
        (None, _) => "it has no keys here yet".to_owned(),
    };
    let standing = Standing::of(issuer);
    let (status, detail) = match (standing, &issuer.error) {
        (_, None) => (CheckStatus::Ok, kept),
        (_, Some(error)) => {
            let since = ago(error.since_ms);
            let detail = format!(
                "its keys cannot be fetched since {since} min: {}; {kept}, so {}",
                error.why,
                so(standing)
            );
            let is_shut = standing == Standing::Missing;
            (if is_shut { CheckStatus::Fail } else { CheckStatus::Warn }, detail)
        }
    };
    let fix = (status != CheckStatus::Ok).then(|| {
        let (of, url) = match &issuer.spec.jwks {
            Some(jwks) => ("`jwks`", jwks),
            None => ("`url`", &issuer.spec.url),
        };
        format!(
            "see that this node reaches {url}: its network, its DNS, the authority that vouches for the host (`root`). Where {of} \
             is wrong, `hearth issuer add {name}` says it anew. It is tried again by itself, once an hour at least"
        )
    });
    Check { name: format!("issuer {name}"), status, detail, fix }
}

/// What comes of it.
fn so(standing: Standing) -> &'static str {
    match standing {
        Standing::Missing => "none of its tokens opens anything",
        Standing::Kept | Standing::Current => "a token that is signed by a newer one opens nothing",
    }
}

/// How it is with them, in numbers; nothing where no issuer is trusted.
pub(super) fn metrics(known: &Known, failures: u64) -> Vec<Sample> {
    if known.is_empty() && failures == 0 {
        return Vec::new();
    }
    let help = "Outside issuers by their keys: current, kept from before because they cannot be fetched, or missing.";
    let standing = Standing::ALL.map(|(standing, word)| Sample {
        name: "hearth_issuers",
        label: Some(("keys", word)),
        help,
        kind: Kind::Gauge,
        value: known.values().filter(|issuer| Standing::of(issuer) == standing).count() as f64,
    });
    let help = "Attempts to fetch the keys of an outside issuer since the start that failed.";
    let failed = samples(help, [("hearth_issuer_fetch_failures_total", failures)]);
    standing.into_iter().chain(failed).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::auth::jwt::{Keys, Spec, Unfetched};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn issuer(has_keys: bool, failing_min: Option<u64>) -> Issuer {
        let spec = Spec::parse(json!({
            "url": "https://sso.example.org", "audience": "hearth", "algorithms": ["ES256"],
            "roles": {"claim": "groups", "map": {"home": "viewer"}}
        }));
        let why = "connection refused".to_owned();
        Issuer {
            spec: Arc::new(spec.unwrap()),
            keys: has_keys.then(Arc::<Keys>::default),
            fetched_ms: has_keys.then_some(NOW_MS - 120 * 60_000),
            error: failing_min.map(|min| Unfetched { since_ms: NOW_MS - min * 60_000, why }),
        }
    }

    #[test]
    fn an_issuer_whose_keys_cannot_be_fetched_is_told_with_since_when_why_and_the_way_out() {
        assert!(checks(&Known::new(), NOW_MS).is_empty());
        let known = Known::from([
            ("down".to_owned(), issuer(true, Some(12))),
            ("never".to_owned(), issuer(false, Some(3))),
            ("new".to_owned(), issuer(false, None)),
            ("well".to_owned(), issuer(true, None)),
        ]);
        let checks = checks(&known, NOW_MS);
        let told: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.status)).collect();
        use CheckStatus::{Fail, Ok, Warn};
        assert_eq!(
            told,
            [("issuer down", Warn), ("issuer never", Fail), ("issuer new", Ok), ("issuer well", Ok)]
        );
        let down = &checks[0].detail;
        assert!(down.contains("since 12 min: connection refused; 0 keys, fetched 120 min ago"), "{down}");
        assert!(checks[1].detail.contains("none of its tokens"), "{}", checks[1].detail);
        let fix = checks[0].fix.as_deref().unwrap();
        assert!(fix.contains("https://sso.example.org") && fix.contains("hearth issuer add down"), "{fix}");
        assert!(checks[3].fix.is_none());
    }

    #[test]
    fn issuers_are_counted_by_their_keys_where_there_are_any() {
        assert!(metrics(&Known::new(), 0).is_empty());
        let known = Known::from([
            ("down".to_owned(), issuer(true, Some(12))),
            ("never".to_owned(), issuer(false, Some(3))),
            ("well".to_owned(), issuer(true, None)),
            ("fine".to_owned(), issuer(true, None)),
        ]);
        let samples = metrics(&known, 7);
        let told: Vec<_> =
            samples.iter().map(|sample| (sample.label.map(|(_, word)| word), sample.value)).collect();
        assert_eq!(told, [(Some("current"), 2.0), (Some("kept"), 1.0), (Some("missing"), 1.0), (None, 7.0)]);
    }
}
