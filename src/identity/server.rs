//! The identity of a running zot, as it tells over HTTP (spec: "Binary identity" §5.4).
//!
//! `mgmt` tells tag and commit, but those of the *config* where that sets them; `discover` tells the linked-in tag only. So
//! the one confirms the other. `mgmt` answers without credentials only if the request target is exactly
//! `/v2/_zot/ext/mgmt` and there is no `Authorization` header: it is asked without one first.

use super::{Candidate, Found, Identity, IdentityError, cannot_read, confirmed_by_stamp, tag_of_commit};
use base64::Engine;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

const MGMT: &str = "/v2/_zot/ext/mgmt";
const DISCOVER: &str = "/v2/_oci/ext/discover";
/// Largest answer that is read.
const ANSWER: u64 = 1 << 20;
/// Longest time to find out whether a server answers at all.
const PROBE: Duration = Duration::from_secs(3);
const USER_AGENT: &str = concat!("metactl/", env!("CARGO_PKG_VERSION"));
/// Where systems keep the certificates they trust; the first that is there is used.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Which server to ask, and how.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    /// `http://` or `https://`, host, port; a path only if a proxy adds one.
    pub url: String,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// File with one line `user:password`, used where the server asks for it.
    pub credentials_file: Option<PathBuf>,
    /// Longest time for one request, connecting included.
    pub timeout: Duration,
    /// The server's config sets `commit` or `releaseTag`: then `mgmt` tells those and not the binary's.
    pub config_overrides: bool,
}

impl ServerRequest {
    /// Ask `url` with default settings: system certificates, no credentials, 10 seconds.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            credentials_file: None,
            timeout: Duration::from_secs(10),
            config_overrides: false,
        }
    }
}

/// Whether a registry answers at `url`. No credentials are sent and no certificate is checked: nothing is believed.
///
/// Whatever listens there counts, but for servers that say that it is away: 404, and 5xx of a proxy before it.
#[must_use]
pub fn answers(url: &str) -> bool {
    let base = url.trim_end_matches('/');
    let mut config = Agent::config_builder()
        .timeout_connect(Some(PROBE))
        .timeout_global(Some(2 * PROBE))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(USER_AGENT)
        .tls_config(TlsConfig::builder().disable_verification(true).build());
    if base.parse::<Uri>().is_ok_and(|uri| is_loopback(uri.host().unwrap_or_default())) {
        config = config.proxy(None);
    }
    match config.build().new_agent().get(format!("{base}/v2/")).call() {
        Ok(response) => response.status() != 404 && !response.status().is_server_error(),
        Err(ureq::Error::Io(error)) => !matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
        ),
        // Connected, but not what was expected, or slow.
        Err(ureq::Error::Protocol(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_)) => true,
        Err(ureq::Error::Timeout(at)) => !matches!(at, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        Err(_) => false,
    }
}

/// Whether a host of a URL is this machine itself, which no proxy leads to.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// One answer.
enum Reply {
    Json(serde_json::Value),
    Status(u16),
}

/// Ask the server. `stored`: identity part of the stored stamp.
///
/// # Errors
/// [`IdentityError::File`] for certificates and credentials, [`IdentityError::Server`] if it cannot be asked or does not tell,
/// [`IdentityError::Ambiguous`] if its answers contradict each other or leave the commit open.
pub(super) fn ask(request: &ServerRequest, stored: Option<&str>) -> Result<Found, IdentityError> {
    let client = Client::new(request)?;
    let (mgmt, discover) = (client.get(MGMT)?, client.get(DISCOVER)?);
    let linked_tag = match &discover {
        Reply::Json(answer) => discovered_tag(answer),
        Reply::Status(_) => None,
    };
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let told = match &mgmt {
        Reply::Json(answer) => text(&answer["commit"]).map(|commit| (text(&answer["releaseTag"]), commit)),
        Reply::Status(_) => None,
    };
    let ambiguous = |reason: String, candidates: Vec<Candidate>| {
        confirmed_by_stamp(&candidates, stored).ok_or_else(|| IdentityError::Ambiguous {
            subject: format!("the server at {}", client.base),
            reason,
            candidates,
        })
    };
    let (Some((told_tag, commit)), false) = (told, request.config_overrides) else {
        let Some(tag) = linked_tag else { return Err(client.useless(&mgmt, &discover, request.config_overrides)) };
        let reason = if request.config_overrides {
            format!("its release tag is {tag:?}, but its config overrides the commit it tells")
        } else {
            format!("its release tag is {tag:?}, but {}", client.why(&mgmt, MGMT))
        };
        let stored = stored.map(Identity::parse).filter(|stored| !tag.is_empty() && stored.release_tag == tag);
        let evidence = "the stored stamp has the release tag that the server tells".to_owned();
        let candidates: Vec<Candidate> =
            stored.into_iter().map(|identity| Candidate { identity, evidence: evidence.clone() }).collect();
        return Err(IdentityError::Ambiguous { subject: format!("the server at {}", client.base), reason, candidates });
    };
    let evidence = vec![format!("told by {}{MGMT}", client.base)];
    let mut notices = client.notices();
    match (told_tag, linked_tag) {
        (Some(told), Some(linked)) if told != linked => {
            let candidates = vec![
                Candidate {
                    identity: Identity::new(&linked, &commit),
                    evidence: "release tag told by discover".into(),
                },
                Candidate { identity: Identity::new(&told, &commit), evidence: "release tag told by mgmt".into() },
            ];
            let reason = "mgmt and discover tell different release tags; the server's config may override them";
            ambiguous(reason.to_owned(), candidates)
        }
        (_, Some(tag)) => {
            let evidence = [evidence, vec!["release tag confirmed by discover".to_owned()]].concat();
            Ok(Found { identity: Identity::new(tag, commit), evidence, notices })
        }
        (Some(tag), None) => {
            notices.push(
                "not confirmed by discover: mgmt tells what the config sets as commit and releaseTag, if it does"
                    .into(),
            );
            Ok(Found { identity: Identity::new(tag, commit), evidence, notices })
        }
        (None, None) => {
            let tag = tag_of_commit(&commit).unwrap_or_default().to_owned();
            let evidence = "release tag derived from the commit".to_owned();
            let candidates = vec![Candidate { identity: Identity::new(tag, commit), evidence }];
            ambiguous("the server tells no release tag".to_owned(), candidates)
        }
    }
}

/// The tag in the address of zot's extension document: `…/blob/<tag>/pkg/extensions/_zot.md`.
fn discovered_tag(answer: &serde_json::Value) -> Option<String> {
    let extensions = answer["extensions"].as_array()?;
    let url = extensions.iter().find(|extension| extension["name"] == "_zot")?["url"].as_str()?;
    let (_, rest) = url.split_once("/blob/")?;
    let (tag, _) = rest.rsplit_once("/pkg/extensions/")?;
    Some(tag.to_owned())
}

/// HTTP with the request's settings.
struct Client {
    agent: Agent,
    /// Address without trailing slash.
    base: String,
    authorization: Option<String>,
    plain: bool,
}

impl Client {
    fn new(request: &ServerRequest) -> Result<Self, IdentityError> {
        let invalid = |detail: &str| {
            // The text may hold a password: it is not repeated.
            IdentityError::Server { url: "server address".into(), detail: detail.into(), source: None }
        };
        let base = request.url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| invalid("not a valid URL"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let host = uri.host().unwrap_or_default().to_owned();
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            return Err(invalid("needs the form http[s]://host[:port]"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(invalid("credentials belong into a file, not into the URL"));
        }
        if uri.query().is_some() || request.url.contains('#') {
            return Err(invalid("query and fragment are not allowed"));
        }
        let authorization = match &request.credentials_file {
            Some(path) => Some(authorization(path)?),
            None => None,
        };
        let loopback = is_loopback(&host);
        let mut config = Agent::config_builder()
            .timeout_global(Some(request.timeout))
            .http_status_as_error(false)
            // A redirect could change the request target or carry the question to another server.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT);
        if loopback {
            config = config.proxy(None);
        }
        if scheme == "https" {
            let tls = TlsConfig::builder().root_certs(root_certificates(request.ca_file.as_deref())?);
            config = config.tls_config(tls.build());
        }
        let plain = scheme == "http" && !loopback;
        Ok(Self { agent: config.build().new_agent(), base, authorization, plain })
    }

    /// What the user should know about the connection itself.
    fn notices(&self) -> Vec<String> {
        let exposed = self.plain && self.authorization.is_some();
        exposed.then(|| "credentials may have been sent without encryption (http)".to_owned()).into_iter().collect()
    }

    /// Ask for `target`, first without credentials.
    fn get(&self, target: &str) -> Result<Reply, IdentityError> {
        match self.get_as(target, None)? {
            Reply::Status(401) if self.authorization.is_some() => self.get_as(target, self.authorization.as_deref()),
            reply => Ok(reply),
        }
    }

    fn get_as(&self, target: &str, authorization: Option<&str>) -> Result<Reply, IdentityError> {
        let url = format!("{}{target}", self.base);
        let failed = |detail: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>| IdentityError::Server {
            url: url.clone(),
            detail: detail.to_owned(),
            source,
        };
        let mut call = self.agent.get(&url);
        if let Some(authorization) = authorization {
            call = call.header("Authorization", authorization);
        }
        let mut response = call.call().map_err(|error| failed("request failed", Some(Box::new(error))))?;
        let status = response.status().as_u16();
        match status {
            200 => {}
            401 | 403 | 404 => return Ok(Reply::Status(status)),
            301..=308 => return Err(failed("redirects elsewhere; give the address of zot itself", None)),
            _ => return Err(failed(&format!("answers with status {status}"), None)),
        }
        let body = response.body_mut().with_config().limit(ANSWER).read_to_vec();
        let body = body.map_err(|error| failed("answer is incomplete or too long", Some(Box::new(error))))?;
        let answer = serde_json::from_slice(&body);
        answer.map(Reply::Json).map_err(|error| failed("answer is not JSON: is this a zot?", Some(Box::new(error))))
    }

    /// Why `reply` does not tell.
    fn why(&self, reply: &Reply, target: &str) -> String {
        match reply {
            Reply::Status(404) if target == MGMT => {
                "mgmt is not there (status 404): it needs a full build of zot with search enabled in the config".into()
            }
            Reply::Status(401) if self.authorization.is_none() => format!("{target} wants credentials (status 401)"),
            Reply::Status(401) => format!("{target} refuses the credentials (status 401)"),
            Reply::Status(status) => format!("{target} answers with status {status}"),
            Reply::Json(_) => format!("{target} does not tell it"),
        }
    }

    fn useless(&self, mgmt: &Reply, discover: &Reply, overridden: bool) -> IdentityError {
        let mgmt = if overridden { "the config overrides what mgmt tells".to_owned() } else { self.why(mgmt, MGMT) };
        let detail = format!("the server does not tell who it is: {mgmt}; {}", self.why(discover, DISCOVER));
        IdentityError::Server { url: self.base.clone(), detail, source: None }
    }
}

/// Header value for the `user:password` in a file.
fn authorization(path: &Path) -> Result<String, IdentityError> {
    let what = "credentials file";
    let text = std::fs::read_to_string(path).map_err(cannot_read(what, path))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if !line.contains(':') || line.contains('\n') {
        let reason = std::io::Error::new(std::io::ErrorKind::InvalidData, "needs one line user:password");
        return Err(cannot_read(what, path)(reason));
    }
    Ok(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(line)))
}

/// The given certificates, else the system's, else those built in.
fn root_certificates(ca_file: Option<&Path>) -> Result<RootCerts, IdentityError> {
    let parse = |pem: &[u8]| -> Vec<Certificate<'static>> {
        let items = parse_pem(pem).filter_map(Result::ok);
        items
            .filter_map(|item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None })
            .collect()
    };
    if let Some(path) = ca_file {
        let certificates = parse(&std::fs::read(path).map_err(cannot_read("CA file", path))?);
        if certificates.is_empty() {
            let reason = std::io::Error::new(std::io::ErrorKind::InvalidData, "holds no certificate in PEM form");
            return Err(cannot_read("CA file", path)(reason));
        }
        return Ok(RootCerts::new_with_certs(&certificates));
    }
    let system = SYSTEM_BUNDLES.iter().filter_map(|path| std::fs::read(path).ok()).map(|pem| parse(&pem));
    Ok(system
        .filter(|certificates| !certificates.is_empty())
        .map(|certificates| RootCerts::new_with_certs(&certificates))
        .next()
        .unwrap_or(RootCerts::WebPki))
}
