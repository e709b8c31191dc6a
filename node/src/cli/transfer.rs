//! `export` and `import`: all objects as lines of JSON. Neither holds more than a piece in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Session;
use super::client::broken_off;
use super::exit::{Exit, Failure};
use super::output::Done;
use super::part::Part;

/// The longest line, in bytes: the largest body of the API.
const MAX_LINE: u64 = 1024 * 1024;
/// Lines are sent together up to so many bytes.
const PIECE: usize = 256 * 1024;
/// Refusals that are kept to be shown; the rest is counted.
const MAX_REFUSED: usize = 1_000;
/// What whoever imports must not miss in silence.
const NOT_EXPORTED: &str = "no export holds API tokens, settings of adapters and addresses of webhooks: make them anew here, or restore a \
                            backup instead (docs/disk.md)";
/// How long a stream may stand still, or the node may take to write a piece.
const STALL: Duration = Duration::from_secs(60);

impl Session {
    pub(super) async fn export(&self, to: Option<&Path>) -> Done<Exit> {
        let response = self.client.send(Method::GET, "/api/v1/export", None).await?;
        let body = response.into_body();
        let Some(to) = to.filter(|to| to.as_os_str() != "-") else {
            copy(body, |piece| self.out.raw(piece)).await?;
            return Ok(Exit::Ok);
        };
        let unwritable = |error: io::Error| {
            let detail = format!("{} cannot be written: {error}", to.display());
            Failure::new(Exit::Failure, detail, "free some space, or give another file")
        };
        let mut part = Part::create(to).map_err(unwritable)?;
        let mut lines: u64 = 0;
        copy(body, |piece| {
            lines += piece.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
            Ok(part.file.write_all(piece).map_err(unwritable)?)
        })
        .await?;
        part.finish(to).map_err(unwritable)?;
        self.out.note(format!("{lines} objects are in {}", to.display()));
        if self.out.json {
            self.out.document(&json!({"file": to.to_string_lossy(), "objects": lines}))?;
        }
        Ok(Exit::Ok)
    }

    pub(super) async fn import(&self, from: &Path, dry_run: bool) -> Done<Exit> {
        let unreadable = |error: io::Error| {
            let detail = format!("{} cannot be read: {error}", from.display());
            Failure::new(Exit::Failure, detail, "give a file that `hearth export` wrote, or - for stdin")
        };
        let source: Box<dyn Read> = if from.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(from).map_err(unreadable)?)
        };
        let mut pieces = Pieces { lines: BufReader::new(source), line: 0, held: None };
        let (mut written, mut refused, mut more, mut skipped) = (0, Vec::new(), 0, 0);
        while let Some((first, piece)) = pieces.next(from)? {
            let answer = self.import_piece(piece, dry_run).await.map_err(|mut failure| {
                failure.detail = format!(
                    "{} (lines from {first}; {written} objects before it are written)",
                    failure.detail
                );
                failure
            })?;
            written += answer.get("written").and_then(Value::as_u64).unwrap_or(0);
            let found = answer.get("refused").and_then(Value::as_array).cloned().unwrap_or_default();
            more += answer.get("refused_more").and_then(Value::as_u64).unwrap_or(0);
            skipped += answer.get("skipped").and_then(Value::as_u64).unwrap_or(0);
            for entry in found {
                if refused.len() < MAX_REFUSED {
                    refused.push(at_line(entry, first));
                } else {
                    more += 1;
                }
            }
        }
        let answer = json!({"written": written, "refused": refused, "refused_more": more, "skipped": skipped, "dry_run": dry_run});
        self.out.either(&answer, || {
            let done = if dry_run { "would be written" } else { "written" };
            let mut text = format!("{written} {done}, {} refused", as_count(&refused) + more);
            if skipped > 0 {
                text.push_str(&format!("; {skipped} fields that nodes write themselves are left out"));
            }
            for entry in refused.iter().take(20) {
                text.push_str(&format!("\n  {}", super::output::printable(&entry.to_string())));
            }
            text
        })?;
        self.out.note(NOT_EXPORTED);
        Ok(if refused.is_empty() { Exit::Ok } else { Exit::Refused })
    }

    async fn import_piece(&self, piece: Vec<u8>, dry_run: bool) -> Result<Value, Failure> {
        let path = format!("/api/v1/import?dry_run={dry_run}");
        let body = Some(("application/x-ndjson", Bytes::from(piece)));
        let answer = self.client.patient(STALL).bytes(Method::POST, &path, body).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| super::client::garbled(format!("its answer is not JSON: {error}")))
    }
}

fn as_count(entries: &[Value]) -> u64 {
    u64::try_from(entries.len()).unwrap_or(u64::MAX)
}

/// Hands on each piece of a stream; one that ends too early is an error, never a short file.
async fn copy(mut body: Incoming, mut take: impl FnMut(&[u8]) -> Done) -> Done {
    loop {
        let still = || broken_off(&format!("nothing came for {} s", STALL.as_secs()));
        let Some(frame) = timeout(STALL, body.frame()).await.map_err(|_| still())? else { return Ok(()) };
        let frame = frame.map_err(|error| broken_off(&error.to_string()))?;
        if let Some(piece) = frame.data_ref() {
            take(piece)?;
        }
    }
}

/// Whole lines, put together to pieces.
struct Pieces<R> {
    lines: BufReader<R>,
    line: u64,
    held: Option<Vec<u8>>,
}

impl<R: Read> Pieces<R> {
    /// The number of its first line, from 1, and the next piece.
    fn next(&mut self, from: &Path) -> Result<Option<(u64, Vec<u8>)>, Failure> {
        let mut piece = Vec::new();
        let first = if self.held.is_some() { self.line } else { self.line + 1 };
        while let Some(line) = self.held.take().map_or_else(|| self.read(from), |held| Ok(Some(held)))? {
            if !piece.is_empty() && piece.len() + line.len() > PIECE {
                self.held = Some(line);
                break;
            }
            piece.extend(line);
        }
        Ok((!piece.is_empty()).then_some((first, piece)))
    }

    fn read(&mut self, from: &Path) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        let fix = "give a file that `hearth export` wrote, or - for stdin";
        let wrong =
            |detail: String| Failure::new(Exit::Refused, format!("{}: {detail}", from.display()), fix);
        let limited = (&mut self.lines).take(MAX_LINE + 1).read_until(b'\n', &mut line);
        limited.map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        if line.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if u64::try_from(line.len()).is_ok_and(|length| length > MAX_LINE) {
            return Err(wrong(format!("line {} is longer than 1 MiB", self.line)));
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        Ok(Some(line))
    }
}

/// The node counts the lines of a piece; people count those of the file.
fn at_line(mut entry: Value, first: u64) -> Value {
    if let Some(line) = entry.get_mut("line")
        && let Some(number) = line.as_u64()
    {
        *line = json!(number + first - 1);
    }
    entry
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn pieces(text: &str) -> Result<Vec<(u64, usize)>, Failure> {
        let mut pieces = Pieces { lines: BufReader::new(text.as_bytes()), line: 0, held: None };
        let mut all = Vec::new();
        while let Some((first, piece)) = pieces.next(Path::new("f"))? {
            assert_eq!(piece.last(), Some(&b'\n'));
            all.push((first, piece.len()));
        }
        Ok(all)
    }

    #[test]
    fn pieces_are_whole_lines_and_know_where_they_begin() {
        assert!(pieces("").unwrap().is_empty());
        assert_eq!(pieces("a\nb").unwrap(), [(1, 4)]);
        let long = "x".repeat(PIECE - 1);
        let got = pieces(&format!("{long}\ny\nz\n{long}\n")).unwrap();
        assert_eq!(got, [(1, PIECE), (2, 4), (4, PIECE)]);
        let huge = "x".repeat(PIECE * 2);
        assert_eq!(pieces(&huge).unwrap(), [(1, PIECE * 2 + 1)]);
    }

    #[test]
    fn a_line_without_end_is_refused_by_its_number() {
        let error = pieces(&format!("a\n{}", "x".repeat(2 * 1024 * 1024))).unwrap_err();
        assert_eq!(error.exit, Exit::Refused);
        assert!(error.detail.contains("f: line 2 is longer"), "{}", error.detail);
    }

    #[test]
    fn refused_lines_are_counted_from_the_start_of_the_file() {
        assert_eq!(at_line(json!({"line": 3, "detail": "x"}), 101), json!({"line": 103, "detail": "x"}));
        assert_eq!(at_line(json!("x"), 101), json!("x"));
    }
}
