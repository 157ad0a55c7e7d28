//! zot's semantic validation of the sections other than `storage`: what it can parse but refuses to start with. The
//! sections have the right shape, see `schema`; what they call for in other files is not looked at.

use super::decode;
use super::pattern;
use super::sections::{at, switch_at, text_at};
use super::tree::{Map, Tree};

/// Names of certificate attributes, lower-case.
const IDENTITY_ATTRIBUTES: [&str; 10] =
    ["commonname", "cn", "subject", "dn", "email", "rfc822name", "uri", "url", "dnsname", "dns"];
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

type Refuse<'r> = &'r mut dyn FnMut(String);

/// Report what zot would refuse.
pub(super) fn problems(others: &Tree, refuse: Refuse<'_>) {
    if let Some(auth) = at(others, &["http", "auth"]) {
        logins(auth, others, refuse);
    }
    if let Some(access) = at(others, &["http", "accesscontrol"]) {
        access_control(access, others, refuse);
    }
    if let Some(path) = at(others, &["extensions", "metrics", "prometheus"]).map(|it| text_at(it, &["path"])) {
        let clean = path.starts_with('/') && !path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
        if !clean || path == "/v2" {
            refuse(format!("{path:?} is no path for metrics (extensions.metrics.prometheus.path)"));
        }
    }
    for (index, registry) in items(others, &["extensions", "sync", "registries"]).into_iter().enumerate() {
        let compat = !items(others, &["http", "compat"]).is_empty();
        let place = format!("extensions.sync.registries[{index}]");
        sync_registry(registry, compat, &mut |text| refuse(format!("{text} ({place})")));
    }
    if let Some(cluster) = at(others, &["cluster"]) {
        if items(cluster, &["members"]).is_empty() {
            refuse("cluster.members is empty".into());
        }
        if text_at(cluster, &["hashkey"]).len() != 16 {
            refuse("cluster.hashKey must have 16 characters".into());
        }
    }
}

/// Items of a list field; a lone value is a list of one.
fn items<'a>(section: &'a Tree, path: &[&str]) -> Vec<&'a Tree> {
    match at(section, path) {
        Some(Tree::List(items)) => items.iter().collect(),
        Some(Tree::Map(map)) if map.is_empty() => Vec::new(),
        other => other.into_iter().collect(),
    }
}

/// Entries of a map field, which may be written as a list of maps: the last of equal keys counts.
fn entries<'a>(section: &'a Tree, path: &[&str]) -> Vec<(&'a String, &'a Tree)> {
    fn merge<'a>(value: &'a Tree, out: &mut std::collections::BTreeMap<&'a String, &'a Tree>) {
        match value {
            Tree::Map(map) => out.extend(map),
            Tree::List(items) => items.iter().for_each(|item| merge(item, out)),
            _ => {}
        }
    }
    let mut out = std::collections::BTreeMap::new();
    if let Some(value) = at(section, path) {
        merge(value, &mut out);
    }
    out.into_iter().collect()
}

fn missing(section: &Tree, keys: &[&str]) -> bool {
    keys.iter().any(|key| text_at(section, &[key]).is_empty())
}

fn is_zero(section: &Tree, key: &str) -> bool {
    at(section, &[key]).is_none_or(|value| decode::int(value) == Ok(0))
}

fn has_client_certificates(others: &Tree) -> bool {
    at(others, &["http", "tls"]).is_some_and(|tls| !missing(tls, &["key", "cert", "cacert"]))
}

fn logins(auth: &Tree, others: &Tree, refuse: Refuse<'_>) {
    if at(auth, &["ldap"]).is_some_and(|ldap| missing(ldap, &["userattribute", "address", "basedn"])) {
        refuse("http.auth.ldap needs userAttribute, address and baseDN".into());
    }
    if let Some(mtls) = at(auth, &["mtls"]) {
        client_certificates(mtls, has_client_certificates(others), refuse);
    }
    for (name, provider) in entries(auth, &["openid", "providers"]) {
        // The credentials may come from a file.
        let has_id = !missing(provider, &["clientid"]) || !missing(provider, &["credentialsfile"]);
        let scopes = !items(provider, &["scopes"]).is_empty();
        let complete = match name.as_str() {
            "google" | "gitlab" | "oidc" => has_id && scopes && !missing(provider, &["issuer"]),
            "github" => has_id && scopes,
            _ => {
                refuse(format!("http.auth.openid.providers: {name:?} is no provider"));
                continue;
            }
        };
        if !complete {
            refuse(format!("http.auth.openid.providers.{name} needs clientid, scopes and, unless github, issuer"));
        }
    }
    if let Some(bearer) = at(auth, &["bearer"]) {
        bearer_login(bearer, refuse);
    }
    if let Some(driver) = at(auth, &["sessiondriver"]) {
        let named: Map = entries(auth, &["sessiondriver"]).into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        match named.get("name").and_then(Tree::as_text) {
            Some("redis") if !missing(auth, &["sessionkeysfile"]) => {
                refuse("http.auth.sessionKeysFile does not go with the session driver redis".into());
            }
            Some("redis" | "local") => {}
            // A list without any map in it is no driver.
            None if matches!(driver, Tree::List(items) if !items.is_empty()) && named.is_empty() => {}
            _ => refuse("http.auth.sessionDriver.name is none of redis, local".into()),
        }
    }
}

fn client_certificates(mtls: &Tree, possible: bool, refuse: Refuse<'_>) {
    if !possible {
        refuse("http.auth.mtls needs http.tls with cert, key and cacert".into());
    }
    let attributes: Vec<String> = items(mtls, &["identityattributes"])
        .into_iter()
        .map(|name| decode::text(name).unwrap_or_default().trim().to_lowercase())
        .collect();
    if let Some(unknown) = attributes.iter().find(|name| !IDENTITY_ATTRIBUTES.contains(&name.as_str())) {
        refuse(format!("{unknown:?} is no identity attribute (http.auth.mtls.identityAttributes)"));
    }
    let by_uri = attributes.iter().any(|name| matches!(name.as_str(), "uri" | "url"));
    let pattern = text_at(mtls, &["urisanpattern"]);
    let indexed = ["dnssanindex", "emailsanindex", "urisanindex"].iter().any(|key| !is_zero(mtls, key));
    if !by_uri && (indexed || !pattern.is_empty()) {
        refuse("http.auth.mtls: uriSanPattern and the indexes need the identity attribute URI".into());
    }
    if let Some(why) = pattern::regex_problem(&pattern) {
        refuse(format!("{pattern:?} {why} (http.auth.mtls.uriSanPattern)"));
    }
}

fn bearer_login(bearer: &Tree, refuse: Refuse<'_>) {
    let manager = at(bearer, &["awssecretsmanager"]);
    if manager.is_some() && !missing(bearer, &["cert"]) {
        refuse("http.auth.bearer has both cert and awsSecretsManager".into());
    }
    if let Some(manager) = manager {
        let negative = at(manager, &["refreshinterval"]).is_some_and(|it| decode::duration(it).is_ok_and(|it| it < 0));
        if negative || missing(manager, &["region", "secretname"]) {
            refuse("http.auth.bearer.awsSecretsManager needs region, secretName and no negative interval".into());
        }
    }
    if let Some(endpoint) = at(bearer, &["upstreamtokenendpoint"]) {
        let realm = text_at(endpoint, &["realm"]).to_ascii_lowercase();
        let insecure = switch_at(endpoint, &["allowinsecurehttp"]) == Some(true);
        let host = realm.strip_prefix("https://").or(realm.strip_prefix("http://").filter(|_| insecure));
        if missing(endpoint, &["service"])
            || host.is_none_or(|host| host.is_empty() || host.starts_with(['/', '?', '#']))
        {
            refuse("http.auth.bearer.upstreamTokenEndpoint needs service and, as realm, an https URL".into());
        }
    }
}

fn access_control(access: &Tree, others: &Tree, refuse: Refuse<'_>) {
    let repositories = entries(access, &["repositories"]);
    for (glob, _) in &repositories {
        if let Some(why) = pattern::glob_problem(glob) {
            refuse(format!("repository glob {glob:?} {why} (http.accessControl.repositories)"));
        }
    }
    let auth = at(others, &["http", "auth"]);
    if auth.is_some_and(has_login) || has_client_certificates(others) {
        return;
    }
    let given = |section: &Tree, key: &str| !items(section, &[key]).is_empty();
    let admin = at(access, &["adminpolicy"]);
    let admin_has = |keys: &[&str]| admin.is_some_and(|admin| keys.iter().any(|key| given(admin, key)));
    let for_users = |group: &Tree| {
        given(group, "defaultpolicy")
            || items(group, &["policies"]).iter().any(|policy| given(policy, "actions") || given(policy, "users"))
    };
    let anonymous_only = !admin_has(&["actions", "users"])
        && repositories.iter().any(|(_, group)| given(group, "anonymouspolicy"))
        && !repositories.iter().any(|(_, group)| for_users(group));
    let metrics_only = !admin_has(&["actions", "users", "groups"])
        && repositories.is_empty()
        && entries(access, &["groups"]).is_empty()
        && items(access, &["metrics", "anonymouspolicy"]).iter().any(|it| decode::text(it).as_deref() == Ok("read"));
    if !anonymous_only && !metrics_only {
        refuse("http.accessControl needs a login in http.auth, or nothing but anonymous policies".into());
    }
}

/// Whether users can log in: by name, by OpenID or with a bearer token.
fn has_login(auth: &Tree) -> bool {
    let bearer = at(auth, &["bearer"]).is_some_and(|bearer| {
        let traditional = !missing(bearer, &["realm", "service"])
            && (!missing(bearer, &["cert"]) || at(bearer, &["awssecretsmanager"]).is_some());
        let oidc = |issuer: &&Tree| !missing(issuer, &["issuer"]) && !items(issuer, &["audiences"]).is_empty();
        traditional || items(bearer, &["oidc"]).iter().any(oidc)
    });
    bearer
        || !text_at(auth, &["htpasswd", "path"]).is_empty()
        || at(auth, &["ldap"]).is_some()
        || at(auth, &["openid"]).is_some()
        || switch_at(auth, &["apikey"]) == Some(true)
}

fn sync_registry(registry: &Tree, compat: bool, refuse: Refuse<'_>) {
    let duration = |key| at(registry, &[key]).and_then(|value| decode::duration(value).ok());
    let (delay, longest) = (duration("retrydelay"), duration("maxretrydelay"));
    if delay.is_none() && (at(registry, &["maxretries"]).is_some() || longest.is_some()) {
        refuse("maxRetries and maxRetryDelay need retryDelay".into());
    }
    if delay.zip(longest).is_some_and(|(delay, longest)| longest < delay) {
        refuse("maxRetryDelay is below retryDelay".into());
    }
    if text_at(registry, &["credentialhelper"]) == "oauth2" && !oauth2_helper(registry) {
        refuse("oauth2CredentialHelper is missing or incomplete".into());
    }
    if switch_at(registry, &["preservedigest"]) == Some(true) && !compat {
        refuse("preserveDigest needs http.compat".into());
    }
    for content in items(registry, &["content"]) {
        let prefix = text_at(content, &["prefix"]);
        if let Some(why) = pattern::glob_problem(&prefix) {
            refuse(format!("prefix {prefix:?} {why}"));
        }
        for key in ["regex", "excluderegex"] {
            let regex = text_at(content, &["tags", key]);
            if let Some(why) = pattern::regex_problem(&regex) {
                refuse(format!("tag pattern {regex:?} {why}"));
            }
        }
        let strip = switch_at(content, &["stripprefix"]) == Some(true);
        if strip && !prefix.contains("/*") && text_at(content, &["destination"]) == "/" {
            refuse("stripPrefix with destination \"/\" needs a glob as prefix".into());
        }
    }
}

/// Whether the helper's own section would do.
fn oauth2_helper(registry: &Tree) -> bool {
    const TEXTS: [&str; 10] = [
        "tokenurl",
        "assertionfile",
        "signingfile",
        "granttype",
        "clientid",
        "clientsecretfile",
        "username",
        "audience",
        "subjecttokentype",
        "requestedtokentype",
    ];
    let helper = entries(registry, &["oauth2credentialhelper"]);
    let fits = helper.iter().all(|(key, value)| match key.as_str() {
        "scopes" => decode::list(value, decode::text).is_ok(),
        key => TEXTS.contains(&key) && (**value == Tree::Null || decode::text(value).is_ok()),
    });
    let text = |name: &str| {
        let found = helper.iter().find(|(key, _)| *key == name);
        found.and_then(|(_, value)| decode::text(value).ok()).unwrap_or_default()
    };
    let given = |name: &str| !text(name).trim().is_empty();
    // A URI with a scheme.
    let absolute = |name: &str| {
        let text = text(name);
        !given(name)
            || text.split_once(':').is_some_and(|(scheme, _)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            })
    };
    let exchange_ok = if text("granttype") == TOKEN_EXCHANGE {
        given("audience") && absolute("subjecttokentype") && absolute("requestedtokentype")
    } else {
        !["audience", "subjecttokentype", "requestedtokentype"].into_iter().any(given)
    };
    fits && given("tokenurl") && given("assertionfile") != given("signingfile") && exchange_ok
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{config, storage};

    fn found(others: &Value) -> Vec<String> {
        let mut value = others.clone();
        value["storage"] = json!({"rootDirectory": "/r"});
        let config = config(&value);
        config.problems(&storage(&config))
    }

    /// Verdicts of zot's own validation.
    #[test]
    fn what_zot_starts_with() {
        let tls = json!({"key": "k", "cert": "c", "cacert": "a"});
        for good in [
            json!({"http": {"auth": {"ldap": {"userAttribute": "u", "address": "a", "baseDN": "b"}}}}),
            json!({"http": {"auth": {"openid": {"providers": {"github": {"clientid": "c", "scopes": ["s"]}}}}}}),
            json!({"http": {"auth": {"sessionDriver": {"name": "local"}, "sessionKeysFile": null}}}),
            json!({"http": {"auth": {"mtls": {"identityAttributes": [" cn ", "URL"], "uriSanIndex": 1}}, "tls": tls}}),
            json!({"http": {"auth": {"bearer": {"upstreamTokenEndpoint": {"realm": "HTTPS://x", "service": "s"}}}}}),
            json!({"http": {"accessControl": {"repositories": {"**": {"anonymousPolicy": "read"}}}}}),
            json!({"http": {"accessControl": {"metrics": {"anonymousPolicy": ["read"]}}}}),
            json!({"http": {"accessControl": {"adminPolicy": {"users": ["a"]}}, "auth": {"apikey": true}}}),
            json!({"http": {"accessControl": {"adminPolicy": {"users": ["a"]}}, "tls": tls}}),
            json!({"extensions": {"metrics": {"prometheus": {"path": "/a/b"}}}}),
            json!({"extensions": {"metrics": {"enable": true, "prometheus": {}}}}),
            json!({"extensions": {"sync": {"registries": [{"maxRetries": 1, "retryDelay": "1s"}, null]}}}),
            json!({"extensions": {"sync": {"registries": {"credentialHelper": "oauth2", "oauth2CredentialHelper":
                {"tokenURL": "t", "signingFile": "f", "scopes": "a"}}}}}),
            json!({"cluster": {"members": ["a"], "hashKey": "loremipsumdolors"}}),
        ] {
            assert_eq!(found(&good), Vec::<String>::new(), "{good}");
        }
        for bad in [
            json!({"http": {"auth": {"ldap": {"address": "a", "baseDN": "b"}}}}),
            json!({"http": {"auth": {"openid": {"providers": {"google": {"clientid": "c", "scopes": ["s"]}}}}}}),
            json!({"http": {"auth": {"openid": {"providers": {"other": {"clientid": "c", "scopes": ["s"]}}}}}}),
            json!({"http": {"auth": {"sessionDriver": {"name": "dynamodb"}}}}),
            json!({"http": {"auth": {"sessionDriver": []}}}),
            json!({"http": {"auth": {"mtls": {"identityAttributes": ["cn"]}}}}),
            json!({"http": {"auth": {"mtls": {"identityAttributes": ["c n"]}}, "tls": tls}}),
            json!({"http": {"auth": {"mtls": {"identityAttributes": ["cn"], "dnsSanIndex": "1"}}, "tls": tls}}),
            json!({"http": {"auth": {"mtls": {"identityAttributes": "uri", "uriSanPattern": "("}}, "tls": tls}}),
            json!({"http": {"auth": {"bearer": {"upstreamTokenEndpoint": {"realm": "http://x", "service": "s"}}}}}),
            json!({"http": {"auth": {"bearer": {"cert": "c", "awsSecretsManager": {"region": "r", "secretName": "s"}}}}}),
            json!({"http": {"accessControl": {"repositories": {"**": {"defaultPolicy": ["read"]}}}}}),
            json!({"http": {"accessControl": {"repositories": {"[": {"anonymousPolicy": ["read"]}}}}}),
            json!({"http": {"accessControl": {"groups": {"g": {"users": ["a"]}}}}}),
            json!({"extensions": {"metrics": {"prometheus": {"path": "/a/"}}}}),
            json!({"extensions": {"metrics": {"prometheus": {"path": "/v2"}}}}),
            json!({"extensions": {"sync": {"registries": [{"maxRetries": 1}]}}}),
            json!({"extensions": {"sync": {"registries": [{"maxRetryDelay": "1s", "retryDelay": "2s"}]}}}),
            json!({"extensions": {"sync": {"registries": [{"preserveDigest": true}]}}}),
            json!({"extensions": {"sync": {"registries": [{"content": [{"prefix": "["}]}]}}}),
            json!({"extensions": {"sync": {"registries": [{"content": {"prefix": "a", "stripPrefix": 1, "destination": "/"}}]}}}),
            json!({"extensions": {"sync": {"registries": [{"credentialHelper": "oauth2"}]}}}),
            json!({"extensions": {"sync": {"registries": {"credentialHelper": "oauth2", "oauth2CredentialHelper":
                {"tokenURL": "t", "signingFile": "f", "audience": "a"}}}}}),
            json!({"cluster": {"members": ["a"], "hashKey": "short"}}),
            json!({"cluster": {"hashKey": "loremipsumdolors"}}),
        ] {
            assert_eq!(found(&bad).len(), 1, "{bad}: {:?}", found(&bad));
        }
    }
}
