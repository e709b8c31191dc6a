//! Which sessions count, and how users and sessions are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::People;
use crate::auth::{
    sessions::{Session, SessionView},
    users::{Account, User, UserView},
};

impl People {
    /// Tells which sessions count.
    pub(super) fn publish(&self) {
        let now_ms = self.clock.now_ms();
        let bases = self.bases();
        let live = self.sessions.iter().filter(|(_, session)| counts(session, &bases, now_ms));
        let live: BTreeSet<String> = live.map(|(id, _)| id.clone()).collect();
        self.live.send_if_modified(|old| {
            let changed = **old != live;
            if changed {
                *old = Arc::new(live);
            }
            changed
        });
    }

    pub(super) fn bases(&self) -> BTreeMap<&str, String> {
        self.users.iter().filter_map(|(name, user)| Some((name.as_str(), user.basis()?))).collect()
    }

    pub(super) fn session_views(&self, user: Option<&str>) -> Vec<SessionView> {
        let (now_ms, bases) = (self.clock.now_ms(), self.bases());
        let live = self.sessions.iter().filter(|(_, session)| counts(session, &bases, now_ms));
        let wanted = live.filter(|(_, session)| user.is_none_or(|user| session.user == user));
        let mut views: Vec<_> = wanted.map(|(id, session)| session.view(id)).collect();
        views.sort_by(|a, b| (b.seen_ms, &a.id).cmp(&(a.seen_ms, &b.id)));
        views
    }

    pub(super) fn user_views(&self) -> Vec<UserView> {
        let (now_ms, bases) = (self.clock.now_ms(), self.bases());
        let mut live: BTreeMap<&str, usize> = BTreeMap::new();
        for session in self.sessions.values().filter(|session| counts(session, &bases, now_ms)) {
            *live.entry(&session.user).or_default() += 1;
        }
        let sessions = |name: &String| live.get(name.as_str()).copied().unwrap_or(0);
        self.users.iter().map(|(name, user)| view(name, user, sessions(name))).collect()
    }
}

fn counts(session: &Session, bases: &BTreeMap<&str, String>, now_ms: u64) -> bool {
    let is_current = bases.get(session.user.as_str()).is_some_and(|basis| *basis == session.basis);
    is_current && !session.is_over(now_ms)
}

pub(super) fn view(name: &str, user: &User, sessions: usize) -> UserView {
    let Account { role, scope, enabled, created_ms, .. } = user.account.clone();
    UserView { name: name.to_owned(), role, scope, enabled, created_ms, sessions }
}
