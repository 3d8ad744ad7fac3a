//! The gateway through real sockets, with a fake plugin behind it. One binary, because linking is most of its time; a file
//! per subject.

mod access;
mod admin;
mod bodies;
mod failures;
mod hostile;
mod lifecycle;
mod support;
mod telemetry;
