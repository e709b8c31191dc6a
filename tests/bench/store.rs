//! `bench-store`: durable writes a second of the sled store beside append and `fdatasync`.
//!
//! Writers emulate group commit: with N writers up to N writes of 200 bytes share one commit. The
//! disk's flush costs a different time each day, so only the ratio within one run says anything.
//! Also: how fast 100,000 records load in batches of various sizes.
//!
//! Usage: `bench-store [--load] [FOLDER]` (default: a temporary folder on the disk of `/var/tmp`)

use node::store::sled::{SledOptions, SledStore};
use node::store::{Batch, MAX_BATCH_BYTES, Store};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const VALUE_BYTES: usize = 200;
const SECONDS: Duration = Duration::from_secs(2);
/// Different keys written over and over, as the fields of a home are.
const KEYS: u64 = 10_000;

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let load_only = arguments.iter().any(|argument| argument == "--load");
    arguments.retain(|argument| argument != "--load");
    let base = arguments.first().map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let folder = base.join(format!("hearth-bench-store-{}", std::process::id()));
    let mut out = std::io::stdout().lock();
    if !load_only {
        writeln!(out, "durable writes a second, {VALUE_BYTES} B   append+fdatasync        store     ratio")?;
        for writers in [1_u64, 16, 256] {
            fs::create_dir_all(&folder)?;
            let append = append_rate(&folder, writers)?;
            let store = store_rate(&folder, writers)?;
            writeln!(out, "{writers:>4} writers {append:>38.0} {store:>12.0} {:>9.2}", store / append)?;
            fs::remove_dir_all(&folder)?;
        }
    }
    writeln!(out, "100,000 records of {VALUE_BYTES} B into an empty store, by records in a batch")?;
    for batch in [100, 300, 1_000, 3_000, 10_000, MAX_BATCH_BYTES / (VALUE_BYTES + 20)] {
        fs::create_dir_all(&folder)?;
        let (wrote, opened, loaded) = bulk(&folder, batch)?;
        let bytes = fs::metadata(folder.join("store/db"))?.len();
        writeln!(
            out,
            "{batch:>6}: written {wrote:.2?}, opened and checked {opened:.2?}, loaded {loaded:.2?}, {bytes} B on disk"
        )?;
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn value(n: u64) -> Vec<u8> {
    blake3::hash(&n.to_le_bytes()).as_bytes().iter().copied().cycle().take(VALUE_BYTES).collect()
}

fn key(n: u64) -> Vec<u8> {
    format!("light/lamp-{n:06}/on").into_bytes()
}

fn append_rate(folder: &Path, writers: u64) -> anyhow::Result<f64> {
    let mut file = OpenOptions::new().append(true).create(true).open(folder.join("append"))?;
    let (started, mut writes) = (Instant::now(), 0);
    while started.elapsed() < SECONDS {
        let records: Vec<u8> =
            (writes..writes + writers).flat_map(|n| [key(n % KEYS), value(n)].concat()).collect();
        file.write_all(&records)?;
        file.sync_data()?;
        writes += writers;
    }
    Ok(writes as f64 / started.elapsed().as_secs_f64())
}

fn store_rate(folder: &Path, writers: u64) -> anyhow::Result<f64> {
    let (mut store, _) = SledStore::open(folder, SledOptions::default())?;
    let (started, mut writes) = (Instant::now(), 0);
    while started.elapsed() < SECONDS {
        let puts = (writes..writes + writers).map(|n| (key(n % KEYS), value(n))).collect();
        store.commit(&Batch { puts, deletes: Vec::new() })?;
        writes += writers;
    }
    Ok(writes as f64 / started.elapsed().as_secs_f64())
}

fn bulk(folder: &Path, batch: usize) -> anyhow::Result<(Duration, Duration, Duration)> {
    let (mut store, _) = SledStore::open(folder, SledOptions::default())?;
    let started = Instant::now();
    for first in (0..100_000_u64).step_by(batch) {
        let last = (first + batch as u64).min(100_000);
        let puts = (first..last).map(|n| (key(n), value(n))).collect();
        store.commit(&Batch { puts, deletes: Vec::new() })?;
    }
    let wrote = started.elapsed();
    drop(store);
    let started = Instant::now();
    let (mut store, _) = SledStore::open(folder, SledOptions::default())?;
    let opened = started.elapsed();
    let started = Instant::now();
    let mut count = 0;
    store.load(&mut |_, _| count += 1)?;
    anyhow::ensure!(count == 100_000, "{count} records loaded");
    Ok((wrote, opened, started.elapsed()))
}
