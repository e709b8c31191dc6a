//! What a field holds.

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use core::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::error::ValueError;

/// Largest encoded value, in bytes: with its stamp, dot and checksum it stays below the
/// 4 KiB up to which the store is fast.
pub const MAX_VALUE_BYTES: usize = 3_900;
/// Deepest nesting of lists and maps.
pub const MAX_DEPTH: usize = 8;

/// A value: what JSON can say, plus bytes, with integers kept apart from floats.
///
/// It is encoded by postcard and travels as those bytes; [`Value::decode`] is the only way
/// back, because it refuses depth that would exhaust a stack.
#[derive(Clone, PartialEq, Serialize)]
pub enum Value {
    /// Nothing, said explicitly. A field that is deleted is a tombstone instead.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite IEEE 754 double; NaN and the infinities are refused.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<Box<str>, Value>),
}

impl Value {
    /// The bytes under which the value is stored, sent and compared.
    ///
    /// # Errors
    /// [`ValueError`] names the rule: size, depth or a float that is not finite.
    pub fn encode(&self) -> Result<Arc<[u8]>, ValueError> {
        self.check_shape(0)?;
        let bytes = postcard::to_allocvec(self).map_err(|_| ValueError::Malformed)?;
        if bytes.len() > MAX_VALUE_BYTES {
            return Err(ValueError::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes.into())
    }

    /// Reads a value back from its bytes.
    ///
    /// # Errors
    /// [`ValueError`] names the rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        if bytes.len() > MAX_VALUE_BYTES {
            return Err(ValueError::TooLarge { bytes: bytes.len() });
        }
        match take_value(bytes, 0)? {
            (value, []) => Ok(value),
            _ => Err(ValueError::Malformed),
        }
    }

    fn check_shape(&self, depth: usize) -> Result<(), ValueError> {
        if depth > MAX_DEPTH {
            return Err(ValueError::TooDeep);
        }
        match self {
            Self::Float(number) if !number.is_finite() => Err(ValueError::NotFinite),
            Self::List(items) => items.iter().try_for_each(|item| item.check_shape(depth + 1)),
            Self::Map(items) => items.values().try_for_each(|item| item.check_shape(depth + 1)),
            _ => Ok(()),
        }
    }

    /// The text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number, if this is one.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The entry of this name, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        if let Self::Map(items) = self { items.get(name) } else { None }
    }
}

/// Reads one value off the front. Mirrors the derived encoding variant by variant.
fn take_value(bytes: &[u8], depth: usize) -> Result<(Value, &[u8]), ValueError> {
    if depth > MAX_DEPTH {
        return Err(ValueError::TooDeep);
    }
    let (variant, rest) = take::<u32>(bytes)?;
    Ok(match variant {
        0 => (Value::Null, rest),
        1 => take(rest).map(|(truth, rest)| (Value::Bool(truth), rest))?,
        2 => take(rest).map(|(number, rest)| (Value::Int(number), rest))?,
        3 => match take::<f64>(rest)? {
            (number, rest) if number.is_finite() => (Value::Float(number), rest),
            _ => return Err(ValueError::NotFinite),
        },
        4 => take_slice(rest).and_then(|(text, rest)| {
            let text = core::str::from_utf8(text).map_err(|_| ValueError::Malformed)?;
            Ok((Value::Text(text.into()), rest))
        })?,
        5 => take_slice(rest).map(|(bytes, rest)| (Value::Bytes(bytes.into()), rest))?,
        6 => {
            let (count, mut rest) = take::<u32>(rest)?;
            let mut items = Vec::new();
            for _ in 0..count {
                let (item, after) = take_value(rest, depth + 1)?;
                items.push(item);
                rest = after;
            }
            (Value::List(items), rest)
        }
        7 => {
            let (count, mut rest) = take::<u32>(rest)?;
            let mut items = BTreeMap::new();
            for _ in 0..count {
                let (name, after) = take_slice(rest)?;
                let name = core::str::from_utf8(name).map_err(|_| ValueError::Malformed)?;
                let (item, after) = take_value(after, depth + 1)?;
                items.insert(name.into(), item);
                rest = after;
            }
            (Value::Map(items), rest)
        }
        _ => return Err(ValueError::Malformed),
    })
}

fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), ValueError> {
    postcard::take_from_bytes(bytes).map_err(|_| ValueError::Malformed)
}

fn take_slice(bytes: &[u8]) -> Result<(&[u8], &[u8]), ValueError> {
    let (length, rest) = take::<u32>(bytes)?;
    let length = usize::try_from(length).map_err(|_| ValueError::Malformed)?;
    rest.split_at_checked(length).ok_or(ValueError::Malformed)
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "<{} bytes>", bytes.len()),
            Self::List(items) => f.debug_list().entries(items).finish(),
            Self::Map(items) => f.debug_map().entries(items).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::{string::String, vec};
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300f64..1e300).prop_map(Value::Float),
            "[a-zäö ]{0,12}".prop_map(|text: String| Value::Text(text.as_str().into())),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::btree_map("[a-z]{1,6}".prop_map(|s: String| s.into()), inner, 0..4)
                    .prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_round_trip(value in any_value()) {
            prop_assert_eq!(Value::decode(&value.encode().unwrap()).unwrap(), value);
        }

        #[test]
        fn any_bytes_decode_or_name_their_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = Value::decode(&bytes) {
                prop_assert_eq!(Value::decode(&value.encode().unwrap()).unwrap(), value);
            }
        }
    }

    #[test]
    fn depth_size_and_infinities_are_refused_by_name() {
        let mut deep = Value::Null;
        for _ in 0..=MAX_DEPTH {
            deep = Value::List(vec![deep]);
        }
        assert_eq!(deep.encode(), Err(ValueError::TooDeep));
        assert_eq!(Value::decode(&[6, 1].repeat(1900)), Err(ValueError::TooDeep));
        assert_eq!(Value::Float(f64::NAN).encode(), Err(ValueError::NotFinite));
        let long = Value::Bytes(vec![0; MAX_VALUE_BYTES].into());
        assert!(matches!(long.encode(), Err(ValueError::TooLarge { .. })));
        assert_eq!(Value::decode(&[5, 255, 255, 255, 255, 15]), Err(ValueError::Malformed));
        assert_eq!(Value::decode(&[6, 255, 255, 255, 255, 15]), Err(ValueError::Malformed));
    }
}
