//! Durable topics: events that commit with what causes them, and come to everyone who subscribed.
//!
//! Owns [`Events`] (topics and subscriptions, in the store), the steps of delivering, dead letters, retention, and the
//! [`Driver`] that ties clock, store and [`Subscriber`]s. Separate from the store because it has opinions about time, and from
//! the rooms above because it has none about what an event means.
//!
//! Publishing is part of the transaction that causes the event, so there is no second write that could be missing. Each
//! subscription has a place in each of its topics; events come in order and at least once, and a place moves only in a
//! transaction that holds the owner's fencing token. [`deliver`] says more.
//!
//! Bounded by [`limits`]. On failure: typed errors; what was not committed has not happened.
//!
//! ```
//! use std::sync::Arc;
//! use mainstay_base::{SeededRandom, VirtualClock};
//! use mainstay_events::{Due, Events, Publication, Subscription};
//! use mainstay_store::{Space, Store};
//!
//! # futures::executor::block_on(async {
//! let store = Store::in_memory();
//! let events = Events::new(store.clone(), Arc::new(VirtualClock::new(0)), Arc::new(SeededRandom::new(1)));
//! events.subscribe(Subscription::new("mailer", ["notes/added"])).await?;
//!
//! let mut tx = store.begin(&store.view());
//! tx.put(&Space::plugin("notes"), b"note/1", "buy milk")?;
//! events.add(&mut tx, Publication::json("notes/added", "notes", "added", &serde_json::json!({"note": 1})))?;
//! store.commit(tx).await?;
//!
//! // What a driver does: take the subscription, hand out what is due, say what came of it, keep how far that is.
//! let mut turn = events.claim("mailer", "this host", 30_000).await?.expect("nobody else has it");
//! let Due::Batch(mut batch) = events.due(&mut turn)? else { panic!("one event is due") };
//! let delivery = batch.hand_out().expect("it is there");
//! assert_eq!(delivery.event.payload, r#"{"note":1}"#);
//! events.settle(&mut batch, Ok(())).await?;
//! events.keep(batch).await?;
//! assert_eq!(events.lag("mailer")?[0].waiting, 0);
//! # mainstay_base::Result::<()>::Ok(())
//! # }).unwrap();
//! ```
#![forbid(unsafe_code)]

mod dead;
pub mod deliver;
mod driver;
mod event;
mod events;
mod keys;
pub mod limits;
mod read;
mod retention;
mod subscription;

pub use dead::{DeadLetter, DeadLetterPage};
pub use deliver::{Batch, Delivery, Due, Settled, Turn};
pub use driver::{Driver, DriverOptions, Subscriber};
pub use event::{Event, JSON, Offset, Publication, TraceContext};
pub use events::Events;
pub use read::{EventPage, Lag};
pub use retention::{Maintained, Retention, TopicRecord};
pub use subscription::{Position, RetryPolicy, Start, Subscription, SubscriptionRecord};
