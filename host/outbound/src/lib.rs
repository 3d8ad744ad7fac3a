//! Calls out of the house.
//!
//! Owns [`Outbound`] (calls to granted hosts), [`Secrets`] (write-only values that the host adds or signs with), and durable
//! deliveries on top of the scheduler ([`Outbound::add_delivery`], [`Deliverer`]). Separate from everything that wants
//! something sent, because what leaves the house, and what it may reach inside, is decided in one place.
//!
//! Denied is what no grant names; what leads to a private address, also by a redirect or by a name server that changes its
//! mind, is refused by the address itself. The network is behind a trait ([`Network`]), so all of that is tested without one.
//!
//! Bounded by [`limits`]. On failure: typed errors that name the host or address and never contain a secret, a path or a body.
#![forbid(unsafe_code)]

mod address;
mod deliver;
mod grant;
pub mod limits;
mod network;
mod outbound;
mod request;
mod secrets;
mod sign;

pub use address::{Reach, reach};
pub use deliver::{
    DELIVERY_JOB, DELIVERY_KIND, DELIVERY_POOL, Deliverer, Delivery, Queued, caller_of, delivery_job, install,
};
pub use grant::{Grants, HostGrant};
pub use network::{Connection, Internet, Network, Target};
pub use outbound::Outbound;
pub use request::{Answer, Request, SecretHeader};
pub use secrets::{SecretKey, Secrets};
pub use sign::{Encoding, SecretForm, Signing};
