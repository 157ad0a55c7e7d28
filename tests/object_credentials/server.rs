//! Stores, and whoever issues credentials for them.

use crate::support::setups::Certificates;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// What requests begin with, and what they are told: status and body.
pub type Answers = &'static [(&'static str, u16, &'static str)];

/// A server for every purpose here: listings are empty, and requests in its answers are told what stands there. It also is
/// a proxy that leads everywhere, which means to itself.
pub struct Server {
    pub port: u16,
    /// Heads of the requests that came, with their bodies.
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(answers: Answers) -> Self {
        Self::start_with(answers, None)
    }

    /// Whoever trusts the certificates' CA takes it for any of their names.
    pub fn start_as(certificates: &Certificates, answers: Answers) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let chain = vec![CertificateDer::from_pem_file(certificates.file("server.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(certificates.file("server.key")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::start_with(answers, Some(Arc::new(config)))
    }

    fn start_with(answers: Answers, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (log, tls) = (Arc::clone(&log), tls.clone());
                std::thread::spawn(move || {
                    // Whatever is asked for through a tunnel is answered here, too.
                    if let (Some(client), Some(tls)) = (serve(client, answers, &log), tls) {
                        serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), client), answers, &log);
                    }
                });
            }
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Forget what came; returns it.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// A header of the last request.
    pub fn header(&self, name: &str) -> Option<String> {
        header(self.seen.lock().unwrap().last()?, name)
    }
}

/// A header of a request.
pub fn header(request: &str, name: &str) -> Option<String> {
    let fields = request.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
}

/// Answer requests until the client goes, or wants a tunnel: then it is given back.
fn serve<S: Read + Write>(client: S, answers: Answers, log: &Mutex<Vec<String>>) -> Option<S> {
    let mut client = BufReader::new(client);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !client.read_until(b'\n', &mut head).is_ok_and(|count| count > 0) {
                return None;
            }
        }
        let head = String::from_utf8(head).unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        client.read_exact(&mut body).unwrap();
        let tunnel = head.starts_with("CONNECT ");
        let told = answers.iter().find(|(begin, ..)| head.starts_with(begin));
        let listing = if head.contains("comp=list") {
            "<EnumerationResults><Blobs></Blobs><NextMarker /></EnumerationResults>"
        } else {
            "<ListBucketResult></ListBucketResult>"
        };
        let (status, text) = told.map_or((200, listing), |(_, status, text)| (*status, *text));
        log.lock().unwrap().push(head + &String::from_utf8(body).unwrap());
        if tunnel {
            client.get_mut().write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
            return Some(client.into_inner());
        }
        // Who is refused as unknown may have another clock; the instance's metadata needs the last header.
        let date = if status == 401 { "date: Mon, 05 Jan 2015 10:00:00 GMT\r\n" } else { "" };
        let reply = format!(
            "HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n{date}x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\r\n{text}",
            text.len()
        );
        client.get_mut().write_all(reply.as_bytes()).and_then(|()| client.get_mut().flush()).ok()?;
    }
}
