//! The storage fingerprint: the half of the fast-restart stamp that depends on the config (config spec §3).

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::config::EffectiveStorage;
use crate::hex::hex;

/// Lower-case hex SHA-256 of the storage section's hashed text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// 64 lower-case hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fingerprint that zot would fold into its stamp for this effective config.
#[must_use]
pub fn fingerprint(storage: &EffectiveStorage) -> Fingerprint {
    Fingerprint(hex(&Sha256::digest(storage.text().expose().as_bytes())))
}
