//! The proxy on tokio's single-threaded runtime: a task for each client, which runs
//! `copy_bidirectional`. `proxy_tokio ADDRESS:PORT`

use std::io;
use std::net::SocketAddr;

use omnipoll_bench::echo;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

fn main() {
    let backend = std::env::args().nth(1).and_then(|address| address.parse().ok()).expect("ADDRESS:PORT");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::from_std(echo::listen()).expect("a listener");
        loop {
            let (client, _) = listener.accept().await.expect("a client");
            tokio::spawn(relay(client, backend));
        }
    });
}

async fn relay(mut client: TcpStream, backend: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut backend = TcpStream::connect(backend).await?;
    backend.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut backend).await?;
    Ok(())
}
