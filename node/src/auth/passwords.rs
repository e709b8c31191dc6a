//! Passwords: what one may be, and how it is kept: argon2id (RFC 9106), never itself.
//!
//! A hash takes 19 MiB and a good part of a second on a small board, so two run at once in the
//! process, eight more wait, and whoever comes then is told to come again. What is stored comes from
//! other nodes, too: its parameters are bounded before a byte is taken for them.
//!
//! A password is the bytes of its UTF-8 text as it was given: it is not normalised (NFC), so that one
//! with accents must be typed on a keyboard that composes them as the first one did.

use std::{fmt, sync::Arc};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::BASE64_NOPAD;
use thiserror::Error;
use tokio::{sync::Semaphore, task::spawn_blocking};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Secret, random};

/// Fewest characters of a password (NIST SP 800-63B, section 5.1.1.2).
pub const MIN_CHARS: usize = 8;
/// Most characters of a password.
pub const MAX_CHARS: usize = 128;
/// Hashes that run at once.
const AT_ONCE: usize = 2;
/// Hashes that wait for their turn at most.
const WAITING: usize = 8;
/// How a new password is hashed: the first choice of the OWASP password storage cheat sheet.
const COST: Cost = Cost { kib: 19_456, passes: 2, lanes: 1 };
/// What is computed at most for what another node has stored: two of them fit into a board of 512 MB.
const MOST: Cost = Cost { kib: 65_536, passes: 8, lanes: 4 };
/// So much work at most, in KiB times passes: four times that of today.
const MOST_WORK: u64 = 4 * COST.work();
const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;
/// Longest text of a hash.
const MAX_TEXT_BYTES: usize = 256;

/// What others try first, of those that are long enough; in lower case.
const COMMON: [&str; 64] = [
    "00000000",
    "0123456789",
    "11111111",
    "111111111",
    "12121212",
    "123123123",
    "12341234",
    "12344321",
    "123456789",
    "1234567890",
    "12345678",
    "123456789a",
    "12345678910",
    "123454321",
    "1234qwer",
    "1q2w3e4r",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "22222222",
    "55555555",
    "66666666",
    "66778899",
    "77777777",
    "87654321",
    "88888888",
    "987654321",
    "9876543210",
    "99999999",
    "a1234567",
    "a12345678",
    "aa123456",
    "aaaaaaaa",
    "abc12345",
    "abcd1234",
    "abcdefgh",
    "abcdefg1",
    "administrator",
    "asdfasdf",
    "asdfghjk",
    "asdfghjkl",
    "baseball",
    "changeme",
    "charlie1",
    "computer",
    "football",
    "iloveyou",
    "jennifer",
    "letmein1",
    "liverpool",
    "michelle",
    "passw0rd",
    "password",
    "password1",
    "password12",
    "password123",
    "princess",
    "q1w2e3r4",
    "qwer1234",
    "qwerty12",
    "qwerty123",
    "qwertyui",
    "qwertyuiop",
    "raspberry",
    "welcome1",
];

/// Why a password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PasswordRule {
    /// Too short, or too long.
    #[error("a password has {MIN_CHARS} to {MAX_CHARS} characters")]
    Length,
    /// It has a line break or the like.
    #[error("a password has no control characters")]
    Control,
    /// It is the user's name.
    #[error("the password is the user's name")]
    Name,
    /// Everybody tries it first.
    #[error("the password is among the most common ones")]
    Common,
}

/// Why a password was not hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HashError {
    /// Too many wait, or there is no memory for it now.
    #[error("too many people sign in at once")]
    Busy,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

/// Whether somebody may take this password.
///
/// # Errors
/// The rule that it breaks.
pub fn check(password: &Secret, user: &str) -> Result<(), PasswordRule> {
    let text = password.expose();
    // The bytes first: they cost nothing to count.
    if text.len() > 4 * MAX_CHARS || !(MIN_CHARS..=MAX_CHARS).contains(&text.chars().count()) {
        return Err(PasswordRule::Length);
    }
    if text.chars().any(char::is_control) {
        return Err(PasswordRule::Control);
    }
    let lower = Zeroizing::new(text.to_lowercase());
    if *lower == user {
        return Err(PasswordRule::Name);
    }
    if COMMON.contains(&lower.as_str()) {
        return Err(PasswordRule::Common);
    }
    Ok(())
}

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    const fn work(self) -> u64 {
        self.kib as u64 * self.passes as u64
    }

    /// `m=19456,t=2,p=1`, if it is not beyond what a board may be asked for.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let mut number = |name: &str| -> Option<u32> {
            let digits = parts.next()?.strip_prefix(name)?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        let cost = Self { kib: number("m=")?, passes: number("t=")?, lanes: number("p=")? };
        let bounded = (1..=MOST.kib).contains(&cost.kib)
            && (1..=MOST.passes).contains(&cost.passes)
            && (1..=MOST.lanes).contains(&cost.lanes)
            && cost.kib >= 8 * cost.lanes
            && cost.work() <= MOST_WORK;
        (parts.next().is_none() && bounded).then_some(cost)
    }
}

/// A password's hash, in the form of the PHC string format.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    cost: Cost,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hash of a password>")
    }
}

impl PasswordHash {
    /// Reads `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`; none when it is something else, or would cost more than a
    /// board may be asked for.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let parts: Vec<&str> = text.split('$').collect();
        let ["", "argon2id", "v=19", cost, salt, output] = parts.as_slice() else { return None };
        let cost = Cost::parse(cost)?;
        let salt = BASE64_NOPAD.decode(salt.as_bytes()).ok()?;
        let output = BASE64_NOPAD.decode(output.as_bytes()).ok()?;
        let sized = (8..=64).contains(&salt.len()) && (16..=64).contains(&output.len());
        sized.then_some(Self { cost, salt, output })
    }

    /// The text that is stored.
    pub fn to_text(&self) -> String {
        let Cost { kib, passes, lanes } = self.cost;
        let (salt, output) = (BASE64_NOPAD.encode(&self.salt), BASE64_NOPAD.encode(&self.output));
        format!("$argon2id$v=19$m={kib},t={passes},p={lanes}${salt}${output}")
    }

    /// Whether it costs a guesser less than a hash that is made today.
    pub fn is_weak(&self) -> bool {
        self.cost.kib < COST.kib || self.cost.work() < COST.work()
    }

    /// The hash of this password with the same salt and cost.
    fn again(&self, password: &Secret) -> Result<Self, HashError> {
        let Cost { kib, passes, lanes } = self.cost;
        let params = Params::new(kib, passes, lanes, Some(self.output.len())).map_err(|_| HashError::Busy)?;
        let mut memory = Memory::new(params.block_count())?;
        let mut output = vec![0; self.output.len()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let bytes = password.expose().as_bytes();
        argon2
            .hash_password_into_with_memory(bytes, &self.salt, &mut output, &mut memory.0)
            .map_err(|_| HashError::Busy)?;
        Ok(Self { output, ..self.clone() })
    }

    /// Compared in constant time, as [`blake3::Hash`] does.
    fn is(&self, other: &Self) -> bool {
        blake3::hash(&self.output) == blake3::hash(&other.output)
    }
}

/// What one hash works in. Whatever happens, nothing of the password stays in what is given back.
struct Memory(Vec<Block>);

impl Memory {
    /// More than this the allocator of glibc maps on its own, on every machine, and gives back to the system as soon as it
    /// is free (mallopt(3), `M_MMAP_THRESHOLD`). Of less it would keep some for each thread that ever hashed: ten guesses at
    /// once took 200 MB for good. What lies beyond the blocks is never touched, and so takes no memory.
    const MAPPED_BYTES: usize = 33 << 20;

    fn new(blocks: usize) -> Result<Self, HashError> {
        let mut memory = Vec::new();
        let room = blocks.max(Self::MAPPED_BYTES / size_of::<Block>());
        memory.try_reserve_exact(room).map_err(|_| HashError::Busy)?;
        memory.resize(blocks, Block::new());
        Ok(Self(memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.iter_mut().zeroize();
    }
}

/// Where passwords are hashed. Clones share the bounds.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// Those that run or wait.
    places: Arc<Semaphore>,
    /// Those that run.
    running: Arc<Semaphore>,
    /// What the password of somebody who does not exist is compared with.
    nobody: PasswordHash,
}

impl Passwords {
    /// The one of this process.
    ///
    /// # Errors
    /// [`HashError::NoRandomness`].
    pub fn new() -> Result<Self, HashError> {
        let (places, running) = (Semaphore::new(AT_ONCE + WAITING), Semaphore::new(AT_ONCE));
        Ok(Self { places: Arc::new(places), running: Arc::new(running), nobody: fresh()? })
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// [`HashError`].
    pub async fn hash(&self, password: Secret) -> Result<PasswordHash, HashError> {
        let empty = fresh()?;
        self.run(empty, password).await
    }

    /// Whether it is the password that was stored. Where none is, the same work is done, and the answer is no.
    ///
    /// # Errors
    /// [`HashError::Busy`].
    pub async fn verify(&self, stored: Option<PasswordHash>, password: Secret) -> Result<bool, HashError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        let found = self.run(stored.clone(), password).await?;
        Ok(found.is(&stored) && known)
    }

    async fn run(&self, like: PasswordHash, password: Secret) -> Result<PasswordHash, HashError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| HashError::Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| HashError::Busy)?;
        // A client that goes away does not end the work: its place is free when it is done.
        let done = spawn_blocking(move || {
            let _held = (place, turn);
            like.again(&password)
        });
        done.await.unwrap_or(Err(HashError::Busy))
    }
}

/// A new salt, today's cost, and an output that nobody's password has.
fn fresh() -> Result<PasswordHash, HashError> {
    let salt = random::<SALT_BYTES>().ok_or(HashError::NoRandomness)?;
    let output = random::<OUTPUT_BYTES>().ok_or(HashError::NoRandomness)?;
    Ok(PasswordHash { cost: COST, salt: salt.to_vec(), output: output.to_vec() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn stored(cost: &str) -> String {
        format!("$argon2id$v=19${cost}$c2FsdHNhbHRzYWx0c2FsdA$4444444444444444444444444444444444444444444")
    }

    #[tokio::test]
    async fn a_password_opens_what_it_was_set_for_and_its_text_survives() {
        let passwords = Passwords::new().unwrap();
        let right = Secret::new("correct horse");
        let hash = passwords.hash(right.clone()).await.unwrap();
        let text = hash.to_text();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert!(!text.contains("horse") && !format!("{hash:?}").contains('$'));
        let read = PasswordHash::parse(&text).unwrap();
        assert_eq!(read, hash);
        assert!(!read.is_weak());
        assert!(passwords.verify(Some(read.clone()), right.clone()).await.unwrap());
        assert!(!passwords.verify(Some(read), Secret::new("correct horse ")).await.unwrap());
        assert!(!passwords.verify(None, right.clone()).await.unwrap(), "nobody");
        assert_ne!(passwords.hash(right).await.unwrap(), hash, "each has a salt of its own");
    }

    #[test]
    fn it_computes_what_the_reference_does() {
        // The test vector `argon2id v=19 m=256 t=2 p=1` of the reference implementation's test.c.
        let text = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let hash = PasswordHash::parse(text).unwrap();
        assert!(hash.is(&hash.again(&Secret::new("password")).unwrap()));
        assert!(!hash.is(&hash.again(&Secret::new("Password")).unwrap()));
        assert!(hash.is_weak() && hash.to_text() == text);
    }

    #[test]
    fn what_would_cost_a_board_too_much_is_refused_before_it_is_computed() {
        for fine in ["m=19456,t=2,p=1", "m=8,t=1,p=1", "m=65536,t=2,p=1", "m=47104,t=1,p=1"] {
            assert!(PasswordHash::parse(&stored(fine)).is_some(), "{fine}");
        }
        for wrong in [
            "m=4194304,t=1,p=1",
            "m=65537,t=1,p=1",
            "m=65536,t=3,p=1",
            "m=19456,t=4294967295,p=1",
            "m=19456,t=0,p=1",
            "m=19456,t=2,p=0",
            "m=19456,t=2,p=5",
            "m=0,t=2,p=1",
            "m=8,t=2,p=2",
            "m=19456,t=2",
            "t=2,m=19456,p=1",
            "m=19456,t=2,p=1,keyid=x",
            "m=+19456,t=2,p=1",
            "m=-1,t=2,p=1",
        ] {
            assert_eq!(PasswordHash::parse(&stored(wrong)), None, "{wrong}");
        }
        let good = stored("m=19456,t=2,p=1");
        for wrong in [
            String::new(),
            good.replace("argon2id", "argon2d"),
            good.replace("v=19", "v=16"),
            good.replace("$c2FsdHNhbHRzYWx0c2FsdA$", "$c2Fs$"),
            good.replace("$c2FsdHNhbHRzYWx0c2FsdA$", "$c2Fsd!$"),
            format!("{good}$x"),
            format!("{good}{}", "4".repeat(300)),
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$".into(),
        ] {
            assert_eq!(PasswordHash::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_rules_of_a_new_password() {
        let rule = |text: &str| check(&Secret::new(text), "annabella").err();
        assert_eq!(rule("12 chars, ok"), None);
        assert_eq!(rule("πάνταρεῖ"), None, "characters count, not bytes");
        assert_eq!(rule("aaaaaaab"), None, "no rule of composition");
        assert_eq!(rule("seven77"), Some(PasswordRule::Length));
        assert_eq!(rule(&"x".repeat(128)), None);
        assert_eq!(rule(&"x".repeat(129)), Some(PasswordRule::Length));
        assert_eq!(rule(&"\u{1f9c0}".repeat(128)), None);
        assert_eq!(rule(&"x".repeat(1 << 20)), Some(PasswordRule::Length));
        assert_eq!(rule("line\nbreak"), Some(PasswordRule::Control));
        assert_eq!(rule("Annabella"), Some(PasswordRule::Name));
        assert_eq!(rule("PassWord123"), Some(PasswordRule::Common));
        assert!(COMMON.iter().all(|word| word.len() >= MIN_CHARS && *word == word.to_lowercase()));
    }

    #[tokio::test]
    async fn two_run_eight_wait_and_more_are_sent_away() {
        let passwords = Passwords::new().unwrap();
        let blocked = Arc::clone(&passwords.running).acquire_many_owned(2).await.unwrap();
        let cheap = PasswordHash::parse(&stored("m=8,t=1,p=1")).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..AT_ONCE + WAITING {
            let (passwords, cheap) = (passwords.clone(), cheap.clone());
            waiting.push(tokio::spawn(async move { passwords.verify(Some(cheap), Secret::new("x")).await }));
        }
        while passwords.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.verify(Some(cheap), Secret::new("x")).await, Err(HashError::Busy));
        drop(blocked);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(false));
        }
        assert_eq!(passwords.places.available_permits(), AT_ONCE + WAITING);
    }
}
