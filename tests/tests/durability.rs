//! Durability as the kernel sees it: between the last write to any file of the store and the
//! acknowledgement there is an `fdatasync` of that file. `sync_file_range` does not count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// What the trace says so far.
#[derive(Default)]
struct Trace {
    /// Files of the store with the number of the last line that wrote to them, until synced.
    dirty: BTreeMap<String, usize>,
    /// System calls that another thread interrupted in the output, by thread.
    unfinished: BTreeMap<String, (usize, String)>,
    writes_since_acknowledgement: usize,
    acknowledged: usize,
    problems: Vec<String>,
}

impl Trace {
    fn read(folder: &str, text: &str) -> Self {
        let mut trace = Self::default();
        for (number, line) in text.lines().enumerate() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
                trace.begins(folder, number, begun);
                trace.unfinished.insert(thread.to_string(), (number, begun.to_string()));
            } else if call.starts_with("<... ") {
                if let Some((begun, text)) = trace.unfinished.remove(thread) {
                    let result = call.rsplit(" = ").next().unwrap_or("").to_string();
                    trace.ends(folder, begun, number, &text, &result);
                }
            } else {
                let result = call.rsplit(" = ").next().unwrap_or("").to_string();
                trace.begins(folder, number, call);
                trace.ends(folder, number, number, call, &result);
            }
        }
        trace
    }

    /// An acknowledgement counts from the moment at which its write begins.
    fn begins(&mut self, _folder: &str, number: usize, call: &str) {
        if !(call.starts_with("write(1<") && call.contains("\"acknowledged ")) {
            return;
        }
        self.acknowledged += 1;
        for (file, written) in &self.dirty {
            self.problems.push(format!(
                "acknowledged in line {number}, but {file}, written in line {written}, was not synced"
            ));
        }
        if self.writes_since_acknowledgement == 0 {
            self.problems.push(format!("acknowledged in line {number} and nothing was written for it"));
        }
        self.writes_since_acknowledgement = 0;
    }

    fn ends(&mut self, folder: &str, begun: usize, number: usize, call: &str, result: &str) {
        let Some(file) = file_of(call).filter(|file| file.starts_with(folder)) else { return };
        let name = call.split('(').next().unwrap_or("");
        match name {
            "write" | "pwrite64" | "writev" | "pwritev" | "ftruncate" | "fallocate" => {
                self.writes_since_acknowledgement += 1;
                self.dirty.insert(file, number);
            }
            // A sync covers what was written before it began.
            "fdatasync" | "fsync" if result == "0" => {
                self.dirty.retain(|dirty, written| *dirty != file || *written > begun)
            }
            _ => {}
        }
    }
}

/// The file that strace shows as `call(5</path>, …`.
fn file_of(call: &str) -> Option<String> {
    let (_, rest) = call.split_once('<')?;
    Some(rest.split_once('>')?.0.to_string())
}

fn temporary() -> PathBuf {
    let path = std::env::temp_dir().join(format!("hearth-durability-{}", std::process::id()));
    let _left = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(path.join("state")).unwrap();
    path
}

#[test]
fn every_file_is_synced_between_its_last_write_and_the_acknowledgement() {
    let folder = temporary();
    let (state, log) = (folder.join("state"), folder.join("trace"));
    let status = Command::new("strace")
        .args(["-f", "-y", "-e"])
        .arg("trace=write,pwrite64,writev,pwritev,ftruncate,fallocate,fdatasync,fsync,sync_file_range")
        .arg("-o")
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_durable-writes"))
        .args([state.to_str().unwrap(), "9"])
        .stdout(std::process::Stdio::null())
        .status()
        .expect("this test needs strace: run tests/setup, or apt-get install strace");
    assert!(status.success(), "the traced program failed: {status}");
    let text = std::fs::read_to_string(&log).unwrap();
    let trace = Trace::read(state.to_str().unwrap(), &text);
    assert_eq!(trace.problems, Vec::<String>::new());
    assert_eq!(trace.acknowledged, 9);
    let synced = |line: &str| line.contains("fdatasync(") && line.contains("/store/db>");
    assert!(text.lines().filter(|line| synced(line)).count() >= 9, "an fdatasync of sled's log for each");

    // The same trace without the syncs of sled's log must be refused, else this test proves nothing.
    let without: Vec<&str> = text.lines().filter(|line| !synced(line)).collect();
    let trace = Trace::read(state.to_str().unwrap(), &without.join("\n"));
    assert_eq!(trace.problems.len(), 9, "{:?}", trace.problems);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_reader_of_traces_knows_calls_that_overlap() {
    let good = "1 pwrite64(5</s/db>, \"x\", 1, 0 <unfinished ...>\n2 write(1</dev/pts/0>, \"no\\n\", 3) = 3\n\
                1 <... pwrite64 resumed>) = 1\n1 fdatasync(6</s/db>) = 0\n1 write(1<pipe:[1]>, \"acknowledged 0\\n\", 15) = 15\n";
    assert_eq!(Trace::read("/s", good).problems, Vec::<String>::new());
    let early = "1 pwrite64(5</s/db>, \"x\", 1, 0 <unfinished ...>\n2 fdatasync(6</s/db>) = 0\n\
                 1 <... pwrite64 resumed>) = 1\n2 write(1<pipe:[1]>, \"acknowledged 0\\n\", 15) = 15\n";
    assert_eq!(Trace::read("/s", early).problems.len(), 1, "the sync began before the write ended");
    let failed = good.replace("fdatasync(6</s/db>) = 0", "fdatasync(6</s/db>) = -1 EIO (Input/output error)");
    assert_eq!(Trace::read("/s", &failed).problems.len(), 1, "a sync that failed is none");
    let range = good.replace("fdatasync(6</s/db>", "sync_file_range(6</s/db>, 0, 1, 7");
    assert_eq!(Trace::read("/s", &range).problems.len(), 1, "sync_file_range is none");
    let nothing = "1 write(1<pipe:[1]>, \"acknowledged 0\\n\", 15) = 15\n";
    assert_eq!(Trace::read("/s", nothing).problems.len(), 1, "an acknowledgement of nothing");
}
