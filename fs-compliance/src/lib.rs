//! What the conformance runner is made of, for its own tests.

pub mod probes;
