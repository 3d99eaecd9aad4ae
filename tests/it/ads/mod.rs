//! Discovery over a real socket: a hand-written Envoy against [`wasmplane::xds::serve`].
//!
//! The rules of the protocol have their tests beside the session; these are about calls, statuses and slow readers.

mod delta;
mod envoy;
mod limits;
mod plane;
mod services;
mod sotw;
mod trouble;
