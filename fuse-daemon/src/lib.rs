//! daemon
#![allow(missing_docs)]
pub mod view;
