//! A forward proxy as companies have one: `CONNECT` for https, whole URLs for http, and a password of its own.
//!
//! Names that end in `.test` are answered by the proxy itself: they are for showing that it is the proxy who resolves them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// `user:password` of the proxy.
pub const LOGIN: &str = "me:proxy-secret";

/// A proxy on a free port of loopback, until it is dropped.
pub struct HttpProxy {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    /// The first line of each request, whether it was let in or not.
    requests: Vec<String>,
    /// All that clients said, in tunnels too, but for what lets them into the proxy.
    all: Vec<u8>,
}

impl HttpProxy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let heard = Arc::<Mutex<Heard>>::default();
        let (keep, mut server) = (Arc::clone(&heard), JoinSet::new());
        server.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // How a client's connection ends is the client's to tell.
                clients.spawn(serve(client, Arc::clone(&keep)));
            }
        });
        Self { address, heard, _server: server }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// For `HTTP_PROXY` and its like.
    pub fn url(&self) -> String {
        format!("http://{LOGIN}@{}", self.address)
    }

    /// The same, with this login and host.
    pub fn url_as(&self, login: &str, host: &str) -> String {
        format!("http://{login}@{host}:{}", self.address.port())
    }

    /// The first line of each request since the last time.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().expect("no holder panics").requests)
    }

    pub fn has_heard(&self, text: &str) -> bool {
        self.heard.lock().expect("no holder panics").all.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

async fn serve(client: TcpStream, heard: Arc<Mutex<Heard>>) -> std::io::Result<()> {
    let (from, mut to) = client.into_split();
    let mut from = BufReader::new(from);
    let (mut first, mut headers) = (String::new(), Vec::new());
    from.read_line(&mut first).await?;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        headers.push(line);
    }
    let is_for_proxy = |line: &&String| line.to_ascii_lowercase().starts_with("proxy-authorization:");
    let expected = format!("Basic {}", STANDARD.encode(LOGIN));
    let is_let_in = headers.iter().filter(is_for_proxy).any(|line| line.trim_end().ends_with(&expected));
    headers.retain(|line| !is_for_proxy(&line));
    {
        let mut heard = heard.lock().expect("no holder panics");
        heard.requests.push(first.trim_end().to_owned());
        heard.all.extend([first.clone(), headers.concat()].concat().into_bytes());
    }
    if !is_let_in {
        return answer(&mut to, "407 Proxy Authentication Required\r\nproxy-authenticate: Basic").await;
    }
    let mut words = first.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method == "CONNECT" {
        let Ok(server) = TcpStream::connect(target).await else { return answer(&mut to, "502 Bad Gateway").await };
        to.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
        return pipe(from, to, server, &heard).await;
    }
    let (authority, path) = target.trim_start_matches("http://").split_once('/').unwrap_or((target, ""));
    match authority {
        "moved.test" => answer(&mut to, &format!("307 Temporary Redirect\r\nlocation: http://{path}")).await,
        name if name.ends_with(".test") => answer(&mut to, "403 Forbidden").await,
        _ => {
            let Ok(mut server) = TcpStream::connect(authority).await else {
                return answer(&mut to, "502 Bad Gateway").await;
            };
            headers.retain(|line| !line.to_ascii_lowercase().starts_with("connection:"));
            let head = format!("{method} /{path} HTTP/1.1\r\n{}connection: close\r\n\r\n", headers.concat());
            server.write_all(head.as_bytes()).await?;
            pipe(from, to, server, &heard).await
        }
    }
}

async fn answer(client: &mut (impl AsyncWrite + Unpin), status: &str) -> std::io::Result<()> {
    client.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await
}

async fn pipe(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    server: TcpStream,
    heard: &Mutex<Heard>,
) -> std::io::Result<()> {
    let (mut answers, mut requests) = server.into_split();
    let there = async {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                return requests.shutdown().await;
            }
            heard.lock().expect("no holder panics").all.extend_from_slice(&chunk[..length]);
            requests.write_all(&chunk[..length]).await?;
        }
    };
    let back = async {
        tokio::io::copy(&mut answers, &mut to).await?;
        to.shutdown().await
    };
    tokio::try_join!(there, back).map(drop)
}
