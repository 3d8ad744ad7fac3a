//! Words and effects that every room shares.
//!
//! Owns the error type of the host's inner boundaries ([`Error`]), and the traits behind which the world's effects stand:
//! time ([`Clock`]), randomness ([`Random`]) and files ([`Disk`]). Separate, and on the lowest floor, because a room that
//! took its effects from anywhere else could not be tested with a virtual clock or on a disk that tears.
//!
//! Bounded by: nothing here allocates more than its caller asked for. On failure: every function returns a [`Result`]; there
//! is no global state.
#![forbid(unsafe_code)]

mod backoff;
mod clock;
mod disk;
mod error;
mod random;
mod shadow_disk;
mod sim_disk;

pub use backoff::Backoff;
pub use clock::{Clock, SystemClock, VirtualClock};
pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use error::{Error, ErrorKind, Result};
pub use random::{OsRandom, Random, SeededRandom};
pub use shadow_disk::ShadowDisk;
pub use sim_disk::{Faults, SimDisk};
