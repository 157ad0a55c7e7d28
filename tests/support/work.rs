//! Work for a metaDB writer, made by hand, and stores to walk.

use metactl::metadb::{Outcome, Refusal, RepoWork};
use metactl::records::{RepoChange, RepoState, encode_time};
use serde_json::json;
use std::path::Path;

type Build<'a> = Box<dyn Fn(&RepoState) -> Result<RepoChange, Refusal> + Sync + 'a>;

/// One repo's share of a write.
pub struct Work<'a> {
    pub repo: String,
    pub images: Vec<(String, Vec<u8>)>,
    pub build: Build<'a>,
}

impl<'a> Work<'a> {
    pub fn new(repo: &str, build: impl Fn(&RepoState) -> Result<RepoChange, Refusal> + Sync + 'a) -> Self {
        Self { repo: repo.to_owned(), images: Vec::new(), build: Box::new(build) }
    }

    pub fn image(mut self, digest: &str, record: &[u8]) -> Self {
        self.images.push((digest.to_owned(), record.to_vec()));
        self
    }
}

impl RepoWork for Work<'_> {
    fn repo(&self) -> &str {
        &self.repo
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        self.images.iter().map(|(digest, record)| (digest.as_str(), record.as_slice())).collect()
    }

    fn build(&self, prior: &RepoState) -> Result<RepoChange, Refusal> {
        (self.build)(prior)
    }
}

/// A change of all three records.
pub fn records(text: &str) -> RepoChange {
    let at = metactl::oci::time::Time { seconds: 5, nanos: 6 };
    RepoChange::Write {
        meta: Some(format!("meta {text}").into_bytes()),
        blobs: Some(format!("blobs {text}").into_bytes()),
        last_updated: Some(encode_time(at)),
    }
}

/// `count` repos, each to be written with its own records.
pub fn repos(count: usize) -> Vec<Work<'static>> {
    (0..count).map(|number| Work::new(&format!("repo-{number}"), move |_| Ok(records(&number.to_string())))).collect()
}

/// Borrowed as a writer wants them.
pub fn all<'a>(work: &'a [Work<'_>]) -> Vec<&'a dyn RepoWork> {
    work.iter().map(|work| work as &dyn RepoWork).collect()
}

/// Whether everything was done.
pub fn done(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| *outcome == Outcome::Done)
}

/// A store of `repos` with `tags` images each.
pub fn store(root: &Path, repos: usize, tags: usize) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    for number in 0..repos {
        let mut repo = super::store::Repo::new(root, &format!("team/repo-{number}"), 1_700_000_000_000_000_000);
        let mut descriptors = Vec::new();
        for tag in 0..tags {
            let config = json!({"architecture": "amd64", "os": "linux", "author": format!("{number} {tag}"),
                "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})
            .to_string();
            let digest = repo.blob(config.as_bytes());
            let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "config":
                {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len()}})
            .to_string();
            let digest = repo.blob(manifest.as_bytes());
            descriptors.push(json!({"mediaType": MANIFEST, "digest": digest, "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": format!("v{tag}")}}));
        }
        repo.index(&descriptors);
    }
}
