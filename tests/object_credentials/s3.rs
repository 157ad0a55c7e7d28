//! The chain of AWS's library that zot uses.

use super::server::{Server, header};
use super::{dry_run, hosts, the, the_world, write};
use crate::support::command::{Sandbox, run};
use serde_json::{Value, json};

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

const ASSUMED: &str = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
    <AccessKeyId>AKASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>TASSUMED</SessionToken>\
    <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
    </AssumeRoleWithWebIdentityResponse>";
const CONTAINER: &str = r#"{"AccessKeyId": "AKCONTAINER", "SecretAccessKey": "s", "Token": "TCONTAINER",
    "Expiration": "2099-01-01T00:00:00Z"}"#;
const INSTANCE: &str = r#"{"Code": "Success", "LastUpdated": "2024-01-01T00:00:00Z", "Type": "AWS-HMAC",
    "AccessKeyId": "AKINSTANCE", "SecretAccessKey": "s", "Token": "TINSTANCE", "Expiration": "2099-01-01T00:00:00Z"}"#;

#[test]
fn s3_credentials_come_from_the_chain_in_zots_order() {
    let server = Server::start(&[
        ("POST / ", 200, ASSUMED),
        ("GET /container", 200, CONTAINER),
        ("PUT /latest/api/token", 200, "TOKEN"),
        ("GET /latest/meta-data/iam/security-credentials/role", 200, INSTANCE),
        ("GET /latest/meta-data/iam/security-credentials/", 200, "role"),
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
    let token_file = write(files.path(), "token", "ISSUED+TOKEN");
    let web = ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file.as_str());
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/zot");
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
        // A token of somebody else's comes before files.
        (none.clone(), &[web, role, shared, container], "AKASSUMED", token("TASSUMED")),
        (none.clone(), &[("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "s"), web, role], "AKENV", None),
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
    // What is exchanged for it, and where: at the endpoint of the config.
    server.take();
    signed(&server, &none, &[web, role, ("AWS_ROLE_SESSION_NAME", "me")]);
    let asked = server.take();
    assert_eq!(asked.iter().filter(|request| request.starts_with("POST ")).count(), 1, "{asked:?}");
    let form = asked[0].rsplit_once("\r\n\r\n").unwrap().1;
    assert_eq!(
        form,
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fzot&\
         RoleSessionName=me&WebIdentityToken=ISSUED%2BTOKEN"
    );
    // A container that has a token of its own, as pods have.
    let pod = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file.as_str());
    assert_eq!(signed(&server, &none, &[container, pod]).0, "AKCONTAINER");
    assert_eq!(header(&server.take()[0], "authorization").as_deref(), Some("ISSUED+TOKEN"));
    // A profile in the config file alone is not found without that word.
    let environment = [wide, ("AWS_PROFILE", "more"), container];
    assert_eq!(signed(&server, &none, &environment).0, "AKCONTAINER");
}

#[test]
fn credentials_are_fetched_again_before_they_end() {
    const OVER: &str =
        r#"{"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "T", "Expiration": "2020-01-01T00:00:00Z"}"#;
    const DIRECTORIES: &str = "<ListBucketResult><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>\
                               <CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes></ListBucketResult>";
    let server = Server::start(&[
        ("GET /lasting", 200, CONTAINER),
        ("GET /over", 200, OVER),
        ("GET /b?delimiter=%2F&list-type=2 ", 200, DIRECTORIES),
    ]);
    for (path, once) in [("lasting", true), ("over", false)] {
        let uri = format!("{}/{path}", server.url());
        signed(&server, &json!({}), &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
        let (fetched, asked): (Vec<_>, Vec<_>) =
            server.take().into_iter().partition(|request| request.starts_with(&format!("GET /{path} ")));
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert_eq!(fetched.len(), if once { 1 } else { asked.len() }, "{path}");
    }
}

#[test]
fn why_nobody_gives_credentials_is_said_before_anything_is_written() {
    const EXPIRED: &str = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code>\
        <Message>Token expired: current date must be before the expiration date</Message></Error></ErrorResponse>";
    let server = Server::start(&[("POST / ", 400, EXPIRED)]);
    let files = tempfile::tempdir().unwrap();
    let token = write(files.path(), "token", "ISSUED");
    let driver = json!({"name": "s3", "bucket": "b", "region": "us-east-1", "regionendpoint": server.url()});
    let role = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/zot");
    for (environment, says) in [
        (
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), role][..],
            "no AWS credentials: web identity: http://127.0.0.1:PORT: 400 ExpiredTokenException: Token expired: current",
        ),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"), role], "AWS_WEB_IDENTITY_TOKEN_FILE (/nowhere/token)"),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str())], "AWS_ROLE_ARN is not set"),
    ] {
        let ran = dry_run(&driver, environment);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.stderr.contains(&says.replace("PORT", &server.port.to_string())), "{ran:?}");
        assert!(!ran.stderr.contains("ISSUED"), "{ran:?}");
    }
}

#[test]
fn what_a_broken_source_of_credentials_says_is_not_logged() {
    let server =
        Server::start(&[("GET /container", 200, r#"{"AccessKeyId": "AKBROKEN", "SecretAccessKey": "hunter22", "#)]);
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
#[ignore = "needs openssl: run tests/run"]
fn amazon_itself_is_asked_without_an_endpoint() {
    let certificates = the_world();
    let server = Server::start_as(&certificates, &[("POST / ", 200, ASSUMED)]);
    let (proxy, ca) = (server.url(), certificates.file("ca.crt"));
    let files = tempfile::tempdir().unwrap();
    let token = write(files.path(), "token", "ISSUED");
    for (bucket, host) in [
        ("some-bucket", "some-bucket.s3.eu-west-1.amazonaws.com"),
        ("arn:aws:s3:eu-west-1:1:accesspoint/ours", "ours-1.s3-accesspoint.eu-west-1.amazonaws.com"),
    ] {
        let ran = dry_run(
            &json!({"name": "s3", "bucket": bucket, "region": "eu-west-1"}),
            &[
                ("HTTPS_PROXY", &proxy),
                // zot trusts it for these two services alike.
                ("AWS_CA_BUNDLE", ca.to_str().unwrap()),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
                ("AWS_ROLE_ARN", "arn:aws:iam::1:role/zot"),
            ],
        );
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let asked = server.take();
        assert_eq!(hosts(&asked), ["sts.eu-west-1.amazonaws.com", host]);
        let listing = the(&asked, "GET /?");
        assert!(header(listing, "authorization").unwrap().contains("Credential=AKASSUMED/"), "{listing}");
        assert!(header(listing, "authorization").unwrap().contains("/eu-west-1/s3/aws4_request"), "{listing}");
        assert_eq!(header(listing, "x-amz-security-token").as_deref(), Some("TASSUMED"));
    }
}
