//! zot's keys under a prefix (spec §4.3), metactl's own beside them, and the cluster slot they fall into.

/// Slots of a Redis Cluster.
const SLOTS: u16 = 16384;

/// Names of all keys of one metaDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
    pub images: String,
    pub repos: String,
    pub blobs: String,
    pub last_updated: String,
    pub users: String,
    pub api_keys: String,
    pub version: String,
    pub stamp: String,
    pub version_lock: String,
    /// metactl's own: who is writing, and how much was written. zot never looks at it.
    pub walk: String,
}

impl Keys {
    /// Keys under `prefix`.
    pub fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{prefix}:{name}");
        Self {
            prefix: prefix.to_owned(),
            images: key("ImageMeta"),
            repos: key("RepoMeta"),
            blobs: key("RepoBlobsMeta"),
            last_updated: key("RepoLastUpdated"),
            users: key("UserData"),
            api_keys: key("UserAPIKeys"),
            version: key("Version"),
            stamp: key("FastRestartStamp"),
            version_lock: key("Locks:Version"),
            walk: key("metactl:walk"),
        }
    }

    /// zot's keys, without locks.
    pub fn all(&self) -> [&str; 8] {
        [
            &self.version,
            &self.stamp,
            &self.repos,
            &self.blobs,
            &self.last_updated,
            &self.images,
            &self.users,
            &self.api_keys,
        ]
    }

    /// The lock that zot takes around every change of a repo's records.
    pub fn repo_lock(&self, repo: &str) -> String {
        format!("{}:Locks:Repo:{repo}", self.prefix)
    }

    /// The cluster slot of all keys; `None` if the prefix does not keep them together.
    pub fn slot(&self) -> Option<u16> {
        hash_tag(&self.prefix).map(|tag| crc16(tag.as_bytes()) % SLOTS)
    }

    /// The prefix as configured.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// What a cluster hashes instead of the whole key: the text in the first braces, unless it is empty.
fn hash_tag(prefix: &str) -> Option<&str> {
    let (_, rest) = prefix.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// CRC16/XMODEM, as the cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Keys::new("{zot}").slot(), Some(15054));
        assert_eq!(Keys::new("a{zot}b").slot(), Some(15054));
        for untagged in ["zot", "{zot", "zot}", "{}zot", "}{", "{}{zot}"] {
            assert_eq!(Keys::new(untagged).slot(), None, "{untagged}");
        }
    }

    #[test]
    fn names() {
        let keys = Keys::new("p");
        assert_eq!(keys.repo_lock("a/b"), "p:Locks:Repo:a/b");
        assert!(keys.all().iter().all(|key| key.starts_with("p:")));
        assert!(!keys.all().contains(&keys.walk.as_str()));
    }
}
