//! Where zot's paths lie in a bucket (spec §1.3).
//!
//! Two prefixes: the driver's root goes before every path, and the image store's root begins every path. S3 has both
//! (`zot/zot/<repo>`), the others the first only.

use super::params::{ParamError, refused, unsupported};
use object_store::path::Path;

/// The two prefixes, each without slashes at its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    driver: String,
    store: String,
}

impl Keys {
    /// S3: the root directory stands before every key twice. `root`: as configured, `None` if absent.
    pub(super) fn doubled(root: Option<&str>) -> Result<Self, ParamError> {
        let root = match root {
            None | Some("/") => "",
            Some(root) => root
                .strip_prefix('/')
                .filter(|root| root.split('/').all(|part| !part.is_empty() && part.bytes().all(path_byte)))
                .ok_or_else(|| {
                    let rule = "must be / or begin (but not end) with a slash and hold only letters, digits and ._-";
                    refused("rootdirectory", rule)
                })?,
        };
        Self { driver: root.to_owned(), store: root.to_owned() }.checked()
    }

    /// GCS and Azure: the root directory stands before every key once. `root`: with zot's default filled in.
    pub(super) fn single(root: &str) -> Result<Self, ParamError> {
        Self { driver: root.trim_matches('/').to_owned(), store: String::new() }.checked()
    }

    /// The client library keeps to keys that are also paths.
    fn checked(self) -> Result<Self, ParamError> {
        match Path::parse(self.root()) {
            Ok(path) if path.as_ref() == self.root() && self.driver.trim() == self.driver => Ok(self),
            _ => Err(unsupported("rootdirectory", "has an empty, . or .. part, or white space or control characters")),
        }
    }

    /// Prefix of all keys of the store, without slashes at its ends.
    pub(super) fn root(&self) -> String {
        join(&self.driver, &self.store)
    }

    /// Prefix of all keys in a directory, which is named relative to the store; the store itself is `""`.
    pub(super) fn directory(&self, name: &str) -> String {
        match join(&self.root(), name) {
            root if root.is_empty() => root,
            directory => directory + "/",
        }
    }

    /// Key of a file, named as zot's drivers are given it: below the driver's root.
    pub(super) fn recorded(&self, path: &str) -> String {
        join(&self.driver, path)
    }

    /// Key of a file, named relative to the store.
    pub(super) fn file(&self, name: &str) -> String {
        join(&self.root(), name)
    }
}

fn join(left: &str, right: &str) -> String {
    match (left, right) {
        ("", one) | (one, "") => one.to_owned(),
        (left, right) => format!("{left}/{right}"),
    }
}

/// Bytes that zot's driver interface allows in the parts of a path.
fn path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// zot's own functions, word for word: `s3Path` of distribution's driver below zot's image store root.
    fn zots_s3_key(root: Option<&str>, repo: &str, name: &str) -> String {
        let store = root.unwrap_or("/");
        let path = format!("{}/{repo}/{name}", store.trim_end_matches('/'));
        let key = format!("{}{path}", root.unwrap_or("").trim_end_matches('/'));
        key.trim_start_matches('/').to_owned()
    }

    /// `pathToKey` of distribution's GCS driver.
    fn zots_gcs_key(root: &str, repo: &str, name: &str) -> String {
        let root = root.trim_matches('/');
        let root = if root.is_empty() { String::new() } else { format!("{root}/") };
        format!("{root}{}", format!("/{repo}/{name}").trim_start_matches('/')).trim_end_matches('/').trim().to_owned()
    }

    /// `blobName` of distribution's Azure driver.
    fn zots_azure_key(root: &str, repo: &str, name: &str) -> String {
        format!("{}/{repo}/{name}", root.trim_end_matches('/')).trim_start_matches('/').to_owned()
    }

    #[test]
    fn known_mappings() {
        for (root, key) in [
            (None, "r/index.json"),
            (Some("/"), "r/index.json"),
            (Some("/zot"), "zot/zot/r/index.json"),
            (Some("/a/b"), "a/b/a/b/r/index.json"),
        ] {
            let keys = Keys::doubled(root).unwrap();
            assert_eq!(keys.file("r/index.json"), key);
            assert_eq!(format!("{}index.json", keys.directory("r")), key);
        }
        for (root, key) in [("/zot", "zot/r/x"), ("zot/", "zot/r/x"), ("//", "r/x"), ("/a b/ü", "a b/ü/r/x")] {
            assert_eq!(Keys::single(root).unwrap().file("r/x"), key);
        }
        assert_eq!(Keys::doubled(None).unwrap().directory(""), "");
        assert_eq!(Keys::doubled(Some("/zot")).unwrap().directory(""), "zot/zot/");
    }

    #[test]
    fn roots_that_cannot_work() {
        for root in ["", "zot", "/zot/", "//", "/a//b", "/a b", "/ä", "zot/", "/a?"] {
            assert!(matches!(Keys::doubled(Some(root)), Err(ParamError::Refused(_))), "{root:?}");
        }
        for root in ["/.", "/a/..", "/a/./b"] {
            assert!(matches!(Keys::doubled(Some(root)), Err(ParamError::Unsupported(_))), "{root:?}");
        }
        for root in ["a//b", "..", "a/./b", " a", "a\tb", "a "] {
            assert!(matches!(Keys::single(root), Err(ParamError::Unsupported(_))), "{root:?}");
        }
    }

    proptest! {
        #[test]
        fn s3_keys_are_zots(root in proptest::option::of("/|(/[a-zA-Z0-9_-]{1,3}){1,3}"), repo in "[a-z]{1,3}(/[a-z]{1,3}){0,2}") {
            let keys = Keys::doubled(root.as_deref()).unwrap();
            prop_assert_eq!(keys.file(&format!("{repo}/x")), zots_s3_key(root.as_deref(), &repo, "x"));
        }

        #[test]
        fn gcs_and_azure_keys_are_zots(root in "/{0,2}([a-z ü%+]{1,3}/){0,2}[a-z]{1,2}/{0,2}", repo in "[a-z]{1,3}(/[a-z]{1,3}){0,2}") {
            let Ok(keys) = Keys::single(&root) else { return Ok(()) };
            let key = keys.file(&format!("{repo}/x"));
            prop_assert_eq!(&key, &zots_gcs_key(&root, &repo, "x"));
            prop_assert_eq!(&key, &zots_azure_key(&root, &repo, "x"));
        }
    }
}
