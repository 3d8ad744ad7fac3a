//! The tables from outside: against a model, through crashes, kills, damage and full disks, and by SQL. One
//! binary, because each more costs a link.

mod crashes;
mod damage;
mod dropping;
mod kills;
mod marks;
mod model;
mod pressure;
mod support;
