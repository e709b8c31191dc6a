//! What is done to the world, and what people and nodes write.

use mesh_proto::{
    FieldName, Key, ObjectId, Value,
    kinds::Author,
    mesh::{Input, Op},
    roster::{Body, NodeName, Roles, RosterError, Statement},
    session::Transport,
    wire::Message,
};

use super::{
    Failure,
    disk::Disk,
    model::Asked,
    net::End,
    node::SimNode,
    oracle,
    scenario::Action,
    world::{Happening, World},
};

type Outcome = Result<(), Failure>;

const DAY_MS: i64 = 86_400_000;

impl World {
    pub(crate) fn act(&mut self, action: Action) -> Outcome {
        let s = &self.settings;
        let period = match &action {
            Action::Dial => return self.dial(),
            Action::Start(node) => return self.start(*node),
            Action::Heal => return self.heal(),
            Action::ClockFix(node) => return self.fix_clock(*node),
            Action::Write => s.write_every,
            Action::Crash => (s.crash_every / 2, s.crash_every * 3 / 2),
            Action::CleanStop => (s.stop_every / 2, s.stop_every * 3 / 2),
            Action::Partition => (s.partition_every / 2, s.partition_every * 3 / 2),
            Action::OneWay => (s.one_way_every / 2, s.one_way_every * 3 / 2),
            Action::Flap => (s.flap_every / 2, s.flap_every * 3 / 2),
            Action::ClockStep => (s.clock_every / 2, s.clock_every * 3 / 2),
            Action::Backup | Action::Restore | Action::Rewind if s.old_backup || s.old_image => {
                (1_000_000, 1_000_000)
            }
            Action::Restore => (s.restore_every / 2, s.restore_every * 3 / 2),
            Action::Rewind => (s.rewind_every / 2, s.rewind_every * 3 / 2),
            Action::Backup => {
                let every = s.restore_every.max(s.rewind_every);
                (every / 4, every * 3 / 4)
            }
            Action::Admit | Action::Revoke => (s.roster_every / 2, s.roster_every * 3 / 2),
            Action::Hostile => (s.hostile_every / 2, s.hostile_every * 3 / 2),
            Action::Destroy => (1_000_000, 1_000_000),
        };
        if self.healed {
            return Ok(());
        }
        let after = self.rng.between(period);
        self.after(after, Happening::Do(action.clone()));
        match action {
            Action::Write => self.write(),
            Action::Crash => self.crash(),
            Action::CleanStop => self.stop_cleanly(),
            Action::Partition => self.partition(),
            Action::OneWay => self.one_way(),
            Action::Flap => self.flap(),
            Action::ClockStep => self.step_clock(),
            Action::Backup => self.back_up(),
            Action::Restore => self.restore(),
            Action::Rewind => self.rewind(),
            Action::Admit => self.admit(),
            Action::Revoke => self.revoke(),
            Action::Hostile => self.hostile(),
            Action::Destroy => self.destroy(),
            Action::Dial | Action::Start(_) | Action::Heal | Action::ClockFix(_) => Ok(()),
        }
    }

    fn running(&mut self) -> Option<usize> {
        let running: Vec<usize> =
            self.nodes.iter().filter(|n| n.is_running() && !n.stopping).map(|n| n.index).collect();
        self.rng.pick(&running).copied()
    }

    fn start(&mut self, node: usize) -> Outcome {
        if self.nodes[node].stopping && self.nodes[node].is_running() {
            // Its disk may still refuse the last batch.
            self.after(500, Happening::Do(Action::Start(node)));
            return Ok(());
        }
        let sim = &mut self.nodes[node];
        if sim.is_running() || sim.destroyed || !sim.enrolled {
            return Ok(());
        }
        let draw = self.rng.draw();
        let wrong = |reason| Failure::new("a node starts on its own disk", reason);
        sim.start(self.now, draw, self.settings.limits, self.plant).map_err(wrong)?;
        self.trace.say(self.now, || format!("n{node} starts as {:?}", self.nodes[node].disk.run));
        self.pump(node)
    }

    fn dial(&mut self) -> Outcome {
        self.after(500, Happening::Do(Action::Dial));
        for (a, b) in self.edges.clone() {
            let ready = |sim: &SimNode| sim.is_running() && !sim.stopping;
            let blocked = self.net.is_cut(a, b) || self.net.is_cut(b, a) || self.net.are_joined(a, b);
            if blocked
                || !ready(&self.nodes[a])
                || !ready(&self.nodes[b])
                || (!self.settings.push_only && self.rng.percent(20))
            {
                continue;
            }
            let both = self.rng.percent(10);
            let first = if self.rng.percent(50) { (a, b) } else { (b, a) };
            self.connect(first);
            if both {
                self.connect((first.1, first.0));
            }
        }
        Ok(())
    }

    pub(crate) fn connect(&mut self, (dialer, other): (usize, usize)) {
        let epochs = [self.nodes[dialer].epoch, self.nodes[other].epoch];
        // Where UDP is dropped now and then.
        let carrier = if self.rng.percent(30) { Transport::WebSocket } else { Transport::Quic };
        let link = self.net.connect([dialer, other], epochs, carrier);
        for end in 0..2 {
            let after = 1 + self.rng.below(30);
            self.after(after, Happening::LinkUp { link, end });
        }
    }

    fn write(&mut self) -> Outcome {
        if self.settings.quiet_from > 0 && self.now > self.settings.quiet_from {
            return Ok(());
        }
        let Some(node) = self.running() else { return Ok(()) };
        let count = if self.rng.percent(12) { 2 + self.rng.below(6) } else { 1 };
        let ops: Vec<Op> = (0..count).filter_map(|_| self.op(node)).collect();
        self.write_ops(node, ops)
    }

    pub(crate) fn write_ops(&mut self, node: usize, ops: Vec<Op>) -> Outcome {
        let now = self.nodes[node].now(self.now);
        let Some(mesh) = self.nodes[node].mesh.as_mut() else { return Ok(()) };
        match mesh.write(now, Author::Node, ops.clone()) {
            Ok(token) => {
                let stamp = mesh.time().last();
                let epoch = self.nodes[node].epoch;
                self.trace.say(self.now, || format!("n{node} is asked {token:?} {stamp:?} {ops:?}"));
                let asked = Asked { node, epoch, at: self.now, token: token.0, stamp };
                self.model.asked(asked, &ops);
            }
            Err(error) => oracle::refused(node, &error)?,
        }
        self.pump(node)
    }

    fn op(&mut self, node: usize) -> Option<Op> {
        let early = self.settings.push_only && self.now > 3_500;
        let draw = self.rng.below(100);
        let short = self.nodes[node].short().to_string();
        let (object, field) = match draw {
            0..50 => (format!("note/o{}", self.rng.below(6)), *self.rng.pick(&["a", "b", "c"])?),
            50..58 => (format!("device/d{}", self.rng.below(3)), *self.rng.pick(&["adapter", "name"])?),
            58..80 if !early => {
                (format!("device/d{}", self.rng.below(3)), *self.rng.pick(&["desired", "reported"])?)
            }
            80..88 => (format!("node/{short}"), *self.rng.pick(&["name", "version", "status"])?),
            88..94 => (format!("command/c{}", self.rng.below(4)), *self.rng.pick(&["request", "life"])?),
            94..97 => (format!("device/d{}", self.rng.below(3)), "reach.x"),
            _ => (format!("note/p{}", self.rng.below(200)), "text"),
        };
        let object = ObjectId::new(&object).ok()?;
        let key = Key { object: object.clone(), field: FieldName::new(field).ok()? };
        if self.rng.percent(self.settings.deletes) {
            let whole = self.rng.percent(40) && object.kind() != "node";
            return Some(if whole { Op::Delete(object) } else { Op::Unset(key) });
        }
        let large = if self.rng.percent(self.settings.large) { 3_000 } else { 0 };
        let value: Value = self.model.value(large);
        Some(Op::Set(key, value))
    }

    fn crash(&mut self) -> Outcome {
        let Some(node) = self.running() else { return Ok(()) };
        let after = self.rng.between((50, 6_000));
        self.after(after, Happening::Do(Action::Start(node)));
        self.crash_node(node)
    }

    pub(crate) fn crash_node(&mut self, node: usize) -> Outcome {
        self.trace.say(self.now, || format!("n{node} crashes"));
        for records in self.nodes[node].disk.crash(&mut self.rng) {
            self.model.synced(node, &records);
        }
        self.end_life(node)
    }

    /// A node says goodbye and goes, for good unless it is started again.
    pub(crate) fn leave(&mut self, node: usize) -> Outcome {
        let now = self.nodes[node].now(self.now);
        self.nodes[node].stopping = true;
        if let Some(mesh) = self.nodes[node].mesh.as_mut() {
            mesh.leave(now);
        }
        let epoch = self.nodes[node].epoch;
        self.after(200, Happening::Stopped { node, epoch });
        self.pump(node)
    }

    /// Nothing passes between these any more, and their links end.
    pub(crate) fn split(&mut self, pairs: &[(usize, usize)]) -> Outcome {
        for (a, b) in pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
            self.net.cut(a, b);
        }
        let cut = |nodes: &[usize; 2]| {
            pairs.contains(&(nodes[0], nodes[1])) || pairs.contains(&(nodes[1], nodes[0]))
        };
        let ended: Vec<u64> =
            self.net.links.iter().filter(|(_, link)| cut(&link.nodes)).map(|(id, _)| *id).collect();
        ended.into_iter().try_for_each(|id| self.break_link(id))
    }

    fn stop_cleanly(&mut self) -> Outcome {
        let Some(node) = self.running() else { return Ok(()) };
        self.trace.say(self.now, || format!("n{node} stops"));
        let now = self.nodes[node].now(self.now);
        self.nodes[node].stopping = true;
        if let Some(mesh) = self.nodes[node].mesh.as_mut() {
            mesh.flush(now);
        }
        self.pump(node)?;
        if let Some(mesh) = self.nodes[node].mesh.as_mut() {
            mesh.leave(now);
        }
        let epoch = self.nodes[node].epoch;
        self.after(200, Happening::Stopped { node, epoch });
        let again = 2_500 + self.rng.below(3_000);
        self.after(again, Happening::Do(Action::Start(node)));
        self.pump(node)
    }

    fn partition(&mut self) -> Outcome {
        let sides: Vec<bool> = self.nodes.iter().map(|_| self.rng.percent(50)).collect();
        for a in 0..sides.len() {
            for b in (0..sides.len()).filter(|b| sides[a] != sides[*b]) {
                self.net.cut(a, b);
            }
        }
        self.trace.say(self.now, || format!("partition {sides:?}"));
        self.after_a_cut()
    }

    fn one_way(&mut self) -> Outcome {
        let (a, b) = (self.rng.index(self.nodes.len()), self.rng.index(self.nodes.len()));
        if a != b {
            self.trace.say(self.now, || format!("one-way cut n{a} -> n{b}"));
            self.net.cut(a, b);
        }
        self.after_a_cut()
    }

    fn after_a_cut(&mut self) -> Outcome {
        let cut: Vec<u64> = self
            .net
            .links
            .iter()
            .filter(|(_, l)| {
                let [a, b] = l.nodes;
                (self.net.is_cut(a, b) || self.net.is_cut(b, a)) && l.ends.contains(&End::Up)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in cut {
            // Some cuts end before the transport gives up.
            if self.rng.percent(80) {
                for end in 0..2 {
                    let after = self.rng.between((500, 10_000));
                    self.after(after, Happening::LinkDown { link: id, end });
                }
            }
        }
        let long = if self.settings.collect { (20_000, 60_000) } else { (300, 8_000) };
        let after = self.rng.between(long);
        self.after(after, Happening::Do(Action::Heal));
        Ok(())
    }

    pub(crate) fn heal(&mut self) -> Outcome {
        self.trace.say(self.now, || "healed".into());
        for (link, (at, end, what, window)) in self.net.heal(self.now, &mut self.rng) {
            self.after(at - self.now, Happening::Arrive { link, end, what, window });
        }
        Ok(())
    }

    fn flap(&mut self) -> Outcome {
        let up: Vec<u64> =
            self.net.links.iter().filter(|(_, l)| l.ends == [End::Up; 2]).map(|(id, _)| *id).collect();
        match self.rng.pick(&up).copied() {
            Some(id) => self.break_link(id),
            None => Ok(()),
        }
    }

    fn step_clock(&mut self) -> Outcome {
        let Some(node) = self.running() else { return Ok(()) };
        let (offset, synchronised) = match self.rng.below(6) {
            0 => (20_000, true),
            1 => (365 * DAY_MS, false),
            2 => (-20_000, false),
            3 => (-20_000, true),
            4 => (i64::try_from(self.rng.below(9_000)).unwrap_or(0) - 2_000, false),
            _ => (-(i64::try_from(super::node::EPOCH_MS).unwrap_or(0)), false),
        };
        self.trace.say(self.now, || format!("n{node} clock steps by {offset}, synchronised {synchronised}"));
        let boots = self.rng.percent(30) || offset < -DAY_MS;
        if boots {
            self.crash_node(node)?;
        }
        let wall = &mut self.nodes[node].wall;
        (wall.offset_ms, wall.synchronised) = (offset, synchronised);
        let back = 1_000 + self.rng.below(5_000);
        self.after(back, Happening::Do(Action::ClockFix(node)));
        if boots {
            let after = self.rng.below(2_000);
            self.after(after, Happening::Do(Action::Start(node)));
            return Ok(());
        }
        self.input(node, Input::Synchronised(synchronised))
    }

    pub(crate) fn fix_clock(&mut self, node: usize) -> Outcome {
        self.trace.say(self.now, || format!("n{node} clock is right again"));
        let wall = &mut self.nodes[node].wall;
        (wall.offset_ms, wall.synchronised) = (0, true);
        if self.nodes[node].is_running() { self.input(node, Input::Synchronised(true)) } else { Ok(()) }
    }

    fn back_up(&mut self) -> Outcome {
        let Some(node) = self.running() else { return Ok(()) };
        self.nodes[node].backup = Some(self.nodes[node].disk.backup());
        Ok(())
    }

    /// Backups are put in, of one node or of several at a time.
    fn restore(&mut self) -> Outcome {
        let several = if self.rng.percent(40) { self.nodes.len() } else { 1 };
        for _ in 0..several {
            let Some(node) = self.backed_up() else { return Ok(()) };
            self.crash_node(node)?;
            let Some(mut backup) = self.nodes[node].backup.take() else { return Ok(()) };
            let kept = self.rng.percent(50);
            if kept {
                backup.run = self.nodes[node].disk.run;
                backup.roster.clone_from(&self.nodes[node].disk.roster);
            } else if backup.roster != self.nodes[node].disk.roster {
                // What it issued since may be nowhere else.
                self.model.unsure.extend(self.model.revoked.iter().filter(|_| node == 0));
            }
            (backup.restored, backup.since) = (true, None);
            self.trace.say(self.now, || format!("n{node} is restored, run file kept: {kept}"));
            self.put_in(node, backup);
        }
        Ok(())
    }

    /// The card of a node is replaced by an image of it, made while the node ran or was stopped.
    fn rewind(&mut self) -> Outcome {
        let Some(node) = self.backed_up() else { return Ok(()) };
        self.crash_node(node)?;
        let Some(image) = self.nodes[node].backup.take() else { return Ok(()) };
        self.trace.say(self.now, || format!("n{node} is set back"));
        self.put_in(node, image);
        Ok(())
    }

    fn backed_up(&mut self) -> Option<usize> {
        let with: Vec<usize> =
            self.nodes.iter().filter(|n| n.backup.is_some() && n.is_running()).map(|n| n.index).collect();
        self.rng.pick(&with).copied()
    }

    fn put_in(&mut self, node: usize, disk: Disk) {
        self.nodes[node].disk = disk;
        let sim = &self.nodes[node];
        self.model.set_back(node, sim.short(), Some(&sim.disk));
        let after = self.rng.below(3_000);
        self.after(after, Happening::Do(Action::Start(node)));
    }

    fn destroy(&mut self) -> Outcome {
        let node = 2 + self.rng.index(self.nodes.len().saturating_sub(2));
        if self.nodes[node].is_running() {
            self.crash_node(node)?;
        }
        self.trace.say(self.now, || format!("n{node} is destroyed"));
        self.nodes[node].destroyed = true;
        self.model.set_back(node, self.nodes[node].short(), None);
        self.revoke_node(node)
    }

    fn revoke_node(&mut self, node: usize) -> Outcome {
        let id = self.nodes[node].id;
        let Some(mesh) = self.nodes[0].mesh.as_ref() else { return Ok(()) };
        let honour = mesh.roster().last_of(&id);
        if self.issue(Body::Revoke { node: id, honour })? {
            self.model.revoked.insert(id);
            self.trace.say(self.now, || format!("n{node} is revoked"));
        }
        self.pump(0)
    }

    /// The founder signs a statement, saves it and publishes it, as the daemon does; a power cut may come in
    /// between. Returns whether it stands.
    fn issue(&mut self, body: Body) -> Result<bool, Failure> {
        let now = self.nodes[0].now(self.now);
        let founder = &mut self.nodes[0];
        let Some(mesh) = founder.mesh.as_mut() else { return Ok(false) };
        let statement = match mesh.sign(body) {
            Ok(statement) => statement,
            Err(RosterError::Behind) => return Ok(false),
            Err(error) => return Err(Failure::new("an admin may issue", error.to_string())),
        };
        founder.disk.roster = mesh.roster().to_bytes_with(&statement);
        if self.rng.percent(10) {
            self.after(500, Happening::Do(Action::Start(0)));
            self.crash_node(0)?;
            return Ok(true);
        }
        let published = mesh.publish(now, &statement);
        published.map_err(|error| Failure::new("what was signed is taken", error.to_string()))?;
        Ok(true)
    }

    fn revoke(&mut self) -> Outcome {
        // The founder stays, the hostile admin too, and two more.
        let out = self.nodes.iter().filter(|n| self.model.revoked.contains(&n.id)).count();
        let node = 2 + self.rng.index(self.nodes.len().saturating_sub(2));
        let members = self.nodes.iter().filter(|n| n.enrolled).count();
        if members < out + 4
            || !self.nodes[node].enrolled
            || self.model.revoked.contains(&self.nodes[node].id)
        {
            return Ok(());
        }
        self.revoke_node(node)
    }

    fn admit(&mut self) -> Outcome {
        let Some(node) = self.nodes.iter().find(|n| !n.enrolled).map(|n| n.index) else { return Ok(()) };
        let id = self.nodes[node].id;
        let Ok(name) = NodeName::new("late board") else { return Ok(()) };
        if self.issue(Body::Admit { node: id, roles: Roles::MEMBER, name, token: None })? {
            self.nodes[node].disk.roster = self.nodes[0].disk.roster.clone();
            self.nodes[node].enrolled = true;
            self.model.admitted_ever.insert(id);
            self.after(50, Happening::Do(Action::Start(node)));
        }
        self.pump(0)
    }

    /// A member of ill will sends statements that nobody should believe.
    fn hostile(&mut self) -> Outcome {
        let Some(node) = self.nodes.iter().position(|n| n.hostile && n.is_running()) else { return Ok(()) };
        let stranger = SimNode::new(1_000 + self.rng.index(1_000), self.rng.draw());
        let Some(mesh) = self.nodes[node].mesh.as_ref() else { return Ok(()) };
        let (household, id) = (mesh.roster().household(), self.nodes[node].id);
        let next = mesh.roster().next_seq(&id);
        let Ok(name) = NodeName::new("stranger") else { return Ok(()) };
        let body = Body::Admit { node: stranger.id, roles: Roles::MEMBER | Roles::ADMIN, name, token: None };
        // By an admin, but out of its chain; or by the stranger itself.
        let statement = if self.rng.percent(50) {
            Statement::sign(household, &self.nodes[node].key, next + 3, [7; 32], body)
        } else {
            Statement::sign(household, &stranger.key, 0, [0; 32], body)
        };
        let Ok(statement) = statement else { return Ok(()) };
        let message = Message::Roster(vec![statement.bytes().to_vec()]);
        let links: Vec<u64> = self.nodes[node].links.iter().copied().collect();
        for link in links {
            self.inject(link, node, std::slice::from_ref(&message));
        }
        Ok(())
    }
}
