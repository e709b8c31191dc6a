//! One order, step by step (RFC 8555, section 7.4). What cannot be repeated comes after what it needs is on the disk: the account's
//! key before the account, the order's URL as soon as it is known, what is published before it is, the certificate's key before
//! the authority signs it, and the certificate before it is served. So a node that dies at any step goes on by the order's URL.

mod prove;

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, Error, Identifier, NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    RootCertStore,
    pki_types::{Der, PrivatePkcs8KeyDer},
};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};
use zeroize::Zeroizing;

use super::account::{self, About};
use super::check::{Checked, check};
use super::client::Client;
use super::files::{CertificateFile, Files, OrderFile, PrivateKey};
use super::pace::{Counted, Tries, forbidden, set_of};
use super::refusal::{OrderError, is_about_replacing, refused};
use super::solve::Solver;
use crate::config::TlsConfig;

/// How long the authority may take to look at one proof, and to sign.
const PATIENCE: Duration = Duration::from_secs(180);
/// The first pause between two looks, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// What is ordered, from whom, and with whose help.
pub(super) struct Job<'a, S> {
    pub(super) files: &'a Files,
    pub(super) client: &'a Client,
    pub(super) solver: &'a S,
    pub(super) config: &'a TlsConfig,
    /// The directory, which need not be the configured one: see `is_trial`.
    pub(super) directory: &'a str,
    /// Whether it only proves that an order would pass. Its certificate is thrown away.
    pub(super) is_trial: bool,
    /// The certificate whose place it takes, by the authority's name for it.
    pub(super) replaces: Option<(Vec<u8>, Vec<u8>)>,
    /// What the household has had: an order that replaces nothing counts.
    pub(super) household: Vec<Counted>,
    /// When it began, in seconds since 1970.
    pub(super) now: u64,
    /// The same by the clock that never goes back: an order may take an hour, and its certificate begins when it is signed.
    pub(super) began: Instant,
    /// Who must vouch for it in the end, if that is known.
    pub(super) roots: Option<RootCertStore>,
}

impl<S: Solver> Job<'_, S> {
    /// Goes on with the order that is under way, or makes one, up to a certificate that has passed its check and is on the disk.
    pub(super) async fn run(&self, tries: &mut Tries) -> Result<Checked, OrderError> {
        let about = About::read(self.client, self.directory).await?;
        let ended = self.run_at(&about, tries).await;
        if let Err(error) = &ended
            && !error.keeps_order()
        {
            self.drop_order().await?;
        }
        ended
    }

    async fn run_at(&self, about: &About, tries: &mut Tries) -> Result<Checked, OrderError> {
        about.check_profile(self.config.profile.as_deref())?;
        let (mut order, mut saved) = match self.begin(about).await {
            Err(error) if error.is("accountDoesNotExist") => {
                info!(
                    directory = self.directory,
                    "the authority does not know this node's account: a new one is made"
                );
                account::forget(self.files, self.directory).await?;
                self.drop_order().await?;
                self.begin(about).await?
            }
            begun => begun?,
        };
        let mut ended = self.carry_out(&mut order, &mut saved, tries).await;
        if let Err(error @ OrderError::Over { .. }) = &ended {
            info!(order = saved.url, %error, "the order that was under way leads nowhere and is dropped");
            self.drop_order().await?;
            (order, saved) = self.begin(about).await?;
            ended = self.carry_out(&mut order, &mut saved, tries).await;
        }
        ended
    }

    async fn begin(&self, about: &About) -> Result<(Order, OrderFile), OrderError> {
        let contact = self.config.contact.as_deref();
        let account = account::open(self.files, self.client, self.directory, contact, about).await?;
        match self.resume(&account).await? {
            Some(resumed) => Ok(resumed),
            None => self.make(&account, about).await,
        }
    }

    /// The order that was under way when this node last looked, if it still leads to what is wanted. The authority may be looking for
    /// what was published, so that stands until it has said that it does not.
    async fn resume(&self, account: &Account) -> Result<Option<(Order, OrderFile)>, OrderError> {
        let Some(mut saved) = self.files.order().await? else { return Ok(None) };
        let is_wanted = saved.directory == self.directory
            && saved.domains == self.names()
            && saved.profile == self.config.profile;
        if !is_wanted {
            info!(order = saved.url, "an order for something else was under way and is dropped");
            self.drop_order().await?;
            return Ok(None);
        }
        match account.order(saved.url.clone()).await.map_err(OrderError::from) {
            Ok(mut order) => {
                let status = order.state().status;
                if status != OrderStatus::Pending || !saved.is_looked_for {
                    self.withdraw_all(&mut saved).await?;
                }
                // Whoever signed it did so for a key that this node does not have.
                let is_foreign =
                    matches!(status, OrderStatus::Processing | OrderStatus::Valid) && saved.key.is_none();
                if status == OrderStatus::Invalid {
                    self.why_invalid(&mut order).await?;
                }
                if is_foreign || status == OrderStatus::Invalid {
                    info!(order = saved.url, "an order was under way that leads nowhere and is dropped");
                    self.files.forget_order().await?;
                    return Ok(None);
                }
                debug!(order = saved.url, ?status, "going on with the order that was under way");
                Ok(Some((order, saved)))
            }
            Err(error) if error.keeps_order() || error.is("accountDoesNotExist") => Err(error),
            Err(error) => {
                info!(order = saved.url, %error, "the order that was under way is gone");
                self.drop_order().await?;
                Ok(None)
            }
        }
    }

    async fn make(&self, account: &Account, about: &About) -> Result<(Order, OrderFile), OrderError> {
        let names = self.names();
        let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
        let replaces = self.replaces.as_ref().filter(|_| about.renewal_info.is_some());
        let ask = |replaces: Option<&(Vec<u8>, Vec<u8>)>| {
            let mut new = NewOrder::new(&identifiers);
            if let Some((key, serial)) = replaces {
                new = new.replaces(
                    CertificateIdentifier::new(Der::from_slice(key), Der::from_slice(serial)).into_owned(),
                );
            }
            if let Some(profile) = &self.config.profile {
                new = new.profile(profile);
            }
            new
        };
        let (order, replaces) = match (account.new_order(&ask(replaces)).await, replaces) {
            (Err(error), Some(_)) if is_about_replacing(&error) => {
                debug!(%error, "the authority does not take the order for a replacement");
                self.may_order_anew()?;
                (account.new_order(&ask(None)).await?, false)
            }
            (made, replaces) => (made?, replaces.is_some()),
        };
        let saved = OrderFile {
            directory: self.directory.to_owned(),
            url: order.url().to_owned(),
            domains: names,
            profile: self.config.profile.clone(),
            replaces,
            published: Vec::new(),
            is_looked_for: false,
            key: None,
        };
        self.files.set_order(&saved).await?;
        Ok((order, saved))
    }

    /// Whether the limits grant an order that replaces nothing.
    fn may_order_anew(&self) -> Result<(), OrderError> {
        let names = self.names();
        let set = set_of(names.iter().map(String::as_str));
        match forbidden(self.time(), &self.household, &set, false) {
            Some((until, limit)) => Err(OrderError::Spent { until, limit }),
            None => Ok(()),
        }
    }

    /// Now, in seconds since 1970.
    fn time(&self) -> u64 {
        self.now.saturating_add(self.began.elapsed().as_secs())
    }

    async fn carry_out(
        &self,
        order: &mut Order,
        saved: &mut OrderFile,
        tries: &mut Tries,
    ) -> Result<Checked, OrderError> {
        if order.state().status == OrderStatus::Pending {
            self.prove(order, saved).await?;
            self.wait_for(order, "to note that every name is proven", |status| {
                status != OrderStatus::Pending
            })
            .await?;
        }
        if order.state().status == OrderStatus::Ready {
            self.finalize(order, saved, tries).await?;
        }
        self.wait_for(order, "to sign the certificate", |status| status == OrderStatus::Valid).await?;
        let key =
            saved.key.clone().ok_or_else(|| OrderError::Odd("a certificate that nobody asked for".into()))?;
        let chain = order.certificate().await?.ok_or(OrderError::Slow("to give the certificate"))?;
        let roots = self.roots.as_ref();
        let checked = check(&chain, &key.0, &self.config.domains, self.time(), roots)?;
        if !self.is_trial {
            let certificate = CertificateFile {
                directory: self.directory.to_owned(),
                domains: self.names(),
                profile: self.config.profile.clone(),
                order: saved.url.clone(),
                chain,
                key,
            };
            self.files.set_certificate(&certificate).await?;
        }
        self.files.forget_order().await?;
        Ok(checked)
    }

    /// Has the authority sign. The key is on the disk before, and so is that a certificate was made: it counts in a limit.
    async fn finalize(
        &self,
        order: &mut Order,
        saved: &mut OrderFile,
        tries: &mut Tries,
    ) -> Result<(), OrderError> {
        let odd = |error: rcgen::Error| OrderError::Odd(format!("no key can be made: {error}"));
        let key = match &saved.key {
            Some(key) => {
                let der = PrivatePkcs8KeyDer::from(key.0.as_slice());
                KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(odd)?
            }
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(odd)?;
                saved.key = Some(PrivateKey(Zeroizing::new(key.serialize_der())));
                if !self.is_trial && !saved.replaces {
                    tries.counted.issue(self.time(), &set_of(saved.domains.iter().map(String::as_str)));
                    self.files.set_tries(tries).await?;
                }
                self.files.set_order(saved).await?;
                key
            }
        };
        let mut params = CertificateParams::new(self.names()).map_err(odd)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(odd)?;
        Ok(order.finalize_csr(request.der()).await?)
    }

    async fn wait_for(
        &self,
        order: &mut Order,
        what: &'static str,
        is_done: impl Fn(OrderStatus) -> bool,
    ) -> Result<(), OrderError> {
        let mut pauses = Pauses::new();
        loop {
            if order.state().status == OrderStatus::Invalid {
                self.why_invalid(order).await?;
                return Err(OrderError::Authority {
                    words: "the order has become invalid, and no reason is given".into(),
                    kind: None,
                    status: None,
                });
            }
            if is_done(order.state().status) {
                return Ok(());
            }
            pauses.pause(what).await?;
            order.refresh().await?;
        }
    }

    /// An order that is invalid has failed by one of its names, or says why itself; else it has only grown old.
    async fn why_invalid(&self, order: &mut Order) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if authorization.refresh().await?.status == AuthorizationStatus::Invalid {
                return self.failed(refused(&authorization)).await;
            }
        }
        match order.state().error.clone() {
            Some(problem) => self.failed(Error::Api(problem).into()).await,
            None => Ok(()),
        }
    }

    async fn failed(&self, error: OrderError) -> Result<(), OrderError> {
        self.files.forget_order().await?;
        Err(error)
    }

    /// Drops the order that is under way.
    async fn drop_order(&self) -> Result<(), OrderError> {
        if let Some(mut saved) = self.files.order().await? {
            self.withdraw_all(&mut saved).await?;
            self.files.forget_order().await?;
        }
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.config.domains.iter().map(ToString::to_string).collect()
    }
}

/// Growing pauses between looks, up to [`PATIENCE`].
struct Pauses {
    next: Duration,
    until: Instant,
}

impl Pauses {
    fn new() -> Self {
        Self { next: LOOKS.0, until: Instant::now() + PATIENCE }
    }

    async fn pause(&mut self, what: &'static str) -> Result<(), OrderError> {
        if Instant::now() + self.next > self.until {
            return Err(OrderError::Slow(what));
        }
        sleep(self.next).await;
        self.next = (self.next * 2).min(LOOKS.1);
        Ok(())
    }
}
