//! A registry of some size, with everything that a walk treats in its own way.

use super::store::Repo;
use serde_json::{Value, json};
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// When it was written, in nanoseconds since 1970.
const WRITTEN: i64 = 1_700_000_000_000_000_000;

/// Lay out `repos` repositories, some nested in others, with `tags` images each; every tenth image has two platforms, a
/// cosign and a notation signature, and an attached list of contents. Returns the names in byte order.
pub fn registry(root: &Path, repos: usize, tags: usize) -> Vec<String> {
    let mut names: Vec<String> = (0..repos)
        .map(|number| match number % 5 {
            0 => format!("app{number}"),
            1 => format!("app{}/nested", number - 1),
            2 => format!("app{}/nested/deep.er", number - 2),
            3 => format!("app{}-side", number - 3),
            _ => format!("team_{}/app{number}", number % 3),
        })
        .collect();
    for (number, name) in names.iter().enumerate() {
        Writer { repo: Repo::new(root, name, WRITTEN), descriptors: Vec::new() }.fill(number, tags);
    }
    names.sort();
    names
}

struct Writer {
    repo: Repo,
    descriptors: Vec<Value>,
}

impl Writer {
    fn fill(mut self, number: usize, tags: usize) {
        for tag in 0..tags {
            let name = format!("v{tag}");
            if tag % 10 == 3 {
                self.platforms(number, tag, &name);
            } else {
                let (digest, size) = self.image(&format!("{number} {tag}"), "amd64");
                self.list(MANIFEST, &digest, size, Some(&name));
            }
        }
        // The same image under a second name, in this and in every other repo.
        let (digest, size) = self.image("everywhere", "arm64");
        for name in ["same", "again"] {
            self.list(MANIFEST, &digest, size, Some(name));
        }
        let descriptors = std::mem::take(&mut self.descriptors);
        self.repo.index(&descriptors);
    }

    fn list(&mut self, media_type: &str, digest: &str, size: usize, tag: Option<&str>) {
        let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": size});
        if let Some(tag) = tag {
            descriptor["annotations"] = json!({REF_NAME: tag});
        }
        self.descriptors.push(descriptor);
    }

    /// Config, layer and manifest. Returns the manifest's digest and size.
    fn image(&mut self, mark: &str, architecture: &str) -> (String, usize) {
        let layer = format!("layer {mark} {architecture}");
        let layer_digest = self.repo.blob(layer.as_bytes());
        let config = json!({
            "created": "2025-01-01T00:00:00Z", "architecture": architecture, "os": "linux", "author": mark,
            "config": {"Labels": {"org.opencontainers.image.vendor": mark}},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]}, "history": [{"created_by": mark}],
        });
        let layers = json!([{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest,
            "size": layer.len()}]);
        self.manifest(CONFIG, &config.to_string(), &layers, &json!({}))
    }

    fn manifest(&mut self, config_type: &str, config: &str, layers: &Value, more: &Value) -> (String, usize) {
        let digest = self.repo.blob(config.as_bytes());
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {"mediaType": config_type, "digest": digest, "size": config.len()},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            manifest[key] = value.clone();
        }
        let text = manifest.to_string();
        (self.repo.blob(text.as_bytes()), text.len())
    }

    /// An index of two platforms, signed twice, with a list of contents attached.
    fn platforms(&mut self, number: usize, tag: usize, name: &str) {
        let children: Vec<Value> = ["amd64", "arm64"]
            .iter()
            .map(|architecture| {
                let (digest, size) = self.image(&format!("{number} {tag}"), architecture);
                self.list(MANIFEST, &digest, size, None);
                json!({"mediaType": MANIFEST, "digest": digest, "size": size,
                    "platform": {"os": "linux", "architecture": architecture}})
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).to_string();
        let digest = self.repo.blob(index.as_bytes());
        self.list(INDEX, &digest, index.len(), Some(name));

        let layer = |writer: &mut Self, text: &str, key: &str| {
            let digest = writer.repo.blob(text.as_bytes());
            json!([{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": digest,
                "size": text.len(), "annotations": {"dev.cosignproject.cosign/signature": key}}])
        };
        let subject = json!({"mediaType": INDEX, "digest": digest, "size": index.len()});
        let layers = layer(self, &format!("signed {digest}"), "a2V5");
        let (cosign, size) = self.manifest(CONFIG, "{}", &layers, &json!({}));
        self.list(MANIFEST, &cosign, size, Some(&format!("{}.sig", digest.replace(':', "-"))));

        let layers = layer(self, &format!("notarised {digest}"), "");
        let (notation, size) =
            self.manifest("application/vnd.cncf.notary.signature", "{}", &layers, &json!({"subject": subject}));
        self.list(MANIFEST, &notation, size, None);

        let (contents, size) = self.manifest(
            "application/vnd.oci.empty.v1+json",
            "{}",
            &json!([]),
            &json!({"subject": subject, "artifactType": "application/spdx+json", "annotations": {"of": digest}}),
        );
        self.list(MANIFEST, &contents, size, None);
    }
}
