//! An observer for an owner that serves requests beside it.

use std::{collections::BTreeSet, future::Future, pin::Pin};

use mesh_proto::ObjectId;

use crate::service::{Change, Changes, Service, ServiceError};

type Next = Pin<Box<dyn Future<Output = Result<(u64, Changes), ServiceError>> + Send>>;

/// Follows the objects of some prefixes. An observer that the event loop forgot is begun anew.
pub(super) struct Follower {
    service: Service,
    prefixes: &'static [&'static str],
    watcher: Option<u64>,
    /// Polled until it ends: dropping it could lose its changes.
    next: Option<Next>,
    /// What there is, as far as it was told; none once all was.
    seen: Option<BTreeSet<ObjectId>>,
}

/// What is new; nothing, where the observer is begun anew.
#[derive(Default)]
pub(super) struct News {
    pub(super) changes: Vec<Change>,
    /// All that there is, once, when the last of it has been told: what is not among it has gone unseen.
    pub(super) all: Option<BTreeSet<ObjectId>>,
    /// Whether all that there is has been told by now.
    pub(super) is_whole: bool,
}

impl Follower {
    pub(super) fn new(service: Service, prefixes: &'static [&'static str]) -> Self {
        Self { service, prefixes, watcher: None, next: None, seen: Some(BTreeSet::new()) }
    }

    /// Whether all that there is has been told. Until then whoever asks waits, so that nobody is refused because the node has just
    /// started.
    pub(super) fn has_caught_up(&self) -> bool {
        self.seen.is_none()
    }

    /// Waits for what is new; none when the event loop is gone. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<News> {
        let (service, prefixes, watcher) = (&self.service, self.prefixes, self.watcher);
        let next = self.next.get_or_insert_with(|| Box::pin(observe(service.clone(), prefixes, watcher)));
        let told = next.await;
        self.next = None;
        match told {
            Ok((watcher, Changes { changes, caught_up, .. })) => {
                self.watcher = Some(watcher);
                self.seen
                    .iter_mut()
                    .for_each(|seen| seen.extend(changes.iter().map(|change| change.id.clone())));
                let all = self.seen.take_if(|_| caught_up);
                Some(News { changes, all, is_whole: self.has_caught_up() })
            }
            Err(ServiceError::Stopping) => None,
            Err(error) => {
                tracing::debug!(%error, ?prefixes, "observing anew");
                (self.watcher, self.seen) = (None, Some(BTreeSet::new()));
                Some(News::default())
            }
        }
    }

    /// Ends the observer.
    pub(super) async fn end(self) {
        if let Some(watcher) = self.watcher {
            self.service.unwatch(watcher).await;
        }
    }
}

async fn observe(
    service: Service,
    prefixes: &[&str],
    watcher: Option<u64>,
) -> Result<(u64, Changes), ServiceError> {
    let watcher = match watcher {
        Some(watcher) => watcher,
        None => {
            let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
            service.watch(prefixes, None).await?.watcher
        }
    };
    Ok((watcher, service.next_changes(watcher).await?))
}
