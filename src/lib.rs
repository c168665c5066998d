//! distribKV: a strongly consistent, replicated key-value store for Linux. This page is its architecture.
//!
//! Every CPU core of a node runs its own event loop, owns its own Raft groups and its own log on disk, and
//! talks to the world over gRPC. Nothing is shared between cores but messages.
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | node | one server process, with an id and an address |
//! | core | one CPU core of a node: one glommio executor |
//! | shard | one Raft group: a part of the 16384 key slots, and its replicas |
//! | lane | one log on disk and the shards whose entries are in it |
//! | segment | one file of a lane's log |
//! | batch | what one durable write carries: records of any number of the lane's shards |
//! | table | an immutable, sorted, checksummed file that holds the state of one shard at one index |
//! | revision | a shard's counter of changes |
//! | session | what makes a client's retries exactly-once |
//! | edge | the gRPC server side of a core |
//! | mesh, link | messages between the cores of one node, and between nodes |
//! | parcel | what travels by mesh and link: raft's messages, calls, replies |
//! | turn | one round of a core's runner: everything that has arrived, then every replica that changed |
//! | T | the election timeout |
//!
//! # One Put, end to end
//!
//! ```text
//! client ─ h2 ─► edge (the core that accepted the connection)
//!                  │ decode · check limits · slot → shard → node, core
//!                  ├─ shard led here, on this core ─────► runner
//!                  ├─ led here, on another core ── mesh ► runner
//!                  └─ led by another node ──────── link ► …  (and the answer back the same way)
//! runner: propose ─► raft ─► Ready { persist, send, committed }
//!         persist ─► lane log: joins the batch now forming ─► one O_DSYNC write ─► durable ─► raft.persisted
//!         send    ─► link: appends leave at the same time as the leader's own write, not after it
//!         quorum durable ─► committed ─► kv.apply ─► reply ─► edge ─► client
//! ```
//!
//! Two rules hold it up: **an answer follows a quorum of durable writes, never precedes one**, and **a leader
//! counts its own copy only when its own disk has said so**.
//!
//! # Layers
//!
//! Imports point down; `tests/tidy.rs` holds the matrix.
//!
//! ```text
//! bin ─► edge, host ─► shard ─► route ─► raft, kv        client and loadgen: beside, over the wire
//!        host, shard ─► log ─► env                       raft, kv, route and codecs: pure
//! ```
//!
//! - [`raft`] is one replica's consensus, [`kv`] the state machine with its sessions: pure, time and chance
//!   come in.
//! - [`log`] is a lane's log: group commit, recovery, the manifest that names segments and tables, and the
//!   identity of a data directory.
//! - [`route`] says where a request goes and what carries it.
//! - [`shard`] drives replicas: raft's decisions into log, state machine and outbox; it makes the tables that
//!   stand for the log, and fetches those of others.
//! - [`inspect`] looks into the data directory of a node that does not run, and changes nothing.
//! - [`host`] is a node in production: cores, mesh, links; [`edge`] speaks gRPC.
//! - [`env`](mod@env) is the one seam: clock, chance, tasks and files. The simulator (`tests/sim`) implements
//!   it too, and runs everything above it unchanged, whole clusters at a time.
//! - [`client`] is the Clerk; its decisions are pure and run in the simulator as well.
//!
//! # How it is known to work
//!
//! Golden scripts tell raft's, the log's and the state machine's stories; the very raft core is searched
//! exhaustively within small bounds; the log is crashed at every await point; whole clusters run in the
//! simulator under faults, and their clients' histories are checked for linearizability; classic mistakes are
//! planted and must be found; real processes are killed under load.

pub mod ids;
pub mod env;
pub mod raft;
pub mod kv;
pub mod log;
pub mod route;
pub mod shard;
pub mod inspect;
pub mod host;
pub mod http2;
pub mod edge;
pub mod wire;
pub mod client;
pub mod config;
pub mod flags;
pub mod tune;
