//! What the scheduler promises, held from outside: cron around daylight saving against an independent library, the rules of
//! jobs and runs, simulations over many seeds, drivers, and real processes.
//!
//! One binary, so that it links once. When it is started with the supervisor's command it is the supervisor, as the host's
//! own program is.

mod cron;
mod driver;
mod jobs;
mod process;
mod simulation;
mod support;
