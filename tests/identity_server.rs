//! Identities told by a server, which here is a socket on the loopback interface that records what it is asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use metactl::identity::{
    Identity, IdentityError, IdentityRequest, IdentitySource, ResolvedIdentity, ServerRequest, resolve,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const COMMIT: &str = "v2.1.20-0-g3b5796d";
const MGMT: &str = "GET /v2/_zot/ext/mgmt HTTP/1.1";
const DISCOVER: &str = "GET /v2/_oci/ext/discover HTTP/1.1";

/// Heads of the requests that came.
type Heads = Arc<Mutex<Vec<String>>>;

/// Answers each request with what `answer` makes of its head, for as long as the test runs.
fn serve(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming().take(16) {
            let mut stream = stream.unwrap();
            let head = read_head(&mut stream);
            let (status, body) = answer(&head);
            seen.lock().unwrap().push(head);
            let length = body.len();
            let reply = format!(
                "HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            // The client may have seen enough already.
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    (url, heads)
}

fn read_head(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < 10_000 && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn mgmt(tag: &str, commit: &str) -> (u16, String) {
    let answer = serde_json::json!({"distSpecVersion": "1.1.1", "commit": commit, "releaseTag": tag,
        "binaryType": "-search", "http": {"auth": {}}});
    (200, answer.to_string())
}

fn discover(tag: &str) -> (u16, String) {
    let url = format!("https://github.com/project-zot/zot/blob/{tag}/pkg/extensions/_zot.md");
    let answer = serde_json::json!({"extensions": [{"name": "_other", "url": "x"}, {"name": "_zot", "url": url}]});
    (200, answer.to_string())
}

/// A server with fixed answers for both documents.
fn fixed(mgmt: (u16, String), discover: (u16, String)) -> (String, Heads) {
    serve(move |head| if head.starts_with(MGMT) { mgmt.clone() } else { discover.clone() })
}

fn ask(server: ServerRequest, stored: Option<&str>) -> Result<ResolvedIdentity, IdentityError> {
    let request = IdentityRequest {
        server: Some(server),
        stored_identity: stored.map(str::to_owned),
        ..IdentityRequest::default()
    };
    resolve(&request).map(|answer| answer.expect("a server was given"))
}

fn ask_url(url: &str) -> Result<ResolvedIdentity, IdentityError> {
    ask(ServerRequest::new(url), None)
}

fn none() -> (u16, String) {
    (404, String::new())
}

/// Message with all causes.
fn message(result: Result<ResolvedIdentity, IdentityError>) -> String {
    let error = result.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn mgmt_tells_and_discover_confirms() {
    let (url, heads) = fixed(mgmt("v2.1.20", COMMIT), discover("v2.1.20"));
    let answer = ask_url(&format!("{url}/")).unwrap();
    assert_eq!(answer.identity, Identity::new("v2.1.20", COMMIT));
    assert!(answer.notices.is_empty() && answer.evidence[1].contains("confirmed"), "{answer:?}");
    assert!(matches!(answer.source, IdentitySource::Server(_)));
    // zot exempts mgmt from authentication by the exact request target.
    let heads = heads.lock().unwrap();
    assert!(
        heads[0].starts_with(&format!("{MGMT}\r\n")) && heads[1].starts_with(&format!("{DISCOVER}\r\n")),
        "{heads:?}"
    );
    assert!(heads.iter().all(|head| !head.to_lowercase().contains("authorization")));
}

#[test]
fn without_discover_the_answer_comes_with_a_notice() {
    for silent in [none(), (401, String::new()), (200, r#"{"extensions":null}"#.into())] {
        let (url, _) = fixed(mgmt("v2.1.20", COMMIT), silent);
        let answer = ask_url(&url).unwrap();
        assert_eq!(answer.identity, Identity::new("v2.1.20", COMMIT));
        assert!(answer.notices[0].contains("not confirmed"), "{answer:?}");
    }
}

#[test]
fn empty_parts_are_answers() {
    let (url, _) = fixed(mgmt("", COMMIT), discover(""));
    assert_eq!(ask_url(&url).unwrap().identity, Identity::new("", COMMIT));
    let (url, _) = fixed(mgmt("", ""), discover(""));
    let answer = ask_url(&url).unwrap();
    assert!(answer.identity.is_empty() && answer.notices[0].contains("never skips"));
}

#[test]
fn contradicting_tags_are_candidates() {
    let (url, _) = fixed(mgmt("mine", COMMIT), discover("v2.1.20"));
    let Err(IdentityError::Ambiguous { candidates, .. }) = ask_url(&url) else { panic!("not ambiguous") };
    let texts: Vec<String> = candidates.iter().map(|candidate| candidate.identity.text()).collect();
    assert_eq!(texts, [format!("v2.1.20+{COMMIT}"), format!("mine+{COMMIT}")]);
    let decided = ask(ServerRequest::new(&url), Some(&texts[0])).unwrap();
    assert_eq!(decided.identity.text(), texts[0]);
}

#[test]
fn what_the_config_overrides_is_not_believed() {
    let (url, _) = fixed(mgmt("mine", "fake"), discover("v2.1.20"));
    let request = || ServerRequest { config_overrides: true, ..ServerRequest::new(&url) };
    let Err(IdentityError::Ambiguous { candidates, reason, .. }) = ask(request(), None) else { panic!("believed") };
    assert!(candidates.is_empty() && reason.contains("v2.1.20") && reason.contains("overrides"), "{reason}");
    let stored = format!("v2.1.20+{COMMIT}");
    let Err(IdentityError::Ambiguous { candidates, .. }) = ask(request(), Some(&stored)) else { panic!("guessed") };
    assert_eq!(candidates[0].identity.text(), stored);
}

#[test]
fn missing_tag_is_not_made_up() {
    let (url, _) = fixed((200, format!(r#"{{"commit":"{COMMIT}"}}"#)), none());
    let Err(IdentityError::Ambiguous { candidates, .. }) = ask_url(&url) else { panic!("guessed") };
    assert_eq!(candidates[0].identity.text(), format!("v2.1.20+{COMMIT}"));
    let (url, _) = fixed((200, format!(r#"{{"commit":"{COMMIT}"}}"#)), discover("v2.1.20"));
    assert_eq!(ask_url(&url).unwrap().identity.text(), format!("v2.1.20+{COMMIT}"));
}

#[test]
fn silent_servers_say_why() {
    for (mgmt, discover, words) in [
        (none(), none(), &["search enabled", "discover answers with status 404"][..]),
        ((401, String::new()), (401, String::new()), &["wants credentials"]),
        ((403, String::new()), none(), &["status 403"]),
        ((500, String::new()), none(), &["status 500"]),
        ((302, String::new()), none(), &["redirects elsewhere"]),
        ((200, "<html>".into()), none(), &["not JSON"]),
        ((200, "{}".into()), none(), &["does not tell"]),
        ((200, r#"{"commit":7}"#.into()), none(), &["does not tell"]),
        ((200, " ".repeat(3 << 20)), none(), &["too long"]),
    ] {
        let (url, _) = fixed(mgmt, discover);
        let text = message(ask_url(&url));
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    // Only mgmt is missing: the tag is known, the commit is not.
    let (url, _) = fixed(none(), discover("v2.1.20"));
    let text = message(ask_url(&url));
    assert!(text.contains("v2.1.20") && text.contains("search enabled"), "{text}");
}

#[test]
fn credentials_are_used_only_where_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    std::fs::write(&file, "user:pass:word\n").unwrap();
    let (url, heads) = serve(|head| {
        if head.starts_with(MGMT) {
            mgmt("v2.1.20", COMMIT)
        } else if head.to_lowercase().contains("authorization: basic dxnlcjpwyxnzondvcmq=") {
            discover("v2.1.20")
        } else {
            (401, String::new())
        }
    });
    let request = || ServerRequest { credentials_file: Some(file.clone()), ..ServerRequest::new(&url) };
    assert!(ask(request(), None).unwrap().notices.is_empty());
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 3);
    assert!(!heads[0].to_lowercase().contains("authorization") && !heads[1].to_lowercase().contains("authorization"));
    assert!(heads[2].contains("Basic dXNlcjpwYXNzOndvcmQ="));
    let (refusing, _) = fixed((401, String::new()), (401, String::new()));
    let request = ServerRequest { url: refusing, ..request() };
    assert!(message(ask(request.clone(), None)).contains("refuses the credentials"));
    for bad in ["", "user", "a:b\nc:d\n"] {
        std::fs::write(&file, bad).unwrap();
        let text = message(ask(request.clone(), None));
        assert!(text.contains("credentials file") && !text.contains("a:b"), "{text}");
    }
}

#[test]
fn addresses_are_checked_and_their_secrets_not_repeated() {
    for url in [
        "",
        "zot",
        "ftp://zot",
        "http://",
        "http://user:secret@zot",
        "https://zot/?secret",
        "http://zot/#x",
        "http://z t",
    ] {
        let text = message(ask_url(url));
        assert!(text.starts_with("server address: ") && !text.contains("secret"), "{url}: {text}");
    }
}

#[test]
fn time_is_limited() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let request = ServerRequest { timeout: Duration::from_millis(200), ..ServerRequest::new(url) };
    let begin = Instant::now();
    assert!(message(ask(request, None)).contains("timeout"));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn nobody_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(message(ask_url(&url)).contains("/v2/_zot/ext/mgmt: request failed"));
}

#[test]
fn tls_is_not_given_up_on() {
    // A server that speaks no TLS must not be talked to in the clear.
    let (url, heads) = serve(|_| mgmt("v2.1.20", COMMIT));
    let request =
        ServerRequest { timeout: Duration::from_secs(2), ..ServerRequest::new(url.replace("http://", "https://")) };
    assert!(ask(request.clone(), None).is_err());
    assert!(heads.lock().unwrap().iter().all(|head| !head.contains("GET")));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    for content in ["", "-----BEGIN CERTIFICATE-----\n", "rubbish"] {
        std::fs::write(&file, content).unwrap();
        let text = message(ask(ServerRequest { ca_file: Some(file.clone()), ..request.clone() }, None));
        assert!(text.contains("CA file"), "{text}");
    }
}
