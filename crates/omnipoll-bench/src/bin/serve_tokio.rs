//! A server on tokio's single-threaded runtime, a task for each client: `serve_tokio http|redis`.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use omnipoll_bench::{echo, protocol::Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    let protocol = Rc::new(RefCell::new(Protocol::named(&name)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(echo::listen()).expect("a listener");
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("a socket");
            tokio::task::spawn_local(serve(stream, protocol.clone()));
        }
    });
}

async fn serve(mut stream: TcpStream, protocol: Rc<RefCell<Protocol>>) -> io::Result<()> {
    let mut buffer = vec![0; 16_384];
    let (mut begun, mut output) = (Vec::new(), Vec::new());
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        output.clear();
        protocol.borrow_mut().feed(&mut begun, &buffer[..length], &mut output);
        stream.write_all(&output).await?;
    }
}
