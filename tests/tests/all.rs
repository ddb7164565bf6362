//! One binary for all tests of the whole; each file is a room of it.

mod architecture;
mod smoke;
