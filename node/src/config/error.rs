//! What can be wrong with the configuration. Each names where it stands, the rule and the way out.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Where something stands in a file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A rule that a value breaks, with a value that keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be {rule}, for example {example}")]
pub struct Broken {
    /// What the value must be.
    pub rule: &'static str,
    /// A value that keeps the rule.
    pub example: &'static str,
}

/// Why the configuration cannot be used. Nothing has been started or changed.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the config file {} cannot be read: {source}; check its name and its mode, or give another by --config FILE", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than a config file can be.
    #[error("the config file {} has {bytes} bytes, the limit is 1048576; give a smaller one by --config FILE", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not UTF-8.
    #[error("{at}: the file is not UTF-8 text; save it as UTF-8")]
    NotText {
        /// The first wrong byte.
        at: Location,
    },
    /// The file is not TOML.
    #[error("{at}: {}not TOML: {message}; correct this line, or see `hearth config default`", show_key(key))]
    Syntax {
        /// Where.
        at: Location,
        /// The key on that line, if there is one.
        key: Option<String>,
        /// What the parser says.
        message: String,
    },
    /// A key that does not exist.
    #[error(
        "{at}: unknown key `{key}`: {}remove it, or see `hearth config default` for every key",
        show_hint(hint)
    )]
    UnknownKey {
        /// Where.
        at: Location,
        /// The key with its table.
        key: String,
        /// A key of nearly the same name.
        hint: Option<&'static str>,
    },
    /// A table of an adapter that does not exist.
    #[error("{at}: unknown adapter `{key}`: this version has {known}; correct the name, or remove the table")]
    UnknownAdapter {
        /// Where.
        at: Location,
        /// The key with its table.
        key: String,
        /// The adapters that there are, with commas.
        known: String,
    },
    /// A value in the file breaks its rule.
    #[error("{at}: `{key}` is {found}, but it {broken}")]
    Value {
        /// Where.
        at: Location,
        /// The key with its table.
        key: String,
        /// What was found, shortened.
        found: String,
        /// The rule.
        broken: Broken,
    },
    /// A setting is well by itself and does not go together with the others.
    #[error("{from}: `{key}` is {found}, but it {broken}")]
    Contradiction {
        /// Where the setting comes from.
        from: String,
        /// The key with its table.
        key: &'static str,
        /// What was found.
        found: String,
        /// The rule.
        broken: Broken,
    },
    /// A file that was found in the state folder names another state folder.
    #[error(
        "{at}: `state_dir` cannot be set in the file that lies in the state folder itself; \
         remove the line, or move the file to /etc/hearth/hearth.toml"
    )]
    StateDirInStateDir {
        /// Where.
        at: Location,
    },
    /// An environment variable breaks its rule.
    #[error("the variable {variable} is {found}, but it {broken}; correct it, or unset {variable}")]
    Variable {
        /// Which variable.
        variable: String,
        /// What it holds, shortened; `hidden` for secrets.
        found: String,
        /// The rule.
        broken: Broken,
    },
    /// There is no place for the state folder.
    #[error(
        "no state folder is known: give --state-dir DIR, or set HEARTH_STATE_DIR, XDG_STATE_HOME or HOME"
    )]
    NoStateDir,
}

fn show_key(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!("`{key}`: ")).unwrap_or_default()
}

fn show_hint(hint: &Option<&'static str>) -> String {
    hint.map(|hint| format!("did you mean `{hint}`? Else ")).unwrap_or_default()
}
