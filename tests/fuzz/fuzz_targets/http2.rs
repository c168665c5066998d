//! What a client says on a connection. See `targets`.
#![no_main]

#[allow(dead_code, reason = "each target uses its own part of this")]
#[path = "../src/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::http2(data));
