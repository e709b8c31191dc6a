//! Every way in which input can be wrong, by name. Each says what was wrong, by which rule,
//! and what to do; none is raised after state has changed.

use alloc::string::String;

use thiserror::Error;

/// A name that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a key in hexadecimal.
    #[error("not a key: write it as hexadecimal digits, as `hearth status` shows it")]
    NodeId,
    /// Not `kind/name`.
    #[error(
        "`{0}` is not an object name: write kind/name, the kind of a-z 0-9 _ - (up to 32), \
         the name of A-Z a-z 0-9 . _ : - (up to 96)"
    )]
    Object(String),
    /// Not a field name.
    #[error("`{0}` is not a field name: use a-z 0-9 _ . - (up to 64), starting with a letter")]
    Field(String),
}

/// A value that breaks a rule of stored values.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Larger than a value may be.
    #[error("the value has {bytes} bytes, the limit is 3900: split it over several fields or objects")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// Nested too deeply.
    #[error("the value is nested deeper than 8 levels: flatten it")]
    TooDeep,
    /// Bytes that are not a value of this version.
    #[error("the bytes are not a value: they were damaged, or a newer version wrote them")]
    Malformed,
    /// NaN or an infinity.
    #[error("the value holds a number that is not finite: leave the field out instead")]
    NotFinite,
}

/// A frame that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Larger than a frame may be.
    #[error("the frame has {bytes} bytes, the limit is 262144")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Of a version this Hearth does not speak.
    #[error("the frame is of version {0}, this Hearth speaks 1: update the older of the two nodes")]
    UnknownVersion(u8),
    /// Not a frame.
    #[error("the bytes are not a frame")]
    Malformed,
}
