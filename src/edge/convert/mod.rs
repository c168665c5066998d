//! Messages of the contract to the store's types, and back.
//!
//! Both directions are plain functions without state: [`request`] checks what a client sent and says which
//! shard it concerns, [`answer`] says what came of it.

pub(super) mod answer;
pub(super) mod request;
