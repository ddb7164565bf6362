//! daemon
#![allow(missing_docs)]
pub mod control;
pub mod daemon;
pub mod fuse;
pub mod job;
pub mod mounts;
pub mod registry;
pub mod view;
