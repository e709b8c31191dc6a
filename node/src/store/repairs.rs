//! What was mended so far, for `hearth doctor`: a card that rots does so more than once, and the log of
//! the start that mended it may be gone. Whoever mends something writes it down at once, so that it is
//! known whatever becomes of that start, and whichever program mended it.

use std::{fs, path::Path, time::SystemTime};

use tracing::warn;

use super::files::write_private;
use crate::api::json::timestamp;

/// The file in the state folder: a line with its format, then a line for each step, the oldest first.
const FILE: &str = "repairs";
const FORMAT: &str = "format 1";
/// What begins the first line in every format.
const ANY_FORMAT: &str = "format ";
/// So many lines are kept.
const KEPT: usize = 60;

/// Adds what was found and done, if anything was. A file of a newer version is left as it is.
pub(crate) fn remember<'a>(folder: &Path, now: SystemTime, steps: impl IntoIterator<Item = &'a String>) {
    let ms = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let at = timestamp(u64::try_from(ms).unwrap_or(0));
    let new: Vec<String> =
        steps.into_iter().map(|step| format!("{at} {}", step.replace('\n', " "))).collect();
    if new.is_empty() {
        return;
    }
    let text = read(folder);
    if text.lines().next().is_some_and(|first| first.starts_with(ANY_FORMAT) && first != FORMAT) {
        warn!("`{FILE}` was written by a newer hearth; what was mended is in this log alone");
        return;
    }
    let mut lines = lines_of(&text);
    lines.extend(new);
    let kept = lines.get(lines.len().saturating_sub(KEPT)..).unwrap_or_default();
    let text = format!("{FORMAT}\n{}\n", kept.join("\n"));
    if let Err(error) = write_private(&folder.join(FILE), text.as_bytes()) {
        warn!(%error, "what was mended could not be written down");
    }
}

/// What was mended, the oldest first, each with its time; empty when nothing was, or nothing can be read.
#[must_use]
pub(crate) fn list(folder: &Path) -> Vec<String> {
    lines_of(&read(folder))
}

fn read(folder: &Path) -> String {
    String::from_utf8_lossy(&fs::read(folder.join(FILE)).unwrap_or_default()).into_owned()
}

fn lines_of(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    if lines.next() != Some(FORMAT) {
        return Vec::new();
    }
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::store::tests::Folder;
    use std::time::Duration;

    #[test]
    fn the_newest_steps_are_kept_with_their_time() {
        let folder = Folder::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        remember(folder.path(), now, &[]);
        assert!(!folder.join(FILE).exists(), "nothing was mended, nothing is written");
        for number in 0..50 {
            let steps = [format!("step {number}"), "and\nanother".to_owned()];
            remember(folder.path(), now, &steps);
        }
        let lines = list(folder.path());
        assert_eq!(lines.len(), KEPT);
        assert!(
            lines[58].starts_with("2023-11-14T22:13:20") && lines[58].ends_with("step 49"),
            "{}",
            lines[58]
        );
        assert!(lines[59].ends_with("and another"));
        fs::write(folder.join(FILE), b"\xff rot").unwrap();
        assert!(list(folder.path()).is_empty());
        remember(folder.path(), now, &["again".to_owned()]);
        assert_eq!(list(folder.path()).len(), 1);
        fs::write(folder.join(FILE), b"format 2\n").unwrap();
        remember(folder.path(), now, &["once more".to_owned()]);
        assert_eq!(
            fs::read(folder.join(FILE)).unwrap(),
            b"format 2\n",
            "that of a newer version is not ours"
        );
    }
}
