//! Application default credentials, and keys of service accounts.

use super::server::{Server, header};
use super::{dry_run, hosts, the, the_world, write};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

#[test]
fn the_emulator_of_google_needs_no_credentials() {
    let server = Server::start(&[]);
    let host = format!("127.0.0.1:{}", server.port);
    for host in [host.clone(), format!("http://{host}"), format!("http://{host}/storage/v1/")] {
        let ran = dry_run(&json!({"name": "gcs", "bucket": "b"}), &[("STORAGE_EMULATOR_HOST", &host)]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(server.header("authorization"), None);
    }
    assert!(server.seen.lock().unwrap().last().unwrap().starts_with("GET /b?"), "{:?}", server.seen);
}

#[test]
#[ignore = "needs openssl: run tests/run"]
fn google_knows_keys_users_and_machines() {
    let certificates = the_world();
    let server = Server::start_as(
        &certificates,
        &[
            ("POST /o/oauth2/token", 200, r#"{"access_token": "TUSER", "expires_in": 3599, "token_type": "Bearer"}"#),
            (
                "GET /computeMetadata/",
                200,
                r#"{"access_token": "TMACHINE", "expires_in": 3599, "token_type": "Bearer"}"#,
            ),
            ("GET /late?", 401, "<Error><Code>AuthenticationRequired</Code><Message>Invalid token.</Message></Error>"),
        ],
    );
    let (proxy, ca) = (server.url(), certificates.file("ca.crt"));
    let world = [("HTTPS_PROXY", proxy.as_str()), ("SSL_CERT_FILE", ca.to_str().unwrap())];
    let home = tempfile::tempdir().unwrap();
    let pem = std::fs::read_to_string(certificates.file("server.key")).unwrap();
    let key = json!({"type": "service_account", "client_email": "zot@p.iam.gserviceaccount.com", "private_key_id": "K1",
        "private_key": pem, "token_uri": "https://oauth2.googleapis.com/token"});
    let key = write(home.path(), "key.json", &key.to_string());
    let machine = format!("127.0.0.1:{}", server.port);
    let machine = ("GCE_METADATA_HOST", machine.as_str());
    let bearer = |driver: &Value, environment: &[(&str, &str)]| {
        let ran = dry_run(driver, &[&world[..], environment].concat());
        assert_eq!(ran.code, Some(0), "{driver} {environment:?}: {ran:?}");
        let asked = server.take();
        let token = header(the(&asked, "GET /b?"), "authorization").unwrap();
        (token.strip_prefix("Bearer ").unwrap().to_owned(), asked)
    };
    let plain = json!({"name": "gcs", "bucket": "b"});

    // The key signs a token of its own, which nobody need be asked for.
    for (driver, environment) in [
        (json!({"name": "gcs", "bucket": "b", "keyfile": key}), &[machine][..]),
        (plain.clone(), &[("GOOGLE_APPLICATION_CREDENTIALS", key.as_str()), machine]),
    ] {
        let (token, asked) = bearer(&driver, environment);
        assert_eq!(hosts(&asked), ["storage.googleapis.com"]);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let parts: Vec<Value> = signed
            .split('.')
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!((&parts[0]["alg"], &parts[0]["kid"]), (&json!("RS256"), &json!("K1")));
        assert_eq!(parts[1]["iss"], "zot@p.iam.gserviceaccount.com");
        assert!(parts[1]["scope"].as_str().unwrap().contains("https://www.googleapis.com/auth/"), "{}", parts[1]);
        let der = PrivateKeyDer::from_pem_file(certificates.file("server.key")).unwrap();
        let pair = RsaKeyPair::from_pkcs8(der.secret_der()).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }

    // A machine; before it a person who is logged in; before that whoever is named.
    assert_eq!(bearer(&plain, &[machine]).0, "TMACHINE");
    let user =
        r#"{"type": "authorized_user", "client_id": "CID", "client_secret": "hunter22", "refresh_token": "RTOKEN"}"#;
    std::fs::create_dir_all(home.path().join(".config/gcloud")).unwrap();
    write(home.path(), ".config/gcloud/application_default_credentials.json", user);
    let named = write(home.path(), "user.json", user);
    let at_home = ("HOME", home.path().to_str().unwrap());
    for environment in [&[at_home, machine][..], &[("GOOGLE_APPLICATION_CREDENTIALS", &named), machine]] {
        let (token, asked) = bearer(&plain, environment);
        assert_eq!(token, "TUSER");
        let exchange = the(&asked, "POST /o/oauth2/token");
        assert!(
            exchange.contains("grant_type=refresh_token") && exchange.contains("refresh_token=RTOKEN"),
            "{exchange}"
        );
    }
    let key_at_home = [at_home, ("GOOGLE_APPLICATION_CREDENTIALS", key.as_str())];
    assert_eq!(hosts(&bearer(&plain, &key_at_home).1), ["storage.googleapis.com"]);

    // What does not work is named before anything is written, and no secret with it.
    let refusing = Server::start_as(
        &certificates,
        &[(
            "POST /o/oauth2/token",
            400,
            r#"{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}"#,
        )],
    );
    let external = write(home.path(), "external.json", r#"{"type": "external_account", "audience": "x"}"#);
    let late = json!({"name": "gcs", "bucket": "late", "keyfile": key});
    let refusing = refusing.url();
    let nowhere = [("GCE_METADATA_HOST", "127.0.0.1:1"), ("GCE_METADATA_IP", "127.0.0.1:1")];
    for (driver, environment, says) in [
        (
            &plain,
            &[("HTTPS_PROXY", refusing.as_str()), at_home][..],
            "400 invalid_grant: Token has been expired or revoked.",
        ),
        (&plain, &nowhere, "no Google credentials: application default credentials: Error performing token request"),
        (&plain, &[("GOOGLE_APPLICATION_CREDENTIALS", &external)], "external_account"),
        (&late, &[], "minutes ahead of the service's"),
    ] {
        let ran = dry_run(driver, &[&world[..], environment].concat());
        assert_eq!(ran.code, Some(3), "{environment:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{says}: {ran:?}");
        for secret in ["hunter22", "RTOKEN", "PRIVATE KEY"] {
            assert!(!ran.stderr.contains(secret), "{ran:?}");
        }
    }
}
