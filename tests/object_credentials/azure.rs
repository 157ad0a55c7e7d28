//! Shared keys, applications, managed identities, and who is logged in.

use super::server::{Server, header};
use super::{dry_run, hosts, the, the_world, write};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn azure_default_credentials_find_a_managed_identity() {
    let server = Server::start(&[(
        "GET /msi",
        200,
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
#[ignore = "needs openssl: run tests/run"]
fn azure_knows_applications_and_their_workloads() {
    let certificates = the_world();
    let server = Server::start_as(
        &certificates,
        &[
            (
                "POST /t-1/oauth2/v2.0/token",
                200,
                r#"{"token_type": "Bearer", "expires_in": 3599, "access_token": "TISSUED"}"#,
            ),
            (
                "POST /t-2/oauth2/v2.0/token",
                401,
                r#"{"error": "invalid_client", "error_description": "AADSTS7000222: The provided client secret keys are expired."}"#,
            ),
        ],
    );
    let (proxy, ca) = (server.url(), certificates.file("ca.crt"));
    let world = [("HTTPS_PROXY", proxy.as_str()), ("SSL_CERT_FILE", ca.to_str().unwrap())];
    let files = tempfile::tempdir().unwrap();
    let token = write(files.path(), "token", "FEDERATED");
    let driver = |credentials: Value| {
        json!({"name": "azure", "accountname": "acct", "container": "c", "serviceurl": server.url(),
            "credentials": credentials})
    };
    let secret = |tenant: &str| {
        driver(json!({"type": "client_secret", "tenantid": tenant, "clientid": "app", "secret": "hunter22"}))
    };
    let default = driver(json!({"type": "default_credentials"}));
    let (tenant, client) = (("AZURE_TENANT_ID", "t-1"), ("AZURE_CLIENT_ID", "app"));
    let federated = ("AZURE_FEDERATED_TOKEN_FILE", token.as_str());
    for (driver, environment, host, sent) in [
        (&secret("t-1"), &[][..], "login.microsoftonline.com", "client_secret=hunter22"),
        (
            &secret("t-1"),
            &[("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")],
            "login.microsoftonline.us",
            "client_secret=hunter22",
        ),
        // The environment's secret comes before its token.
        (
            &default,
            &[tenant, client, ("AZURE_CLIENT_SECRET", "hunter22"), federated],
            "login.microsoftonline.com",
            "client_secret=hunter22",
        ),
        (&default, &[tenant, client, federated], "login.microsoftonline.com", "client_assertion=FEDERATED"),
    ] {
        let ran = dry_run(driver, &[&world[..], environment].concat());
        assert_eq!(ran.code, Some(0), "{driver} {environment:?}: {ran:?}");
        let asked = server.take();
        assert_eq!(hosts(&asked), [host], "{environment:?}");
        let exchange = the(&asked, "POST /t-1/");
        assert!(exchange.contains("client_id=app") && exchange.contains(sent), "{exchange}");
        let listing = asked.iter().rfind(|request| request.contains("comp=list")).unwrap();
        assert_eq!(header(listing, "authorization").as_deref(), Some("Bearer TISSUED"));
    }

    // Whoever is logged in to the command-line tool, where there is no managed identity.
    let az = write(
        files.path(),
        "az",
        "#!/bin/sh\necho '{\"accessToken\": \"TCLI\", \"expiresOn\": \"2099-01-01 00:00:00.000000\", \
         \"subscription\": \"s\", \"tenant\": \"t\", \"tokenType\": \"Bearer\"}'\n",
    );
    std::fs::set_permissions(az, std::fs::Permissions::from_mode(0o755)).unwrap();
    let nowhere = ("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi");
    let ran = dry_run(&default, &[nowhere, ("PATH", files.path().to_str().unwrap())]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(server.header("authorization").as_deref(), Some("Bearer TCLI"));

    let ran = dry_run(&default, &[tenant, client, ("AZURE_CLIENT_CERTIFICATE_PATH", "/x.pem"), federated]);
    assert!(ran.code == Some(3) && ran.stderr.contains("certificates of applications"), "{ran:?}");

    let ran = dry_run(&secret("t-2"), &world);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let says = "401 invalid_client: AADSTS7000222: The provided client secret keys are expired.";
    assert!(ran.stderr.contains(says) && ran.stderr.contains("minutes ahead of"), "{ran:?}");
    assert!(!ran.stderr.contains("hunter22"), "{ran:?}");
}
