//! Requests that come back whole or not at all.
//!
//! Beneath the client library: a bound on requests under way, retries with back-off, a bound on silence, and answers read to their end before
//! they count, so that a body that breaks off is as good as a lost connection. What the service says in an error is kept
//! in a few words; everything else of an error answer is thrown away, because services repeat parts of credentials there.

use super::io::Io;
use crate::secret::{MASK, Secret};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How often a request is tried.
const TRIES: u32 = 8;
/// How long a failing request is tried again. Eight tries with their pauses take ten seconds or so.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an answer may stall at the first try, and at the others: what is slow in truth has a second chance.
const STALL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));
/// The same while the service is down, so that what is left to do does not take hours.
const STALL_DOWN: Duration = Duration::from_secs(2);
/// How often a request is tried that the service says is not allowed: a credential that has just been issued may not be
/// known everywhere yet.
const TRIES_DENIED: u32 = 3;
/// So many requests given up one after the other, and none answered: the service is down, and others are tried once.
const DOWN: u32 = 16;
/// Mean pause before the second try; doubles with each.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest mean pause.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);
/// Characters of a service's message that are shown.
const MESSAGE: usize = 300;
/// Clocks this far apart are named in the message of a denied request.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Why a service did not give what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status; 0 if there was no answer.
    pub(super) status: u16,
    /// The service's own word for it, such as `NoSuchKey`; may be empty.
    pub(super) code: String,
    /// All of it for people.
    pub(super) text: String,
}

/// Carried by a request; holds why its last try failed.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Option<Refusal>>>);

impl Trace {
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service's clock, as far as its answers tell.
#[derive(Debug)]
pub(super) struct ServiceClock {
    /// Milliseconds by which the service's clock is ahead of ours, at least. Negative: ours may be ahead by so much.
    ahead: AtomicI64,
}

impl Default for ServiceClock {
    fn default() -> Self {
        Self { ahead: AtomicI64::new(i64::MIN) }
    }
}

impl ServiceClock {
    /// What the service's clock showed, at least, at an instant by ours: in whole seconds, because it keeps no others.
    pub(super) fn at(&self, instant: Timestamp) -> Timestamp {
        let ahead = match self.ahead.load(Ordering::Relaxed) {
            i64::MIN => 0,
            ahead => ahead.min(0),
        };
        let shown = instant.checked_add(SignedDuration::from_millis(ahead)).unwrap_or(instant);
        Timestamp::from_second(shown.as_second()).unwrap_or(shown)
    }

    /// Learn from the `Date` of an answer that has just come.
    fn observe(&self, date: Timestamp) {
        let ahead = date.duration_since(Timestamp::now());
        // The answer was on its way for a while, so the service's clock shows more than `date` by now.
        self.ahead.fetch_max(i64::try_from(ahead.as_millis()).unwrap_or(i64::MIN), Ordering::Relaxed);
    }
}

/// Makes the clients through which one store is asked.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    permits: Arc<Semaphore>,
    clock: Arc<ServiceClock>,
    secrets: Arc<[Secret]>,
    limit: u64,
    /// Requests given up since the last one that was answered.
    given_up: Arc<AtomicU32>,
}

impl Connector {
    /// `secrets` never appear in a message, whatever the service says; answers beyond `limit` bytes are refused.
    pub(super) fn new(io: &Io, clock: Arc<ServiceClock>, secrets: &[Secret], limit: u64) -> Self {
        Self { permits: io.permits(), clock, secrets: secrets.into(), limit, given_up: Arc::default() }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Patient { client, connector: self.clone() }))
    }
}

/// See the module's description.
#[derive(Debug)]
struct Patient {
    client: HttpClient,
    connector: Connector,
}

#[async_trait::async_trait]
impl HttpService for Patient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let trace = request.extensions().get::<Trace>().cloned().unwrap_or_default();
        let given_up = &self.connector.given_up;
        let is_down = || given_up.load(Ordering::Relaxed) >= DOWN;
        let mut tries = 1;
        let mut failing: Option<Instant> = None;
        loop {
            let stall = match tries {
                _ if is_down() => STALL_DOWN,
                1 => STALL.0,
                _ => STALL.1,
            };
            let outcome = self.once(&request, &trace, stall).await;
            let most = match &outcome {
                Ok(response) => match response.status().as_u16() {
                    403 => TRIES_DENIED,
                    408 | 429 | 500.. => TRIES,
                    _ => 1,
                },
                Err(error) if error.kind() == HttpErrorKind::Unknown => 1,
                // Whether there is a metadata server is found out by asking it.
                Err(_) if is_metadata_server(&request) => 1,
                Err(_) => TRIES,
            };
            if most < TRIES {
                given_up.store(0, Ordering::Relaxed);
            }
            let failing_for = failing.get_or_insert_with(Instant::now).elapsed();
            if tries >= most || failing_for >= PATIENCE || is_down() {
                if most == TRIES {
                    given_up.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(refusal) = trace.lock().as_mut().filter(|_| tries > 1) {
                    refusal.text.push_str(&format!(" (tried {tries} times)"));
                }
                return outcome;
            }
            tokio::time::sleep(pause(tries)).await;
            tries += 1;
        }
    }
}

impl Patient {
    /// One try, in which an answer may stall so long; afterwards `trace` has its refusal, if it was one.
    async fn once(&self, request: &HttpRequest, trace: &Trace, stall: Duration) -> Result<HttpResponse, HttpError> {
        // The semaphore is never closed, so there always is a permit in the end.
        let _permit = self.connector.permits.acquire().await.ok();
        *trace.lock() = None;
        let outcome = self.whole(request, stall).await;
        *trace.lock() = match &outcome {
            Ok((_, refusal)) => refusal.clone(),
            Err(error) => Some(Refusal { text: crate::error::chain(error), ..Refusal::default() }),
        };
        outcome.map(|(response, _)| response)
    }

    async fn whole(
        &self,
        request: &HttpRequest,
        stall: Duration,
    ) -> Result<(HttpResponse, Option<Refusal>), HttpError> {
        let response = within(stall, self.client.execute(request.clone())).await??;
        let (parts, body) = response.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let date = header("date").and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
        if let Some(date) = date {
            self.connector.clock.observe(date);
        }
        let content = self.read(body, stall).await?;
        if parts.status.is_success() {
            let body = match std::str::from_utf8(&content) {
                Ok(listing) if is_listing(request) => super::odd_keys::leave_out(listing).into_bytes(),
                _ => content,
            };
            return Ok((HttpResponse::from_parts(parts, body.into()), None));
        }
        let mut refusal = explain(parts.status.as_u16(), &String::from_utf8_lossy(&content), &header);
        if let (401 | 403, Some(date)) = (refusal.status, date) {
            let ahead = Timestamp::now().duration_since(date);
            if ahead.abs() > SKEW {
                let (minutes, way) = (ahead.abs().as_mins(), if ahead.is_negative() { "behind" } else { "ahead of" });
                refusal.text.push_str(&format!("; this machine's clock is {minutes} minutes {way} the service's"));
            }
        }
        for secret in self.connector.secrets.iter().filter(|secret| !secret.expose().is_empty()) {
            refusal.text = refusal.text.replace(secret.expose(), MASK);
        }
        let body = HttpResponseBody::from(refusal.text.clone());
        Ok((HttpResponse::from_parts(parts, body), Some(refusal)))
    }
}

impl Patient {
    /// A body up to its end.
    async fn read(&self, body: HttpResponseBody, stall: Duration) -> Result<Vec<u8>, HttpError> {
        let mut content = Vec::new();
        let mut chunks = body.bytes_stream();
        while let Some(chunk) = within(stall, chunks.next()).await? {
            // Whatever goes wrong here, the answer is not whole.
            let chunk = chunk.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            if (content.len() + chunk.len()) as u64 > self.connector.limit {
                let limit = self.connector.limit >> 20;
                let detail = format!("larger than {limit} MiB, which no manifest, config or index is");
                return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(detail)));
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }
}

/// What a part of an answer is, if it does not stall.
async fn within<T>(stall: Duration, part: impl Future<Output = T>) -> Result<T, HttpError> {
    tokio::time::timeout(stall, part).await.map_err(|_| {
        let detail = format!("no answer within {} s", stall.as_secs());
        HttpError::new(HttpErrorKind::Timeout, std::io::Error::other(detail))
    })
}

/// Around the mean for this try, so that requests that failed together do not come back together.
fn pause(tries: u32) -> Duration {
    let mean = PAUSE.saturating_mul(1 << (tries - 1).min(16)).min(PAUSE_LIMIT);
    let random = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    mean.mul_f64(0.5 + random)
}

fn is_listing(request: &HttpRequest) -> bool {
    request.uri().query().is_some_and(|query| query.contains("list-type=") || query.contains("comp=list"))
}

fn is_metadata_server(request: &HttpRequest) -> bool {
    let uri = request.uri();
    matches!(uri.host(), Some("169.254.169.254" | "metadata.google.internal" | "metadata"))
        || uri.path().starts_with("/computeMetadata/")
}

/// What an error answer says, from the XML of the storage services or the JSON of those that issue tokens.
fn explain<'h>(status: u16, body: &str, header: &impl Fn(&str) -> Option<&'h str>) -> Refusal {
    let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let json_text = |pointer: &str| json.pointer(pointer).and_then(serde_json::Value::as_str);
    let code = element(body, "Code")
        .or_else(|| header("x-ms-error-code"))
        .or_else(|| json_text("/error/status"))
        .or_else(|| json_text("/error"))
        .unwrap_or("");
    let message = element(body, "Message")
        .or_else(|| json_text("/error/message"))
        .or_else(|| json_text("/error_description"))
        .unwrap_or("");
    // Azure puts an identifier of the request on the lines after the first.
    let message: String = message.lines().next().unwrap_or("").trim().chars().take(MESSAGE).collect();
    let mut text = status.to_string();
    for part in [code, message.as_str()].into_iter().filter(|part| !part.is_empty()) {
        text.push_str(if text.len() == 3 { " " } else { ": " });
        text.push_str(part);
    }
    let detail = element(body, "AuthenticationErrorDetail").filter(|detail| detail.starts_with("Request date header"));
    if let Some(detail) = detail {
        text.push_str(&format!(" ({detail})"));
    }
    let region = header("x-amz-bucket-region").or_else(|| element(body, "Region"));
    if let (301 | 307 | 400, Some(region)) = (status, region) {
        text.push_str(&format!("; the bucket is in region {region:?}: correct storageDriver.region"));
    }
    Refusal { status, code: code.to_owned(), text }
}

/// The content of the first XML element of this name, if it is plain text.
pub(super) fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once('<')?;
    (!content.is_empty()).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(status: u16, body: &str, headers: &[(&str, &str)]) -> String {
        let header = |name: &str| headers.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        explain(status, body, &header).text
    }

    #[test]
    fn answers_of_the_services() {
        let slow = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message>\
                    <RequestId>1</RequestId></Error>";
        assert_eq!(explained(503, slow, &[]), "503 SlowDown: Please reduce your request rate.");
        let redirect = "<Error><Code>PermanentRedirect</Code><Message>Use the specified endpoint.</Message></Error>";
        assert_eq!(
            explained(301, redirect, &[("x-amz-bucket-region", "eu-west-1")]),
            "301 PermanentRedirect: Use the specified endpoint.; the bucket is in region \"eu-west-1\": correct \
             storageDriver.region"
        );
        let azure = "<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate.\nRequestId:1</Message>\
                     <AuthenticationErrorDetail>Request date header too old: 'x'</AuthenticationErrorDetail></Error>";
        assert_eq!(
            explained(403, azure, &[]),
            "403 AuthenticationFailed: Server failed to authenticate. (Request date header too old: 'x')"
        );
        assert_eq!(explained(404, "", &[("x-ms-error-code", "BlobNotFound")]), "404 BlobNotFound");
        let token = r#"{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}"#;
        assert_eq!(explained(400, token, &[]), "400 invalid_grant: Invalid JWT Signature.");
        let google = r#"{"error": {"status": "PERMISSION_DENIED", "message": "No access", "code": 403}}"#;
        assert_eq!(explained(403, google, &[]), "403 PERMISSION_DENIED: No access");
        assert_eq!(explained(502, "<html>Bad Gateway</html>", &[]), "502");
    }

    #[test]
    fn what_services_say_of_signatures_is_not_repeated() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>No match.</Message>\
                    <AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId><StringToSign>x</StringToSign></Error>";
        assert_eq!(explained(403, body, &[]), "403 SignatureDoesNotMatch: No match.");
        let body = "<Error><Code>AuthenticationFailed</Code><Message>Failed.</Message><AuthenticationErrorDetail>The MAC \
                    signature 'SIG' is not the same</AuthenticationErrorDetail></Error>";
        assert_eq!(explained(403, body, &[]), "403 AuthenticationFailed: Failed.");
    }

    #[test]
    fn the_service_clock_is_never_ahead_of_either() {
        let clock = ServiceClock::default();
        let now = Timestamp::now();
        let shown = || now.duration_since(clock.at(now)).as_secs();
        assert!(shown() == 0 && clock.at(now).subsec_nanosecond() == 0);
        clock.observe(now - SignedDuration::from_mins(10));
        assert!(shown() >= 600, "{}", shown());
        // A later answer that was faster on its way tells more.
        clock.observe(now - SignedDuration::from_secs(2));
        assert!((2..10).contains(&shown()), "{}", shown());
        // That the service is ahead is no reason to believe in its future.
        clock.observe(now + SignedDuration::from_mins(10));
        assert_eq!(shown(), 0);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        for tries in 1..100 {
            assert!(pause(tries) <= PAUSE_LIMIT.mul_f64(1.5));
        }
        assert!(pause(1) < Duration::from_millis(200) && pause(10) >= PAUSE_LIMIT / 2);
    }
}
