//! Where answers arrive: the calls of an engine, as its connections see them while they are polled.
//!
//! Invariants: a call's end is told once, with the time when its last bytes were read from the socket: what
//! the engine does with the bytes read along with them does not count.

use crate::answer::Said;
use crate::call::{Call, Route};
use crate::http2::Event;
use crate::shared::Shared;
use crate::status::{ErrorKind, Failure};

/// A call that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its place.
    pub place: u32,
    /// What came of it.
    pub outcome: Result<Said, Failure>,
    /// When.
    pub at_ns: u64,
}

/// The calls of an engine, and those of them that have ended.
#[derive(Debug)]
pub struct Arrivals<'a> {
    /// All places.
    pub calls: &'a mut [Call],
    /// Filled in order.
    pub ended: &'a mut Vec<Ended>,
    /// Has the clock.
    pub shared: &'a Shared,
    /// When the bytes came that are looked at.
    pub now_ns: u64,
}

impl Arrivals<'_> {
    /// Bytes have just been read.
    pub fn came(&mut self) {
        self.now_ns = self.shared.now_ns();
    }

    /// Something happened to the stream of a unary call, whose place is its token.
    pub fn take(&mut self, event: Event<'_>) {
        if let Some(outcome) = self.calls[event.token as usize].take(event.news) {
            self.ended.push(Ended { place: event.token, outcome, at_ns: self.now_ns });
        }
    }

    /// An operation of a Pipeline was answered, by its result or by a refusal. An answer to a call that was
    /// given up is nobody's.
    pub fn take_piped(&mut self, tag: u64, answer: Result<&[u8], Failure>) {
        let place = Call::place_of(tag);
        let Some(call) = self.calls.get_mut(place as usize) else { return };
        if call.tag() == tag && call.route().is_some() {
            let outcome = answer.and_then(|result| call.outcome_of_result(result));
            self.end(place, outcome);
        }
    }

    /// A Pipeline ended with operations on it.
    pub fn fail_piped(&mut self, route: Route, failure: Failure) {
        for place in 0..self.calls.len() {
            if self.calls[place].route() == Some(route) {
                self.end(place as u32, Err(failure));
            }
        }
    }

    /// A piped call ends here and not at the engine: a second answer to it has to find it gone.
    fn end(&mut self, place: u32, outcome: Result<Said, Failure>) {
        self.calls[place as usize].end();
        self.ended.push(Ended { place, outcome, at_ns: self.now_ns });
    }
}

/// What the end of a Pipeline means for the operations that were on it.
pub fn failure_of(status: Option<Result<(), Failure>>) -> Failure {
    match status {
        Some(Err(failure)) => failure,
        Some(Ok(())) | None => Failure::of(ErrorKind::ConnectionLost),
    }
}
