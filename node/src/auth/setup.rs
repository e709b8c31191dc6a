//! The one-time setup code by which a person becomes the first admin without a shell on the board:
//! three groups of four letters or digits, such as `KT4M-9QWZ-H2PC`. They are 60 random bits, kept
//! in a file that only the daemon's user can read.
//!
//! There is none until somebody on the board asks for it: a node that nobody sets up lets nobody in. It is good for a
//! quarter of an hour, by the monotonic clock and by the time of day, of which the stricter counts: after a restart for
//! the rest at most. Five wrong tries lock it until somebody on the board makes a new one.
//!
//! One task owns the file. The code is spent on disk before the user or token is made, so that a crash can
//! cost a code but never gives it twice.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Secret,
    people::{NewUser, PeopleHandle, SignedIn},
    random,
    tokens::{Role, TokenError, TokensHandle},
    users::UserError,
};
use crate::{
    state_dir::SETUP_FILE,
    store::files::{FileError, read_checked, write_durable},
};

/// The name of the file within the state folder.
pub const FILE: &str = "setup-code";
/// So many wrong tries lock the code.
pub const MAX_TRIES: u8 = 5;
/// How long a code is good.
pub const LIFE: Duration = Duration::from_secs(900);

/// Letters and digits that nobody takes for one another; 32, so that each is 5 bits.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const CODE_LETTERS: usize = 12;
/// The format of its content, the first word.
const FORMAT: &str = "v3";
/// That in which a code was good for ever.
const WITHOUT_TIME: &str = "v2";

/// Why a setup code opened nothing, or was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SetupError {
    /// Another code than the one shown.
    #[error("this is not the setup code; {left} tries are left")]
    Wrong {
        /// Tries left.
        left: u8,
    },
    /// Nobody has asked for one.
    #[error("there is no setup code: nobody on the board has asked for one")]
    None,
    /// Its time is over.
    #[error("the setup code was good for {} minutes, which are over", LIFE.as_secs() / 60)]
    Over,
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
    /// No user was made; the code counts as before.
    #[error(transparent)]
    User(#[from] UserError),
    /// The user was made, for which the code is spent.
    #[error("the user was made, and could not be signed in: {0}")]
    NotSignedIn(UserError),
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
    /// For how many seconds it is still good.
    pub seconds_left: u64,
}

/// What somebody wants for the code.
#[derive(Debug)]
pub enum Wanted {
    /// An admin token with this label.
    Token(String),
    /// To be this user, and a session begun from this address.
    User(NewUser, Option<IpAddr>),
}

/// What the code was traded for.
#[derive(Debug, PartialEq, Eq)]
pub enum Given {
    /// A token: its id and itself.
    Token(String, Secret),
    /// A user with a session.
    User(SignedIn),
}

#[derive(Debug)]
enum Request {
    Show(oneshot::Sender<Result<SetupView, SetupError>>),
    Renew(oneshot::Sender<Result<SetupView, SetupError>>),
    Redeem(Secret, Wanted, oneshot::Sender<Result<Given, SetupError>>),
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

    /// The code, for whoever is on the board: a new one, if there was none or its time was over.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn show(&self) -> Result<SetupView, SetupError> {
        self.ask(Request::Show).await?
    }

    /// Makes a new code; the one before counts no more.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn renew(&self) -> Result<SetupView, SetupError> {
        self.ask(Request::Renew).await?
    }

    /// Trades the code for what an admin comes in with.
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn redeem(&self, code: Secret, wanted: Wanted) -> Result<Given, SetupError> {
        self.ask(|reply| Request::Redeem(code, wanted, reply)).await?
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    None,
    Open {
        code: Secret,
        wrong: u8,
        /// When it was made, in seconds since 1970 by this board's clock.
        made_s: u64,
        /// When it is over.
        until: Instant,
    },
    Over,
    Locked,
    Spent,
}

impl State {
    fn fresh(now_s: u64) -> Result<Self, SetupError> {
        let bytes = random::<CODE_LETTERS>().ok_or(SetupError::NoRandomness)?;
        let letters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32)));
        let letters: Vec<char> = letters.map(|letter| char::from(*letter)).collect();
        let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
        let code = Secret::new(groups.join("-"));
        Ok(Self::Open { code, wrong: 0, made_s: now_s, until: Instant::now() + LIFE })
    }

    fn to_text(&self) -> String {
        match self {
            Self::Open { code, wrong, made_s, .. } => {
                format!("{FORMAT} open {wrong} {} {made_s}\n", code.expose())
            }
            Self::None | Self::Over => format!("{FORMAT} over\n"),
            Self::Locked => format!("{FORMAT} locked\n"),
            Self::Spent => format!("{FORMAT} spent\n"),
        }
    }

    fn from_text(text: &str, now_s: u64) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        // Layout 1 of the state folder had no format here.
        let old = words.strip_prefix(&[WITHOUT_TIME]).unwrap_or(&words);
        match words.strip_prefix(&[FORMAT]).unwrap_or(old) {
            ["open", wrong, code, rest @ ..] if normalise(code).len() == CODE_LETTERS => {
                let wrong = wrong.parse().ok().filter(|wrong| *wrong < MAX_TRIES)?;
                match rest {
                    [] => Some(Self::Over),
                    [made_s] => Some(Self::resumed(Secret::new(*code), wrong, made_s.parse().ok()?, now_s)),
                    _ => None,
                }
            }
            ["over"] => Some(Self::Over),
            ["locked"] => Some(Self::Locked),
            ["spent"] => Some(Self::Spent),
            _ => None,
        }
    }

    /// A code after a restart. By a clock that stands before it was made nobody knows how old it is.
    fn resumed(code: Secret, wrong: u8, made_s: u64, now_s: u64) -> Self {
        let age = now_s.checked_sub(made_s).map(Duration::from_secs);
        match age.and_then(|age| LIFE.checked_sub(age)).filter(|left| !left.is_zero()) {
            Some(left) => Self::Open { code, wrong, made_s, until: Instant::now() + left },
            None => Self::Over,
        }
    }

    /// The same, now.
    fn at(self, now: Instant, now_s: u64) -> Self {
        match &self {
            Self::Open { made_s, until, .. }
                if now >= *until || now_s.saturating_sub(*made_s) >= LIFE.as_secs() =>
            {
                Self::Over
            }
            _ => self,
        }
    }

    fn view(&self) -> SetupView {
        let (code, seconds_left) = match self {
            Self::Open { code, until, .. } => {
                let left = until.saturating_duration_since(Instant::now());
                (Some(code.clone()), u64::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(0))
            }
            _ => (None, 0),
        };
        SetupView { code, used: *self == Self::Spent, locked: *self == Self::Locked, seconds_left }
    }
}

/// The owner of the setup code; a task runs it.
#[derive(Debug)]
pub struct Setup {
    path: PathBuf,
    state: State,
    tokens: TokensHandle,
    people: PeopleHandle,
    requests: mpsc::Receiver<Request>,
}

impl Setup {
    /// The owner and the way to it. A state folder without a (readable) code has none until somebody asks for it.
    ///
    /// # Errors
    /// [`SetupError::File`].
    pub fn open(
        state_dir: &Path,
        tokens: TokensHandle,
        people: PeopleHandle,
    ) -> Result<(SetupHandle, Self), SetupError> {
        let path = state_dir.join(FILE);
        let state = read(&path)?.unwrap_or(State::None);
        let (sender, requests) = mpsc::channel(8);
        Ok((SetupHandle(sender), Self { path, state, tokens, people, requests }))
    }

    /// Serves until every handle is gone.
    pub async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            self.state = self.state.at(Instant::now(), now_s());
            // A reply that nobody waits for any more is dropped.
            match request {
                Request::Show(reply) => {
                    let _ = reply.send(self.show().await);
                }
                Request::Renew(reply) => {
                    let _ = reply.send(self.renew().await);
                }
                Request::Redeem(code, wanted, reply) => {
                    let _ = reply.send(self.redeem(&code, wanted).await);
                }
            }
        }
    }

    async fn show(&mut self) -> Result<SetupView, SetupError> {
        match self.state {
            State::None | State::Over => self.renew().await,
            State::Open { .. } | State::Locked | State::Spent => Ok(self.state.view()),
        }
    }

    async fn renew(&mut self) -> Result<SetupView, SetupError> {
        self.change(State::fresh(now_s())?).await?;
        Ok(self.state.view())
    }

    async fn redeem(&mut self, given: &Secret, wanted: Wanted) -> Result<Given, SetupError> {
        let open = self.state.clone();
        let (code, wrong) = match &open {
            State::None => return Err(SetupError::None),
            State::Over => return Err(SetupError::Over),
            State::Spent => return Err(SetupError::Spent),
            State::Locked => return Err(SetupError::Locked),
            State::Open { code, wrong, .. } => (code, wrong + 1),
        };
        // Hashes are compared in constant time.
        let hash = |code: &Secret| blake3::hash(normalise(code.expose()).as_bytes());
        if hash(code) != hash(given) {
            self.change(failed(open, wrong)).await?;
            let left = MAX_TRIES.saturating_sub(wrong);
            return Err(if left == 0 { SetupError::Locked } else { SetupError::Wrong { left } });
        }
        if let Wanted::User(new, _) = &wanted {
            self.people.may_create(new).await?;
        }
        self.change(State::Spent).await?;
        match self.give(wanted).await {
            // An admin came of it: the code counts no more.
            done @ (Ok(_) | Err(SetupError::NotSignedIn(_))) => done,
            Err(error) => {
                self.change(open).await?;
                Err(error)
            }
        }
    }

    async fn give(&self, wanted: Wanted) -> Result<Given, SetupError> {
        match wanted {
            Wanted::Token(label) => {
                let (id, token) = self.tokens.create(Role::Admin, label).await?;
                Ok(Given::Token(id, token))
            }
            Wanted::User(new, address) => {
                let name = new.name.clone();
                self.people.create(new).await?;
                let signed_in = self.people.begin_session(&name, address).await;
                signed_in.map(Given::User).map_err(SetupError::NotSignedIn)
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

/// An open code after so many wrong tries.
fn failed(state: State, wrong: u8) -> State {
    match state {
        State::Open { code, made_s, until, .. } if wrong < MAX_TRIES => {
            State::Open { code, wrong, made_s, until }
        }
        _ => State::Locked,
    }
}

/// Whether the code may be tried from here: the board itself, and networks that no router forwards to from outside
/// (RFC 1918, RFC 3927, RFC 4193, RFC 4291).
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What a person types is compared without its case, dashes and spaces.
fn normalise(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).take(64).map(|c| c.to_ascii_uppercase()).collect()
}

/// Whether these bytes are what this module writes, as a state folder of layout 2 held them.
pub(crate) fn is_setup_code(bytes: &[u8]) -> bool {
    parse(bytes, 0).is_some()
}

fn parse(bytes: &[u8], now_s: u64) -> Option<State> {
    State::from_text(std::str::from_utf8(bytes).ok()?, now_s)
}

/// A damaged file is as good as none: the state folder told of it when it was opened.
fn read(path: &Path) -> Result<Option<State>, SetupError> {
    match read_checked(path, &SETUP_FILE) {
        Ok(bytes) => Ok(bytes.and_then(|bytes| parse(&bytes, now_s()))),
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

fn now_s() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::{
        api::fake::{FakeLoop, TestFolder},
        auth::{Scope, people::tests::people, tokens::Tokens},
    };

    struct Bench {
        folder: TestFolder,
        tokens: TokensHandle,
        people: PeopleHandle,
        fake: FakeLoop,
    }

    impl Bench {
        fn new() -> Self {
            let (fake, folder) = (FakeLoop::start(), TestFolder::new());
            let (tokens, task) = Tokens::new(fake.service());
            tokio::spawn(task.run());
            let people = people(&fake, &folder);
            Self { folder, tokens, people, fake }
        }

        fn open(&self) -> SetupHandle {
            let (handle, task) =
                Setup::open(self.folder.path(), self.tokens.clone(), self.people.clone()).unwrap();
            tokio::spawn(task.run());
            handle
        }

        async fn code(&self) -> Secret {
            self.open().show().await.unwrap().code.unwrap()
        }
    }

    #[tokio::test]
    async fn a_code_that_made_a_user_is_spent_also_where_no_session_could_be_begun() {
        let bench = Bench::new();
        let code = bench.code().await;
        let setup = bench.open();
        bench.fake.break_kind(Some("session"));
        let refused = setup.redeem(code.clone(), user("ann", "correct horse")).await;
        assert!(matches!(refused, Err(SetupError::NotSignedIn(_))), "{refused:?}");
        assert_eq!(setup.redeem(code, user("ben", "correct horse")).await, Err(SetupError::Spent));
        bench.fake.break_kind(None);
        assert!(bench.people.sign_in("ann", Secret::new("correct horse"), None).await.is_ok());
        assert_eq!(bench.people.users().await.unwrap().len(), 1);
    }

    fn token(label: &str) -> Wanted {
        Wanted::Token(label.into())
    }

    fn user(name: &str, password: &str) -> Wanted {
        let password = Secret::new(password);
        let new = NewUser { name: name.into(), role: Role::Admin, scope: Scope::default(), password };
        Wanted::User(new, None)
    }

    #[tokio::test]
    async fn the_code_gives_one_admin_token_whatever_its_spelling() {
        let bench = Bench::new();
        let setup = bench.open();
        let code = setup.show().await.unwrap().code.unwrap();
        assert!(code.expose().len() == 14 && code.expose().matches('-').count() == 2);
        let typed = Secret::new(code.expose().to_lowercase().replace('-', " "));
        let Given::Token(_, given) = setup.redeem(typed.clone(), token("phone")).await.unwrap() else {
            panic!()
        };
        assert_eq!(bench.tokens.verify(given, None).await.unwrap().role, Role::Admin);
        assert_eq!(setup.redeem(typed.clone(), token("")).await.unwrap_err(), SetupError::Spent);
        let again = bench.open();
        assert_eq!(again.redeem(typed, token("")).await.unwrap_err(), SetupError::Spent);
        let view = again.show().await.unwrap();
        assert_eq!(view, SetupView { code: None, used: true, locked: false, seconds_left: 0 });
    }

    #[tokio::test]
    async fn it_makes_the_first_admin_and_is_spent_only_when_there_is_one() {
        let bench = Bench::new();
        let setup = bench.open();
        let code = setup.show().await.unwrap().code.unwrap();
        for (wanted, refused) in [
            (user("Ann", "correct horse"), UserError::Name),
            (user("ann", "short"), UserError::Password(crate::auth::passwords::PasswordRule::Length)),
        ] {
            assert_eq!(setup.redeem(code.clone(), wanted).await.unwrap_err(), SetupError::User(refused));
        }
        let Given::User(ann) = setup.redeem(code.clone(), user("ann", "correct horse")).await.unwrap() else {
            panic!()
        };
        assert_eq!(bench.people.recognise(ann.secret).await.unwrap().role, Role::Admin);
        assert!(bench.people.sign_in("ann", Secret::new("correct horse"), None).await.is_ok());
        assert_eq!(setup.redeem(code, user("ben", "correct horse")).await.unwrap_err(), SetupError::Spent);
        let again = setup.renew().await.unwrap().code.unwrap();
        let taken = setup.redeem(again.clone(), user("ann", "another horse")).await;
        assert_eq!(taken.unwrap_err(), SetupError::User(UserError::Taken));
        assert!(setup.redeem(again, user("ben", "correct horse")).await.is_ok());
    }

    #[tokio::test]
    async fn nobody_gets_in_while_nobody_on_the_board_has_asked_for_a_code() {
        let bench = Bench::new();
        let setup = bench.open();
        for guess in ["", "AAAA-AAAA-AAAA"] {
            assert_eq!(setup.redeem(Secret::new(guess), token("")).await.unwrap_err(), SetupError::None);
        }
        assert!(!bench.folder.path().join(FILE).exists());
        assert!(setup.show().await.unwrap().code.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_good_for_a_quarter_of_an_hour() {
        let bench = Bench::new();
        let setup = bench.open();
        let first = setup.show().await.unwrap();
        assert_eq!(first.seconds_left, 900);
        tokio::time::advance(LIFE - Duration::from_secs(1)).await;
        let view = setup.show().await.unwrap();
        assert_eq!((view.code.as_ref(), view.seconds_left), (first.code.as_ref(), 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let code = first.code.unwrap();
        assert_eq!(setup.redeem(code.clone(), token("")).await.unwrap_err(), SetupError::Over);
        let second = setup.show().await.unwrap();
        assert!(second.code.as_ref().is_some_and(|second| *second != code) && second.seconds_left == 900);
    }

    #[test]
    fn after_a_restart_it_is_good_for_the_rest_at_most() {
        let open = |made: &str, now_s| {
            let read = State::from_text(&format!("v3 open 1 ABCD-EFGH-JKLM{made}\n"), now_s)?;
            Some(read.view().seconds_left)
        };
        assert_eq!(open(" 1000", 1_000), Some(900));
        assert_eq!(open(" 1000", 1_600), Some(300));
        for over in [1_900, 99_999, 999, 0] {
            assert_eq!(open(" 1000", over), Some(0), "{over}");
        }
        assert_eq!(open(" x", 1_000), None);
        assert_eq!(open(" 1000 1", 1_000), None);
        // Those of before had no time.
        for old in ["v2 open 0 ABCD-EFGH-JKLM\n", "open 0 ABCD-EFGH-JKLM\n"] {
            assert_eq!(State::from_text(old, 0), Some(State::Over));
        }
        let state = State::fresh(1_000).unwrap();
        assert_eq!(State::from_text(&state.to_text(), 1_000).unwrap().to_text(), state.to_text());
        let (now, until) = (Instant::now(), Instant::now() + LIFE);
        assert_eq!(state.clone().at(now, 1_899), state);
        assert_eq!(state.clone().at(now, 1_900), State::Over, "by the time of day");
        assert_eq!(state.at(until, 0), State::Over, "by the monotonic clock");
        for other in [State::Over, State::Locked, State::Spent] {
            assert_eq!(State::from_text(&other.to_text(), 5), Some(other));
        }
    }

    #[test]
    fn it_may_be_tried_from_the_board_and_its_network_only() {
        let near = |text: &str| is_near(text.parse().unwrap());
        for good in [
            "127.0.0.1",
            "::1",
            "192.168.1.9",
            "10.0.0.1",
            "172.16.5.4",
            "169.254.1.1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(near(good), "{good}");
        }
        for far in [
            "203.0.113.9",
            "8.8.8.8",
            "172.32.0.1",
            "100.64.0.1",
            "2001:db8::1",
            "::ffff:8.8.8.8",
            "0.0.0.0",
            "::",
        ] {
            assert!(!near(far), "{far}");
        }
    }

    #[tokio::test]
    async fn five_wrong_tries_lock_it_even_over_a_restart_until_a_new_one_is_made() {
        let bench = Bench::new();
        let code = bench.code().await;
        for left in (1..MAX_TRIES).rev() {
            let setup = bench.open();
            let wrong = setup.redeem(Secret::new("AAAA-AAAA-AAAA"), token("")).await;
            assert_eq!(wrong.unwrap_err(), SetupError::Wrong { left });
        }
        let setup = bench.open();
        assert_eq!(setup.redeem(Secret::new(""), token("")).await.unwrap_err(), SetupError::Locked);
        assert_eq!(setup.redeem(code.clone(), token("")).await.unwrap_err(), SetupError::Locked);
        assert!(setup.show().await.unwrap().locked);
        let new = setup.renew().await.unwrap().code.unwrap();
        assert_ne!(new, code);
        assert!(setup.redeem(new, token("")).await.is_ok());
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_made_does_not_spend_the_code() {
        let bench = Bench::new();
        let setup = bench.open();
        let code = setup.show().await.unwrap().code.unwrap();
        let refused = setup.redeem(code.clone(), token(&"x".repeat(65))).await;
        assert_eq!(refused.unwrap_err(), SetupError::Token(TokenError::Label));
        assert!(setup.redeem(code, token("")).await.is_ok());
    }

    #[tokio::test]
    async fn the_file_is_private_survives_and_a_damaged_one_opens_nothing() {
        let bench = Bench::new();
        let first = bench.code().await;
        let path = bench.folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bench.code().await, first, "a restart keeps the code");
        fs::write(&path, b"\xff\xfe").unwrap();
        let setup = bench.open();
        assert_eq!(setup.redeem(first.clone(), token("")).await.unwrap_err(), SetupError::None);
        let second = setup.show().await.unwrap();
        assert!(second.code.as_ref().is_some_and(|second| *second != first));
        assert!(!format!("{second:?}").contains(second.code.as_ref().unwrap().expose()));
    }
}
