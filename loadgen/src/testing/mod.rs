//! What only tests need: a server that the load generator is pointed at, and whole runs against it.

mod etcd;
pub mod server;

mod compare_tests;
mod knee_tests;
mod engine_tests;
