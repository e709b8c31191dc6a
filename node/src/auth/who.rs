//! Who does something: for what it may do, for traces, for the audit trail.

use std::fmt;

/// Somebody, or something, that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever opened the Unix socket, by the user id that the kernel tells.
    Socket {
        /// The user id, where it is known.
        uid: Option<u32>,
    },
    /// The bearer of a token.
    Token {
        /// The token's id, not secret.
        id: String,
        /// What the token is for.
        label: String,
    },
    /// A person who signed in.
    User {
        /// The user's name.
        name: String,
        /// The id of the session, not secret.
        session: String,
    },
    /// Whoever an outside issuer vouches for.
    Outside {
        /// The name under which this household knows the issuer.
        issuer: String,
        /// The subject, as the issuer calls it.
        subject: String,
    },
}

impl fmt::Display for Who {
    /// One word, without secrets: `socket:1000`, `token:3f2a…`, `user:ann`, `issuer:NAME/SUBJECT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { uid: Some(uid) } => write!(f, "socket:{uid}"),
            Self::Socket { uid: None } => f.write_str("socket"),
            Self::Token { id, .. } => write!(f, "token:{id}"),
            Self::User { name, .. } => write!(f, "user:{name}"),
            Self::Outside { issuer, subject } => write!(f, "issuer:{issuer}/{subject}"),
        }
    }
}
