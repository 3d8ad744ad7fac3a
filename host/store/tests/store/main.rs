//! The store from outside: against a model, through crashes, and in the races that its design is about. One binary,
//! because each more costs a link.

mod crashes;
mod damage;
mod model;
mod pressure;
mod property;
mod races;
mod support;
