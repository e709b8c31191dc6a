//! What happened, as a hash, and as text when somebody wants to read it.

use std::collections::VecDeque;

use mesh_proto::mesh::{Event, Transmit};
use mesh_proto::wire;

/// How much text is kept.
const KEPT: usize = 1_500_000;

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub(crate) fn new(readable: bool) -> Self {
        Self { hasher: blake3::Hasher::new(), lines: readable.then(VecDeque::new) }
    }

    /// The hash over all events and all that was sent.
    pub(crate) fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    pub(crate) fn transmit(&mut self, now: u64, node: usize, link: u64, what: &Transmit) {
        let (Transmit::Frame(bytes) | Transmit::Packet(bytes)) = what;
        self.head(now, node, link);
        self.hasher.update(bytes);
        if self.lines.is_some()
            && let Transmit::Frame(bytes) = what
            && let Ok((messages, _)) = wire::decode(bytes)
        {
            for message in messages {
                self.say(now, || format!("n{node} -> l{link} {message:?}"));
            }
        }
    }

    pub(crate) fn event(&mut self, now: u64, node: usize, event: &Event) {
        self.head(now, node, u64::MAX);
        if let Event::Persist { batch, records } = event {
            self.hasher.update(&batch.to_be_bytes());
            for (key, value) in &records.puts {
                self.hasher.update(key).update(value);
            }
            for key in &records.deletes {
                self.hasher.update(key);
            }
            if self.lines.is_some() {
                for (key, value) in &records.puts {
                    let record = mesh_proto::record::Record::decode(key, value);
                    self.say(now, || format!("n{node} persists {batch} {record:?}"));
                }
                for key in &records.deletes {
                    self.say(now, || format!("n{node} persists {batch} -{:?}", String::from_utf8_lossy(key)));
                }
            }
            return;
        }
        let text = format!("{event:?}");
        self.hasher.update(text.as_bytes());
        self.say(now, || format!("n{node} {text}"));
    }

    fn head(&mut self, now: u64, node: usize, link: u64) {
        self.hasher.update(&now.to_be_bytes());
        self.hasher.update(&(node as u64).to_be_bytes());
        self.hasher.update(&link.to_be_bytes());
    }

    /// Notes a line for readers.
    pub(crate) fn say(&mut self, now: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push_back(format!("{now:>7} {}", line()));
            if lines.len() > KEPT {
                lines.pop_front();
            }
        }
    }

    /// The last lines that mention `what`.
    pub(crate) fn last(&self, what: Option<&str>, count: usize) -> Vec<String> {
        let Some(lines) = &self.lines else { return Vec::new() };
        let wanted = |line: &&String| what.is_none_or(|what| line.contains(what));
        let mut found: Vec<String> = lines.iter().rev().filter(wanted).take(count).cloned().collect();
        found.reverse();
        found
    }
}
