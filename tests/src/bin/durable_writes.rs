//! Writes to a store and prints a line after each acknowledgement, for the durability trace.
//!
//! Usage: `durable-writes STATE_DIR COMMITS`

use anyhow::Context;
use node::store::sled::{SledOptions, SledStore};
use node::store::{Batch, Store};
use std::io::Write;
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("usage: durable-writes STATE_DIR COMMITS")?;
    let commits: u32 = arguments.next().context("usage: durable-writes STATE_DIR COMMITS")?.parse()?;
    let (mut store, report) = SledStore::open(Path::new(&folder), SledOptions::default())?;
    anyhow::ensure!(!report.may_have_lost_writes(), "{}", report.outcome);
    let mut out = std::io::stdout().lock();
    for n in 0..commits {
        // Sizes from one record to more than one of sled's segments of 512 KiB.
        let records = match n % 3 {
            0 => 1,
            1 => 40,
            _ => 4_000,
        };
        let put = |record: u32| (format!("k/{n}/{record}").into_bytes(), vec![n as u8; 200]);
        store.commit(&Batch { puts: (0..records).map(put).collect(), deletes: Vec::new() })?;
        writeln!(out, "acknowledged {n}")?;
        out.flush()?;
    }
    store.close()?;
    Ok(())
}
