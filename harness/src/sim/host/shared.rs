//! Shared data: one map for the process, values copied in and out, no delete.
//!
//! The compare-and-swap is Envoy's, with its two surprises: token 0 overwrites whatever is there, and an
//! absent key is inserted *whatever* the token is.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The map.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedData {
    values: BTreeMap<String, (Arc<[u8]>, u32)>,
    last: u32,
}

// === impl SharedData ===

impl SharedData {
    /// The value of a key and its token.
    #[must_use]
    pub(crate) fn get(&self, key: &str) -> Option<(Arc<[u8]>, u32)> {
        self.values.get(key).cloned()
    }

    /// Every key and its value, in the order of the keys. The guest has no such thing; the checker does.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.values.iter().map(|(key, (value, _))| (&**key, value))
    }

    /// Writes, if the token fits. Gives what was there before.
    ///
    /// # Errors
    /// The token does not fit.
    pub(crate) fn put(
        &mut self,
        key: &str,
        value: Arc<[u8]>,
        token: u32,
    ) -> Result<Option<Arc<[u8]>>, ()> {
        let known = self.values.get(key);
        if known.is_some_and(|(_, current)| token != 0 && *current != token) {
            return Err(());
        }
        // 0 is never a token, and u32::MAX is what the guest takes for "no such token".
        self.last = self.last % (u32::MAX - 1) + 1;
        let before = self.values.insert(key.to_owned(), (value, self.last));
        Ok(before.map(|(value, _)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn a_token_that_does_not_fit_changes_nothing() {
        let mut data = SharedData::default();
        data.put("k", value("1"), u32::MAX)
            .expect("absent: inserted whatever the token");
        let (_, token) = data.get("k").expect("is there");
        data.put("k", value("2"), token).expect("the token fits");
        assert_eq!(data.put("k", value("3"), token), Err(()));
        assert_eq!(data.put("k", value("3"), u32::MAX), Err(()));
        assert_eq!(&*data.get("k").expect("is there").0, b"2");
    }

    #[test]
    fn token_0_overwrites_and_an_emptied_key_stays() {
        let mut data = SharedData::default();
        data.put("k", value("1"), 7).expect("absent");
        data.put("k", value(""), 0).expect("0 overwrites");
        let (left, token) = data.get("k").expect("an emptied key stays");
        assert!(left.is_empty() && token != 0);
    }
}
