//! The module server and clients that are slow.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::super::serve::{FetchListener, serve_to};
use super::*;

/// Tells what is heard of fetches: `began 1`, `ended 1 whole`.
#[derive(Debug)]
struct Heard(mpsc::UnboundedSender<String>);

impl FetchListener for Heard {
    fn began(&self, token: u64, _: Digest) {
        let _ = self.0.send(format!("began {token}"));
    }

    fn ended(&self, token: u64, _: Digest, is_whole: bool) {
        let _ = self.0.send(format!("ended {token}{}", if is_whole { " whole" } else { "" }));
    }
}

/// A module of 56 MiB: more than the kernel holds of it, and what is read in ten minutes.
fn large() -> Vec<u8> {
    let mut module = module(1);
    // A custom section without a name: id, size in LEB128, a name of no bytes.
    let size: u32 = 56 << 20;
    module.push(0);
    module.extend([size | 0x80, (size >> 7) | 0x80, (size >> 14) | 0x80, size >> 21].map(|part| (part & 0xff) as u8));
    module.resize(module.len() + size as usize, 0);
    module
}

async fn ask(address: SocketAddr, digest: Digest, token: u64) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!("GET /modules/sha256/{digest}.wasm?stream={token:016x} HTTP/1.1\r\nhost: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn status(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}

#[tokio::test]
async fn a_client_that_reads_for_hours_holds_up_no_other_for_more_than_ten_minutes() {
    let (data_dir, content) = (folder(), large());
    let source = data_dir.path().join("large.wasm");
    fs::write(&source, &content).unwrap();
    let running = Running::start(data_dir.path(), &[data_dir.path()]);
    let reference = file(&source);
    running.want([&reference]);
    let _held = running.ready(&reference, &content).await;
    let modules = running.modules.clone();
    running.stop().await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, digest) = (listener.local_addr().unwrap(), Digest::of(&content));
    let (say, mut heard) = mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve_to(1, listener, modules, Arc::new(Heard(say)), shutdown.clone()));
    tokio::time::pause();

    let mut slow = ask(address, digest, 1).await;
    assert_eq!((status(&mut slow).await, heard.recv().await.unwrap()), ("HTTP/1.1 200".into(), "began 1".into()));
    let slow = tokio::spawn(async move {
        let (begun, mut piece) = (Instant::now(), vec![0; 64 << 10]);
        while slow.read_exact(&mut piece).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        begun.elapsed()
    });
    // It stands in line, and is told to come again.
    let mut second = ask(address, digest, 2).await;
    assert_eq!(status(&mut second).await, "HTTP/1.1 503");
    assert_eq!((heard.recv().await.unwrap(), heard.recv().await.unwrap()), ("began 2".into(), "ended 2".into()));

    let held = timeout(Duration::from_secs(3600), slow).await.expect("cut off within the hour").unwrap();
    assert!(held > Duration::from_secs(300), "{held:?}");
    assert_eq!(heard.recv().await.unwrap(), "ended 1");
    let mut third = ask(address, digest, 3).await;
    assert_eq!(status(&mut third).await, "HTTP/1.1 200");
    shutdown.cancel();
    server.await.unwrap();
}
