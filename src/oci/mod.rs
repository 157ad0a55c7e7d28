//! OCI documents as zot reads them: index, manifest and image config (spec §3.8).
//!
//! Decoding follows Go's rules ([`json`]); what zot does not read is skipped. Nothing here validates digests or sizes
//! inside documents, because zot does not.

pub mod json;
pub mod time;

use json::{Decode, JsonError, List, Parser, folds_to};
use std::collections::BTreeMap;
use time::Time;

/// `application/vnd.oci.image.manifest.v1+json`: also what Docker manifests are recorded as.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`: also what Docker manifest lists are recorded as.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.config.v1+json`.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Annotation that carries a descriptor's tag in `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// String map of annotations or labels.
pub type Annotations = BTreeMap<String, String>;

/// Declares a document type and how its JSON members map to its fields.
macro_rules! document {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $json:literal => $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
        }

        impl Decode for $name {
            fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
                if from.null()? {
                    return Ok(());
                }
                from.object(|name, p| match name {
                    $($json => self.$field.decode(p),)*
                    $(_ if folds_to(name, $json) => self.$field.decode(p),)*
                    _ => p.skip(),
                })
            }
        }
    };
}

document! {
    /// A content descriptor.
    Descriptor {
        /// Media type of the content.
        "mediaType" => media_type: String,
        /// Digest, unchecked.
        "digest" => digest: String,
        /// Size in bytes, unchecked.
        "size" => size: i64,
        /// Alternative locations.
        "urls" => urls: List<String>,
        /// Annotations.
        "annotations" => annotations: Annotations,
        /// Embedded content.
        "data" => data: Base64,
        /// Platform of an index child.
        "platform" => platform: Option<Platform>,
        /// Artifact type.
        "artifactType" => artifact_type: String,
    }
}

document! {
    /// Platform of an index child.
    Platform {
        /// CPU architecture.
        "architecture" => architecture: String,
        /// Operating system.
        "os" => os: String,
        /// Operating system version.
        "os.version" => os_version: String,
        /// Operating system features.
        "os.features" => os_features: List<String>,
        /// CPU variant.
        "variant" => variant: String,
    }
}

document! {
    /// An OCI index: a repo's `index.json`, or a multi-platform image.
    Index {
        /// Usually 2.
        "schemaVersion" => schema_version: i64,
        /// Decoded, not used.
        "mediaType" => media_type: String,
        /// Artifact type.
        "artifactType" => artifact_type: String,
        /// Children.
        "manifests" => manifests: List<Descriptor>,
        /// What this index refers to.
        "subject" => subject: Option<Descriptor>,
        /// Annotations.
        "annotations" => annotations: Annotations,
    }
}

document! {
    /// An image or artifact manifest.
    Manifest {
        /// Usually 2.
        "schemaVersion" => schema_version: i64,
        /// Decoded, not used.
        "mediaType" => media_type: String,
        /// Artifact type.
        "artifactType" => artifact_type: String,
        /// Config blob.
        "config" => config: Descriptor,
        /// Layer blobs.
        "layers" => layers: List<Descriptor>,
        /// What this manifest refers to.
        "subject" => subject: Option<Descriptor>,
        /// Annotations.
        "annotations" => annotations: Annotations,
    }
}

document! {
    /// An image config.
    Image {
        /// When the image was built.
        "created" => created: Option<Time>,
        /// Author.
        "author" => author: String,
        /// CPU architecture.
        "architecture" => architecture: String,
        /// Operating system.
        "os" => os: String,
        /// Operating system version.
        "os.version" => os_version: String,
        /// Operating system features.
        "os.features" => os_features: List<String>,
        /// CPU variant.
        "variant" => variant: String,
        /// Run-time settings.
        "config" => config: ImageConfig,
        /// Root file system.
        "rootfs" => rootfs: RootFs,
        /// Build history.
        "history" => history: List<History>,
    }
}

document! {
    /// Run-time settings of an image.
    ImageConfig {
        /// User.
        "User" => user: String,
        /// Ports; only the keys are kept.
        "ExposedPorts" => exposed_ports: BTreeMap<String, Empty>,
        /// Environment.
        "Env" => env: List<String>,
        /// Entry point.
        "Entrypoint" => entrypoint: List<String>,
        /// Command.
        "Cmd" => cmd: List<String>,
        /// Volumes; only the keys are kept.
        "Volumes" => volumes: BTreeMap<String, Empty>,
        /// Working directory.
        "WorkingDir" => working_dir: String,
        /// Labels.
        "Labels" => labels: Annotations,
        /// Stop signal.
        "StopSignal" => stop_signal: String,
        /// Decoded (a wrong type is an error), never recorded.
        "ArgsEscaped" => args_escaped: bool,
    }
}

document! {
    /// Root file system of an image.
    RootFs {
        /// Usually `layers`.
        "type" => kind: String,
        /// Uncompressed layer digests.
        "diff_ids" => diff_ids: List<String>,
    }
}

document! {
    /// One build step.
    History {
        /// When.
        "created" => created: Option<Time>,
        /// Command.
        "created_by" => created_by: String,
        /// Author.
        "author" => author: String,
        /// Comment.
        "comment" => comment: String,
        /// Whether the step made no layer.
        "empty_layer" => empty_layer: bool,
    }
}

document! {
    /// An object whose members are ignored.
    Empty {}
}

/// `data` of a descriptor: base64 text, or (as Go accepts for byte slices) a list of byte values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Decode for Base64 {
    fn decode(&mut self, from: &mut Parser<'_>) -> Result<(), JsonError> {
        use base64::Engine as _;
        use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
        // Go does not check the unused bits of the last character.
        const GO: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::STANDARD,
            GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
        );
        if from.null()? {
            self.0.clear();
            return Ok(());
        }
        if from.starts_array()? {
            self.0.clear();
            return from.array(|p| {
                let mut byte = 0_u8;
                byte.decode(p)?;
                self.0.push(byte);
                Ok(())
            });
        }
        let text = from.string()?.replace(['\r', '\n'], "");
        self.0 = GO.decode(text).map_err(|error| from.error(format!("invalid base64: {error}")))?;
        Ok(())
    }
}
