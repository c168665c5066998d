//! Listening sockets, as the standard library and glommio do not make them: first bound alone, then shared.
//!
//! Invariants:
//! - A socket is closed on every way out: it is owned from the moment that the kernel gave it.
//! - An address is passed with the length of its own kind.

use std::io;
use std::mem::size_of;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

/// Whether other sockets of this process may listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They may, now (`SO_REUSEPORT`).
    Shared,
    /// Nobody may hold the address yet; later sockets may share it with this one.
    FirstAlone,
}

/// A socket bound to an address, not listening yet.
#[derive(Debug)]
pub struct BoundSocket {
    socket: OwnedFd,
}

impl BoundSocket {
    /// Binds a socket. `SO_REUSEADDR` is set: what lingers of closed connections is not in the way, a
    /// listener is.
    ///
    /// With [`Sharing::FirstAlone`] the binding succeeds only where nobody holds the address; `SO_REUSEPORT`
    /// is set after it, so that at no moment the address is free for another process.
    ///
    /// # Errors
    ///
    /// What the kernel says: [`io::ErrorKind::AddrInUse`] where another process listens.
    pub fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Self> {
        let domain = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
        // SAFETY: takes three numbers and gives a descriptor or -1.
        let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP) };
        check(fd)?;
        // SAFETY: `fd` was just given to us and nobody else knows it.
        let bound = Self { socket: unsafe { OwnedFd::from_raw_fd(fd) } };
        bound.enable(libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        // Of an address of IPv6 alone, that is: the unspecified one stands for IPv4's too.
        if address.is_ipv6() && !address.ip().is_unspecified() {
            bound.enable(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
        }
        match sharing {
            Sharing::Shared => {
                bound.enable(libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
                bound.bind_to(address)?;
            }
            Sharing::FirstAlone => {
                bound.bind_to(address)?;
                bound.enable(libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
            }
        }
        Ok(bound)
    }

    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn listen(self, backlog: i32) -> io::Result<TcpListener> {
        // SAFETY: a descriptor of ours and a number.
        check(unsafe { libc::listen(self.socket.as_raw_fd(), backlog) })?;
        let listener = TcpListener::from(self.socket);
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    fn enable(&self, level: i32, option: i32) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the value is a `c_int` that lives across the call, and its size is given.
        check(unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        })
    }

    fn bind_to(&self, address: SocketAddr) -> io::Result<()> {
        match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: the address lives across the call, and its size is given.
                check(unsafe {
                    libc::bind(
                        self.socket.as_raw_fd(),
                        (&raw const raw).cast(),
                        size_of_val(&raw) as libc::socklen_t,
                    )
                })
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: the address lives across the call, and its size is given.
                check(unsafe {
                    libc::bind(
                        self.socket.as_raw_fd(),
                        (&raw const raw).cast(),
                        size_of_val(&raw) as libc::socklen_t,
                    )
                })
            }
        }
    }
}

/// Makes a listener one of the glommio executor that runs on this thread.
#[must_use]
pub fn adopt(listener: TcpListener) -> glommio::net::TcpListener {
    // SAFETY: the descriptor is a listening socket that `listener` owned alone and gives up here.
    unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) }
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel close a connection whose data is not acknowledged for so long.
///
/// # Errors
///
/// What the kernel says.
pub fn set_user_timeout(socket: RawFd, patience: Duration) -> io::Result<()> {
    let millis = libc::c_uint::try_from(patience.as_millis()).unwrap_or(libc::c_uint::MAX);
    let length = libc::socklen_t::try_from(size_of::<libc::c_uint>()).expect("four bytes");
    // SAFETY: the option takes one unsigned int, which lives through the call; a wrong descriptor is an
    // error.
    let result = unsafe {
        let option = (&raw const millis).cast::<libc::c_void>();
        libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, option, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_alone_and_then_shared() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let wanted: SocketAddr = address.parse().expect("it is an address");
            let first = BoundSocket::bind(wanted, Sharing::FirstAlone).expect("a free port");
            let first = first.listen(16).expect("it is bound");
            let taken = first.local_addr().expect("it is bound");
            let alone = BoundSocket::bind(taken, Sharing::FirstAlone).expect_err("it is taken");
            assert_eq!(alone.kind(), io::ErrorKind::AddrInUse);
            let second = BoundSocket::bind(taken, Sharing::Shared).expect("it may be shared");
            second.listen(16).expect("it is bound");
        }
    }
}
