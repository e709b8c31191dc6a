//! The account at an authority. Its key is on the disk before the authority hears of it, so that a node that dies in between finds
//! its account again by the key.

use std::collections::BTreeMap;

use instant_acme::{Account, AccountBuilder, Key};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use tracing::info;
use zeroize::Zeroizing;

use super::client::Client;
use super::files::{AccountFile, Files, PrivateKey};
use super::refusal::OrderError;

/// What the directory tells beside where to ask (RFC 8555, section 7.1.1; RFC 9773, section 4.1).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    /// Where it tells when to renew.
    pub(super) renewal_info: Option<String>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    terms_of_service: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, String>,
}

impl About {
    /// Reads the directory.
    pub(super) async fn read(client: &Client, directory: &str) -> Result<Self, OrderError> {
        let (document, _) = client.get(directory).await?;
        Ok(serde_json::from_slice(&document).map_err(instant_acme::Error::from)?)
    }

    /// Refuses a profile that the authority does not have, before anything is ordered.
    pub(super) fn check_profile(&self, profile: Option<&str>) -> Result<(), OrderError> {
        match profile.filter(|profile| !self.meta.profiles.contains_key(*profile)) {
            None => Ok(()),
            Some(profile) => {
                let known: Vec<&str> = self.meta.profiles.keys().map(String::as_str).collect();
                Err(OrderError::Profile { profile: profile.to_owned(), known: known.join(", ") })
            }
        }
    }
}

/// Opens this node's account at a directory, or makes one: whoever names domains agrees to the authority's terms.
pub(super) async fn open(
    files: &Files,
    client: &Client,
    directory: &str,
    contact: Option<&str>,
    about: &About,
) -> Result<Account, OrderError> {
    let mut saved = match files.account(directory).await? {
        Some(saved) => saved,
        None => make(files, directory).await?,
    };
    let account = match saved.id.clone() {
        Some(id) => {
            let key = PrivatePkcs8KeyDer::from(saved.key.0.as_slice());
            builder(client).from_parts(id, key, directory.to_owned()).await?
        }
        None => register(files, client, &mut saved, about).await?,
    };
    if saved.contact.as_deref() != contact {
        let address = contact.map(|contact| format!("mailto:{contact}"));
        account.update_contacts(address.as_deref().as_slice()).await?;
        saved.contact = contact.map(str::to_owned);
        files.set_account(&saved).await?;
    }
    Ok(account)
}

/// The authority does not know the account any more: it is asked for anew, by the same key.
pub(super) async fn forget(files: &Files, directory: &str) -> Result<(), OrderError> {
    if let Some(saved) = files.account(directory).await? {
        files.set_account(&AccountFile { id: None, contact: None, ..saved }).await?;
    }
    Ok(())
}

async fn make(files: &Files, directory: &str) -> Result<AccountFile, OrderError> {
    let (_, key) = Key::generate_pkcs8()?;
    let key = PrivateKey(Zeroizing::new(key.secret_pkcs8_der().to_vec()));
    let saved = AccountFile { directory: directory.to_owned(), key, id: None, contact: None };
    files.set_account(&saved).await?;
    Ok(saved)
}

async fn register(
    files: &Files,
    client: &Client,
    saved: &mut AccountFile,
    about: &About,
) -> Result<Account, OrderError> {
    let key = Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(saved.key.0.as_slice()))?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(saved.key.0.to_vec()));
    let (account, _credentials) =
        builder(client).create_from_key((key, der), saved.directory.clone()).await?;
    saved.id = Some(account.id().to_owned());
    files.set_account(saved).await?;
    let terms = about.meta.terms_of_service.as_deref().unwrap_or("not told");
    info!(
        directory = saved.directory,
        terms, "registered with the authority, agreeing to its terms of service"
    );
    Ok(account)
}

fn builder(client: &Client) -> AccountBuilder {
    Account::builder_with_http(Box::new(client.clone()))
}
