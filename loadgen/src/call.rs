//! One place for a call in flight: what is asked, and what has come of the answer.
//!
//! ```text
//!  Idle ──► Waiting ──► Sent ──► Idle
//!     (no connection yet)
//! ```
//! Invariants: a place takes one call at a time, and each has a tag of its own, so that an answer that comes
//! after its call was given up is told from that to the next.

use crate::answer::{self, Answer, Said};
use crate::http2::News;
use crate::method::Method;
use crate::status::{self, ErrorKind, Failure};
use crate::workload::Op;

/// Bits of a tag that name the place; those above count its calls.
const PLACE_BITS: u32 = 16;
/// HTTP's status of an answer that is one.
const HTTP_OK: u16 = 200;

/// A place.
#[derive(Debug)]
pub struct Call {
    phase: Phase,
    /// What is asked. Of the last call, while idle.
    pub op: Op,
    /// The place of its shard in the routing table.
    pub shard: usize,
    /// From when its latency counts.
    pub start_ns: u64,
    /// Whether every place was taken when it was due.
    pub had_no_place: bool,
    /// When it was handed to a connection, or what it follows was.
    first_sent_ns: Option<u64>,
    /// When it has to be given up.
    pub deadline_ns: u64,
    tag: u64,
    answer: Answer,
    /// The whole answer, where it is to be kept: of a unary call with its prefix.
    kept: Option<Vec<u8>>,
    /// HTTP's status, once there is one.
    http: Option<u16>,
    /// gRPC's status, once there is one.
    status: Option<Result<(), Failure>>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Waiting,
    Sent(Route),
}

/// Where a call is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The connection.
    pub link: u32,
    /// The stream of the connection, which others may share where it is a Pipeline's.
    pub stream: u32,
}

impl Call {
    /// An idle place, of that number.
    pub fn new(place: u32) -> Self {
        assert!(place < 1 << PLACE_BITS, "place {place} has no tag");
        Self {
            phase: Phase::Idle,
            op: Op::of(Method::Check, 0, 0),
            shard: 0,
            start_ns: 0,
            had_no_place: false,
            first_sent_ns: None,
            deadline_ns: 0,
            tag: u64::from(place),
            answer: Answer::default(),
            kept: None,
            http: None,
            status: None,
        }
    }

    /// The place that a tag names.
    pub fn place_of(tag: u64) -> u32 {
        (tag & ((1 << PLACE_BITS) - 1)) as u32
    }

    /// The tag of the call that is here.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Begins a call that is not sent yet.
    pub fn begin(&mut self, op: Op, shard: usize, start_ns: u64, deadline_ns: u64) {
        assert!(self.is_idle(), "a place takes one call at a time");
        (self.op, self.shard, self.start_ns, self.deadline_ns) = (op, shard, start_ns, deadline_ns);
        self.first_sent_ns = None;
        self.wait();
    }

    /// Begins a call that belongs to the one before it here: together they are one operation, with one
    /// beginning.
    pub fn follow(&mut self, op: Op, deadline_ns: u64) {
        assert!(self.is_idle(), "a place takes one call at a time");
        (self.op, self.deadline_ns) = (op, deadline_ns);
        self.wait();
    }

    fn wait(&mut self) {
        self.tag = self.tag.wrapping_add(1 << PLACE_BITS);
        self.phase = Phase::Waiting;
    }

    /// When the operation was first handed to a connection; while it waits for one, when it began.
    pub fn sent_ns(&self) -> u64 {
        self.first_sent_ns.unwrap_or(self.start_ns)
    }

    /// Whether a call of the operation was handed to a connection.
    pub fn was_sent(&self) -> bool {
        self.first_sent_ns.is_some()
    }

    /// The call was sent at `now_ns`; its answer will come from there.
    pub fn sent(&mut self, route: Route, now_ns: u64) {
        assert!(self.is_waiting(), "a call is sent once");
        self.first_sent_ns.get_or_insert(now_ns);
        self.answer.clear(self.op.method);
        (self.http, self.status) = (None, None);
        self.phase = Phase::Sent(route);
    }

    /// Has the whole answer of the call kept.
    pub fn keep(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// Whether the whole answer is kept.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The whole answer, where it was to be kept: a message, with its prefix where the call was unary.
    pub fn take_kept(&mut self) -> Option<Vec<u8>> {
        self.kept.take()
    }

    /// Ends whatever goes on here.
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

    /// Where the call is under way.
    pub fn route(&self) -> Option<Route> {
        match self.phase {
            Phase::Sent(route) => Some(route),
            Phase::Idle | Phase::Waiting => None,
        }
    }

    /// Takes news of the call's own stream. Gives what came of the call, once that is known.
    pub fn take(&mut self, news: News<'_>) -> Option<Result<Said, Failure>> {
        assert!(self.route().is_some(), "news of a call that is not under way");
        match news {
            News::Fields(fields) => {
                self.http = fields.http_status.or(self.http);
                self.status = status::of_fields(fields).or(self.status);
                None
            }
            News::Data(data) => {
                self.answer.push(self.op.method, data);
                if let Some(kept) = &mut self.kept {
                    kept.extend_from_slice(data);
                }
                None
            }
            News::End => Some(self.outcome()),
            News::Reset(code) => Some(Err(Failure::of(ErrorKind::Reset(code)))),
            News::Lost => Some(Err(Failure::of(ErrorKind::ConnectionLost))),
        }
    }

    /// What a whole answer comes to.
    fn outcome(&self) -> Result<Said, Failure> {
        match self.http {
            Some(HTTP_OK) => {}
            Some(http) => return Err(Failure::of(ErrorKind::Http(http))),
            None => return Err(Failure::of(ErrorKind::Malformed)),
        }
        self.status.unwrap_or(Err(Failure::of(ErrorKind::Malformed)))?;
        self.judge(self.answer.read(self.op.method))
    }

    /// What the result of an operation of a Pipeline comes to.
    pub fn outcome_of_result(&mut self, result: &[u8]) -> Result<Said, Failure> {
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(result);
        }
        self.judge(answer::of_result(self.op.method, result))
    }

    fn judge(&self, said: Said) -> Result<Said, Failure> {
        match (said, self.op.method) {
            (Said::Malformed, _) => Err(Failure::of(ErrorKind::Malformed)),
            (Said::No, Method::Check) => Err(Failure::of(ErrorKind::NotServing)),
            (Said::Yes | Said::No | Said::Rows(_) | Said::Swapped(_) | Said::Conflict(_), _) => Ok(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::Fields;

    fn outcome(news: Vec<News<'_>>) -> Result<Said, Failure> {
        let mut call = Call::new(3);
        call.begin(Op::of(Method::Put, 0, 0), 0, 0, 0);
        call.sent(Route { link: 0, stream: 1 }, 0);
        let outcome = news.into_iter().filter_map(|news| call.take(news)).next();
        outcome.expect("the news end the call")
    }

    fn fields(http_status: Option<u16>, grpc_status: Option<u16>) -> Fields {
        Fields { http_status, grpc_status, detail: None }
    }

    #[test]
    fn the_service_time_of_two_calls_begins_with_the_first() {
        let (mut call, read) = (Call::new(3), Op::of(Method::Get, 0, 0));
        call.begin(read, 0, 5, 100);
        assert_eq!(call.sent_ns(), 5);
        call.sent(Route { link: 0, stream: 1 }, 7);
        call.end();
        call.follow(Op { method: Method::Put, ..read }, 200);
        call.sent(Route { link: 0, stream: 3 }, 50);
        assert_eq!((call.start_ns, call.sent_ns(), call.deadline_ns), (5, 7, 200));
        call.end();
        call.begin(read, 0, 60, 300);
        assert_eq!(call.sent_ns(), 60);
    }

    #[test]
    fn what_an_answer_comes_to() {
        let (head, good, bad) = (fields(Some(200), None), fields(None, Some(0)), fields(None, Some(14)));
        let (whole, refused) = (fields(Some(200), Some(14)), fields(Some(503), None));
        let message = || News::Data(b"\0\0\0\0\0");
        assert_eq!(
            outcome(vec![News::Fields(&head), message(), News::Fields(&good), News::End]),
            Ok(Said::Yes)
        );
        let failure = |news| outcome(news).expect_err("a failure").kind;
        let status = ErrorKind::Status { code: 14, reason: 0 };
        assert_eq!(failure(vec![News::Fields(&head), News::Fields(&bad), News::End]), status);
        assert_eq!(failure(vec![News::Fields(&whole), News::End]), status);
        assert_eq!(failure(vec![News::Fields(&refused), News::End]), ErrorKind::Http(503));
        for news in [
            vec![News::Fields(&head), message(), News::End],
            vec![News::Fields(&head), News::Fields(&good), News::End],
            vec![message(), News::Fields(&good), News::End],
        ] {
            assert_eq!(failure(news), ErrorKind::Malformed);
        }
        assert_eq!(failure(vec![News::Fields(&head), News::Reset(2)]), ErrorKind::Reset(2));
        assert_eq!(failure(vec![News::Lost]), ErrorKind::ConnectionLost);
    }

    #[test]
    fn every_call_has_a_tag() {
        let mut call = Call::new(3);
        let mut tags = vec![call.tag()];
        for _ in 0..3 {
            call.begin(Op::of(Method::Put, 0, 0), 0, 0, 0);
            assert!(!tags.contains(&call.tag()));
            assert_eq!(Call::place_of(call.tag()), 3);
            tags.push(call.tag());
            call.end();
        }
    }
}
