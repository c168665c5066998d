//! The messages of the client contract, generated from `proto/` when the crate is built.
//!
//! Used by the edge, the client and the load generator alone: everything below speaks in types of its own, so
//! that the contract can grow without touching the state machine or the log. `bytes` fields are
//! [`bytes::Bytes`], so that a value is not copied between the socket and the command that carries it.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

/// Package `distribkv.v1`: the contract.
pub mod v1 {
    tonic::include_proto!("distribkv.v1");
}

/// Package `grpc.health.v1`: the standard health protocol.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Package `grpc.reflection.v1`: server reflection.
pub mod reflection {
    tonic::include_proto!("grpc.reflection.v1");
}

/// Package `grpc.reflection.v1alpha`: what stock tools of some years ago still ask for.
pub mod reflection_alpha {
    tonic::include_proto!("grpc.reflection.v1alpha");
}

/// Every file of `proto/` with its imports, as a serialized `FileDescriptorSet`: what reflection answers
/// from.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
