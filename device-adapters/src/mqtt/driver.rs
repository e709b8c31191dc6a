//! Both ways over one connection: what comes from the broker, and what goes there. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::{Directive, Reading};

use super::config::Config;
use super::export::{Export, ORIGIN};
use super::import::{Dropped, Import};
use super::output::{Output, Token, Transmit};
use super::wire::discovery::{self, Place};

/// How long after one announcement made room for another all are listened to again: once for all that come by then, and
/// soon enough that a device which only changes hands is not lost meanwhile.
const LISTENS_AFTER: Duration = Duration::from_millis(100);

/// The adapter without its sockets.
#[derive(Debug)]
pub(crate) struct Driver {
    discovery: String,
    imports: bool,
    import: Import,
    export: Export,
    out: Output,
    /// When the announcements of others are listened to again, because one of them has room now.
    listens_at: Option<Instant>,
    /// When something is due, and whether that is still so: it is asked for after every reading that is passed on, and
    /// to find out takes a look at every device.
    due: Option<Instant>,
    is_due_known: bool,
}

impl Driver {
    /// Nothing is known; the broker is not there yet.
    pub(crate) fn new(config: &Config, broker: String) -> Self {
        Self {
            discovery: config.discovery_prefix.clone(),
            imports: config.import,
            import: Import::new(broker),
            export: Export::new(config),
            out: Output::default(),
            listens_at: None,
            due: None,
            is_due_known: false,
        }
    }

    /// The topic at which others see whether Hearth is there: that of the last will.
    pub(crate) fn status_topic(&self) -> &str {
        self.export.status_topic()
    }

    /// The broker is there.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.is_due_known = false;
        self.out.clear();
        if self.imports {
            self.listen();
        }
        self.export.connected(now, &mut self.out);
        self.import.connected(now, &mut self.out);
    }

    /// The broker is gone, and why.
    pub(crate) fn disconnected(&mut self, now: Instant, why: &str) {
        self.is_due_known = false;
        self.export.disconnected();
        self.import.disconnected(now, why, &mut self.out);
        self.listens_at = None;
        self.out.clear();
    }

    /// Takes a message; `retained` is what the broker kept from before.
    pub(crate) fn message(&mut self, now: Instant, topic: &str, payload: &[u8], retained: bool) {
        self.is_due_known = false;
        if let Some(place) = Place::parse(&self.discovery, topic) {
            self.announcement(now, &place, payload);
        } else {
            self.export.message(topic, payload, retained, &mut self.out);
        }
        // A device may tell at any topic, be it one that somebody else uses as well.
        self.import.message(now, topic, payload, retained, &mut self.out);
    }

    /// The broker took a message, or refused it.
    pub(crate) fn published(&mut self, now: Instant, token: Token, result: &Result<(), String>) {
        self.is_due_known = false;
        self.import.published(now, token, result, &mut self.out);
    }

    /// Takes a directive of the node.
    pub(crate) fn directive(&mut self, now: Instant, directive: Directive) {
        self.is_due_known = false;
        directive.log("mqtt");
        match directive {
            Directive::Show(shown) => self.export.show(*shown, &mut self.out),
            Directive::Hide { device } => self.export.hide(&device),
            Directive::Tell(event) => self.export.tell(&event, &mut self.out),
            other => self.import.directive(now, other, &mut self.out),
        }
    }

    /// When [`Driver::handle_timeout`] must be called next, if at all.
    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_due_known {
            let due = [self.import.poll_timeout(now), self.export.poll_timeout(), self.listens_at];
            self.due = due.into_iter().flatten().min();
            self.is_due_known = true;
        }
        self.due
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout(now).is_none_or(|due| due > now) {
            return;
        }
        self.is_due_known = false;
        self.import.handle_timeout(now, &mut self.out);
        self.export.handle_timeout(now);
        if self.listens_at.is_some_and(|at| at <= now) {
            // The broker gives again what it keeps, and with it what was refused.
            self.listens_at = None;
            self.listen();
        }
    }

    /// The next thing to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let next = self.out.poll_transmit();
            if next.is_some() || !self.export.flush_one(&mut self.out) {
                return next;
            }
        }
    }

    /// The next reading to pass on.
    pub(crate) fn poll_reading(&mut self) -> Option<Reading> {
        self.out.readings.pop_front()
    }

    /// How many readings wait.
    pub(crate) fn backlog(&self) -> usize {
        self.out.readings.len()
    }

    /// How many messages wait.
    pub(crate) fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// What was received and not used so far.
    pub(crate) fn dropped(&self) -> Dropped {
        self.import.dropped()
    }

    /// Ends every command that is in flight, because the adapter stops, and says good-bye.
    pub(crate) fn shut_down(&mut self, why: &str) {
        self.import.shut_down(why, &mut self.out);
        // What waits is of no use any more, and the good-bye is.
        self.out.clear();
        self.export.shut_down(&mut self.out);
    }

    fn announcement(&mut self, now: Instant, place: &Place, payload: &[u8]) {
        if self.export.is_own(place, payload) || !self.imports {
            return;
        }
        // Of another Hearth at this broker, which is no device.
        let is_hearth = || {
            let announced = discovery::parse(place, payload).unwrap_or_default();
            announced.iter().any(|one| discovery::is_from(&one.body, ORIGIN))
        };
        let holds_name = payload.windows(ORIGIN.len()).any(|window| window == ORIGIN.as_bytes());
        if holds_name && is_hearth() {
            return;
        }
        if self.import.announced(now, place, payload, &mut self.out) {
            self.listens_at.get_or_insert(now + LISTENS_AFTER);
        }
    }

    fn listen(&mut self) {
        for filter in ["+/+/config", "+/+/+/config"] {
            self.out.listen(format!("{}/{filter}", self.discovery));
        }
    }
}
