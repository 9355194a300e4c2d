//! The serving end.

mod names;
mod session;
mod subscription;
mod transport;
mod wire;

pub use session::{Mode, Request, Response, Session, TypeState, TypeStatus};
pub use transport::{Client, Control, Discovery, Feed};
