//! The tables from outside: against a model, through crashes, kills, damage and full disks, by SQL and by aggregates. One
//! binary, because each more costs a link.

mod crashes;
mod damage;
mod dropping;
mod guarded;
mod kills;
mod marks;
mod model;
mod pressure;
mod sql;
mod support;
