//! What a client may do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a client may do; each role includes those before it.
///
/// There is a fourth among the members of a household, `node`: what nodes do to one another by their own keys, over the mesh, because a
/// statement of the roster admits them. It is nobody else's: a token, a person or an outside issuer that had it could stand in for a
/// board without being in the roster, and could not be removed from it. So no value of this type is called so, and whoever asks for it
/// is refused by [`RoleError::Node`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Writes objects and commands devices.
    Operator,
    /// Everything.
    Admin,
}

/// Why a text is no role of a client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RoleError {
    /// What nodes are to one another.
    #[error(
        "`node` is no role of a client: only boards have it, among themselves, by being in the household (`hearth invite`)"
    )]
    Node,
    /// Nothing.
    #[error("`{0}` is no role; the roles are viewer, operator and admin")]
    Unknown(String),
}

impl Role {
    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found =
            [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| match text {
            "node" => RoleError::Node,
            _ => RoleError::Unknown(text.chars().filter(|c| !c.is_control()).take(32).collect()),
        })
    }
}

impl TryFrom<String> for Role {
    type Error = RoleError;

    fn try_from(text: String) -> Result<Self, RoleError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nobody_is_a_node_by_a_token() {
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::from_value::<Role>(serde_json::to_value(role).unwrap()).unwrap(), role);
        }
        assert_eq!("node".parse::<Role>(), Err(RoleError::Node));
        let refused = serde_json::from_str::<Role>("\"node\"").unwrap_err();
        assert!(refused.to_string().contains("only boards have it"), "{refused}");
        assert!(matches!("Admin".parse::<Role>(), Err(RoleError::Unknown(_))));
    }
}
