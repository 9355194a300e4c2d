//! Fixtures for tests: the real binaries on this machine, a client that shares no code with the proxy, load that
//! counts, backends that record. Everything listens on loopback and ends with the test.

pub mod backend;
pub mod certificates;
pub mod client;
pub mod demo;
pub mod load;
pub mod pilot;
pub mod process;
pub mod proxy;
