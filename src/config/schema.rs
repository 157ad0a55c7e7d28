//! The keys that zot knows outside `storage`, and what each takes: unknown keys and values that do not fit make zot
//! refuse the whole config (spec §1.6, §1.7), whatever they would mean.

use super::decode::{self, At as _, Bad};
use super::tree::Tree;

/// What a field takes.
pub(super) enum Shape {
    Text,
    Bool,
    Int,
    Float,
    /// Raw bytes: a text or a list of numbers.
    Bytes,
    Duration,
    List(&'static Shape),
    Section(&'static [Field]),
    MapOf(&'static Shape),
    /// A map whose keys zot does not look at when it loads the config.
    Free,
    /// An event sink, for which zot decodes on its own: it takes unknown keys.
    Sink,
}

/// A field of a section.
pub(super) struct Field {
    name: &'static str,
    shape: Shape,
    /// Commits of the main branch since v2.1.18 at which the field came; 0 if that has it.
    since: u64,
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, since: 0 }
}

const fn newer(name: &'static str, shape: Shape, since: u64) -> Field {
    Field { name, shape, since }
}

use Shape::{Bool, Bytes, Duration, Float, Free, Int, List, MapOf, Section, Sink, Text};

const TEXTS: Shape = List(&Text);

/// Top level. `storage`, which is taken out before, is decoded in full elsewhere.
pub(super) static TOP: &[Field] = &[
    field("storage", Free),
    field("distSpecVersion", Text),
    field("goVersion", Text),
    field("commit", Text),
    field("releaseTag", Text),
    field("binaryType", Text),
    field("http", Section(HTTP)),
    field("log", Section(&[field("level", Text), field("output", Text), field("audit", Text)])),
    field("extensions", Section(EXTENSIONS)),
    field("scheduler", Section(&[field("numWorkers", Int)])),
    field("cluster", Section(&[field("members", TEXTS), field("hashKey", Text), field("tls", Section(TLS))])),
];

static TLS: &[Field] = &[field("cert", Text), field("key", Text), field("cacert", Text)];

static HTTP: &[Field] = &[
    field("address", Text),
    field("externalUrl", Text),
    field("port", Text),
    field("allowOrigin", Text),
    field("readTimeout", Duration),
    field("writeTimeout", Duration),
    field("tls", Section(TLS)),
    field("auth", Section(AUTH)),
    field(
        "accessControl",
        Section(&[
            field("repositories", MapOf(&Section(POLICY_GROUP))),
            field("adminPolicy", Section(POLICY)),
            field("groups", MapOf(&Section(&[field("users", TEXTS)]))),
            field("metrics", Section(&[field("users", TEXTS), field("anonymousPolicy", TEXTS)])),
        ]),
    ),
    field("realm", Text),
    field(
        "ratelimit",
        Section(&[field("rate", Int), field("methods", List(&Section(&[field("method", Text), field("rate", Int)])))]),
    ),
    field("compat", TEXTS),
];

static POLICY_GROUP: &[Field] =
    &[field("policies", List(&Section(POLICY))), field("defaultPolicy", TEXTS), field("anonymousPolicy", TEXTS)];

static POLICY: &[Field] = &[
    field("users", TEXTS),
    field("actions", TEXTS),
    field("groups", TEXTS),
    field("conditions", List(&Section(&[field("expression", Text), field("message", Text)]))),
];

static AUTH: &[Field] = &[
    field("failDelay", Int),
    field("htpasswd", Section(&[field("path", Text)])),
    field(
        "ldap",
        Section(&[
            field("credentialsFile", Text),
            field("port", Int),
            field("insecure", Bool),
            field("startTLS", Bool),
            field("skipVerify", Bool),
            field("subtreeSearch", Bool),
            field("address", Text),
            field("userGroupAttribute", Text),
            field("baseDN", Text),
            field("userAttribute", Text),
            field("userFilter", Text),
            field("caCert", Text),
        ]),
    ),
    field("bearer", Section(BEARER)),
    field("openid", Section(&[field("providers", MapOf(&Section(PROVIDER))), field("callbackAllowOrigins", TEXTS)])),
    field("apikey", Bool),
    field("sessionKeysFile", Text),
    field("sessionHashKey", Bytes),
    field("sessionEncryptKey", Bytes),
    field("sessionDriver", Free),
    field("secureSession", Bool),
    field(
        "mtls",
        Section(&[
            field("identityAttributes", TEXTS),
            field("uriSanPattern", Text),
            field("uriSanIndex", Int),
            field("dnsSanIndex", Int),
            field("emailSanIndex", Int),
        ]),
    ),
];

static BEARER: &[Field] = &[
    field("realm", Text),
    field("service", Text),
    newer(
        "upstreamTokenEndpoint",
        Section(&[field("realm", Text), field("service", Text), field("allowInsecureHttp", Bool)]),
        9,
    ),
    field("cert", Text),
    field(
        "oidc",
        List(&Section(&[
            field("issuer", Text),
            field("audiences", TEXTS),
            field("claimMapping", Section(CEL_MAPPING)),
            field("certificateAuthority", Text),
            field("certificateAuthorityFile", Text),
            field("skipIssuerVerification", Bool),
        ])),
    ),
    field(
        "awsSecretsManager",
        Section(&[field("region", Text), field("secretName", Text), field("refreshInterval", Duration)]),
    ),
];

static CEL_MAPPING: &[Field] = &[
    field("variables", List(&Section(&[field("name", Text), field("expression", Text)]))),
    field("validations", List(&Section(&[field("expression", Text), field("message", Text)]))),
    field("username", Text),
    field("groups", Text),
];

static PROVIDER: &[Field] = &[
    field("credentialsFile", Text),
    field("name", Text),
    field("clientid", Text),
    field("clientsecret", Text),
    field("keypath", Text),
    field("issuer", Text),
    field("authurl", Text),
    field("tokenurl", Text),
    field("scopes", TEXTS),
    field("claimMapping", Section(&[field("username", Text), field("groups", Text)])),
];

const ENABLE: Field = field("enable", Bool);

static EXTENSIONS: &[Field] = &[
    field(
        "search",
        Section(&[ENABLE, field("cve", Section(&[field("updateInterval", Duration), field("trivy", Section(TRIVY))]))]),
    ),
    field(
        "sync",
        Section(&[
            ENABLE,
            field("credentialsFile", Text),
            field("downloadDir", Text),
            field("registries", List(&Section(REGISTRY))),
        ]),
    ),
    field("metrics", Section(&[ENABLE, field("prometheus", Section(&[field("path", Text)]))])),
    field("scrub", Section(&[ENABLE, field("interval", Duration)])),
    field("lint", Section(&[ENABLE, field("mandatoryAnnotations", TEXTS)])),
    field("ui", Section(&[ENABLE])),
    field("mgmt", Section(&[ENABLE])),
    field("apikey", Section(&[ENABLE])),
    field("trust", Section(&[ENABLE, field("cosign", Bool), field("notation", Bool)])),
    field("events", Section(&[ENABLE, field("sinks", List(&Sink))])),
];

static TRIVY: &[Field] = &[
    field("dbRepository", Text),
    field("javaDBRepository", Text),
    field("vulnSeveritySources", TEXTS),
    field("sbom", Section(&[field("enable", Bool), field("format", Text)])),
];

static REGISTRY: &[Field] = &[
    field("urls", TEXTS),
    field("pollInterval", Duration),
    field("content", List(&Section(CONTENT))),
    field("tlsVerify", Bool),
    field("onDemand", Bool),
    field("certDir", Text),
    field("maxRetries", Int),
    field("retryDelay", Duration),
    newer("maxRetryDelay", Duration, 5),
    field("onlySigned", Bool),
    field("syncLegacyCosignTags", Bool),
    field("credentialHelper", Text),
    newer("oauth2CredentialHelper", Free, 27),
    field("preserveDigest", Bool),
    field("syncTimeout", Duration),
    field("responseHeaderTimeout", Duration),
    newer("manifestCheckInterval", Duration, 91),
    newer("reqConcurrent", Int, 92),
    newer("reqPerSec", Float, 92),
    newer("disableHTTP2", Bool, 94),
    newer("maxIdleConnsPerHost", Int, 94),
];

static CONTENT: &[Field] = &[
    field("prefix", Text),
    field("tags", Section(&[field("regex", Text), field("excludeRegex", Text), field("semver", Bool)])),
    field("destination", Text),
    field("stripPrefix", Bool),
];

static SINK: &[Field] = &[
    field("type", Text),
    field("address", Text),
    field("channel", Text),
    field("timeout", Duration),
    field("proxy", Text),
    field("headers", MapOf(&Text)),
    field(
        "credentials",
        Section(&[field("username", Text), field("password", Text), field("file", Text), field("token", Text)]),
    ),
    field("tlsConfig", Section(&[field("caCertFile", Text), field("certFile", Text), field("keyFile", Text)])),
];

/// Check a section, whose known fields are those that came in the first `commits` since v2.1.18.
///
/// # Errors
/// A build of that age would refuse a key or a value.
pub(super) fn check(section: &Tree, fields: &[Field], commits: u64) -> Result<(), Bad> {
    let known: Vec<&str> = fields.iter().filter(|field| field.since <= commits).map(|field| field.name).collect();
    for (name, value) in decode::fields(section, &known)? {
        if let Some(field) = fields.iter().find(|field| field.name == name) {
            field.shape.check(value, commits).at(name)?;
        }
    }
    Ok(())
}

impl Shape {
    fn check(&self, value: &Tree, commits: u64) -> Result<(), Bad> {
        match self {
            Text => decode::text(value).map(drop),
            Bool => decode::boolean(value).map(drop),
            Int => decode::int(value).map(drop),
            Float => decode::float(value).map(drop),
            Bytes if matches!(value, Tree::Text(_)) => Ok(()),
            Bytes => decode::list(value, decode::int).map(drop),
            Duration => decode::duration(value).map(drop),
            List(shape) => decode::list(value, |item| shape.check(item, commits)).map(drop),
            Section(fields) => check(value, fields, commits),
            MapOf(shape) => {
                let entry = |value: &Tree| if *value == Tree::Null { Ok(()) } else { shape.check(value, commits) };
                decode::map_of(value, &entry).map(drop)
            }
            Free => decode::map_of(value, &|_| Ok(())).map(drop),
            Sink => sink(value, commits),
        }
    }
}

fn sink(value: &Tree, commits: u64) -> Result<(), Bad> {
    let mut supported = false;
    for (key, value) in decode::section(value)? {
        let known = SINK.iter().find(|field| field.name.eq_ignore_ascii_case(key));
        if let Some(field) = known.filter(|_| *value != Tree::Null) {
            field.shape.check(value, commits).at(field.name)?;
            supported |= field.name == "type" && matches!(decode::text(value).as_deref(), Ok("http" | "nats"));
        }
    }
    if supported { Ok(()) } else { Err(Bad::wrong(value, "a supported event sink (its type is http or nats)")) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::config;
    use super::super::{DedupeProbe, FieldSet};

    /// Whether builds of v2.1.18, v2.1.20 and later load this config, as zot's own loader has it.
    fn loads(others: &Value) -> [bool; 3] {
        let load = |fields| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config.json");
            std::fs::write(&path, others.to_string()).unwrap();
            super::super::load(&path).and_then(|config| config.storage(fields, &DedupeProbe::Works)).is_ok()
        };
        [FieldSet::V2_1_18, FieldSet::V2_1_19, FieldSet::NEWEST].map(load)
    }

    #[test]
    fn keys_and_values_of_other_sections() {
        for (other, want) in [
            (json!({"http": {"port": 8080, "readTimeout": "5s", "compat": "docker2s2"}}), [true; 3]),
            (json!({"http": {"prot": 8080}}), [false; 3]),
            (json!({"http": {"readTimeout": "5"}}), [false; 3]),
            (json!({"http": {"auth": {"sessionHashKey": "abc", "sessionDriver": {"any": {"x": 1}}}}}), [true; 3]),
            (json!({"http": {"auth": {"ldap": {"bindDN": "x"}}}}), [false; 3]),
            (json!({"http": {"auth": {"bearer": {"upstreamTokenEndpoint": {"realm": "r"}}}}}), [false, true, true]),
            (json!({"http": {"tls": [{"cert": "c"}]}}), [false; 3]),
            (json!({"http": {"accessControl": {"repositories": [{"**": {"policies": {"users": 5}}}]}}}), [true; 3]),
            (json!({"http": {"accessControl": {"repositories": {"**": {"policy": []}}}}}), [false; 3]),
            (json!({"log": {"level": "debug", "audit": "/x"}}), [true; 3]),
            (json!({"log": {"file": "/x"}}), [false; 3]),
            (json!({"extensions": {"lint": {"enable": "true", "mandatoryAnnotations": "a"}}}), [true; 3]),
            (json!({"extensions": {"lint": {"enable": "yes"}}}), [false; 3]),
            (json!({"extensions": {"sync": {"registries": [{"maxRetryDelay": "1s"}]}}}), [false, true, true]),
            (json!({"extensions": {"sync": {"registries": [{"reqPerSec": "1.5"}]}}}), [false, false, true]),
            (
                json!({"extensions": {"events": {"sinks": [{"type": "http", "unknown": 1, "timeout": "1s"}]}}}),
                [true; 3],
            ),
            (json!({"extensions": {"events": {"sinks": [{"type": "kafka"}]}}}), [false; 3]),
            (json!({"extensions": {"events": {"sinks": {"type": "nats", "headers": {"a": []}}}}}), [false; 3]),
            (json!({"cluster": {"members": [], "hashKey": "x", "proxy": {}}}), [true; 3]),
            (json!({"cluster": {"members": [], "proxy": 1}}), [false; 3]),
            (json!({"scheduler": {"numWorkers": "0x10"}}), [true; 3]),
        ] {
            assert_eq!(loads(&other), want, "{other}");
        }
        let config = config(&json!({"extensions": {"sync": {"registries": [{"reqPerSec": 1}]}}}));
        let error = config.storage(FieldSet::V2_1_19, &DedupeProbe::Works).unwrap_err().to_string();
        assert!(error.ends_with("reqPerSec: unknown key in this release (zot knows it after v2.1.20)"), "{error}");
    }
}
