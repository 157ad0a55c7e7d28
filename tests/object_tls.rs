//! Encryption on the way to object stores: whom metactl trusts, and when it trusts anybody.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use support::command::{Ran, Sandbox, run};
use support::setups::Certificates;

/// A service that answers every request over TLS with an empty listing; returns its port.
fn empty_store(certificates: &Certificates) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = vec![CertificateDer::from_pem_file(certificates.file("server.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.file("server.key")).unwrap();
    let config = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || serve(StreamOwned::new(connection, client)));
        }
    });
    port
}

fn serve(stream: StreamOwned<ServerConnection, std::net::TcpStream>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !stream.read_until(b'\n', &mut head).is_ok_and(|count| count > 0) {
                return;
            }
        }
        let body = match String::from_utf8(head).unwrap().contains("comp=list") {
            true => "<EnumerationResults><Blobs></Blobs><NextMarker /></EnumerationResults>",
            false => "<ListBucketResult></ListBucketResult>",
        };
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.get_mut().write_all(reply.as_bytes()).and_then(|()| stream.get_mut().flush()).is_err() {
            return;
        }
    }
}

fn dry_run(driver: &Value, environment: Option<(&str, String)>) -> Ran {
    let sandbox = Sandbox::new(|_| ());
    sandbox.configure(&json!({"storageDriver": driver}));
    run(sandbox.command(&["walk", "--dry-run"]).envs(environment))
}

#[test]
#[ignore = "needs openssl: run tests/run"]
fn certificates_are_checked_unless_the_config_says_otherwise() {
    let certificates = Certificates::make();
    let port = empty_store(&certificates);
    let s3 = |more: Value| {
        let mut driver = json!({"name": "s3", "bucket": "b", "region": "us-east-1", "accesskey": "A", "secretkey": "s",
            "regionendpoint": format!("127.0.0.1:{port}")});
        for (key, value) in more.as_object().unwrap() {
            driver[key] = value.clone();
        }
        driver
    };
    let azure = |skip: bool| {
        json!({"name": "azure", "accountname": "a", "accountkey": "a2V5", "container": "c", "skipverify": skip,
            "serviceurl": format!("https://127.0.0.1:{port}"), "credentials": {"type": "shared_key"}})
    };
    let ca = certificates.file("ca.crt").to_str().unwrap().to_owned();
    for (driver, environment) in [
        (s3(json!({"skipverify": true})), None),
        (s3(json!({"skipverify": "true", "secure": "true"})), None),
        (s3(json!({})), Some(("AWS_CA_BUNDLE", ca.clone()))),
        (s3(json!({})), Some(("SSL_CERT_FILE", ca.clone()))),
        (azure(true), None),
        (azure(false), Some(("SSL_CERT_FILE", ca.clone()))),
    ] {
        let ran = dry_run(&driver, environment.clone());
        assert_eq!(ran.code, Some(0), "{driver} {environment:?}: {ran:?}");
    }
    // The bundle is for S3 alone.
    for (driver, environment) in
        [(s3(json!({})), None), (azure(false), Some(("AWS_CA_BUNDLE", ca))), (s3(json!({"secure": false})), None)]
    {
        let ran = dry_run(&driver, environment);
        assert_eq!(ran.code, Some(3), "{driver}: {ran:?}");
    }
}
