//! An echo server on compio, over io_uring: a task for each client, each with its own buffer.

use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use omnipoll_bench::echo;

fn main() {
    let runtime = compio::runtime::Runtime::new().expect("a runtime");
    assert!(runtime.driver_type().is_iouring(), "io_uring");
    runtime.block_on(async {
        let listener = TcpListener::from_std(echo::listen()).expect("a listener");
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            compio::runtime::spawn(serve(stream)).detach();
        }
    });
}

async fn serve(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(echo::BUFFER);
    loop {
        let result = stream.read(buffer).await;
        let Ok(length @ 1..) = result.0 else { return };
        debug_assert_eq!(result.1.len(), length);
        let result = stream.write_all(result.1).await;
        if result.0.is_err() {
            return;
        }
        buffer = result.1;
        buffer.clear();
    }
}
