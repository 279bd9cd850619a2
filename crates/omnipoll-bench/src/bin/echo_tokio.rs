//! The echo server on tokio's single-threaded runtime: a task for each client. They share one
//! buffer; what the socket does not take at once is copied and written before the next read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{ready, Poll};

use omnipoll_bench::echo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; echo::BUFFER]);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::from_std(echo::listen()).expect("a listener");
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("a socket");
            tokio::spawn(serve(stream));
        }
    });
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    while let Some(rest) = echo(&mut stream).await? {
        stream.write_all(&rest).await?;
    }
    Ok(())
}

/// Reads once and writes at once; what was not written, or `None` at the end.
async fn echo(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            let data = buffer.filled();
            if data.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let written = match stream.try_write(data) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                result => result?,
            };
            Poll::Ready(Ok(Some(data[written..].to_vec())))
        })
    })
    .await
}
