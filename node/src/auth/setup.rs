//! The one-time setup code by which a person gets the first token without a shell on the board:
//! three groups of four letters or digits, such as `KT4M-9QWZ-H2PC`. They are 60 random bits, kept
//! in a file that only the daemon's user can read.
//!
//! One task owns the file. The code is spent on disk before the token is made, so that a crash can
//! cost a code but never gives it twice. Five wrong tries lock it until somebody on the board
//! makes a new one.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{
    Secret, random,
    tokens::{Role, TokenError, TokensHandle},
};
use crate::{
    state_dir::SETUP_FILE,
    store::files::{FileError, read_checked, write_durable},
};

/// The name of the file within the state folder.
pub const FILE: &str = "setup-code";
/// So many wrong tries lock the code.
pub const MAX_TRIES: u8 = 5;

/// Letters and digits that nobody takes for one another; 32, so that each is 5 bits.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const CODE_LETTERS: usize = 12;
/// The format of its content, the first word.
const FORMAT: &str = "v2";

/// Why a setup code opened nothing, or was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetupError {
    /// Another code than the one shown.
    #[error("this is not the setup code; {left} tries are left")]
    Wrong {
        /// Tries left.
        left: u8,
    },
    /// It was used.
    #[error("the setup code was used")]
    Spent,
    /// Too many wrong tries.
    #[error("the setup code is locked after {MAX_TRIES} wrong tries")]
    Locked,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The file cannot be read or written; the code counts as before.
    #[error("the setup code cannot be kept: {0}")]
    File(String),
    /// No token was made; the code counts as before.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// What whoever is on the board may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupView {
    /// The code, while it can be used.
    pub code: Option<Secret>,
    /// Whether it was used.
    pub used: bool,
    /// Whether wrong tries locked it.
    pub locked: bool,
}

#[derive(Debug)]
enum Request {
    Show(oneshot::Sender<SetupView>),
    Renew(oneshot::Sender<Result<SetupView, SetupError>>),
    Redeem(Secret, String, oneshot::Sender<Result<(String, Secret), SetupError>>),
}

/// The way to the owner of the setup code.
#[derive(Debug, Clone)]
pub struct SetupHandle(mpsc::Sender<Request>);

impl SetupHandle {
    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, SetupError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(make(reply)).await.map_err(|_| SetupError::Stopping)?;
        answer.await.map_err(|_| SetupError::Stopping)
    }

    /// The code, for whoever is on the board.
    ///
    /// # Errors
    /// [`SetupError::Stopping`].
    pub async fn show(&self) -> Result<SetupView, SetupError> {
        self.ask(Request::Show).await
    }

    /// Makes a new code; the one before counts no more.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn renew(&self) -> Result<SetupView, SetupError> {
        self.ask(Request::Renew).await?
    }

    /// Trades the code for an admin token (its id and itself) with this label.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn redeem(&self, code: Secret, label: String) -> Result<(String, Secret), SetupError> {
        self.ask(|reply| Request::Redeem(code, label, reply)).await?
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Open { code: Secret, wrong: u8 },
    Locked,
    Spent,
}

impl State {
    fn fresh() -> Result<Self, SetupError> {
        let bytes = random::<CODE_LETTERS>().ok_or(SetupError::NoRandomness)?;
        let letters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32)));
        let letters: Vec<char> = letters.map(|letter| char::from(*letter)).collect();
        let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
        Ok(Self::Open { code: Secret::new(groups.join("-")), wrong: 0 })
    }

    fn to_text(&self) -> String {
        match self {
            Self::Open { code, wrong } => format!("{FORMAT} open {wrong} {}\n", code.expose()),
            Self::Locked => format!("{FORMAT} locked\n"),
            Self::Spent => format!("{FORMAT} spent\n"),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        // Layout 1 of the state folder had no format here.
        let words = words.strip_prefix(&[FORMAT]).unwrap_or(&words);
        match words {
            ["open", wrong, code] if normalise(code).len() == CODE_LETTERS => {
                let wrong = wrong.parse().ok().filter(|wrong| *wrong < MAX_TRIES)?;
                Some(Self::Open { code: Secret::new(*code), wrong })
            }
            ["locked"] => Some(Self::Locked),
            ["spent"] => Some(Self::Spent),
            _ => None,
        }
    }

    fn view(&self) -> SetupView {
        let code = if let Self::Open { code, .. } = self { Some(code.clone()) } else { None };
        SetupView { code, used: *self == Self::Spent, locked: *self == Self::Locked }
    }
}

/// The owner of the setup code; a task runs it.
#[derive(Debug)]
pub struct Setup {
    path: PathBuf,
    state: State,
    tokens: TokensHandle,
    requests: mpsc::Receiver<Request>,
}

impl Setup {
    /// The owner and the way to it. A state folder without a (readable) code gets a new one.
    ///
    /// # Errors
    /// [`SetupError::File`], [`SetupError::NoRandomness`].
    pub fn open(state_dir: &Path, tokens: TokensHandle) -> Result<(SetupHandle, Self), SetupError> {
        let path = state_dir.join(FILE);
        let state = match read(&path)? {
            Some(state) => state,
            None => {
                let state = State::fresh()?;
                write(&path, &state)?;
                state
            }
        };
        let (sender, requests) = mpsc::channel(8);
        Ok((SetupHandle(sender), Self { path, state, tokens, requests }))
    }

    /// Serves until every handle is gone.
    pub async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            // A reply that nobody waits for any more is dropped.
            match request {
                Request::Show(reply) => {
                    let _ = reply.send(self.state.view());
                }
                Request::Renew(reply) => {
                    let _ = reply.send(self.renew().await);
                }
                Request::Redeem(code, label, reply) => {
                    let _ = reply.send(self.redeem(&code, label).await);
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<SetupView, SetupError> {
        self.change(State::fresh()?).await?;
        Ok(self.state.view())
    }

    async fn redeem(&mut self, given: &Secret, label: String) -> Result<(String, Secret), SetupError> {
        let (code, wrong) = match &self.state {
            State::Spent => return Err(SetupError::Spent),
            State::Locked => return Err(SetupError::Locked),
            State::Open { code, wrong } => (code.clone(), *wrong),
        };
        // Hashes are compared in constant time.
        let hash = |code: &Secret| blake3::hash(normalise(code.expose()).as_bytes());
        if hash(&code) != hash(given) {
            let wrong = wrong + 1;
            let locked = wrong >= MAX_TRIES;
            self.change(if locked { State::Locked } else { State::Open { code, wrong } }).await?;
            return Err(if locked {
                SetupError::Locked
            } else {
                SetupError::Wrong { left: MAX_TRIES - wrong }
            });
        }
        let open = self.state.clone();
        self.change(State::Spent).await?;
        match self.tokens.create(Role::Admin, label).await {
            Ok(token) => Ok(token),
            Err(error) => {
                self.change(open).await?;
                Err(error.into())
            }
        }
    }

    /// The file first: what it does not say does not count.
    async fn change(&mut self, state: State) -> Result<(), SetupError> {
        let (path, written) = (self.path.clone(), state.clone());
        let done = tokio::task::spawn_blocking(move || write(&path, &written)).await;
        done.map_err(|_| SetupError::Stopping)??;
        self.state = state;
        Ok(())
    }
}

/// What a person types is compared without its case, dashes and spaces.
fn normalise(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).take(64).map(|c| c.to_ascii_uppercase()).collect()
}

/// Whether these bytes are what this module writes, as a state folder of layout 2 held them.
pub(crate) fn is_setup_code(bytes: &[u8]) -> bool {
    parse(bytes).is_some()
}

fn parse(bytes: &[u8]) -> Option<State> {
    State::from_text(std::str::from_utf8(bytes).ok()?)
}

/// A damaged file is as good as none: the state folder told of it when it was opened.
fn read(path: &Path) -> Result<Option<State>, SetupError> {
    match read_checked(path, &SETUP_FILE) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| parse(&bytes))),
        Err(FileError::Damaged { .. }) => Ok(None),
        Err(error) => Err(file_error(&error)),
    }
}

/// Replaces the file so that a power cut leaves the old content or the new.
fn write(path: &Path, state: &State) -> Result<(), SetupError> {
    write_durable(path, &SETUP_FILE, state.to_text().as_bytes()).map_err(|error| file_error(&error))
}

fn file_error(error: &FileError) -> SetupError {
    SetupError::File(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{
        api::fake::{FakeLoop, TestFolder},
        auth::tokens::Tokens,
    };

    struct Bench {
        folder: TestFolder,
        tokens: TokensHandle,
        _fake: FakeLoop,
    }

    impl Bench {
        fn new() -> Self {
            let fake = FakeLoop::start();
            let (tokens, task) = Tokens::new(fake.service());
            tokio::spawn(task.run());
            Self { folder: TestFolder::new(), tokens, _fake: fake }
        }

        fn open(&self) -> SetupHandle {
            let (handle, task) = Setup::open(self.folder.path(), self.tokens.clone()).unwrap();
            tokio::spawn(task.run());
            handle
        }
    }

    #[tokio::test]
    async fn the_code_gives_one_admin_token_whatever_its_spelling() {
        let bench = Bench::new();
        let setup = bench.open();
        let code = setup.show().await.unwrap().code.unwrap();
        assert!(code.expose().len() == 14 && code.expose().matches('-').count() == 2);
        let typed = Secret::new(code.expose().to_lowercase().replace('-', " "));
        let (_, token) = setup.redeem(typed.clone(), "phone".into()).await.unwrap();
        assert_eq!(bench.tokens.verify(token, None).await.unwrap().role, Role::Admin);
        assert_eq!(setup.redeem(typed.clone(), String::new()).await.unwrap_err(), SetupError::Spent);
        let again = bench.open();
        assert_eq!(again.redeem(typed, String::new()).await.unwrap_err(), SetupError::Spent);
        assert_eq!(again.show().await.unwrap(), SetupView { code: None, used: true, locked: false });
    }

    #[tokio::test]
    async fn five_wrong_tries_lock_it_even_over_a_restart_until_a_new_one_is_made() {
        let bench = Bench::new();
        let code = bench.open().show().await.unwrap().code.unwrap();
        for left in (1..MAX_TRIES).rev() {
            let setup = bench.open();
            let wrong = setup.redeem(Secret::new("AAAA-AAAA-AAAA"), String::new()).await;
            assert_eq!(wrong.unwrap_err(), SetupError::Wrong { left });
        }
        let setup = bench.open();
        assert_eq!(setup.redeem(Secret::new(""), String::new()).await.unwrap_err(), SetupError::Locked);
        assert_eq!(setup.redeem(code.clone(), String::new()).await.unwrap_err(), SetupError::Locked);
        let new = setup.renew().await.unwrap().code.unwrap();
        assert_ne!(new, code);
        assert!(setup.redeem(new, String::new()).await.is_ok());
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_made_does_not_spend_the_code() {
        let bench = Bench::new();
        let setup = bench.open();
        let code = setup.show().await.unwrap().code.unwrap();
        let refused = setup.redeem(code.clone(), "x".repeat(65)).await;
        assert_eq!(refused.unwrap_err(), SetupError::Token(TokenError::Label));
        assert!(setup.redeem(code, String::new()).await.is_ok());
    }

    #[tokio::test]
    async fn the_file_is_private_survives_and_is_replaced_when_damaged() {
        let bench = Bench::new();
        let first = bench.open().show().await.unwrap();
        let path = bench.folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bench.open().show().await.unwrap(), first, "a restart keeps the code");
        fs::write(&path, b"\xff\xfe").unwrap();
        let second = bench.open().show().await.unwrap();
        assert!(second.code.is_some() && second != first);
        assert!(!format!("{second:?}").contains(second.code.as_ref().unwrap().expose()));
    }
}
