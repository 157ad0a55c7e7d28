//! Options and config → what the commands work with.

use super::args::{Global, OnOff};
use super::exit::Failure;
use metactl::cancel::Cancel;
use metactl::config::{
    self, BlobCacheChoice, DedupeProbe, DriverParams, EffectiveStorage, FieldSet, MetaDbChoice, RegistryConfig, Store,
};
use metactl::fingerprint::{Fingerprint, fingerprint};
use metactl::identity::{self, IdentityRequest, ResolvedIdentity, ServerRequest};
use metactl::metadb::dynamodb::{DynamoDbBlobCacheOptions, DynamoDbOptions};
use metactl::metadb::redis::{RedisOptions, TlsFiles};
use metactl::metadb::{MetaDb, MetaDbError, Place};
use metactl::records::fold::Rules;
use metactl::stamp::{Stamp, StoredStamp};
use metactl::storage::cache::CacheSpec;
use metactl::storage::object::{ObjectOptions, ParamError};
use metactl::storage::routing::{StoreKind, StoreSpec, Stores};

/// What a command may do to the storage directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Read,
    /// Try hard links with files of our own, as zot does.
    Write,
}

/// A loaded config and what follows from it.
pub struct Context<'a> {
    pub global: &'a Global,
    pub config: RegistryConfig,
    /// With the newest field set; the fingerprint may need another.
    pub storage: EffectiveStorage,
    pub metadb: config::MetaDb,
    /// Why zot would refuse to start.
    pub problems: Vec<String>,
    probe: DedupeProbe,
}

/// The stamp that the zot that starts next will compute.
pub struct Expected {
    /// Who it is; `None` if nothing says.
    pub identity: Option<ResolvedIdentity>,
    /// The stamp; `None` without an identity, or for a release without stamps.
    pub stamp: Option<Stamp>,
    /// The fingerprint under that release's rules, or under the newest.
    pub fingerprint: Fingerprint,
    /// Why that release has no stamp.
    pub no_stamp: Option<String>,
    /// What to know about it.
    pub notices: Vec<String>,
    /// Whether the metaDB is in Redis, where zot files some signatures differently.
    on_redis: bool,
}

impl<'a> Context<'a> {
    /// Load the config. Problems that only zot's later validation finds are kept, not raised.
    pub fn load(global: &'a Global, access: Access) -> Result<Self, Failure> {
        let config = config::load(&global.config)?;
        let probe = match (global.dedupe_effective, access) {
            (Some(OnOff::On), _) => DedupeProbe::Works,
            (Some(OnOff::Off), _) => DedupeProbe::Broken("--dedupe-effective off".into()),
            (None, Access::Read) => config.assume_dedupe(),
            (None, Access::Write) => config.probe_dedupe(),
        };
        let storage = config.storage(FieldSet::NEWEST, &probe)?;
        let metadb = config.metadb(&storage);
        let mut problems = config.problems(&storage);
        problems.extend(storage.stores().filter_map(|(name, store)| {
            let error = ObjectOptions::from_params(store.storage_driver.as_ref()?).err()?;
            // A driver that zot does not have is among the problems already.
            let known = matches!(store.storage_driver.as_ref()?.name(), Some("s3" | "gcs" | "azure"));
            (known && matches!(error, ParamError::Refused(_)))
                .then(|| format!("zot would refuse to start: {name}.{error}"))
        }));
        Ok(Self { global, config, storage, metadb, problems, probe })
    }

    /// As [`Context::load`], for commands that need a config that zot would start with.
    pub fn load_valid(global: &'a Global, access: Access) -> Result<Self, Failure> {
        let context = Self::load(global, access)?;
        if let Some(first) = context.problems.first() {
            let more = match context.problems.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let message = format!("config {}: {first}{more}", global.config.display());
            return Err(Failure::unknown("config-refused", message)
                .hint("`metactl config show` lists everything that is wrong with it"));
        }
        Ok(context)
    }

    /// The storage section under a release's rules.
    pub fn storage_for(&self, fields: FieldSet) -> Result<EffectiveStorage, config::ConfigError> {
        self.config.storage(fields, &self.probe)
    }

    /// Whether the metaDB was named on the command line.
    pub fn overridden(&self) -> bool {
        self.global.metadb.is_some()
    }

    /// Which metaDB the command is about.
    pub fn place(&self) -> Result<Place, Failure> {
        if let Some(url) = &self.global.metadb {
            let place = Place::parse(url).map_err(|reason| Failure::unknown("usage", format!("--metadb: {reason}")))?;
            return Ok(match place {
                Place::Redis(options) => Place::Redis(Box::new(options.with_files(self.redis_files()))),
                Place::DynamoDb(options) => self.dynamodb(*options),
                other => other,
            });
        }
        match &self.metadb.choice {
            MetaDbChoice::Bolt { path } => Ok(Place::Bolt(path.clone())),
            MetaDbChoice::Redb { path } => Ok(Place::Redb(path.clone())),
            MetaDbChoice::Redis(params) => Ok(Place::Redis(Box::new(self.redis_options(params)?))),
            MetaDbChoice::DynamoDb(params) => Ok(self.dynamodb(DynamoDbOptions::from_params(params).map_err(refused)?)),
            MetaDbChoice::Invalid { reason } => Err(Failure::unknown("config-refused", reason.clone())),
        }
    }

    fn redis_options(&self, params: &DriverParams) -> Result<RedisOptions, Failure> {
        Ok(RedisOptions::from_params(params).map_err(refused)?.with_files(self.redis_files()))
    }

    fn redis_files(&self) -> TlsFiles {
        let global = self.global;
        TlsFiles {
            ca: global.redis_ca_file.clone(),
            cert: global.redis_cert_file.clone(),
            key: global.redis_key_file.clone(),
        }
    }

    fn dynamodb(&self, options: DynamoDbOptions) -> Place {
        Place::DynamoDb(Box::new(options.with_rate(self.global.rate)))
    }

    /// What the metaDB's driver has to say about its options.
    fn place_notices(&self) -> Vec<String> {
        match self.place() {
            Ok(Place::Redis(options)) => options.notices().to_vec(),
            _ => Vec::new(),
        }
    }

    /// The metaDB, opened for reading; `None` if there is none yet.
    pub fn open(&self, place: &Place, cancel: &Cancel) -> Result<Option<Box<dyn MetaDb>>, Failure> {
        match place.open(cancel) {
            Ok(db) => Ok(Some(db)),
            Err(MetaDbError::Absent { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The image stores, whose requests end with the command.
    pub fn stores(&self, cancel: &Cancel) -> Result<Stores, Failure> {
        let routes =
            std::iter::once(None).chain(self.storage.sub_paths().into_iter().flatten().map(|(route, _)| Some(route)));
        let stores = self.storage.stores().zip(routes);
        let specs = stores.map(|((name, store), route)| self.spec(&name, route.map(String::as_str), store));
        let specs: Vec<StoreSpec> = specs.collect::<Result<_, _>>()?;
        Ok(Stores::open_with(&specs, self.global.io_concurrency.into(), cancel)?)
    }

    fn spec(&self, name: &str, route: Option<&str>, store: &Store) -> Result<StoreSpec, Failure> {
        let kind = match &store.storage_driver {
            None => StoreKind::Local { root: (&store.root_directory).into() },
            Some(driver) => match ObjectOptions::from_params(driver) {
                Ok(options) => StoreKind::Object(Box::new(options)),
                Err(error @ ParamError::Refused(_)) => {
                    let message = format!("zot would refuse to start: {name}.{error}");
                    return Err(Failure::unknown("config-refused", message));
                }
                Err(error @ ParamError::Unsupported(_)) => {
                    return Err(Failure::unknown("storage-driver", format!("this metactl cannot use {name}.{error}")));
                }
            },
        };
        let cache = match BlobCacheChoice::of(store) {
            BlobCacheChoice::None => None,
            BlobCacheChoice::Bolt { path } => Some(CacheSpec::Bolt(path)),
            BlobCacheChoice::Redis(params) => Some(CacheSpec::Redis(Box::new(self.redis_options(&params)?))),
            BlobCacheChoice::DynamoDb(params) => {
                let options = DynamoDbBlobCacheOptions::from_params(&params).map_err(refused)?;
                Some(CacheSpec::DynamoDb(Box::new(options)))
            }
        };
        Ok(StoreSpec { route: route.map(str::to_owned), kind, cache })
    }

    /// What zot will look for at its next start.
    pub fn expected(&self, stored: &StoredStamp) -> Result<Expected, Failure> {
        let identity = identity::resolve(&self.identity_request(stored))?;
        let mut notices = self.storage.notices().to_vec();
        notices.extend(self.place_notices());
        let on_redis = matches!(self.place(), Ok(Place::Redis(_)));
        let Some(resolved) = identity else {
            let fingerprint = fingerprint(&self.storage);
            return Ok(Expected { identity: None, stamp: None, fingerprint, no_stamp: None, notices, on_redis });
        };
        notices.extend(resolved.notices.iter().cloned());
        let name = &resolved.identity;
        let choice = match FieldSet::for_release(&name.release_tag, &name.commit) {
            Ok(choice) => choice,
            Err(no_stamp) => {
                return Ok(Expected {
                    identity: Some(resolved),
                    stamp: None,
                    fingerprint: fingerprint(&self.storage),
                    no_stamp: Some(no_stamp.to_string()),
                    notices,
                    on_redis,
                });
            }
        };
        notices.extend(choice.notice);
        let fingerprint = fingerprint(&self.storage_for(choice.fields)?);
        let stamp = Stamp { identity: name.clone(), fingerprint: fingerprint.as_str().to_owned() };
        Ok(Expected { identity: Some(resolved), stamp: Some(stamp), fingerprint, no_stamp: None, notices, on_redis })
    }

    fn identity_request(&self, stored: &StoredStamp) -> IdentityRequest {
        let global = self.global;
        let overrides = self.config.identity_overrides();
        let server = global.zot_url.as_ref().map(|url| ServerRequest {
            ca_file: global.zot_ca_file.clone(),
            credentials_file: global.zot_auth_file.clone(),
            config_overrides: overrides.0.is_some() || overrides.1.is_some(),
            ..ServerRequest::new(url)
        });
        IdentityRequest {
            release_tag: global.release_tag.clone(),
            commit: global.commit.clone(),
            zot_binary: global.zot_binary.clone(),
            server,
            search_path: std::env::var_os("PATH"),
            stored_identity: stored.identity_text().map(str::to_owned),
        }
    }
}

impl Expected {
    /// How this release records what it finds.
    pub fn rules(&self) -> Rules {
        let identity = self.identity.as_ref().map(|resolved| &resolved.identity);
        let release = identity.and_then(|name| identity::release_of(&name.release_tag, &name.commit));
        let old = release
            .is_some_and(|release| release.version < (2, 1, 18) || release.version == (2, 1, 18) && release.since == 0);
        Rules { push_time_is_now: old, lax_cosign_tags: old, sbom_tags_file_signatures: self.on_redis }
    }
}

fn refused(reason: impl std::fmt::Display) -> Failure {
    Failure::unknown("config-refused", format!("zot would refuse to start: storage.{reason}"))
}
