//! Jobs run for real: every test makes namespaces, processes and mounts.
//!
//! Needs user namespaces and an accessible `/dev/fuse`; works as root and as anybody else.

#![expect(
    clippy::disallowed_methods,
    reason = "tests make their own small worlds"
)]

#[path = "sandbox/clients.rs"]
mod clients;
#[path = "sandbox/harness.rs"]
mod harness;
#[path = "sandbox/isolation.rs"]
mod isolation;
#[path = "sandbox/mounts.rs"]
mod mounts;
#[path = "sandbox/namespaces.rs"]
mod namespaces;
#[path = "sandbox/outcomes.rs"]
mod outcomes;
#[path = "sandbox/squash.rs"]
mod squash;
#[path = "sandbox/views.rs"]
mod views;
