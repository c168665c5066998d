//! One place for a call in flight: what is asked, and how far the answer has come.
//!
//! ```text
//!  Idle ──► Waiting ──► Headers ──► Body ──► Idle
//!     (no connection yet)    └── trailers only ──┘
//! ```

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::StatusCode;

use crate::message::{Answer, Said};
use crate::status::{self, ErrorKind, Failure};
use crate::workload::{Method, Op};

/// Bytes of an answer after which its window is given back as it comes; a shorter answer's is given back by
/// h2 when the stream is dropped, which saves a lock for every call.
const RELEASE_BYTES_MIN: usize = 256 << 10;

/// A place.
pub struct Call {
    /// How far it has come.
    phase: Phase,
    /// What is asked. Of the last call, while idle.
    pub op: Op,
    /// The place of its shard in the routing table.
    pub shard: usize,
    /// From when its latency counts.
    pub start_ns: u64,
    /// When it has to be given up.
    pub deadline_ns: u64,
    answer: Answer,
    waker: Waker,
}

enum Phase {
    Idle,
    Waiting,
    Headers(ResponseFuture),
    Body(RecvStream),
}

impl Call {
    /// An idle place, whose answers wake `waker`.
    pub fn new(waker: Waker) -> Self {
        let op = Op { method: Method::Check, key: 0, first_ns: 0 };
        let answer = Answer::default();
        Self { phase: Phase::Idle, op, shard: 0, start_ns: 0, deadline_ns: 0, answer, waker }
    }

    /// Begins a call that is not sent yet.
    pub fn begin(&mut self, op: Op, shard: usize, start_ns: u64, deadline_ns: u64) {
        assert!(self.is_idle(), "a place takes one call at a time");
        (self.op, self.shard, self.start_ns, self.deadline_ns) = (op, shard, start_ns, deadline_ns);
        self.phase = Phase::Waiting;
    }

    /// The call was sent; its answer will come here.
    pub fn sent(&mut self, response: ResponseFuture) {
        assert!(self.is_waiting(), "a call is sent once");
        self.answer.clear();
        self.phase = Phase::Headers(response);
    }

    /// Ends whatever goes on here. A call under way is cancelled.
    pub fn end(&mut self) {
        self.phase = Phase::Idle;
    }

    /// Whether no call is here.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether a call is here that is not sent yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// Takes what has come of the answer. Ready when it is whole: whether there was something (see [`Said`]).
    pub fn poll(&mut self) -> Poll<Result<Said, Failure>> {
        let Self { phase, op, answer, waker, .. } = self;
        let context = &mut Context::from_waker(waker);
        if let Phase::Headers(response) = phase {
            let response = match ready!(Pin::new(response).poll(context)) {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Err(Failure::of_h2(&error))),
            };
            if response.status() != StatusCode::OK {
                return Poll::Ready(Err(Failure::of(ErrorKind::Http(response.status().as_u16()))));
            }
            if response.body().is_end_stream() {
                return Poll::Ready(
                    status::of_trailers(response.headers()).and_then(|()| read(answer, op.method)),
                );
            }
            *phase = Phase::Body(response.into_body());
        }
        match phase {
            Phase::Body(body) => {
                poll_body(body, answer, context).map(|whole| whole.and_then(|()| read(answer, op.method)))
            }
            Phase::Idle | Phase::Waiting | Phase::Headers(_) => Poll::Pending,
        }
    }
}

/// Takes the message and the trailers.
fn poll_body(
    body: &mut RecvStream,
    answer: &mut Answer,
    context: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    while let Some(data) = ready!(body.poll_data(context)) {
        let data = match data {
            Ok(data) => data,
            Err(error) => return Poll::Ready(Err(Failure::of_h2(&error))),
        };
        answer.push(&data);
        if answer.len() >= RELEASE_BYTES_MIN {
            let held = body.flow_control().used_capacity();
            // Refused only where less is held than is given back, which was just asked.
            let _ = body.flow_control().release_capacity(held);
        }
    }
    Poll::Ready(match ready!(body.poll_trailers(context)) {
        Ok(Some(trailers)) => status::of_trailers(&trailers),
        Ok(None) => Err(Failure::of(ErrorKind::Malformed)),
        Err(error) => Err(Failure::of_h2(&error)),
    })
}

/// Reads a whole answer whose status is OK.
fn read(answer: &Answer, method: Method) -> Result<Said, Failure> {
    match (answer.read(method), method) {
        (Said::Malformed, _) => Err(Failure::of(ErrorKind::Malformed)),
        (Said::No, Method::Check) => Err(Failure::of(ErrorKind::NotServing)),
        (said @ (Said::Yes | Said::No), _) => Ok(said),
    }
}
