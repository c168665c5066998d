//! The end of a connection on which everything was said: until the client has it.
//!
//! A socket that is closed while bytes of the client are unread, or still come, is reset by the kernel, which
//! throws away what it has not delivered by then: the last answers, and why the connection ends. So the
//! client is told that nothing follows, and what it sends is read and forgotten until it has closed as well.
//!
//! Invariants:
//! - It ends by its time, by its bytes, or with the drain's deadline, whatever the client does.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Edge;
use super::store::Store;
use crate::env::Env;

/// Reads of one turn; the executor's other tasks come before the next ones.
const READS_PER_TURN_MAX: usize = 4;

/// Ends a connection, with room for what one read brings.
pub(super) async fn linger<IO, E, S>(edge: &Edge<E, S>, mut io: IO, mut room: Box<[u8]>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    E: Env,
    S: Store,
{
    if poll_fn(|context| Pin::new(&mut io).poll_shutdown(context)).await.is_err() {
        return;
    }
    let (env, limits) = (edge.env(), edge.limits());
    let due = env.now() + limits.linger_timeout;
    let mut late = Box::pin(env.sleep(limits.linger_timeout));
    let mut drain_begun = Some(edge.inner.drain.begun());
    let mut bytes_left = limits.linger_bytes_max;
    poll_fn(|context| {
        if let Some(begun) = &mut drain_begun
            && let Poll::Ready(deadline) = Pin::new(begun).poll(context)
        {
            drain_begun = None;
            late.set(env.sleep(deadline.min(due).since(env.now())));
        }
        match poll_forget(&mut io, &mut room, &mut bytes_left, context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => late.as_mut().poll(context),
        }
    })
    .await;
}

/// Reads and forgets; ready when the client has closed, or has sent too much.
fn poll_forget(
    io: &mut (impl AsyncRead + Unpin),
    room: &mut [u8],
    bytes_left: &mut usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    for _ in 0..READS_PER_TURN_MAX {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(&mut *io).poll_read(context, &mut room))?;
        let read = room.filled().len();
        if read == 0 || read > *bytes_left {
            return Poll::Ready(Ok(()));
        }
        *bytes_left -= read;
    }
    context.waker().wake_by_ref();
    Poll::Pending
}
