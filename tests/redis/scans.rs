//! Listing millions of images: page by page, and without their records where the server can leave them away.

use crate::support::redis::Server;
use crate::{failed, read};
use metactl::metadb::{MetaDbError, Place};
use redis::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const IMAGES: usize = 3000;

/// A server with this many images.
fn filled() -> Server {
    let server = Server::start(&[]);
    let mut fill = redis::pipe();
    for number in 0..IMAGES {
        fill.cmd("HSET").arg("zot:ImageMeta").arg(format!("sha256:{number:064x}")).arg(vec![b'x'; 500]).ignore();
    }
    fill.exec(&mut server.client()).unwrap();
    server
}

fn digests(place: &Place) -> Result<BTreeSet<String>, MetaDbError> {
    let mut digests = BTreeSet::new();
    read(place)?.image_digests(&mut |digest| digests.extend([digest.to_owned()]))?;
    Ok(digests)
}

/// How often the server was asked for what.
fn calls(server: &Server, command: &str) -> usize {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut server.client()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

fn pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Nil => out.extend(b"$-1\r\n"),
        Value::Int(number) => out.extend(format!(":{number}\r\n").bytes()),
        Value::BulkString(bytes) => {
            out.extend(format!("${}\r\n", bytes.len()).bytes());
            out.extend(bytes);
            out.extend(b"\r\n");
        }
        Value::Array(items) => {
            out.extend(format!("*{}\r\n", items.len()).bytes());
            items.iter().for_each(|item| pack(item, out));
        }
        Value::ServerError(error) => {
            out.extend(format!("-{} {}\r\n", error.code(), error.details().unwrap_or_default()).bytes());
        }
        Value::Okay => out.extend(b"+OK\r\n"),
        Value::SimpleString(text) => out.extend(format!("+{text}\r\n").bytes()),
        other => panic!("{other:?}"),
    }
}

/// One connection to a server that behaves as one of version 7.4.
fn serve(client: &TcpStream, port: u16, pages: &AtomicUsize) {
    let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut commands, mut replies) = (redis::Parser::new(), redis::Parser::new());
    while let Ok(Value::Array(mut command)) = commands.parse_value(client) {
        let without = command.last() == Some(&Value::BulkString(b"NOVALUES".to_vec()));
        if without {
            command.pop();
        }
        let mut out = Vec::new();
        pack(&Value::Array(command), &mut out);
        (&server).write_all(&out).unwrap();
        let mut reply = replies.parse_value(&server).unwrap();
        if without && let Value::Array(parts) = &mut reply {
            let Some(Value::Array(entries)) = parts.last_mut() else { panic!("no page") };
            let mut at = 0;
            entries.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            pages.fetch_add(1, Ordering::Relaxed);
        }
        out.clear();
        pack(&reply, &mut out);
        (&*client).write_all(&out).unwrap();
    }
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn images_are_listed_page_by_page() {
    let server = filled();
    let found = digests(&Place::parse(&server.url("")).unwrap()).unwrap();
    assert_eq!((found.len(), calls(&server, "hkeys")), (IMAGES, 0));
    assert!(calls(&server, "hscan") > IMAGES / 500, "{}", calls(&server, "hscan"));
    // Only what a server does not know is asked for in another way.
    let () = redis::cmd("DEL").arg("zot:ImageMeta").query(&mut server.client()).unwrap();
    let () = redis::cmd("SET").arg("zot:ImageMeta").arg("no hash").query(&mut server.client()).unwrap();
    let before = calls(&server, "hscan");
    let error = failed(digests(&Place::parse(&server.url("")).unwrap()));
    assert!(matches!(error, MetaDbError::Damaged { .. }), "{error:?}");
    assert!(calls(&server, "hscan") <= before + 2);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_newer_server_leaves_the_records_away() {
    let server = filled();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::parse(&format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port())).unwrap();
    let pages = Arc::new(AtomicUsize::new(0));
    let (port, counted) = (server.port, Arc::clone(&pages));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            serve(&client.unwrap(), port, &counted);
        }
    });
    assert_eq!(digests(&place).unwrap().len(), IMAGES);
    let pages = pages.load(Ordering::Relaxed);
    assert!(pages > 1 && pages == calls(&server, "hscan"), "{pages}");
}
