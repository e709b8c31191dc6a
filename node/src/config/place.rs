//! Where the state folder and the config file are.
//!
//! State folder: `--state-dir`, `HEARTH_STATE_DIR`, `state_dir` in the file, `$STATE_DIRECTORY`
//! (set by systemd), `$XDG_STATE_HOME/hearth`, `~/.local/state/hearth`. A client that is told
//! none of the first three and finds no socket there looks into `/var/lib/hearth` as well, where
//! the service of the system lives.
//!
//! Config file: `--config`, `HEARTH_CONFIG` (these two must exist), `hearth.toml` in the state
//! folder, `/etc/hearth/hearth.toml`. The first that exists is the only one that is read.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::file::{self, FileSettings};
use super::{Environment, Flags};

/// The socket of the API within the state folder.
pub const SOCKET: &str = "hearth.sock";
/// The config file within the state folder.
pub const FILE: &str = "hearth.toml";

/// The state folder of the daemon that a client should speak to.
///
/// # Errors
/// [`ConfigError::NoStateDir`], or what is wrong with a config file that was named by flag or
/// variable, or that is the system's and readable.
pub fn client_state_dir(flags: &Flags, env: &Environment) -> Result<PathBuf, ConfigError> {
    if let Some(told) = told(flags, env) {
        return Ok(told);
    }
    let settings = match named_file(flags, env) {
        Some(path) => Some(require(&path)?),
        None => match file::read(&env.system_file) {
            // A file that only the daemon may read says nothing to a client.
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                None
            }
            other => other?,
        },
    };
    if let Some(folder) = settings.and_then(|settings| settings.state_dir) {
        return Ok(folder);
    }
    let own = default_state_dir(env);
    // A folder that may not be entered counts as one that has a socket: the client then says why.
    let has_socket = |folder: &Path| folder.join(SOCKET).try_exists().unwrap_or(true);
    match own {
        Ok(own) if has_socket(&own) || !has_socket(&env.system_state_dir) => Ok(own),
        Err(_) | Ok(_) if has_socket(&env.system_state_dir) => Ok(env.system_state_dir.clone()),
        other => other,
    }
}

/// The state folder by flag or variable.
pub(crate) fn told(flags: &Flags, env: &Environment) -> Option<PathBuf> {
    flags.state_dir.clone().or_else(|| env.get("HEARTH_STATE_DIR").map(PathBuf::from))
}

/// The state folder when nobody says where it is.
pub(crate) fn default_state_dir(env: &Environment) -> Result<PathBuf, ConfigError> {
    if let Some(list) = env.get("STATE_DIRECTORY")
        && let Some(first) = std::env::split_paths(list).next()
    {
        return Ok(first);
    }
    // A relative path is ignored, as the XDG base directory specification says.
    if let Some(base) = env.get("XDG_STATE_HOME").map(Path::new).filter(|base| base.is_absolute()) {
        return Ok(base.join("hearth"));
    }
    let home = env.get("HOME").ok_or(ConfigError::NoStateDir)?;
    Ok(Path::new(home).join(".local/state/hearth"))
}

/// The config file that is read, with what it says.
pub(crate) fn find_file(
    flags: &Flags,
    env: &Environment,
) -> Result<Option<(PathBuf, FileSettings)>, ConfigError> {
    if let Some(path) = named_file(flags, env) {
        let settings = require(&path)?;
        return Ok(Some((path, settings)));
    }
    let base = told(flags, env).map_or_else(|| default_state_dir(env), Ok).ok();
    if let Some(path) = base.map(|base| base.join(FILE))
        && let Some(settings) = file::read(&path)?
    {
        return match settings.places.get("state_dir") {
            Some(at) => Err(ConfigError::StateDirInStateDir { at: at.clone() }),
            None => Ok(Some((path, settings))),
        };
    }
    Ok(file::read(&env.system_file)?.map(|settings| (env.system_file.clone(), settings)))
}

fn named_file(flags: &Flags, env: &Environment) -> Option<PathBuf> {
    flags.config.clone().or_else(|| env.get("HEARTH_CONFIG").map(PathBuf::from))
}

fn require(path: &Path) -> Result<FileSettings, ConfigError> {
    let missing =
        || ConfigError::Unreadable { path: path.to_owned(), source: io::Error::from(ErrorKind::NotFound) };
    file::read(path)?.ok_or_else(missing)
}
