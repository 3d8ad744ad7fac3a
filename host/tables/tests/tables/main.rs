//! The tables from outside: against a model, through crashes, damage and full disks, by SQL. One binary, because each more
//! costs a link.

mod crashes;
mod damage;
mod marks;
mod model;
mod pressure;
mod sql;
mod support;
