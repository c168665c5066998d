//! What only tests need: a server that the load generator is pointed at, and whole runs against it.

pub mod server;

mod engine_tests;
