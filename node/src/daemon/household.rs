//! Which household this node belongs to: founding one, joining one, leaving one.
//!
//! What a node becomes is written to one small file first and carried out afterwards, so that
//! a power cut in between finds the file again and carries it out at the next start.

use std::{fs, io, net::SocketAddr, path::Path};

use ed25519_dalek::SigningKey;
use mesh_proto::{NodeId, roster::Roster};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::info;

use crate::{
    auth::{InviteToken, JoinError, Joined, TokenError, join},
    state_dir::{PEERS_FILE, Seed, StateDir, StateDirError},
    store::files::{FileError, FileKind, read_checked, write_durable},
    tls::identity::{IdentityError, NodeIdentity},
    transport::Target,
};

const NEXT: FileKind = FileKind {
    magic: *b"HTHNEXT\0",
    version: 1,
    max_bytes: 4 << 20,
    mode: 0o600,
    way_out: "remove it and join again with a new invite",
};
const NEXT_FILE: &str = "next";
const PEERS_NAME: &str = "peers";
/// What a node forgets with its household. The exports too: they are what the store is repaired
/// from, and those of one household must not fill the store of another.
const FORGOTTEN: [&str; 15] = [
    "store",
    "store.mark",
    "store.rebuild",
    "exports",
    "history",
    "store.replaced",
    "restore",
    "incarnation.copy",
    "incarnation",
    "clock",
    "restored",
    "invites",
    "setup-code",
    "sign-ins",
    "peers",
];
/// Likewise what is numbered: stores that were set aside, and what a peer's state had no place for.
const FORGOTTEN_SERIES: [&str; 2] = ["store.damaged-", "lost-and-found-"];

/// Why a household could not be founded, joined or left.
#[derive(Debug, Error)]
pub enum HouseholdError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// A small file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The node's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The exchange with the issuer.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The membership.
    #[error("the membership of the household cannot be used: {0}")]
    Roster(#[from] mesh_proto::roster::RosterError),
    /// The issuer's statements do not admit this node.
    #[error(
        "the issuer's statements do not admit this node: update both nodes and try again with a new invite"
    )]
    NotAdmitted,
    /// A file or folder.
    #[error("cannot change {0}: {1}; check the permissions of the state folder")]
    Io(String, io::Error),
    /// The node's key is gone, and the membership is that of the old one.
    #[error(
        "node.key is missing in {0}, although this node belongs to a household: put it back with `hearth restore` and a backup made with --with-key, or move the folder away and join again as a new node"
    )]
    KeyLost(String),
    /// The membership is gone, and the store is that of a household.
    #[error(
        "the membership (`roster`) is missing in {0}, although it holds the data of a household: put it back with `hearth restore` and a backup, or move the folder away and join again as a new node"
    )]
    RosterLost(String),
    /// No randomness.
    #[error("the operating system gives no randomness: try again when it has started fully")]
    NoRandomness,
}

/// What the node is to become.
#[derive(Serialize, Deserialize)]
enum Next {
    /// A member of this household.
    Member { roster: Vec<u8>, issuer: NodeId, addresses: Vec<SocketAddr> },
    /// A new node, in a household of its own.
    Nobody,
}

/// Who this node is and to which household it belongs.
pub struct Household {
    /// The node's key.
    pub seed: Seed,
    /// The membership.
    pub roster: Roster,
    /// Where members were reached when this node joined.
    pub peers: Vec<(Target, Vec<SocketAddr>)>,
    /// Whether it was founded just now.
    pub is_new: bool,
}

/// Carries out what was written before, then opens the household; founds one, or joins with
/// `token`, when there is none yet.
///
/// # Errors
/// [`HouseholdError`]; a household that existed before is untouched.
pub async fn open(state: &StateDir, name: &str, token: Option<&str>) -> Result<Household, HouseholdError> {
    carry_out(state)?;
    let seed = key(state)?;
    if let Some(bytes) = state.roster()? {
        if token.is_some() {
            info!("this node already belongs to a household; the invite is not used");
        }
        let roster = Roster::from_bytes(&bytes)?;
        return Ok(Household { seed, roster, peers: peers(state)?, is_new: false });
    }
    if state.path().join("store").exists() {
        return Err(HouseholdError::RosterLost(state.path().display().to_string()));
    }
    if let Some(token) = token {
        let identity = NodeIdentity::from_seed(seed.as_bytes())?;
        let joined = redeem(&identity, name, token).await?;
        prepare(state, &joined, identity.id())?;
        carry_out(state)?;
        let roster = Roster::from_bytes(&state.roster()?.unwrap_or_default())?;
        return Ok(Household { seed, roster, peers: peers(state)?, is_new: true });
    }
    let roster = found(&seed, name)?;
    state.set_roster(&roster.to_bytes())?;
    Ok(Household { seed, roster, peers: Vec::new(), is_new: true })
}

fn key(state: &StateDir) -> Result<Seed, HouseholdError> {
    if let Some(seed) = state.node_key()? {
        return Ok(seed);
    }
    if state.roster()?.is_some() {
        return Err(HouseholdError::KeyLost(state.path().display().to_string()));
    }
    let seed = Seed::new(random()?);
    state.set_node_key(&seed)?;
    Ok(seed)
}

/// The root key signs the founder's admission and is forgotten.
fn found(seed: &Seed, name: &str) -> Result<Roster, HouseholdError> {
    let root = SigningKey::from_bytes(&random()?);
    let founder = SigningKey::from_bytes(seed.as_bytes()).verifying_key();
    let name: String = if name.is_empty() { "hearth".into() } else { name.into() };
    Ok(Roster::found(&root, NodeId::from_bytes(founder.to_bytes()), &name, None)?)
}

fn random() -> Result<[u8; 32], HouseholdError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| HouseholdError::NoRandomness)?;
    Ok(bytes)
}

/// Redeems an invite.
///
/// # Errors
/// [`HouseholdError::Token`], [`HouseholdError::Join`].
pub async fn redeem(identity: &NodeIdentity, name: &str, token: &str) -> Result<Joined, HouseholdError> {
    let token: InviteToken = token.trim().parse()?;
    Ok(join(&token, identity, name).await?)
}

/// Writes down that this node becomes a member of the household that it joined; carried out at
/// the next start.
///
/// # Errors
/// [`HouseholdError::NotAdmitted`] when the statements do not say so; nothing has changed then.
pub fn prepare(state: &StateDir, joined: &Joined, me: NodeId) -> Result<(), HouseholdError> {
    let mut roster = Roster::empty(joined.household);
    for statement in &joined.statements {
        roster.insert(statement)?;
    }
    if !roster.is_admitted(&me) {
        return Err(HouseholdError::NotAdmitted);
    }
    let next = Next::Member {
        roster: roster.to_bytes(),
        issuer: joined.issuer,
        addresses: joined.addresses.clone(),
    };
    write_next(state, &next)
}

/// Writes down that this node leaves its household; carried out at the next start. It then gets
/// a new key, because a key that left never returns.
///
/// # Errors
/// [`HouseholdError::File`]; nothing has changed then.
pub fn prepare_to_leave(state: &StateDir) -> Result<(), HouseholdError> {
    write_next(state, &Next::Nobody)
}

fn write_next(state: &StateDir, next: &Next) -> Result<(), HouseholdError> {
    let bytes = postcard::to_allocvec(next).unwrap_or_default();
    let path = state.path().join(NEXT_FILE);
    write_durable(&path, &NEXT, &bytes).inspect_err(|_| {
        // It may be in place and only not known to be durable: what was refused must not be carried out.
        let _ = std::fs::remove_file(&path).and_then(|()| std::fs::File::open(state.path())?.sync_all());
    })?;
    Ok(())
}

fn carry_out(state: &StateDir) -> Result<(), HouseholdError> {
    let path = state.path().join(NEXT_FILE);
    let Some(bytes) = read_checked(&path, &NEXT)? else { return Ok(()) };
    let damaged = FileError::Damaged { path: path.clone(), reason: "its content", way_out: NEXT.way_out };
    let next: Next = postcard::from_bytes(&bytes).map_err(|_| damaged)?;
    for name in FORGOTTEN {
        remove(&state.path().join(name))?;
    }
    remove_series(state.path())?;
    match next {
        Next::Member { roster, issuer, addresses } => {
            let known = postcard::to_allocvec(&(issuer, addresses)).unwrap_or_default();
            write_durable(&state.path().join(PEERS_NAME), &PEERS_FILE, &known)?;
            state.set_roster(&roster)?;
        }
        Next::Nobody => {
            for name in ["roster.copy", "roster", "node.key.copy", "node.key"] {
                remove(&state.path().join(name))?;
            }
        }
    }
    remove(&path)
}

fn remove_series(folder: &Path) -> Result<(), HouseholdError> {
    let fail = |error| HouseholdError::Io(folder.display().to_string(), error);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        if FORGOTTEN_SERIES.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), HouseholdError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HouseholdError::Io(path.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

fn peers(state: &StateDir) -> Result<Vec<(Target, Vec<SocketAddr>)>, HouseholdError> {
    let Some(bytes) = read_checked(&state.path().join(PEERS_NAME), &PEERS_FILE)? else {
        return Ok(Vec::new());
    };
    let known = postcard::from_bytes::<(NodeId, Vec<SocketAddr>)>(&bytes).ok();
    Ok(known.map(|(node, addresses)| (Target::Node(node), addresses)).into_iter().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("hearth-household-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[tokio::test]
    async fn a_node_founds_once_and_finds_its_household_again() {
        let path = folder("found");
        let state = StateDir::open(&path).unwrap();
        let first = open(&state, "kitchen", None).await.unwrap();
        let again = open(&state, "kitchen", None).await.unwrap();
        assert!(first.is_new && !again.is_new);
        assert_eq!(first.roster.household(), again.roster.household());
        fs::remove_dir_all(&path).unwrap();
    }

    #[tokio::test]
    async fn leaving_is_carried_out_at_the_next_start_with_a_new_key() {
        let path = folder("leave");
        let state = StateDir::open(&path).unwrap();
        let before = open(&state, "kitchen", None).await.unwrap();
        let held = ["store", "store.rebuild", "store.damaged-3", "exports", "history"];
        for name in held {
            fs::create_dir(path.join(name)).unwrap();
            fs::write(path.join(name).join("data"), "of the old household").unwrap();
        }
        fs::write(path.join("lost-and-found-12.json"), "{}").unwrap();
        fs::write(path.join("somebody's notes"), "kept").unwrap();
        prepare_to_leave(&state).unwrap();
        let after = open(&state, "kitchen", None).await.unwrap();
        assert!(before.seed != after.seed && before.roster.household() != after.roster.household());
        for name in held.into_iter().chain(["lost-and-found-12.json", "next"]) {
            assert!(!path.join(name).exists(), "{name} is forgotten");
        }
        assert!(path.join("somebody's notes").exists() && path.join("lock").exists());
        fs::remove_dir_all(&path).unwrap();
    }

    #[tokio::test]
    async fn statements_that_do_not_admit_this_node_change_nothing() {
        let path = folder("stranger");
        let state = StateDir::open(&path).unwrap();
        let own = open(&state, "kitchen", None).await.unwrap();
        let joined = Joined {
            household: own.roster.household(),
            issuer: NodeId::from_bytes([1; 32]),
            statements: own.roster.statements().map(<[u8]>::to_vec).collect(),
            addresses: Vec::new(),
        };
        let stranger = NodeId::from_bytes([7; 32]);
        assert!(matches!(prepare(&state, &joined, stranger), Err(HouseholdError::NotAdmitted)));
        assert!(!path.join("next").exists());
        fs::remove_dir_all(&path).unwrap();
    }
}
