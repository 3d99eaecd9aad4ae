//! Discovery over a real socket: a hand-written Envoy against [`wasmplane::xds::serve`].
//!
//! The rules of the protocol have their tests beside the session; these say that a client on a socket meets the same. S1
//! to S35 and D1 to D36 are the assertions about the state of the world and about delta that the project holds itself to.
//! A test claims those that it checks in its doc comment (`S7, D13: …`), and `coverage` fails on one that no test claims and
//! that is not in this table:
//!
//! | not offered | why |
//! |---|---|
//! | S32 | No resource has a TTL: what a control plane that is gone has said must go on, and a heartbeat would end that. |
//! | D23 | No glob subscriptions: Envoy sends none, and what a proxy gets is decided by its templates and plugins. |
//! | D24 | No aliases and no `xdstp` names: each resource has the one name by which Envoy asks for it. |
//!
//! D6, D8, D10 and D28 hold for every type but ECDS, of which no name is ever removed: Envoy would answer 500.

mod answers;
mod certificates;
mod changes;
mod coverage;
mod crowds;
mod envoy;
pub mod fake;
mod introductions;
mod limits;
mod plane;
mod reconnects;
mod services;
mod sizes;
mod subscriptions;
mod trouble;
