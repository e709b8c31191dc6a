//! Samples and what they come to.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};

/// What a change went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Bare relays: the floor.
    Relays,
    /// Two nodes, a field of the overlay: a command.
    Overlay,
    /// The same until its writer has the answer.
    OverlayAnswer,
    /// Two nodes, a field that is flushed before it is acknowledged and pushed.
    Durable,
    /// The same until its writer has the answer.
    DurableAnswer,
    /// Two brokers with a bridge.
    Mosquitto,
    /// No way at all: one write with `fdatasync`.
    Flush,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Relays => "bare TCP-QUIC-TCP relays",
            Self::Overlay => "hearth, overlay (a command)",
            Self::OverlayAnswer => "  its writer is answered",
            Self::Durable => "hearth, durable",
            Self::DurableAnswer => "  its writer is answered",
            Self::Mosquitto => "mosquitto bridge",
            Self::Flush => "write + fdatasync",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Relays => "relays",
            Self::Overlay => "overlay",
            Self::OverlayAnswer => "overlay_answer",
            Self::Durable => "durable",
            Self::DurableAnswer => "durable_answer",
            Self::Mosquitto => "mosquitto",
            Self::Flush => "flush",
        }
    }
}

/// How long each change took.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<Way, Vec<Duration>>);

impl Samples {
    pub(crate) fn add(&mut self, way: Way, took: Duration) {
        self.0.entry(way).or_default().push(took);
    }

    /// The time within which this share of the changes was through, in microseconds.
    fn quantile(&self, way: Way, share: f64) -> Option<f64> {
        let mut sorted = self.0.get(&way)?.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1) as f64;
        let nearest = format!("{:.0}", last * share).parse::<usize>().ok()?;
        Some(sorted.get(nearest)?.as_secs_f64() * 1e6)
    }

    /// Beside the relays; the durable plane also beside the overlay and one flush.
    fn ratios(&self, way: Way, share: f64) -> Option<(f64, Option<f64>)> {
        let mine = self.quantile(way, share)?;
        let floor = self.quantile(Way::Overlay, share)? + self.quantile(Way::Flush, share)?;
        Some((mine / self.quantile(Way::Relays, share)?, (way == Way::Durable).then(|| mine / floor)))
    }

    pub(crate) fn document(&self) -> Value {
        let ways = self.0.iter().map(|(way, took)| {
            let figures = json!({
                "changes": took.len(),
                "p50_us": self.quantile(*way, 0.5),
                "p99_us": self.quantile(*way, 0.99),
                "p50_of_relays": self.ratios(*way, 0.5).map(|(relays, _)| relays),
                "p99_of_relays": self.ratios(*way, 0.99).map(|(relays, _)| relays),
                "p50_of_overlay_and_flush": self.ratios(*way, 0.5).and_then(|(_, flush)| flush),
                "p99_of_overlay_and_flush": self.ratios(*way, 0.99).and_then(|(_, flush)| flush),
            });
            (way.key().to_owned(), figures)
        });
        Value::Object(ways.collect())
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<26} {:>8} {:>9} {:>9} {:>11} {:>11} {:>20}\n",
            "one change at a time",
            "changes",
            "p50 µs",
            "p99 µs",
            "p50/relays",
            "p99/relays",
            "p50/(overlay+flush)"
        );
        for (way, took) in &self.0 {
            let quantile = |share| self.quantile(*way, share).unwrap_or(f64::NAN);
            let ratio = |share| self.ratios(*way, share).unwrap_or((f64::NAN, None));
            let flush = ratio(0.5).1.map(|flush| format!("{flush:.2}")).unwrap_or_default();
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{:<26} {:>8} {:>9.0} {:>9.0} {:>11.2} {:>11.2} {flush:>20}",
                way.name(),
                took.len(),
                quantile(0.5),
                quantile(0.99),
                ratio(0.5).0,
                ratio(0.99).0,
            );
        }
        text
    }
}

/// A file that has its length already, as sled's has: a flush of one that grows writes to the journal
/// of the file system too, and takes some ten times as long.
pub(crate) struct Flushes {
    file: File,
    at: u64,
}

const FILE_BYTES: u64 = 4 << 20;
const WRITE: [u8; 200] = [7; 200];

impl Flushes {
    pub(crate) fn on(folder: &Path) -> Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(folder.join("flushes"))?;
        file.write_all(&vec![1; usize::try_from(FILE_BYTES)?])?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// What a flush of 200 bytes costs on this disk now.
    pub(crate) fn round(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.file.write_all_at(&WRITE, self.at)?;
        self.file.sync_data()?;
        let took = begun.elapsed();
        self.at = (self.at + WRITE.len() as u64) % (FILE_BYTES - WRITE.len() as u64);
        Ok(took)
    }
}
