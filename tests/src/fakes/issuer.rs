//! An issuer of tokens outside of the home: its discovery document and the keys that it publishes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::web::{Heard, Reply, Site, Web};

const KEYS: &str = "/keys";

#[derive(Debug, Default)]
struct Published {
    url: OnceLock<String>,
    /// What it publishes; none while it is down.
    keys: Mutex<Option<Value>>,
}

impl Site for Published {
    fn answer(&self, heard: &Heard) -> Reply {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let url = self.url.get().cloned().unwrap_or_default();
        match (&*heard.path, keys) {
            (_, None) => Reply::status(503),
            ("/.well-known/openid-configuration", _) => {
                Reply::good(json!({ "issuer": url, "jwks_uri": format!("{url}{KEYS}") }))
            }
            (KEYS, Some(keys)) => Reply::good(keys),
            _ => Reply::status(404),
        }
    }

    fn socket(&self) -> &'static str {
        "/none"
    }

    fn open(&self) -> Option<String> {
        None
    }

    fn said(&self, _: &str) -> (Option<String>, bool) {
        (None, false)
    }

    fn news(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A running issuer. It ends when dropped.
#[derive(Debug)]
pub struct Issuer {
    web: Web,
    site: Arc<Published>,
}

impl Issuer {
    /// Serves on a free port of loopback, and is down until it has keys.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        let site = Arc::new(Published::default());
        let web = Web::start(site.clone()).await?;
        let _ = site.url.set(format!("http://{}", web.address()));
        Ok(Self { web, site })
    }

    /// What it calls itself.
    #[must_use]
    pub fn url(&self) -> String {
        self.site.url.get().cloned().unwrap_or_default()
    }

    /// What it publishes from now on; none: it is down.
    pub fn publish(&self, keys: Option<&Value>) {
        *self.site.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys.cloned();
    }

    /// When each fetch began: with the discovery document.
    #[must_use]
    pub fn fetches(&self) -> Vec<Instant> {
        let log = self.web.log().into_iter();
        log.filter(|(_, asked)| asked.contains("/.well-known/")).map(|(at, _)| at).collect()
    }
}
