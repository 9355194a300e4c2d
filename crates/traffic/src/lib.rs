//! Every decision about a request without I/O, clock or global: match, split, pick, retry, time out, fault.
//!
//! Random numbers and times are arguments, so the same inputs always give the same decision and everything here
//! can run under simulation. The rules are Envoy's; each file names its source.

pub mod balance;
pub mod compare;
pub mod cookie;
pub mod explain;
pub mod fault;
pub mod filter;
pub mod filter_chain;
pub mod grpc;
pub mod hash;
pub mod header_edit;
pub mod health;
pub mod log_filter;
pub mod outcome;
pub mod outlier;
pub mod peer_names;
pub mod predicate;
pub mod redirect;
pub mod response_flag;
pub mod retry;
pub mod rewrite;
pub mod router;
pub mod split;
pub mod substitute;
pub mod timeout;
pub mod trace;
