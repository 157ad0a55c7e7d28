//! Where credentials come from, seen from the other side: a server that looks at the headers of what it is asked.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::command::{Ran, Sandbox, run};

/// Heads of the requests that came.
type Heads = Arc<Mutex<Vec<String>>>;

/// A server for every purpose here: listings are empty, and paths in `answers` are told what stands there.
struct Server {
    port: u16,
    heads: Heads,
}

impl Server {
    fn start(answers: &'static [(&'static str, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, heads) = (listener.local_addr().unwrap().port(), Heads::default());
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(&client, answers, &seen));
            }
        });
        Self { port, heads }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A header of the last request.
    fn header(&self, name: &str) -> Option<String> {
        let heads = self.heads.lock().unwrap();
        let fields = heads.last()?.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
    }
}

fn serve(client: &TcpStream, answers: &[(&str, &str)], seen: &Mutex<Vec<String>>) {
    let mut from = BufReader::new(client);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !from.read_until(b'\n', &mut head).is_ok_and(|count| count > 0) {
                return;
            }
        }
        let head = String::from_utf8(head).unwrap();
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        from.read_exact(&mut body).unwrap();
        let told = answers.iter().find(|(path, _)| head.split(' ').nth(1).unwrap().starts_with(path));
        let listing = if head.contains("comp=list") {
            "<EnumerationResults><Blobs></Blobs><NextMarker /></EnumerationResults>"
        } else {
            "<ListBucketResult></ListBucketResult>"
        };
        let body = told.map_or(listing, |(_, body)| body);
        seen.lock().unwrap().push(head);
        // The instance's metadata needs the second.
        let reply = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n{body}",
            body.len()
        );
        let mut out = client;
        if out.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

/// A dry run over the store that `driver` says, with this environment and nothing else.
fn dry_run(driver: &Value, environment: &[(&str, &str)]) -> Ran {
    let sandbox = Sandbox::new(|_| ());
    sandbox.configure(&json!({"storageDriver": driver}));
    let mut command = sandbox.command(&["walk", "--dry-run"]);
    command.env("HOME", sandbox.dir.path()).envs(environment.iter().copied());
    run(&mut command)
}

/// Key and session token that the server saw.
fn signed(server: &Server, more: &Value, environment: &[(&str, &str)]) -> (String, Option<String>) {
    let mut driver = json!({"name": "s3", "bucket": "b", "region": "us-east-1", "regionendpoint": server.url()});
    for (key, value) in more.as_object().unwrap() {
        driver[key] = value.clone();
    }
    let ran = dry_run(&driver, environment);
    assert_eq!(ran.code, Some(0), "{environment:?}: {ran:?}");
    let authorization = server.header("authorization").unwrap();
    let key = authorization.split_once("Credential=").unwrap().1.split('/').next().unwrap().to_owned();
    (key, server.header("x-amz-security-token"))
}

fn write(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

const CONTAINER: &str = r#"{"AccessKeyId": "AKCONTAINER", "SecretAccessKey": "s", "Token": "TCONTAINER",
    "Expiration": "2099-01-01T00:00:00Z"}"#;
const INSTANCE: &str = r#"{"Code": "Success", "LastUpdated": "2024-01-01T00:00:00Z", "Type": "AWS-HMAC",
    "AccessKeyId": "AKINSTANCE", "SecretAccessKey": "s", "Token": "TINSTANCE", "Expiration": "2099-01-01T00:00:00Z"}"#;

#[test]
fn s3_credentials_come_from_the_chain_in_zots_order() {
    let server = Server::start(&[
        ("/container", CONTAINER),
        ("/latest/api/token", "TOKEN"),
        ("/latest/meta-data/iam/security-credentials/role", INSTANCE),
        ("/latest/meta-data/iam/security-credentials/", "role"),
    ]);
    let files = tempfile::tempdir().unwrap();
    let credentials = write(
        files.path(),
        "credentials",
        "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = s\n\n[other]\naws_access_key_id = AKOTHER\n\
         aws_secret_access_key = s\naws_session_token = TOTHER\n",
    );
    let process = format!(
        "cat {}",
        write(
            files.path(),
            "process",
            &CONTAINER.replace("CONTAINER", "PROCESS").replace("\"Token\"", "\"Version\": 1, \"SessionToken\"",)
        )
    );
    let config = write(
        files.path(),
        "config",
        &format!(
            "[default]\nregion = x\n[profile more]\naws_access_key_id = AKMORE\naws_secret_access_key = s\n\
                  [profile asked]\ncredential_process = {process}\n"
        ),
    );
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str());
    let wide = ("AWS_CONFIG_FILE", config.as_str());
    let container = format!("{}/container", server.url());
    let container = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str());
    let url = server.url();
    let instance = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str());
    let none = json!({});
    let token = |text: &str| Some(text.to_owned());

    for (more, environment, key, session) in [
        // Keys in the config, if both are there.
        (
            json!({"accesskey": "AKFILE", "secretkey": "s"}),
            &[("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "s")][..],
            "AKFILE",
            None,
        ),
        (
            json!({"accesskey": "AKFILE"}),
            &[("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "s")],
            "AKENV",
            None,
        ),
        (
            none.clone(),
            &[("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "TENV"), shared],
            "AKENV",
            token("TENV"),
        ),
        // Names that only the old library knows.
        (none.clone(), &[("AWS_ACCESS_KEY", "AKOLD"), ("AWS_SECRET_KEY", "s"), shared], "AKOLD", None),
        // Half a pair is none.
        (none.clone(), &[("AWS_ACCESS_KEY_ID", "AKENV"), shared], "AKDEFAULT", None),
        (none.clone(), &[shared, ("AWS_PROFILE", "other"), container], "AKOTHER", token("TOTHER")),
        // The second name of that variable, and the config file, only count where that is asked for.
        (none.clone(), &[shared, ("AWS_DEFAULT_PROFILE", "other")], "AKDEFAULT", None),
        (
            none.clone(),
            &[shared, wide, ("AWS_DEFAULT_PROFILE", "other"), ("AWS_SDK_LOAD_CONFIG", "1")],
            "AKOTHER",
            token("TOTHER"),
        ),
        (none.clone(), &[wide, ("AWS_PROFILE", "more"), ("AWS_SDK_LOAD_CONFIG", "true")], "AKMORE", None),
        (
            none.clone(),
            &[wide, ("AWS_PROFILE", "asked"), ("AWS_SDK_LOAD_CONFIG", "1"), ("PATH", "/usr/bin:/bin")],
            "AKPROCESS",
            token("TPROCESS"),
        ),
        (none.clone(), &[container, instance], "AKCONTAINER", token("TCONTAINER")),
        (none.clone(), &[instance], "AKINSTANCE", token("TINSTANCE")),
    ] {
        assert_eq!(signed(&server, &more, environment), (key.to_owned(), session), "{environment:?}");
    }
    // A profile in the config file alone is not found without that word.
    let environment = [wide, ("AWS_PROFILE", "more"), container];
    assert_eq!(signed(&server, &none, &environment).0, "AKCONTAINER");
}

#[test]
fn what_a_broken_source_of_credentials_says_is_not_logged() {
    let server = Server::start(&[("/container", r#"{"AccessKeyId": "AKBROKEN", "SecretAccessKey": "hunter22", "#)]);
    let sandbox = Sandbox::new(|_| ());
    let driver = json!({"name": "s3", "bucket": "b", "region": "us-east-1", "regionendpoint": server.url()});
    sandbox.configure(&json!({"storageDriver": driver}));
    for format in ["text", "json"] {
        let mut command = sandbox.command(&["-vv", "--log-format", format, "walk", "--dry-run"]);
        command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/container", server.url()));
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.stderr.contains("no AWS credentials") && !ran.stderr.contains("Generic"), "{ran:?}");
        for secret in ["AKBROKEN", "hunter22"] {
            assert!(!ran.stderr.contains(secret) && !ran.stdout.contains(secret), "{ran:?}");
        }
    }
}

#[test]
fn requests_say_who_asks() {
    let server = Server::start(&[]);
    let keys = json!({"accesskey": "A", "secretkey": "s", "useragent": "our-zot/1"});
    signed(&server, &keys, &[]);
    let agent = server.header("user-agent").unwrap();
    assert!(agent.starts_with("metactl/") && agent.ends_with(" our-zot/1"), "{agent}");
}

#[test]
fn azure_default_credentials_find_a_managed_identity() {
    let server = Server::start(&[(
        "/msi",
        r#"{"access_token": "TMANAGED", "expires_on": "4070908800", "token_type": "Bearer"}"#,
    )]);
    let driver = json!({
        "name": "azure", "accountname": "acct", "container": "c", "serviceurl": server.url(),
        "credentials": {"type": "default_credentials"},
    });
    let endpoint = format!("{}/msi", server.url());
    let ran = dry_run(&driver, &[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "h")]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(server.header("authorization").as_deref(), Some("Bearer TMANAGED"));
    // Neither that nor the command-line tool.
    let ran = dry_run(&driver, &[("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi"), ("PATH", "/nowhere")]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("no Azure credentials") && ran.stderr.contains("Azure CLI"), "{ran:?}");
}

#[test]
fn shared_keys_sign_for_azure() {
    let server = Server::start(&[]);
    let driver = json!({
        "name": "azure", "accountname": "acct", "accountkey": "a2V5", "container": "c", "serviceurl": server.url(),
        "credentials": {"type": "shared_key"},
    });
    assert_eq!(dry_run(&driver, &[]).code, Some(0));
    assert!(server.header("authorization").unwrap().starts_with("SharedKey acct:"));
}

#[test]
fn the_emulator_of_google_needs_no_credentials() {
    let server = Server::start(&[]);
    let host = format!("127.0.0.1:{}", server.port);
    for host in [host.clone(), format!("http://{host}"), format!("http://{host}/storage/v1/")] {
        let ran = dry_run(&json!({"name": "gcs", "bucket": "b"}), &[("STORAGE_EMULATOR_HOST", &host)]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(server.header("authorization"), None);
    }
    assert!(server.heads.lock().unwrap().last().unwrap().starts_with("GET /b?"), "{:?}", server.heads);
}
