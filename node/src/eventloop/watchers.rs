//! Observers: each has the set of names that changed since its last call, never the values,
//! so that a slow one gets the latest value of each object and costs no more than the names.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use mesh_proto::{ObjectId, mesh::Mesh};
use tokio::sync::oneshot;

use super::status::object_view;
use crate::service::{Change, Changes, ResumeToken, ServiceError, Watching};

/// Most objects of one answer.
const MAX_CHANGES: usize = 256;
/// Names whose last change is remembered for observers that come back; beyond, the oldest are
/// forgotten and whoever resumes from before them gets a snapshot.
const MAX_REMEMBERED: usize = 100_000;

type Reply = oneshot::Sender<Result<Changes, ServiceError>>;

struct Watcher {
    prefixes: Vec<String>,
    dirty: BTreeSet<ObjectId>,
    /// Most names that may wait: [`MAX_REMEMBERED`] beyond those it began with.
    most: usize,
    /// The last name that was delivered; the next batch begins behind it, so that names which change
    /// all the time do not hide those after them.
    cursor: Option<ObjectId>,
    waiting: Option<Reply>,
    is_new: bool,
}

impl Watcher {
    fn wants(&self, id: &ObjectId) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| id.as_str().starts_with(prefix))
    }
}

impl Watcher {
    fn next_names(&self) -> Vec<ObjectId> {
        let behind = self.cursor.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.dirty.range((behind, Bound::Unbounded));
        rest.chain(&self.dirty).take(self.dirty.len().min(MAX_CHANGES)).cloned().collect()
    }
}

/// All observers of this node.
pub(super) struct Watchers {
    incarnation: u64,
    revision: u64,
    /// The oldest revision from which an observer may resume.
    oldest: u64,
    last: u64,
    watchers: BTreeMap<u64, Watcher>,
    changed_at: BTreeMap<ObjectId, u64>,
    by_revision: BTreeMap<u64, ObjectId>,
}

impl Watchers {
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            revision: 0,
            oldest: 0,
            last: 0,
            watchers: BTreeMap::new(),
            changed_at: BTreeMap::new(),
            by_revision: BTreeMap::new(),
        }
    }

    pub(super) fn watch(
        &mut self,
        prefixes: Vec<String>,
        resume: Option<ResumeToken>,
        mesh: &Mesh,
    ) -> Watching {
        self.last += 1;
        let known = resume.filter(|token| {
            token.incarnation == self.incarnation && (self.oldest..=self.revision).contains(&token.revision)
        });
        let mut watcher = Watcher {
            prefixes,
            dirty: BTreeSet::new(),
            most: MAX_REMEMBERED,
            cursor: None,
            waiting: None,
            is_new: true,
        };
        let names: Vec<ObjectId> = match known {
            Some(token) => self.by_revision.range(token.revision + 1..).map(|(_, id)| id.clone()).collect(),
            // An incomplete object reads as absent: nobody is told that what was never there is gone.
            None => mesh
                .names_from(None)
                .filter(|id| watcher.wants(id) && mesh.object(id).is_some_and(|object| object.complete))
                .cloned()
                .collect(),
        };
        watcher.dirty = names.into_iter().filter(|id| watcher.wants(id)).collect();
        watcher.most += watcher.dirty.len();
        self.watchers.insert(self.last, watcher);
        Watching { watcher: self.last, reset: known.is_none() }
    }

    pub(super) fn unwatch(&mut self, watcher: u64) {
        self.watchers.remove(&watcher);
    }

    /// Notes which objects changed.
    pub(super) fn changed(&mut self, ids: &[ObjectId]) {
        for id in ids {
            self.revision += 1;
            if let Some(before) = self.changed_at.insert(id.clone(), self.revision) {
                self.by_revision.remove(&before);
            }
            self.by_revision.insert(self.revision, id.clone());
            for watcher in self.watchers.values_mut().filter(|watcher| watcher.wants(id)) {
                watcher.dirty.insert(id.clone());
            }
        }
        while self.by_revision.len() > MAX_REMEMBERED
            && let Some((revision, id)) = self.by_revision.pop_first()
        {
            self.changed_at.remove(&id);
            self.oldest = revision;
        }
        self.end_those_far_behind();
    }

    /// An observer that takes nothing while ever new names change must not collect them for ever: it
    /// is told to subscribe again, and gets a snapshot.
    fn end_those_far_behind(&mut self) {
        let far = self.watchers.iter().filter(|(_, watcher)| watcher.dirty.len() > watcher.most);
        for id in far.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(reply) = self.watchers.remove(&id).and_then(|watcher| watcher.waiting) {
                let _ = reply.send(Err(ServiceError::NoSuchWatcher));
            }
        }
    }

    pub(super) fn next(&mut self, id: u64, reply: Reply, mesh: &Mesh) {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            let _ = reply.send(Err(ServiceError::NoSuchWatcher));
            return;
        };
        watcher.waiting = Some(reply);
        self.deliver_to(id, mesh);
    }

    /// Answers every observer that waits and has something to hear.
    pub(super) fn deliver(&mut self, mesh: &Mesh) {
        let ready: Vec<u64> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| watcher.waiting.is_some() && !watcher.dirty.is_empty())
            .map(|(id, _)| *id)
            .collect();
        ready.into_iter().for_each(|id| self.deliver_to(id, mesh));
    }

    fn deliver_to(&mut self, id: u64, mesh: &Mesh) {
        let incarnation = self.incarnation;
        let revision = self.revision;
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        if watcher.dirty.is_empty() && !watcher.is_new {
            return;
        }
        let Some(reply) = watcher.waiting.take() else { return };
        if reply.is_closed() {
            return;
        }
        let names = watcher.next_names();
        let changes = names
            .iter()
            .map(|id| {
                let object = mesh.object(id).filter(|object| object.complete).map(object_view);
                Change { id: id.clone(), object }
            })
            .collect();
        names.iter().for_each(|name| {
            watcher.dirty.remove(name);
        });
        watcher.cursor = names.last().cloned();
        let caught_up = watcher.dirty.is_empty();
        watcher.is_new = !caught_up && watcher.is_new;
        let token = ResumeToken { incarnation, revision };
        // An observer that vanished between asking and now loses nothing: it resumes by token.
        let _ = reply.send(Ok(Changes { changes, token, caught_up }));
    }
}
