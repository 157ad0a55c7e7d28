//! A proxy on loopback before a test server: it slows requests down, refuses, cuts and counts them.
//!
//! It speaks HTTP/1.1 with persistent connections and passes on what it reads byte by byte, `Host` included, so that
//! signatures stay valid. One thread per connection. It needs nothing of the other modules: a bench takes it by path.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as a rule sees it.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, with `%XX` decoded.
    pub path: String,
    /// What an AWS service of JSON documents shall do: `GetItem`.
    pub operation: Option<String>,
    /// Who signed it: date, region and service after the key's id.
    pub credential: Option<String>,
    pub body: Vec<u8>,
}

impl Request {
    /// What counts as one class: an operation of its own, else what the request looks for.
    fn class(&self) -> String {
        let has = |text: &str| self.path.contains(text);
        match &self.operation {
            Some(operation) => operation.clone(),
            // Google's listing names no operation but has a delimiter or a prefix.
            None if ["list-type=", "comp=list", "delimiter=", "prefix="].into_iter().any(has) => "list".to_owned(),
            None if has("/blobs/") => "blob".to_owned(),
            None if has("/index.json") => "index".to_owned(),
            None => "other".to_owned(),
        }
    }
}

/// A reply that the server never sent.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned() }
    }

    pub fn with(mut self, header: &str, value: &str) -> Self {
        self.headers.push((header.to_owned(), value.to_owned()));
        self
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Fate {
    /// The server answers.
    Forward,
    /// The proxy answers; the server never hears of it.
    Reply(Reply),
    /// The connection breaks; the server never hears of it.
    Reset,
    /// The server answers, and the connection ends in the middle of the body (without one: before the reply).
    Truncate,
    /// Nobody ever answers.
    Silence,
}

impl Fate {
    fn name(&self) -> String {
        match self {
            Self::Forward => "forward".to_owned(),
            Self::Reply(reply) => reply.status.to_string(),
            Self::Reset => "reset".to_owned(),
            Self::Truncate => "truncate".to_owned(),
            Self::Silence => "silence".to_owned(),
        }
    }
}

type Rule = Box<dyn FnMut(&Request) -> Option<Fate> + Send>;

/// What is set from outside while requests come in.
#[derive(Default)]
struct Settings {
    delay: Duration,
    /// Share of requests that go wrong, and the state of the generator that picks them.
    random: Option<(f64, u64)>,
    rule: Option<Rule>,
    /// Requests by method and class.
    requests: BTreeMap<(String, String), usize>,
    /// Requests by what became of them.
    fates: BTreeMap<String, usize>,
}

impl Settings {
    fn decide(&mut self, request: &Request) -> Fate {
        *self.requests.entry((request.method.clone(), request.class())).or_default() += 1;
        let ruled = self.rule.as_mut().and_then(|rule| rule(request));
        let fate = ruled.unwrap_or_else(|| self.chance());
        *self.fates.entry(fate.name()).or_default() += 1;
        fate
    }

    fn chance(&mut self) -> Fate {
        let Some((rate, state)) = &mut self.random else { return Fate::Forward };
        // SplitMix64.
        let mut next = || {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        if f64::from(u32::try_from(next() >> 32).unwrap()) >= *rate * f64::from(u32::MAX) {
            return Fate::Forward;
        }
        match next() % 4 {
            0 => Fate::Reply(Reply::new(500, "")),
            1 => Fate::Reply(Reply::new(503, "")),
            2 => Fate::Reset,
            _ => Fate::Truncate,
        }
    }
}

/// A running proxy; dropping it ends it. Connections that are open then end with their clients.
pub struct Proxy {
    pub port: u16,
    settings: Arc<Mutex<Settings>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Before the server at `upstream`, a port on loopback.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { port, settings: Arc::default(), ended: Arc::default() };
        let (settings, ended) = (Arc::clone(&proxy.settings), Arc::clone(&proxy.ended));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let settings = Arc::clone(&settings);
                // A connection that fails is one that ends: the client sees it.
                std::thread::spawn(move || serve(&client, upstream, &settings));
            }
        });
        proxy
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Let every request wait so long before anything happens to it.
    pub fn delay(&self, delay: Duration) {
        self.settings.lock().unwrap().delay = delay;
    }

    /// Let this share of requests go wrong, at random but the same for one seed and order of requests: 500, 503, reset
    /// and truncated bodies alike.
    pub fn random_faults(&self, rate: f64, seed: u64) {
        self.settings.lock().unwrap().random = Some((rate, seed));
    }

    /// Let `rule` decide about requests; where it says nothing, [`Proxy::random_faults`] does.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Option<Fate> + Send + 'static) {
        self.settings.lock().unwrap().rule = Some(Box::new(rule));
    }

    /// Answer every request whose path contains `text` with this status.
    pub fn refuse(&self, text: &str, status: u16) {
        let text = text.to_owned();
        self.rule(move |request| request.path.contains(&text).then(|| Fate::Reply(Reply::new(status, ""))));
    }

    /// Forget delay, faults, rule and counts.
    pub fn clear(&self) {
        *self.settings.lock().unwrap() = Settings::default();
    }

    /// Requests so far by method and class: `index`, `blob`, `list`, `other`, or the operation of an AWS service.
    pub fn requests(&self) -> BTreeMap<(String, String), usize> {
        self.settings.lock().unwrap().requests.clone()
    }

    /// Requests of one method and class so far.
    pub fn count(&self, method: &str, class: &str) -> usize {
        self.requests().get(&(method.to_owned(), class.to_owned())).copied().unwrap_or_default()
    }

    /// Requests so far by what became of them: `forward`, a status, `reset`, `truncate`, `silence`.
    pub fn fates(&self) -> BTreeMap<String, usize> {
        self.settings.lock().unwrap().fates.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One client's connection, until either side ends it.
fn serve(client: &TcpStream, upstream: u16, settings: &Mutex<Settings>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut from_client = BufReader::new(client);
    let mut server: Option<BufReader<TcpStream>> = None;
    loop {
        let head = read_head(&mut from_client)?;
        let raw_body = read_body(&mut from_client, &head, false)?;
        let request = parse(&head, &raw_body)?;
        let (fate, delay) = {
            let mut settings = settings.lock().unwrap();
            (settings.decide(&request), settings.delay)
        };
        std::thread::sleep(delay);
        match fate {
            Fate::Reply(reply) => {
                answer(client, &reply, &request)?;
                continue;
            }
            Fate::Reset => return reset(client),
            Fate::Silence => return io::copy(&mut from_client, &mut io::sink()).map(drop),
            Fate::Forward | Fate::Truncate => {}
        }
        let connection = match server.take().filter(|connection| alive(connection.get_ref())) {
            Some(connection) => connection,
            None => {
                let connection = TcpStream::connect(("127.0.0.1", upstream))?;
                connection.set_nodelay(true)?;
                BufReader::new(connection)
            }
        };
        let connection = server.insert(connection);
        connection.get_ref().write_all(&[head.as_bytes(), &raw_body].concat())?;
        let reply = read_head(connection)?;
        let bodiless = request.method == "HEAD" || [" 204", " 304"].iter().any(|code| reply[..16].contains(code));
        let body = if bodiless { Vec::new() } else { read_body(connection, &reply, true)? };
        if matches!(fate, Fate::Truncate) {
            if body.is_empty() {
                return reset(client);
            }
            let mut out = client;
            out.write_all(&[reply.as_bytes(), &body[..body.len() / 2]].concat())?;
            return client.shutdown(Shutdown::Both);
        }
        let mut out = client;
        out.write_all(&[reply.as_bytes(), &body].concat())?;
        let framed = bodiless || header(&reply, "content-length").or(header(&reply, "transfer-encoding")).is_some();
        if !framed || header(&reply, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return client.shutdown(Shutdown::Both);
        }
    }
}

/// Whether the server kept its side of an idle connection open.
fn alive(connection: &TcpStream) -> bool {
    let silent = connection.set_nonblocking(true).and_then(|()| connection.peek(&mut [0]));
    let _ = connection.set_nonblocking(false);
    silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// End a connection so that the other side sees an error and no orderly end.
fn reset(connection: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(connection).set_linger(Some(Duration::ZERO))
}

fn answer(mut client: &TcpStream, reply: &Reply, request: &Request) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Told\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    if request.method != "HEAD" {
        text += &reply.body;
    }
    client.write_all(text.as_bytes())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Everything up to the empty line, which is part of it.
fn read_head(from: &mut BufReader<impl io::Read>) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if from.read_until(b'\n', &mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    String::from_utf8(head).map_err(|_| invalid("a head that is no text"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The body that goes with `head`, with its framing. Without a length a request has none, a reply lasts to the end.
fn read_body(from: &mut BufReader<impl io::Read>, head: &str, reply: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let start = body.len();
            from.read_until(b'\n', &mut body)?;
            let line = String::from_utf8_lossy(&body[start..]).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| invalid("no chunk size"))?;
            from.take(size).read_to_end(&mut body)?;
            if size > 0 {
                from.read_until(b'\n', &mut body)?;
                continue;
            }
            // Trailers, up to an empty line.
            while from.read_until(b'\n', &mut body)? > 2 {}
            return Ok(body);
        }
    }
    let length = match header(head, "content-length") {
        Some(length) => length.parse().map_err(|_| invalid("no length"))?,
        None if reply => u64::MAX,
        None => 0,
    };
    let read = from.take(length).read_to_end(&mut body)?;
    if length != u64::MAX && read as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

fn parse(head: &str, body: &[u8]) -> io::Result<Request> {
    let mut line = head.lines().next().unwrap_or_default().split(' ');
    let (Some(method), Some(path)) = (line.next(), line.next()) else { return Err(invalid("no request line")) };
    let operation = header(head, "x-amz-target").and_then(|target| target.rsplit('.').next());
    let signed = header(head, "authorization").and_then(|signed| signed.split_once("Credential=")?.1.split(',').next());
    Ok(Request {
        method: method.to_owned(),
        path: decoded(path),
        operation: operation.map(str::to_owned),
        credential: signed.map(str::to_owned),
        body: body.to_vec(),
    })
}

/// `%XX` as the byte it stands for.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
