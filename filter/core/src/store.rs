//! What the core needs from Envoy's shared data.
//!
//! Shared data is one map for the whole process: values are copied in and out, there is no delete and
//! no listing, and the only way to write safely is compare-and-swap. Two methods say all of that, and
//! there is deliberately no unconditional put: every write names what it read.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The host's version of a value; changes with every write.
pub type Token = u32;

/// Attempts at one compare-and-swap before its caller gives up. Two workers and a dispatcher meet in a
/// shard for microseconds; 64 lost races in a row mean that something else is wrong.
pub const CAS_ATTEMPTS_MAX: u32 = 64;

/// What a writer believes to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nobody has ever written this key.
    Absent,
    /// The value that came with this token.
    Token(Token),
}

/// A write that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// Somebody else wrote in between: read again.
    Mismatch,
    /// The host refused.
    Refused,
}

/// The fixed set of keys, all under the plugin's name: two plugins may share a `vm_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    base: String,
}

/// The host's map.
pub trait Store {
    /// The value of a key and its token; `None` where the key was never written.
    fn get(&self, key: &str) -> Option<(Vec<u8>, Token)>;

    /// Writes a value if what is there is still what `expect` says.
    ///
    /// # Errors
    /// [`PutError::Mismatch`] where it is not; the value is then unchanged.
    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), PutError>;
}

/// A store in memory, with the host's semantics: for tests, and for the simulation of the record.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    values: BTreeMap<String, (Vec<u8>, Token)>,
    last: Token,
}

// === impl Expect ===

impl Expect {
    /// What to expect of a key that was just read.
    #[must_use]
    pub fn of(read: Option<&(Vec<u8>, Token)>) -> Self {
        read.map_or(Self::Absent, |(_, token)| Self::Token(*token))
    }
}

/// What a store is called in the labels of its gauges: by the plugin's name, and by the `vm_id` too where the two
/// differ, since either parts one store from another.
///
/// Both are free text. What would end a label, or the tag that it becomes, is written as `_`.
#[must_use]
pub fn label(plugin_name: &str, vm_id: &str) -> String {
    let both = [plugin_name, ".", vm_id].concat();
    let name = if vm_id.is_empty() || vm_id == plugin_name {
        plugin_name
    } else {
        &both
    };
    let plain = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '-' => c,
        _ => '_',
    };
    match name {
        "" => String::from("_"),
        name => name.chars().map(plain).collect(),
    }
}

// === impl Keys ===

impl Keys {
    /// Keys for the plugin of this name.
    #[must_use]
    pub fn new(plugin_name: &str) -> Self {
        Self {
            base: format!("embudo/{plugin_name}"),
        }
    }

    /// The key of the layout.
    #[must_use]
    pub fn layout(&self) -> String {
        format!("{}/layout", self.base)
    }

    /// The key of the lease.
    #[must_use]
    pub fn lease(&self) -> String {
        format!("{}/lease", self.base)
    }

    /// One of the keys of whom Laravel has accepted: see [`crate::proof`].
    #[must_use]
    pub fn proof(&self, index: usize) -> String {
        format!("{}/proof/{index}", self.base)
    }

    /// The key of the circuit breaker's state.
    #[must_use]
    pub fn circuit(&self) -> String {
        format!("{}/circuit", self.base)
    }

    /// The key of one shard.
    #[must_use]
    pub fn shard(&self, index: u32) -> String {
        // At every request: a tenth of what `format!` takes.
        let mut key = String::with_capacity(self.base.len().saturating_add(13));
        key.push_str(&self.base);
        key.push_str("/s/");
        let mut unit = match index {
            0..1_000 => 100,
            _ => 1_000_000_000_u32,
        };
        while unit > 0 {
            if unit == 1 || index >= unit {
                let digit = (index / unit).checked_rem(10).unwrap_or(0);
                key.extend(char::from_digit(digit, 10));
            }
            unit /= 10;
        }
        key
    }

    /// The name of the shared queue that is the doorbell.
    #[must_use]
    pub fn doorbell(&self) -> String {
        format!("{}/doorbell", self.base)
    }
}

// === impl MemoryStore ===

impl Store for MemoryStore {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        self.values.get(key).cloned()
    }

    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), PutError> {
        // As Envoy does it: an absent key is inserted whatever the token.
        let fits = match (self.values.get(key), expect) {
            (None, _) => true,
            (Some((_, token)), Expect::Token(expected)) => *token == expected,
            (Some(_), Expect::Absent) => false,
        };
        if !fits {
            return Err(PutError::Mismatch);
        }
        self.last = self.last.wrapping_add(1);
        self.values.insert(key.into(), (value.to_vec(), self.last));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn two_stores_of_one_envoy_have_labels_of_their_own() {
        assert_eq!(label("embudo", "embudo"), "embudo");
        assert_eq!(label("embudo", ""), "embudo");
        assert_eq!(label("embudo", "second"), "embudo.second");
        assert_eq!(label("second", "embudo"), "second.embudo");
    }

    #[test]
    fn a_label_cannot_end_before_its_time() {
        assert_eq!(label("a;route=b\u{e9}\n", ""), "a_route_b__");
        assert_eq!(label("", ""), "_", "a tag has a value");
    }
}
