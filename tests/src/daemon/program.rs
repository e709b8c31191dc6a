//! Finds the built `hearth`, and refuses one that is older than its source.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};

const BUILD: &str = "build it first: cargo build --workspace --all-targets";

/// The program beside the test or benchmark that runs.
///
/// # Errors
/// When it is not built, or older than its source.
pub fn hearth() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // Tests lie in target/PROFILE/deps, benchmarks in target/PROFILE.
    let mut folders = test.ancestors().skip(1).filter(|folder| !folder.ends_with("deps"));
    let profile = folders.next().context("the test lies in no target folder")?;
    let program = profile.join("hearth");
    let built = modified(&program).with_context(|| format!("no {}; {BUILD}", program.display()))?;
    // What cargo writes beside it: `PROGRAM: SOURCE SOURCE ...`.
    let sources = std::fs::read_to_string(profile.join("hearth.d")).context(BUILD)?;
    for source in sources.split_whitespace().skip(1) {
        let is_newer = modified(Path::new(source)).is_none_or(|changed| changed > built);
        ensure!(!is_newer, "{} is older than {source}; {BUILD}", program.display());
    }
    Ok(program)
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}
