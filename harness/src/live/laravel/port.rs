//! A port that can be closed and opened again without being lost.
//!
//! A test that takes Laravel down must see connections *refused*, and must get the same port back,
//! while other tests take port 0 all the time. So an anchor socket is bound to the port and never
//! listens: to Linux the port stays taken, and to a client it is closed. Both sockets need
//! `SO_REUSEADDR`; Linux then lets them share the port as long as only one of them listens.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait for `accept`: the kernel's own default limit (`somaxconn`).
const LISTEN_BACKLOG: u32 = 4096;

/// A port on 127.0.0.1, held for as long as this lives.
#[derive(Debug)]
pub(in crate::live) struct Port {
    addr: SocketAddr,
    _anchor: TcpSocket,
}

impl Port {
    /// Takes this port, or any free one for 0.
    pub(in crate::live) fn take(port: u16) -> io::Result<Self> {
        let anchor = socket(SocketAddr::from(([127, 0, 0, 1], port)))?;
        Ok(Self {
            addr: anchor.local_addr()?,
            _anchor: anchor,
        })
    }

    pub(in crate::live) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Opens the port. It is closed again when the listener is dropped.
    pub(in crate::live) fn listen(&self) -> io::Result<TcpListener> {
        socket(self.addr)?.listen(LISTEN_BACKLOG)
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
        let refused = TcpStream::connect(port.addr()).await.map_err(|e| e.kind());
        assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused));
        for _ in 0..3 {
            let listener = port.listen().expect("the port is ours");
            TcpStream::connect(port.addr()).await.expect("an open port");
            drop(listener);
            let refused = TcpStream::connect(port.addr()).await.map_err(|e| e.kind());
            assert_eq!(refused.err(), Some(io::ErrorKind::ConnectionRefused));
        }
    }
}
