//! A whole text as a tree: for configurations, which are read once. Bodies are walked instead.

use alloc::string::String;
use alloc::vec::Vec;

use super::scan::{Broken, Scanner, Token};

/// Levels of nesting. A configuration has five.
const DEPTH_MAX: usize = 127;

/// Any JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// As it is written.
    Number(String),
    /// A string, its escapes resolved.
    Text(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// An object's members, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    members: Vec<(String, Value)>,
}

/// Reads a text that is one JSON value.
///
/// # Errors
/// Where it is none.
#[inline]
pub fn parse(text: &[u8]) -> Result<Value, Broken> {
    let mut scanner = Scanner::new(text);
    let value = value(&mut scanner, DEPTH_MAX)?;
    scanner.end()?;
    Ok(value)
}

#[inline]
fn value(scanner: &mut Scanner<'_>, levels: usize) -> Result<Value, Broken> {
    let token = scanner.value()?;
    let within = levels.checked_sub(1);
    Ok(match token {
        Token::Null => Value::Null,
        Token::Bool(flag) => Value::Bool(flag),
        Token::Number(number) => Value::Number(number.digits.into()),
        Token::Text(text) => Value::Text(text.into_owned()),
        Token::Array => {
            let levels = within.ok_or_else(|| Broken::too_deep(scanner))?;
            let mut items = Vec::new();
            while scanner.element(items.is_empty())? {
                items.push(value(scanner, levels)?);
            }
            Value::Array(items)
        }
        Token::Object => {
            let levels = within.ok_or_else(|| Broken::too_deep(scanner))?;
            let mut object = Object::default();
            while let Some(key) = scanner.key(object.is_empty())? {
                // Of two members with one key the last counts.
                let member = value(scanner, levels)?;
                object.put(key.into_owned(), member);
            }
            Value::Object(object)
        }
    })
}

// === impl Value ===

impl Value {
    /// The text, if it is one.
    #[must_use]
    #[inline]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An object's member.
    #[must_use]
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(object) => object.get(key),
            _ => None,
        }
    }
}

// === impl Object ===

impl Object {
    #[inline]
    fn find(&self, key: &str) -> Result<usize, usize> {
        self.members
            .binary_search_by(|(known, _)| known.as_str().cmp(key))
    }

    /// Whether there is no member at all.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member's value.
    #[must_use]
    #[inline]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let at = self.find(key).ok()?;
        self.members.get(at).map(|(_, value)| value)
    }

    /// Takes a member out.
    #[inline]
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.find(key).ok()?;
        Some(self.members.remove(at).1)
    }

    /// A member's value, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        let at = self.find(key).ok()?;
        self.members.get_mut(at).map(|(_, value)| value)
    }

    /// Adds a member, or replaces the one with this key.
    #[inline]
    pub fn put(&mut self, key: String, value: Value) {
        match self.find(&key) {
            Ok(at) => {
                if let Some((_, known)) = self.members.get_mut(at) {
                    *known = value;
                }
            }
            Err(at) => self.members.insert(at, (key, value)),
        }
    }

    /// The keys, in their order.
    #[inline]
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(key, _)| key.as_str())
    }

    /// Keys and values, in the order of the keys.
    #[must_use]
    #[inline]
    pub fn into_members(self) -> Vec<(String, Value)> {
        self.members
    }
}
