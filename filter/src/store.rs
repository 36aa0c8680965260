//! Envoy's shared data as the core's [`Store`].

use embudo_core::sabotage::{self, Sabotage};
use embudo_core::store::{Expect, PutError, Store, Token};
use proxy_wasm::hostcalls;
use proxy_wasm::types::Status;

/// No value has this token, and an absent key is inserted whatever the token is: so this is
/// create-if-absent. (0 would overwrite.)
const CREATE: Token = u32::MAX;

/// The host's map. Has no state of its own.
pub(crate) struct SharedData;

// === impl SharedData ===

impl Store for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, Token)> {
        match hostcalls::get_shared_data(key) {
            Ok((value, Some(token))) => Some((value.unwrap_or_default(), token)),
            Ok((_, None)) | Err(_) => None,
        }
    }

    fn put(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), PutError> {
        let token = match expect {
            Expect::Absent => CREATE,
            Expect::Token(_) if sabotage::is(Sabotage::PutUnconditionally) => 0,
            Expect::Token(token) => token,
        };
        match hostcalls::set_shared_data(key, Some(value), Some(token)) {
            Ok(()) => Ok(()),
            Err(Status::CasMismatch) => Err(PutError::Mismatch),
            Err(_) => Err(PutError::Refused),
        }
    }
}
