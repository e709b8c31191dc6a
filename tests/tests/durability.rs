//! Durability as the kernel sees it: between a request that a running node takes in and its answer, what was asked
//! is written to a file of the store and that file is synced with `fdatasync`. `sync_file_range` does not count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_tests::{
    daemon::{Daemon, PATIENCE, wait_until},
    strace::Strace,
};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

const WRITERS: usize = 6;
const WRITES: usize = 8;
/// Fields of 2 KB in one request: more than the journal takes, and than one of sled's segments of 512 KiB.
const MANY: usize = 300;
const READS: [&str; 4] = ["read", "readv", "recvfrom", "recvmsg"];
const WRITES_TO_FILES: [&str; 4] = ["write", "writev", "pwrite64", "pwritev"];
const WRITES_TO_SOCKETS: [&str; 4] = ["write", "writev", "sendto", "sendmsg"];

/// A system call with the lines in which it began and ended.
struct Call<'a> {
    begun: usize,
    ended: usize,
    name: &'a str,
    file: &'a str,
    text: String,
}

impl<'a> Call<'a> {
    /// `pwrite64(5</path>, …) = 12`, as strace -y shows it.
    fn new(begun: usize, ended: usize, head: &'a str, rest: &str) -> Option<Self> {
        let (name, arguments) = head.split_once('(')?;
        let (_, file) = arguments.split_once('<')?;
        let (file, _) = file.split_once('>')?;
        Some(Self { begun, ended, name, file, text: [head, rest].concat() })
    }

    fn has_succeeded(&self) -> bool {
        self.text.ends_with(" = 0")
    }

    /// The object that a request is about, if this takes in the head of one.
    fn request(&self) -> Option<&str> {
        let is_read = READS.contains(&self.name) && self.file.starts_with("socket:");
        let (_, path) = self.text.split_once("\"PATCH /api/v1/objects/").filter(|_| is_read)?;
        path.split(' ').next()
    }

    fn is_answer(&self) -> bool {
        WRITES_TO_SOCKETS.contains(&self.name)
            && self.file.starts_with("socket:")
            && self.text.contains("\"HTTP/1.1 200 OK")
    }
}

/// The calls in the order in which they ended. Those that another thread interrupted in the output are whole again.
fn calls(trace: &str) -> Vec<Call<'_>> {
    let mut calls = Vec::new();
    let mut unfinished = BTreeMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begun));
        } else if call.starts_with("<... ") {
            let Some((begun, head)) = unfinished.remove(thread) else { continue };
            let rest = call.split_once(" resumed>").map_or("", |(_, rest)| rest);
            calls.extend(Call::new(begun, number, head, rest));
        } else {
            calls.extend(Call::new(number, number, call, ""));
        }
    }
    calls
}

/// What a trace says of the requests, of which each object's values are known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    answered: BTreeSet<String>,
    /// The objects with a value that was not synced between the request and its answer.
    early: BTreeSet<String>,
}

fn judge(folder: &str, trace: &str, requests: &BTreeMap<String, Vec<String>>) -> Verdict {
    let calls = calls(trace);
    let (mut received, mut verdict) = (BTreeMap::new(), Verdict::default());
    for call in &calls {
        if let Some(object) = call.request() {
            received.insert(call.file, (object, call.ended));
        } else if call.is_answer()
            && let Some((object, since)) = received.remove(call.file)
            && let Some(values) = requests.get(object)
        {
            verdict.answered.insert(object.to_owned());
            let meanwhile = |other: &&Call<'_>| {
                other.begun > since && other.ended < call.begun && other.file.starts_with(folder)
            };
            let between: Vec<&Call<'_>> = calls.iter().filter(meanwhile).collect();
            let is_durable = |value: &String| {
                between.iter().any(|write| {
                    let is_written =
                        WRITES_TO_FILES.contains(&write.name) && write.text.contains(value.as_str());
                    is_written && between.iter().any(|sync| syncs(sync, write))
                })
            };
            if !values.iter().all(is_durable) {
                verdict.early.insert(object.to_owned());
            }
        }
    }
    verdict
}

/// A sync covers what was written before it began, to the same file.
fn syncs(sync: &Call<'_>, write: &Call<'_>) -> bool {
    ["fdatasync", "fsync"].contains(&sync.name)
        && sync.has_succeeded()
        && sync.file == write.file
        && sync.begun > write.ended
}

/// The value that an object's field gets: nowhere else in the trace.
fn value(object: &str, field: usize) -> String {
    format!("<{}:{field}>", object.replace('/', "-"))
}

/// A small object, or the one of many fields.
fn fields(object: &str, count: usize) -> Map<String, Value> {
    let padding = if count > 1 { "x".repeat(2_000) } else { String::new() };
    (0..count).map(|n| (format!("f{n}"), json!(format!("{}{padding}", value(object, n))))).collect()
}

#[tokio::test]
async fn every_request_is_synced_between_its_receipt_and_its_answer() {
    let node = Arc::new(Daemon::found("one").await.unwrap());
    let log = node.state_dir().with_extension("trace");
    let calls =
        [&READS[..], &WRITES_TO_FILES, &WRITES_TO_SOCKETS, &["fdatasync", "fsync", "sync_file_range"]]
            .concat()
            .join(",");
    let pid = node.pid().unwrap().to_string();
    let filter = format!("trace={calls}");
    // Whole buffers, so that every value is seen on its way to the disk.
    let strace = ["-f", "-y", "-s", "2000000", "-e", &filter, "-p", &pid];
    let strace = Strace::attach(&strace, &log).await.unwrap();

    let mut requests = BTreeMap::new();
    let mut writers = JoinSet::new();
    for writer in 0..=WRITERS {
        // The last one writes once, and much.
        let (writes, count) = if writer == WRITERS { (1, MANY) } else { (WRITES, 1) };
        let objects: Vec<String> = (0..writes).map(|n| format!("note/w{writer}-{n}")).collect();
        for object in &objects {
            requests.insert(object.clone(), (0..count).map(|field| value(object, field)).collect());
        }
        let node = node.clone();
        writers.spawn(async move {
            for object in objects {
                node.put(&object, Value::Object(fields(&object, count))).await.unwrap();
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    let store = node.state_dir().join("store");
    let all: BTreeSet<String> = requests.keys().cloned().collect();
    let read = || String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    // A client has its answer a moment before strace has seen that the call which sent it ended.
    wait_until("strace has seen each answer", PATIENCE, async || {
        Ok(judge(store.to_str().unwrap(), &read(), &requests).answered == all)
    })
    .await
    .unwrap();
    strace.detach().await.unwrap();
    let trace = read();
    let verdict = judge(store.to_str().unwrap(), &trace, &requests);
    assert_eq!(verdict, Verdict { answered: all.clone(), early: BTreeSet::new() });

    // The same trace without the syncs of the store's files must be refused, else this test proves nothing.
    let is_sync = |line: &&str| line.contains("fdatasync(") && line.contains("/store/");
    let without: Vec<&str> = trace.lines().filter(|line| !is_sync(line)).collect();
    let verdict = judge(store.to_str().unwrap(), &without.join("\n"), &requests);
    assert_eq!(verdict, Verdict { answered: all.clone(), early: all });
}

#[test]
fn the_reader_of_traces_knows_calls_that_overlap() {
    let requests = BTreeMap::from([("note/a".to_owned(), vec!["<a>".to_owned()])]);
    let all = BTreeSet::from(["note/a".to_owned()]);
    let judge = |trace: &[&str]| {
        let Verdict { answered, early } = judge("/s", &trace.join("\n"), &requests);
        assert_eq!(answered, all);
        early.is_empty()
    };
    let request = "1 recvfrom(9<socket:[7]>, \"PATCH /api/v1/objects/note/a HTTP/1.1\\r\\n\", 8192) = 40";
    let begun = "2 pwrite64(5</s/db>, \"\\1<a>\\0\", 5, 0 <unfinished ...>";
    let ended = "2 <... pwrite64 resumed>) = 5";
    let sync = "3 fdatasync(6</s/db>) = 0";
    let answer = "1 sendto(9<socket:[7]>, \"HTTP/1.1 200 OK\\r\\n\", 17, 0, NULL, 0) = 17";
    let answering = "1 sendto(9<socket:[7]>, \"HTTP/1.1 200 OK\\r\\n\", 17 <unfinished ...>";
    let answered = "1 <... sendto resumed>, 0, NULL, 0) = 17";
    assert!(judge(&[request, begun, ended, sync, answer]));
    let (asking, asked) = request.split_once(" \"PATCH").unwrap();
    let (asking, asked) =
        (format!("{asking} <unfinished ...>"), format!("1 <... recvfrom resumed> \"PATCH{asked}"));
    assert!(judge(&[&asking, &asked, begun, ended, sync, answering, answered]));

    assert!(!judge(&[request, begun, sync, ended, answer]), "the sync began before the write ended");
    assert!(!judge(&[request, begun, ended, answering, sync, answered]), "the answer was under way");
    assert!(!judge(&[&asking, begun, ended, sync, &asked, answer]), "that was written for another");
    let other = "3 fdatasync(6</s/other>) = 0";
    assert!(!judge(&[request, begun, ended, other, answer]), "the sync of another file");
    let failed = "3 fdatasync(6</s/db>) = -1 EIO (Input/output error)";
    assert!(!judge(&[request, begun, ended, failed, answer]), "a sync that failed is none");
    let range = "3 sync_file_range(6</s/db>, 0, 1, 7) = 0";
    assert!(!judge(&[request, begun, ended, range, answer]), "sync_file_range is none");
    assert!(!judge(&[request, sync, answer]), "an answer for nothing");
}
