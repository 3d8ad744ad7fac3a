//! A guest book: guests sign it, read it, and are counted.
//!
//! Owns nothing but the example of `docs/guide/first-plugin.md`: durable keys, a search over an index, a configuration and
//! routes. Bounded by: one document and one key a guest. On failure: the kind of the error becomes the HTTP status.

use mainstay_sdk::http::{Params, Reply, Request, Route, Router};
use mainstay_sdk::index::{self, Field, Order, Query};
use mainstay_sdk::{Api, Error, Key, Result, clock, config, keys, log, transact};
use serde::{Deserialize, Serialize};

/// The plugin.
pub struct GuestBook;

#[derive(Deserialize)]
struct Config {
    greeting: String,
}

#[derive(Serialize, Deserialize)]
struct Guest {
    name: String,
    message: String,
    visits: i64,
}

#[derive(Deserialize)]
struct Signature {
    message: String,
}

const ROUTES: Router = Router::new(&[
    Route::get("/hello/guests", newest),
    Route::get("/hello/guests/{name}", read),
    Route::put("/hello/guests/{name}", sign),
]);

fn message_key(name: &str) -> Key {
    Key::new().text("message").text(name)
}

fn visits_key(name: &str) -> Key {
    Key::new().text("visits").text(name)
}

fn read(_: &Request, params: &Params) -> Result<Reply> {
    let name = &params["name"];
    let message = keys::get_json(message_key(name))?
        .ok_or_else(|| Error::not_found(format!("`{name}` has not signed; PUT the same path to sign")))?;
    Reply::json(&Guest { name: name.to_owned(), message, visits: keys::counter(visits_key(name))? })
}

fn sign(request: &Request, params: &Params) -> Result<Reply> {
    let name = &params["name"];
    let Signature { message } = request.json()?;
    let (_, receipt) = transact(|tx, _| {
        tx.put_json(message_key(name), &message)?;
        tx.add(visits_key(name), 1)?;
        tx.index("guests").set(name, [Field::new("signed_ms", clock::now_ms())])
    })?;
    let config: Config = config::get()?;
    log::info!("{name} signed"; visits = receipt.counters[0]);
    Reply::json(&format!("{}, {name}", config.greeting))
}

fn newest(_: &Request, _: &Params) -> Result<Reply> {
    let query = Query::new().order_by("signed_ms", Order::Descending).limit(10);
    let newest = index::select("guests", &query)?;
    Reply::json(&newest.iter().map(|guest| guest.id()).collect::<Vec<_>>())
}

impl Api for GuestBook {
    fn handle(request: &Request) -> Result<Reply> {
        ROUTES.handle(request)
    }
}

mainstay_sdk::export_api!(GuestBook);

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_sdk::testing::Host;
    use serde_json::json;

    #[test]
    fn guests_sign_and_are_found() {
        let host = Host::new().config(json!({"greeting": "Welcome"}));
        let sign = |name: &str, message: &str| {
            let path = format!("/hello/guests/{name}");
            host.call::<GuestBook>(Request::put(path).json(&json!({ "message": message })))
        };
        let read = |path: &str| host.call::<GuestBook>(Request::get(path));

        assert_eq!(sign("ada", "Hi").json::<String>(), "Welcome, ada");
        host.advance_ms(1);
        sign("grace", "Hello");
        host.advance_ms(1);
        sign("ada", "Hi again");

        assert_eq!(read("/hello/guests").json::<Vec<String>>(), ["ada", "grace"]);
        let ada: Guest = read("/hello/guests/ada").json();
        assert_eq!((ada.message.as_str(), ada.visits), ("Hi again", 2));
        assert_eq!(read("/hello/guests/nobody").status, 404);
        assert_eq!(sign("ada", "").status, 200);
    }

    #[test]
    fn a_body_that_is_not_json_is_refused() {
        let host = Host::new().config(json!({"greeting": "Welcome"}));
        let answer = host.call::<GuestBook>(Request::put("/hello/guests/ada").body("{"));
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("JSON"), "{}", answer.text());
    }
}
