//! A port that can be closed and opened again without being lost.
//!
//! A test that takes Laravel down must see connections *refused*, and must get the same port back,
//! while other tests take port 0 all the time. So an anchor socket is bound to the port and never
//! listens: to Linux the port stays taken, and to a client it is closed. Both sockets need
//! `SO_REUSEADDR`; Linux then lets them share the port as long as only one of them listens.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::serve::{self, Serves};

/// Connections that wait for `accept`: the kernel's own default limit (`somaxconn`).
const LISTEN_BACKLOG: u32 = 4096;

/// A port on 127.0.0.1, held for as long as this lives.
#[derive(Debug)]
pub(in crate::live) struct Port {
    addr: SocketAddr,
    _anchor: TcpSocket,
}

/// A port with somebody behind it, or nobody.
#[derive(Debug)]
pub(super) struct Door {
    port: Port,
    accepting: Option<JoinHandle<()>>,
}

// === impl Port ===

impl Port {
    /// Takes this port, or any free one for 0.
    fn take(port: u16) -> io::Result<Self> {
        let anchor = socket(SocketAddr::from(([127, 0, 0, 1], port)))?;
        Ok(Self {
            addr: anchor.local_addr()?,
            _anchor: anchor,
        })
    }

    /// Opens the port. It is closed again when the listener is dropped.
    fn listen(&self) -> io::Result<TcpListener> {
        socket(self.addr)?.listen(LISTEN_BACKLOG)
    }
}

// === impl Door ===

impl Door {
    /// Takes this port, or any free one for 0, and refuses connections.
    pub(super) fn take(port: u16) -> io::Result<Self> {
        Ok(Self {
            port: Port::take(port)?,
            accepting: None,
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.port.addr
    }

    // ## Closed => Open

    /// Accepts connections. Nothing happens if it does already.
    pub(super) fn open<S: Serves>(&mut self, server: &Arc<S>) -> io::Result<()> {
        if self.accepting.is_none() {
            let listener = self.port.listen()?;
            self.accepting = Some(tokio::spawn(serve::accept(listener, server.clone())));
        }
        Ok(())
    }

    // ## Open => Closed

    /// Refuses connections and drops those there are. Nothing happens if it does already.
    pub(super) async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Only when the task is gone is its listener closed. Its end is an abort: no news.
            let _ = accepting.await;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

fn socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_closed_port_refuses_stays_taken_and_opens_again() {
        let port = Port::take(0).expect("a free port");
        let refused = TcpStream::connect(port.addr).await.map_err(|e| e.kind());
        assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused));
        for _ in 0..3 {
            let listener = port.listen().expect("the port is ours");
            TcpStream::connect(port.addr).await.expect("an open port");
            drop(listener);
            let refused = TcpStream::connect(port.addr).await.map_err(|e| e.kind());
            assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused));
        }
    }
}
