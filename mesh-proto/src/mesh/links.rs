//! Links: introductions, frames in, frames out.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{DIGEST_MS, Event, Mesh, relay::Carrier};
use crate::{
    counters::Counter,
    error::FrameError,
    id::{NodeId, ShortId},
    liveness::Liveness as _,
    outbox::Outbox,
    roster::{MAX_PROOF_BYTES, RosterError},
    session::{self, Link, LinkId, MAX_TIME_MS, Peer, Transport},
    time::{TimeOfDay, UNSYNCHRONISED},
    wire::{
        self, ByeReason, Digest, FRAME_VERSION, Hello, Message, OLDEST_PROTOCOL, PROTOCOL, ROUTED_PACKET,
    },
};

/// Largest total of statements in one message.
const MAX_STATEMENT_BYTES: usize = 48 * 1024;

impl Mesh {
    pub(super) fn link_up(&mut self, id: LinkId, node: NodeId, dialed: bool, transport: Transport) {
        let outbox = Outbox::new(self.plant, self.limits.queue_bytes);
        let mut link = Link::new(node, dialed, transport, self.now.mono_ms, outbox);
        link.outbox.control(Message::Process(self.process));
        link.outbox.control(Message::Hello(self.hello()));
        self.links.insert(id, link);
        if self.keeps_away() {
            self.close(id, ByeReason::Leaving);
        }
    }

    pub(super) fn hello(&self) -> Hello {
        let mut proof = self.roster.proof_for(&self.id);
        let mut bytes = 0;
        proof.retain(|statement| {
            bytes += statement.len();
            bytes <= MAX_PROOF_BYTES
        });
        Hello {
            protocol: PROTOCOL,
            oldest: OLDEST_PROTOCOL,
            household: self.roster.household(),
            node: self.id,
            run: self.run,
            time: self.time.time_of_day(self.now),
            proof,
            software: self.software.clone(),
        }
    }

    pub(super) fn link_down(&mut self, id: LinkId) {
        self.packets.remove(&id);
        self.routing.touch();
        self.closing_links.remove(&id);
        if let Some(link) = self.links.remove(&id) {
            if link.is_live() && self.live_link_to(link.short()).is_none() {
                self.liveness.link_down(self.now.mono_ms, link.short());
                self.time.lose(link.node);
            }
            self.fetching.take_if(|fetching| fetching.link == id);
        }
    }

    /// Says why, and asks the caller to close the link. Nothing more is taken in from it.
    pub(super) fn close(&mut self, id: LinkId, reason: ByeReason) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.outbox.clear();
        link.outbox.control(Message::Bye(reason));
        // Nothing more goes to a peer that may just have been revoked.
        link.drop_answers();
        self.routing.touch();
        if let Some(_peer) = link.peer.take() {
            let (node, short) = (link.node, link.short());
            if self.live_link_to(short).is_none() {
                self.liveness.link_down(self.now.mono_ms, short);
                self.time.lose(node);
            }
        }
        self.fetching.take_if(|fetching| fetching.link == id);
        self.closing_links.insert(id);
        self.events.push_back(Event::Close(id, reason));
    }

    pub(super) fn close_silent_links(&mut self) {
        let now = self.now.mono_ms;
        let silent: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(id, link)| {
                link.peer.is_none() && link.hello_due_ms <= now && !self.closing_links.contains(*id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.offend_link(id, Counter::BeforeHello);
            self.close(id, ByeReason::Misbehaved);
        }
    }

    fn offend_link(&mut self, id: LinkId, counter: Counter) {
        if let Some(node) = self.links.get(&id).map(|link| link.node) {
            self.offend(node, counter);
        }
    }

    pub(super) fn packet(&mut self, id: LinkId, bytes: &[u8]) {
        let now = self.now.mono_ms;
        let Some(link) = self.links.get_mut(&id).filter(|link| link.is_live()) else { return };
        link.heard_ms = now;
        let (node, short) = (link.node, link.short());
        if let Some((&ROUTED_PACKET, frame)) = bytes.split_first() {
            return self.on_routed_packet(id, frame);
        }
        let packet = bytes.split_first().filter(|(version, _)| **version == FRAME_VERSION);
        let taken = packet.map(|(_, packet)| self.liveness.handle_packet(self.now.mono_ms, short, packet));
        if !matches!(taken, Some(Ok(()))) {
            self.offend(node, Counter::BadPacket);
        }
    }

    pub(super) fn frame(&mut self, id: LinkId, bytes: &[u8]) {
        let now = self.now.mono_ms;
        match self.links.get_mut(&id) {
            Some(link) if !self.closing_links.contains(&id) => link.heard_ms = now,
            _ => return,
        }
        self.counters.bump(Counter::FramesIn);
        self.counters.add(Counter::BytesIn, bytes.len());
        let (mut messages, skipped) = match wire::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.bad_frame(id, error),
        };
        self.counters.add(Counter::UnknownMessage, usize::try_from(skipped).unwrap_or(0));
        wire::drop_outdated(&mut messages);
        for message in messages {
            if self.closing_links.contains(&id) {
                return;
            }
            self.message(id, message);
        }
        if self.links.get(&id).is_some_and(|link| link.outbox.is_flooded()) {
            self.offend_link(id, Counter::Flooding);
            self.close(id, ByeReason::Misbehaved);
        }
    }

    fn bad_frame(&mut self, id: LinkId, error: FrameError) {
        let (counter, reason) = match error {
            FrameError::TooLarge { .. } => (Counter::OversizedFrame, ByeReason::Misbehaved),
            FrameError::UnknownVersion(version) if version > FRAME_VERSION => {
                (Counter::UnknownFrameVersion, ByeReason::TooNew)
            }
            FrameError::UnknownVersion(_) => (Counter::UnknownFrameVersion, ByeReason::TooOld),
            FrameError::Malformed => (Counter::MalformedFrame, ByeReason::Misbehaved),
        };
        self.offend_link(id, counter);
        self.close(id, reason);
    }

    fn message(&mut self, id: LinkId, message: Message) {
        let Some(link) = self.links.get(&id) else { return };
        let (introduced, drains) = (link.peer.is_some(), link.drain_due_ms.is_some());
        match &message {
            Message::Unheard if introduced && !drains => self.on_unheard(id),
            Message::Hello(_) => {}
            _ if introduced => self.confirm(id),
            _ => {}
        }
        match message {
            Message::Hello(hello) if !introduced => self.on_hello(id, &hello),
            Message::Bye(reason) => self.on_bye(id, reason),
            Message::Process(process) => self.on_process(id, process),
            // Exchanges go on over the link that is kept.
            message if drains && !holds_news(&message) => {}
            _ if !introduced => {
                self.offend_link(id, Counter::BeforeHello);
                self.close(id, ByeReason::Misbehaved);
            }
            Message::Hello(hello) => self.on_later_hello(id, &hello),
            Message::Roster(statements) => self.on_statements(id, statements),
            Message::Digest(digest) => self.on_digest(id, digest),
            Message::Heads(heads) => self.on_heads(id, &heads),
            Message::Want { session, have } => self.on_want(id, session, have),
            Message::Page { session, index, items } => self.on_page(id, session, index, items),
            Message::PageAck { session, index } => self.on_page_ack(id, session, index),
            Message::Final { session, pages, vector } => self.on_final(id, session, pages, &vector),
            Message::Push(items) => self.on_push(id, items),
            Message::Overlay(items) => self.on_overlay(id, items),
            Message::TreeRoot { vector, root } => self.on_tree_root(id, vector, root),
            Message::TreeLeaves(leaves) => self.on_tree_leaves(id, &leaves),
            Message::TreeItems(items) => self.on_tree_items(id, items),
            Message::Reports(reports) => self.on_reports(id, reports),
            Message::Time(time) => self.on_time(id, time, None),
            Message::Word(time, word) => self.on_time(id, time, Some(word)),
            Message::Restoring(is_restoring) => self.on_restoring(id, is_restoring),
            Message::Neighbours(told) => self.on_neighbours(id, &told),
            Message::Routed(routed) => self.on_routed(id, routed, Carrier::Frame),
            // Heeded above: before the link that brings it can lose.
            Message::Unheard => {}
        }
    }

    fn on_bye(&mut self, id: LinkId, reason: ByeReason) {
        let Some((node, run)) =
            self.links.get(&id).map(|link| (link.node, link.peer.as_ref().map(|p| p.run)))
        else {
            return;
        };
        if !matches!(reason, ByeReason::Leaving | ByeReason::Replaced) {
            self.events.push_back(Event::Refused(node, reason));
        }
        if reason == ByeReason::Replaced {
            self.hand_over(id);
        }
        self.close(id, reason);
        // The goodbye of liveness comes in packets, which may be lost, or overtaken by the end of the link.
        if let Some(run) = run.filter(|_| reason == ByeReason::Leaving) {
            self.liveness.left(self.now.mono_ms, node.short(), run.incarnation);
        }
        if reason == ByeReason::Copied {
            self.give_way();
        }
    }

    fn on_hello(&mut self, id: LinkId, hello: &Hello) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let node = link.node;
        let checked = session::check_hello(hello, node, &mut self.roster);
        // Even a peer that is refused may have brought valid statements.
        self.roster_taken_in(id);
        if let Err(refusal) = checked {
            self.offend(node, refusal.counter);
            return self.shut_out(id, refusal.reason);
        }
        if self.gives_way(id) {
            return;
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.peer = Some(Peer {
                run: hello.run,
                software: hello.software.chars().filter(|c| !c.is_control()).take(32).collect(),
                time: hello.time,
                time_at_ms: self.now.mono_ms,
            });
        }
        self.on_time(id, hello.time, Some(0));
        if self.outlives_rivals(id) {
            self.tell_unheard(hello.node);
            self.greet(id, hello);
        }
    }

    /// A peer introduces itself again when a new run has begun.
    fn on_later_hello(&mut self, id: LinkId, hello: &Hello) {
        if self.links.get(&id).is_none_or(|link| link.node != hello.node) {
            return;
        }
        // Whatever link it is said on: the run is the peer's, and none of its links is an old one.
        for peer in self.links.values_mut().filter(|l| l.node == hello.node).filter_map(|l| l.peer.as_mut()) {
            peer.run = peer.run.max(hello.run);
        }
        self.on_time(id, hello.time, None);
    }

    /// Notes a peer's time, and its word unless that is as it was.
    fn on_time(&mut self, id: LinkId, time: TimeOfDay, word: Option<u32>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let node = link.node;
        if time.ms > MAX_TIME_MS {
            return self.offend(node, Counter::BadValue);
        }
        let is_plausible = self.time.is_plausible(time.ms);
        if let Some(peer) = &mut link.peer {
            let word = word.unwrap_or(peer.time.word);
            let (stratum, word) = if is_plausible { (time.stratum, word) } else { (UNSYNCHRONISED, 0) };
            (peer.time, peer.time_at_ms) = (TimeOfDay { stratum, word, ..time }, self.now.mono_ms);
        }
    }

    /// Says something over every link, also where only the own introduction is under way, which tells of before.
    pub(super) fn tell_open_links(&mut self, message: &Message) {
        for (_, link) in self.links.iter_mut().filter(|(id, _)| !self.closing_links.contains(*id)) {
            link.outbox.control(message.clone());
        }
    }

    /// Follows the wall clock or the peers, and tells every peer when this node's time changed: peers whose clocks part
    /// hold each other's writes back.
    pub(super) fn keep_time(&mut self) {
        self.time.watch_wall(self.now);
        for link in self.links.values() {
            if let Some(peer) = &link.peer {
                let time = TimeOfDay { ms: peer.time_ms(self.now), ..peer.time };
                if self.time.compare(self.now, link.node, time) {
                    self.counters.bump(Counter::ClockAdopted);
                }
            }
        }
        if self.time.is_untold(self.now) {
            let time = self.time.tell(self.now);
            self.tell_open_links(&Message::Time(time));
            if time.word > 0 {
                self.tell_open_links(&Message::Word(time, time.word));
            }
            self.schedule_release();
        }
    }

    /// Everything that a newly introduced peer is told.
    fn greet(&mut self, id: LinkId, hello: &Hello) {
        let short = hello.node.short();
        let changed = self.overlay.begin(short, hello.run);
        self.mark_changed(changed);
        self.liveness.link_up(self.now.mono_ms, short, hello.run.incarnation);
        self.routing.touch();
        let reports = self.collector.reporters();
        let digest = self.digest();
        let (restoring, asking) = (self.is_restoring(), self.is_asking());
        let (due, time) = (self.now.mono_ms + DIGEST_MS, self.time.time_of_day(self.now));
        if let Some(link) = self.links.get_mut(&id) {
            link.digest_due_ms = due;
            if restoring {
                link.outbox.control(Message::Restoring(true));
            }
            if time.word > 0 {
                link.outbox.control(Message::Word(time, time.word));
            }
            link.outbox.control(Message::Digest(digest));
            link.reports = reports;
            link.tell_overlay(Some(short));
            link.has_missing = asking;
        }
        self.events.push_back(Event::Linked(id, hello.node));
    }

    pub(super) fn digest(&mut self) -> Digest {
        let mut roster = [0; 8];
        roster.copy_from_slice(self.roster.hash().first_chunk::<8>().unwrap_or(&[0; 8]));
        Digest { vector: self.advertised().hash(), overlay: self.overlay.hash(), roster }
    }

    fn on_statements(&mut self, id: LinkId, statements: Vec<Vec<u8>>) {
        let Some(node) = self.links.get(&id).map(|link| link.node) else { return };
        for statement in statements {
            match self.roster.insert(&statement) {
                Ok(_) => {}
                Err(RosterError::NotAuthorised { .. }) => self.offend(node, Counter::SelfMadeStatement),
                Err(RosterError::Forked { .. }) => self.offend(node, Counter::ForkedStatement),
                Err(_) => self.offend(node, Counter::BadStatement),
            }
        }
        self.roster_taken_in(id);
    }

    /// Passes on what the roster took in over this link, be it news, evidence or what had waited
    /// for it, and draws the consequences.
    fn roster_taken_in(&mut self, from: LinkId) {
        self.spread_statements(Some(from));
        self.roster_changed();
    }

    /// Tells the peers of the statements that were taken in since the last call.
    pub(super) fn spread_statements(&mut self, except: Option<LinkId>) {
        let news = self.roster.statements().skip(self.statements).map(<[u8]>::to_vec).collect();
        for message in roster_messages(news) {
            self.tell_all_but(except, &message);
        }
    }

    /// The whole roster, for a peer whose hash differs.
    pub(super) fn send_roster(&mut self, id: LinkId) {
        if !self.links.get_mut(&id).is_some_and(|link| link.outbox.begin_roster()) {
            return;
        }
        let statements: Vec<Vec<u8>> = self.roster.statements().map(<[u8]>::to_vec).collect();
        if let Some(link) = self.links.get_mut(&id) {
            roster_messages(statements).into_iter().for_each(|message| link.outbox.control(message));
        }
    }

    /// Draws the consequences of a roster that has grown: who is admitted, whose links end.
    pub(super) fn roster_changed(&mut self) {
        if self.roster.len() == self.statements {
            return;
        }
        self.statements = self.roster.len();
        let mut admitted: BTreeSet<ShortId> = self.roster.members().map(|member| member.id.short()).collect();
        let gone: Vec<ShortId> = self.admitted.difference(&admitted).copied().collect();
        core::mem::swap(&mut self.admitted, &mut admitted);
        self.liveness.set_admitted(self.now.mono_ms, &self.admitted);
        self.routing.touch();
        for node in gone {
            self.liveness.forget(self.now.mono_ms, node);
            let ended = self.overlay.forget(node);
            self.mark_changed(ended);
        }
        self.collector.retain(&self.admitted);
        self.copies.retain(|node| self.roster.is_admitted(node));
        let cut: Vec<(LinkId, NodeId)> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_live() && !self.roster.is_admitted(&link.node))
            .map(|(id, link)| (*id, link.node))
            .collect();
        for (id, node) in cut {
            let revoked = self.roster.is_revoked(&node);
            self.shut_out(id, if revoked { ByeReason::Revoked } else { ByeReason::NotAdmitted });
        }
        self.events.push_back(Event::RosterChanged);
    }
}

/// Whether a message is of use even on a link that another one replaces.
fn holds_news(message: &Message) -> bool {
    matches!(
        message,
        Message::Hello(_)
            | Message::Roster(_)
            | Message::Push(_)
            | Message::Overlay(_)
            | Message::Reports(_)
            | Message::Time(_)
            | Message::Word(..)
            | Message::Neighbours(_)
            | Message::Routed(_)
    )
}

/// Statements in messages of bounded size, in their order.
pub(super) fn roster_messages(statements: Vec<Vec<u8>>) -> Vec<Message> {
    let (mut messages, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for statement in statements {
        if bytes + statement.len() > MAX_STATEMENT_BYTES {
            messages.push(Message::Roster(core::mem::take(&mut part)));
            bytes = 0;
        }
        bytes += statement.len();
        part.push(statement);
    }
    if !part.is_empty() {
        messages.push(Message::Roster(part));
    }
    messages
}
