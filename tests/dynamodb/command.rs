//! The binary: options, credentials as AWS's tools find them, a zot that answers, exit codes.

use super::{P, Stage, error};
use crate::support::command::{Ran, Sandbox, metactl, push, run};
use crate::support::dynamodb::url;
use serde_json::json;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// Credentials in the environment, and nothing that leads out of the machine.
const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT"),
    ("AWS_SECRET_ACCESS_KEY", "aws-Secret"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A registry whose zot, if there were one, would listen at a free port.
pub struct Registry {
    pub sandbox: Sandbox,
    pub stage: Stage,
    port: u16,
}

impl Registry {
    pub fn new() -> Self {
        let sandbox = Sandbox::new(|root| {
            push(root, "one", &["v1", "v2"], "1");
            push(root, "team/two", &["v1"], "2");
        });
        let registry = Self { sandbox, stage: Stage::bare(), port: crate::support::server::free_port() };
        let config = std::fs::read_to_string(&registry.sandbox.config).unwrap();
        std::fs::write(&registry.sandbox.config, config.replace("\"5000\"", &format!("\"{}\"", registry.port)))
            .unwrap();
        registry
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_at(&url(self.stage.proxy.port, P), arguments)
    }

    /// With another metaDB.
    pub fn run_at(&self, metadb: &str, arguments: &[&str]) -> Ran {
        let ran = run(self.sandbox.command(arguments).args(["--metadb", metadb]).envs(KEYS));
        assert!(!format!("{ran:?}").contains("aws-Secret"), "{ran:?}");
        ran
    }
}

pub fn reason(ran: &Ran) -> String {
    ran.json()["error"]["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn from_nothing_to_a_current_stamp() {
    let registry = Registry::new();
    let shown = registry.run(&["stamp", "show", "--check", "--format", "json"]);
    assert_eq!((shown.code, &shown.json()["metadb"]["exists"]), (Some(1), &json!(false)), "{shown:?}");
    assert_eq!(registry.run(&["walk", "--dry-run"]).code, Some(0));
    let refused = registry.run(&["walk", "--format", "json"]);
    assert_eq!((refused.code, reason(&refused).as_str()), (Some(3), "tables-missing"));
    assert!(
        refused.stderr.contains("--create-tables") && refused.stderr.contains("ZotRepoMetadataTable"),
        "{refused:?}"
    );
    assert!(registry.stage.server.table_names().is_empty());

    let walked = registry.run(&["walk", "--create-tables", "--format", "json", "-vv"]);
    assert_eq!(walked.code, Some(0), "{walked:?}");
    assert_eq!(walked.json()["stamp"]["outcome"], "written");
    assert!(walked.stderr.contains("assumed to be stopped"), "{walked:?}");
    assert!(walked.stderr.contains(" read units, "), "what it cost is logged: {walked:?}");
    assert_eq!(registry.run(&["stamp", "show", "--check"]).code, Some(0));
    assert_eq!(registry.run(&["verify", "--deep"]).code, Some(0));
    assert!(registry.run(&["walk"]).stdout.starts_with("nothing to do"));
    assert_eq!(registry.run(&["stamp", "clear"]).code, Some(0));
    assert_eq!(registry.run(&["stamp", "show", "--check"]).code, Some(1));
    assert_eq!(registry.run(&["stamp", "write"]).code, Some(0));
    assert_eq!(registry.run(&["verify", "--quick"]).code, Some(0));
    // A ceiling, and an incomplete set of tables.
    assert_eq!(registry.run(&["walk", "--force", "--rate", "5000"]).code, Some(0));
    let request = json!({"TableName": super::BLOBS});
    registry.stage.server.db.delete_table(serde_json::from_value(request).unwrap()).unwrap();
    for arguments in
        [&["stamp", "show", "--format", "json"][..], &["verify", "--format", "json"], &["walk", "--format", "json"]]
    {
        let ran = registry.run(arguments);
        assert_eq!((ran.code, reason(&ran).as_str()), (Some(3), "tables-missing"), "{ran:?}");
        assert!(ran.stderr.contains(super::BLOBS), "{ran:?}");
    }
}

/// An HTTP server that gives one answer to everybody.
fn answering(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    port
}

#[test]
fn beside_a_zot_only_if_that_is_wanted() {
    let mut registry = Registry::new();
    registry.stage.server.create_tables(P);
    let silent = registry.port;
    for status in ["401 Unauthorized", "200 OK", "429 Too Many Requests"] {
        let port = answering(status);
        let at = format!("http://127.0.0.1:{port}");
        // At the address of the config, and at --zot-url.
        for configured in [true, false] {
            registry.port = if configured { port } else { silent };
            let config = json!({"storage": {"rootDirectory": registry.sandbox.root, "dedupe": false},
                "http": {"address": "0.0.0.0", "port": registry.port}, "extensions": {"search": {}}});
            std::fs::write(&registry.sandbox.config, config.to_string()).unwrap();
            let asked = |more: &[&str]| {
                let url: &[&str] = if configured { &[] } else { &["--zot-url", &at] };
                registry.run(&[&["walk", "--force", "--format", "json"], url, more].concat())
            };
            let refused = asked(&[]);
            assert_eq!((refused.code, reason(&refused).as_str()), (Some(3), "zot-online"), "{status}: {refused:?}");
            assert!(refused.stderr.contains(&at) && refused.stderr.contains("--online"), "{refused:?}");
            assert!(registry.stage.server.items(super::VERSION).is_empty(), "something was written");
            if !configured {
                continue;
            }
            let allowed = asked(&["--online", "--no-stamp"]);
            assert_eq!(allowed.code, Some(0), "{allowed:?}");
            assert!(allowed.stderr.contains(&at) && allowed.stderr.contains("no locks"), "{allowed:?}");
            assert_eq!(asked(&["--dry-run"]).code, Some(0), "only looking is always allowed");
            for table in [super::VERSION, super::REPOS, super::BLOBS, super::IMAGES] {
                let request = json!({"TableName": table});
                registry.stage.server.db.delete_table(serde_json::from_value(request).unwrap()).unwrap();
            }
            for table in [super::USERS, "ZotApiKeyTable"] {
                let request = json!({"TableName": table});
                registry.stage.server.db.delete_table(serde_json::from_value(request).unwrap()).unwrap();
            }
            registry.stage.server.create_tables(P);
        }
    }
    // A proxy that says that zot is away.
    for status in ["502 Bad Gateway", "503 Service Unavailable", "404 Not Found"] {
        registry.port = answering(status);
        let config = json!({"storage": {"rootDirectory": registry.sandbox.root, "dedupe": false},
            "http": {"port": registry.port}, "extensions": {"search": {}}});
        std::fs::write(&registry.sandbox.config, config.to_string()).unwrap();
        let ran = registry.run(&["walk", "--force"]);
        assert_eq!(ran.code, Some(0), "{status}: {ran:?}");
        assert!(ran.stderr.contains("assumed to be stopped"), "{ran:?}");
    }
}

/// Takes any request, refuses it, and tells who signed it: key id and region.
fn notary() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (signed, by) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let signature = head.find_map(|line| line.split_once("Credential=").map(|(_, rest)| rest.to_owned()));
            let parts: Vec<String> = signature.unwrap_or_default().split('/').map(str::to_owned).collect();
            let _ = signed.send(format!("{} {}", parts[0], parts.get(2).cloned().unwrap_or_default()));
            let body = r#"{"__type":"x#AccessDeniedException","message":"no"}"#;
            let _ =
                write!(&stream, "HTTP/1.1 400 No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
    (port, by)
}

/// Gives credentials out as a container's, an instance's and AWS's token services do.
fn authority() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let given = |id: &str| {
        json!({"Code": "Success", "AccessKeyId": id, "SecretAccessKey": "aws-Secret", "Token": "token-Secret",
            "Expiration": "2099-01-01T00:00:00Z"})
        .to_string()
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            let _ = reader.read_line(&mut line);
            let mut rest = [0; 16 << 10];
            let _ = reader.read(&mut rest);
            let body = match line.split(' ').nth(1).unwrap_or_default() {
                "/container" => given("AKIDCONTAINER"),
                path if path.starts_with("/federation/credentials") => json!({"roleCredentials": {
                    "accessKeyId": "AKIDSSO", "secretAccessKey": "aws-Secret", "sessionToken": "token-Secret",
                    "expiration": 4_070_908_800_000_u64}})
                .to_string(),
                "/latest/api/token" => "imds-token".to_owned(),
                path if path.ends_with("/security-credentials/") => "role".to_owned(),
                path if path.ends_with("/role") => given("AKIDINSTANCE"),
                _ => "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                      <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKIDWEBIDENTITY</AccessKeyId>\
                      <SecretAccessKey>aws-Secret</SecretAccessKey><SessionToken>t</SessionToken>\
                      <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
                      </AssumeRoleWithWebIdentityResponse>"
                    .to_owned(),
            };
            let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600";
            let _ = write!(
                &stream,
                "HTTP/1.1 200 OK\r\n{ttl}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    port
}

fn write(path: &Path, text: &str) -> String {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn credentials_are_found_as_awss_tools_find_them_and_the_region_is_the_configs() {
    let sandbox = Sandbox::new(|root| drop(push(root, "one", &["v1"], "1")));
    let (port, signed) = notary();
    let authority = authority();
    let home = sandbox.dir.path().join("home");
    let home_text = home.to_str().unwrap();
    write(
        &home.join(".aws/credentials"),
        "[default]\naws_access_key_id = AKIDDEFAULT\naws_secret_access_key = aws-Secret\n\
         [other]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = aws-Secret\n",
    );
    let process = write(
        &home.join("given.json"),
        r#"{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "aws-Secret"}"#,
    );
    write(
        &home.join(".aws/config"),
        &format!(
            "[default]\nregion = us-west-2\n[profile made]\ncredential_process = cat {process}\n\
             [profile single]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = zot\n\
             [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example.org/start\n"
        ),
    );
    // SSO keeps its tokens by the hash of the session's name.
    write(
        &home.join(".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json"),
        r#"{"accessToken": "sso-Secret", "expiresAt": "2099-01-01T00:00:00Z"}"#,
    );
    let token = write(&home.join("token"), "web-Secret");
    let container = format!("http://127.0.0.1:{authority}/container");
    let at = format!("http://127.0.0.1:{authority}");
    let cases: [(&str, &[(&str, &str)]); 8] = [
        ("AKIDENVIRONMENT", &[("HOME", home_text), KEYS[0], KEYS[1], ("AWS_REGION", "us-east-1")]),
        ("AKIDDEFAULT", &[("HOME", home_text)]),
        ("AKIDPROFILE", &[("HOME", home_text), ("AWS_PROFILE", "other")]),
        ("AKIDPROCESS", &[("HOME", home_text), ("AWS_PROFILE", "made"), ("PATH", "/usr/bin:/bin")]),
        ("AKIDSSO", &[("HOME", home_text), ("AWS_PROFILE", "single"), ("AWS_ENDPOINT_URL_SSO", &at)]),
        ("AKIDCONTAINER", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container)]),
        ("AKIDINSTANCE", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &at)]),
        (
            "AKIDWEBIDENTITY",
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/zot"),
                ("AWS_ENDPOINT_URL_STS", &at),
                ("AWS_REGION", "us-east-1"),
            ],
        ),
    ];
    for (expected, variables) in cases {
        let mut command = sandbox.command(&["stamp", "show", "-vv", "--format", "json", "--metadb", &url(port, P)]);
        let ran = run(command.envs(variables.iter().copied()));
        assert_eq!((ran.code, reason(&ran).as_str()), (Some(3), "denied"), "{expected}: {ran:?}");
        assert!(!format!("{ran:?}").contains("-Secret"), "{ran:?}");
        let all: Vec<String> = signed.try_iter().collect();
        assert!(!all.is_empty() && all.iter().all(|by| *by == format!("{expected} eu-west-1")), "{expected}: {all:?}");
    }
    let mut command = sandbox.command(&["walk", "--format", "json", "--metadb", &url(port, P)]);
    let ran = run(command.envs([("HOME", "/nonexistent"), KEYS[2]]));
    assert_eq!((ran.code, reason(&ran).as_str()), (Some(3), "credentials"), "{ran:?}");
    assert_eq!(signed.try_iter().count(), 0);
}

#[test]
fn zots_own_config_names_endpoint_region_and_tables() {
    let registry = Registry::new();
    registry.stage.server.create_tables(P);
    let endpoint = registry.stage.proxy.url();
    let config = |driver: serde_json::Value| {
        let mut driver = driver;
        driver["name"] = json!("dynamodb");
        let config = json!({
            "storage": {"rootDirectory": registry.sandbox.root, "dedupe": true, "remoteCache": true, "fastRestart": true,
                "storageDriver": {"name": "s3", "region": "eu-west-1", "bucket": "b"}, "cacheDriver": driver},
            "http": {"port": registry.port}, "extensions": {"search": {}},
        });
        std::fs::write(&registry.sandbox.config, config.to_string()).unwrap();
    };
    let complete = json!({
        "endpoint": endpoint, "region": "eu-west-1", "cacheTablename": "ZotBlobTable",
        "repoMetaTablename": "ZotRepoMetadataTable", "imageMetaTablename": "ZotImageMetaTable",
        "repoBlobsInfoTablename": "ZotRepoBlobsInfoTable", "userDataTablename": "ZotUserDataTable",
        "versionTablename": "ZotVersion", "apiKeyTablename": "ZotApiKeyTable",
    });
    config(complete.clone());
    registry.stage.server.put(super::VERSION, "FastRestartStamp", json!({"Version": {"S": "v9+v9-x|ff"}}));
    let ran = run(registry.sandbox.command(&["stamp", "show", "--format", "json"]).envs(KEYS));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let shown = ran.json();
    assert_eq!((&shown["metadb"]["driver"], &shown["metadb"]["exists"]), (&json!("dynamodb"), &json!(true)));
    assert_eq!(shown["metadb"]["location"], format!("{endpoint} (eu-west-1), table ZotVersion"));
    assert_eq!(shown["stored"]["stamp"], "v9+v9-x|ff");
    let ran = run(registry.sandbox.command(&["config", "show", "--format", "json"]).envs(KEYS));
    assert_eq!(ran.json()["metadb"]["location"], shown["metadb"]["location"]);
    for key in complete.as_object().unwrap().keys() {
        let mut lacking = complete.clone();
        lacking.as_object_mut().unwrap().remove(key);
        config(lacking);
        let ran = run(registry.sandbox.command(&["stamp", "show", "--format", "json"]).envs(KEYS));
        assert_eq!((ran.code, reason(&ran).as_str()), (Some(3), "config-refused"), "{key}: {ran:?}");
        assert!(ran.stderr.contains(&key.to_lowercase()), "{key}: {ran:?}");
    }
    config(complete);
    for wrong in [
        "dynamodb:",
        "dynamodb:localhost?region=r&prefix=p",
        "dynamodb:http://h?prefix=p",
        "dynamodb:http://h?region=r",
    ] {
        let ran =
            run(metactl().args(["stamp", "show", "--metadb", wrong]).arg("--config").arg(&registry.sandbox.config));
        assert_eq!(ran.code, Some(3), "{wrong}: {ran:?}");
        assert!(ran.stderr.contains("--metadb"), "{wrong}: {ran:?}");
    }
}

#[test]
fn throttling_is_shown() {
    let registry = Registry::new();
    let count = AtomicUsize::new(0);
    registry.stage.proxy.rule(move |request| {
        let write = request.operation.as_deref() == Some("UpdateItem");
        (write && count.fetch_add(1, Ordering::Relaxed) < 5).then(|| error(400, "ThrottlingException"))
    });
    let ran = registry.run(&["walk", "--create-tables"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("DynamoDB: throttled 1 times, "), "{ran:?}");
}

#[test]
fn a_repo_near_the_limit_is_warned_of() {
    let registry = Registry::new();
    // A little above the limit, however many bytes this instant takes in a record.
    super::limits::wide(&registry.sandbox.root, "large", 2550, 1);
    super::limits::wide(&registry.sandbox.root, "larger", 3500, 1);
    let ran = registry.run(&["walk", "--create-tables"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let warned = ran.stderr.lines().find(|line| line.contains(" warning: large: "));
    assert!(
        warned.is_some_and(|line| line.contains("RepoMeta item takes 35") && line.contains("2550 tags")),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("larger") && ran.stdout.contains("3500 tags"), "{ran:?}");
}

#[test]
fn a_silent_service_outlasts_no_timeout() {
    let registry = Registry::new();
    assert_eq!(registry.run(&["walk", "--create-tables"]).code, Some(0));
    registry.stage.proxy.rule(|_| Some(crate::support::proxy::Fate::Silence));
    for arguments in [&["walk", "--force"][..], &["verify"], &["stamp", "show"]] {
        let begun = std::time::Instant::now();
        let ran = registry.run(&[arguments, &["--timeout", "2s", "--format", "json"]].concat());
        assert_eq!((ran.code, reason(&ran).as_str()), (Some(3), "timeout"), "{arguments:?}: {ran:?}");
        assert!((2..8).contains(&begun.elapsed().as_secs()), "{arguments:?}: {:?}", begun.elapsed());
    }
}
