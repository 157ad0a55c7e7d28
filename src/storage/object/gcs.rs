//! Parameters of the Google Cloud Storage driver (spec §1.10).

use super::keys::Keys;
use super::params::{ParamError, Params, address, refused};
use crate::config::tree::Tree;
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, CredentialProvider, RetryConfig};
use std::sync::Arc;

/// Unit of `chunksize`.
const CHUNK: i64 = 256 << 10;

/// A bucket and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gcs {
    bucket: String,
    /// Service account key; `None` for application default credentials.
    key_file: Option<String>,
    /// Of an emulator, which knows no credentials.
    emulator: Option<String>,
    user_agent: String,
}

impl Gcs {
    pub(super) fn from_params(params: Params<'_>) -> Result<(Self, Keys), ParamError> {
        let bucket = params.required("bucket")?;
        let key_file = match params.0.get("keyfile") {
            Some(Tree::Null) => return Err(refused("keyfile", "is null: leave it out, or name a file")),
            found => found.map(|_| params.print("keyfile")).transpose()?,
        };
        if key_file.is_none() && params.0.get("credentials").is_some() {
            return Err(refused(
                "credentials",
                "never work in a zot config: write them into a file and name it in keyfile",
            ));
        }
        check_chunk_size(params)?;
        check_concurrency(params)?;
        // Anything but a text is ignored.
        let user_agent = params.get("useragent").and_then(Tree::as_text).unwrap_or_default().to_owned();
        let emulator = std::env::var("STORAGE_EMULATOR_HOST").ok().filter(|host| !host.is_empty()).map(|host| {
            let url = if host.contains("://") { host } else { format!("http://{host}") };
            // Whatever path it has is replaced in zot's library, too.
            let after_scheme = url.find("://").map_or(0, |at| at + 3);
            let end = url.get(after_scheme..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| after_scheme + at);
            url.get(..end).unwrap_or(&url).to_owned()
        });
        let keys = Keys::single(&params.print("rootdirectory")?)?;
        Ok((Self { bucket, key_file, emulator, user_agent }, keys))
    }

    pub(super) fn location(&self, root: &str) -> String {
        format!("gs://{}/{root}", self.bucket)
    }

    pub(super) fn options(&self) -> Result<ClientOptions, String> {
        if let Some(path) = &self.key_file {
            check_key_file(path)?;
        }
        if self.emulator.as_deref().is_some_and(|url| address(url).is_none()) {
            return Err("STORAGE_EMULATOR_HOST is no address".into());
        }
        super::client_options(self.emulator.as_deref().unwrap_or("https://"), false, &self.user_agent)
    }

    pub(super) fn open(
        &self,
        connector: super::http::Connector,
        options: ClientOptions,
        retry: RetryConfig,
    ) -> object_store::Result<GoogleCloudStorage> {
        let builder = GoogleCloudStorageBuilder::new()
            .with_http_connector(connector)
            .with_client_options(options)
            .with_retry(retry)
            .with_bucket_name(&self.bucket);
        match (&self.emulator, &self.key_file) {
            (Some(url), _) => builder.with_base_url(url).with_skip_signature(true),
            (None, Some(path)) => builder.with_service_account_path(path),
            (None, None) => {
                let found = match std::env::var("GOOGLE_APPLICATION_CREDENTIALS").ok().filter(|path| !path.is_empty()) {
                    Some(path) => builder.clone().with_application_credentials(path),
                    None => builder.clone(),
                };
                let default = Arc::clone(found.build()?.credentials());
                builder.with_credentials(Arc::new(ApplicationDefault(default)))
            }
        }
        .build()
    }
}

type Provider = Arc<dyn CredentialProvider<Credential = GcpCredential>>;

/// Application default credentials, whose errors say what they are about.
#[derive(Debug)]
struct ApplicationDefault(Provider);

#[async_trait::async_trait]
impl CredentialProvider for ApplicationDefault {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        self.0.get_credential().await.map_err(|error| {
            let why = super::reason(&error);
            super::generic("GCS", format!("no Google credentials: application default credentials: {why}"))
        })
    }
}

/// zot reads the file when it starts, even if it then talks to an emulator.
fn check_key_file(path: &str) -> Result<(), String> {
    let problem = |detail: String| format!("zot would refuse to start: storageDriver.keyfile ({path}): {detail}");
    let text = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|_| problem("is not JSON".into()))?;
    match json.get("type").and_then(serde_json::Value::as_str) {
        Some("service_account") => Ok(()),
        _ => Err(problem("is not the key of a service account".into())),
    }
}

/// zot's driver knows integers and texts here, not the doubles that every number in JSON is.
fn whole_number(params: Params<'_>, key: &str) -> Result<Option<i64>, ParamError> {
    match params.0.get(key) {
        None => Ok(None),
        Some(Tree::Int(number)) => Ok(Some(*number)),
        Some(Tree::Uint(_)) => Ok(Some(i64::MAX)),
        Some(Tree::Text(text)) => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| plain).map(Some).ok_or_else(|| refused(key, "must be an integer"))
        }
        Some(Tree::Float(_)) => {
            Err(refused(key, "must be an integer; zot reads every number in JSON as a float: write it as a text"))
        }
        Some(other) => Err(refused(key, format!("must be an integer, not {}", other.kind()))),
    }
}

fn check_chunk_size(params: Params<'_>) -> Result<(), ParamError> {
    match whole_number(params, "chunksize")? {
        Some(size) if size < CHUNK || size % CHUNK != 0 => {
            Err(refused("chunksize", "must be a multiple of 262144 (256 KiB)"))
        }
        _ => Ok(()),
    }
}

fn check_concurrency(params: Params<'_>) -> Result<(), ParamError> {
    match params.0.get("maxconcurrency") {
        // Unlike above, null is the default, and a text must not be negative.
        Some(Tree::Null) => Ok(()),
        Some(Tree::Text(text)) if text.starts_with(['+', '-']) => Err(refused("maxconcurrency", "must be an integer")),
        _ => whole_number(params, "maxconcurrency").map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DriverParams;
    use crate::config::tree::Map;

    fn read(params: &[(&str, Tree)]) -> Result<(Gcs, Keys), ParamError> {
        let mut map = Map::from([
            ("bucket".to_owned(), Tree::Text("b".into())),
            ("rootdirectory".to_owned(), Tree::Text("/zot".into())),
        ]);
        map.extend(params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Gcs::from_params(Params(&DriverParams::new(map)))
    }

    #[test]
    fn what_keeps_zot_from_starting() {
        let text = |text: &str| Tree::Text(text.into());
        for (name, value) in [
            ("bucket", text("")),
            ("bucket", Tree::Null),
            ("keyfile", Tree::Null),
            ("credentials", Tree::Map(Map::new())),
            ("credentials", text("x")),
            ("chunksize", Tree::Float(262_144.0)),
            ("chunksize", Tree::Int(262_145)),
            ("chunksize", Tree::Int(0)),
            ("chunksize", text("1 MiB")),
            ("chunksize", Tree::Null),
            ("maxconcurrency", Tree::Float(50.0)),
            ("maxconcurrency", text("-5")),
            ("maxconcurrency", text("many")),
            ("maxconcurrency", Tree::Bool(true)),
        ] {
            assert!(matches!(read(&[(name, value)]), Err(ParamError::Refused(_))), "{name}");
        }
    }

    #[test]
    fn what_does_not() {
        let text = |text: &str| Tree::Text(text.into());
        for (name, value) in [
            ("chunksize", Tree::Int(262_144)),
            ("chunksize", text("524288")),
            ("maxconcurrency", Tree::Int(-5)),
            ("maxconcurrency", text("100")),
            ("maxconcurrency", Tree::Null),
            ("useragent", Tree::Int(5)),
            ("nonsense", text("x")),
        ] {
            assert!(read(&[(name, value)]).is_ok(), "{name}");
        }
        // With a key file, nobody looks at the other.
        let both = [("keyfile", text("/k.json")), ("credentials", Tree::Map(Map::new()))];
        assert_eq!(read(&both).unwrap().0.key_file.as_deref(), Some("/k.json"));
        assert_eq!(read(&[]).unwrap().1.root(), "zot");
    }

    #[test]
    fn key_files_are_looked_at() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for (text, problem) in
            [("{", "is not JSON"), (r#"{"type":"authorized_user"}"#, "service account"), ("[]", "service account")]
        {
            std::fs::write(path, text).unwrap();
            assert!(check_key_file(path).unwrap_err().contains(problem), "{text}");
        }
        std::fs::write(path, r#"{"type":"service_account"}"#).unwrap();
        assert_eq!(check_key_file(path), Ok(()));
        assert!(check_key_file("/nowhere/k.json").unwrap_err().contains("zot would refuse to start"));
    }
}
