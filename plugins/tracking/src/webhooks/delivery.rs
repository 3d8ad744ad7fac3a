//! Sending: what was published becomes calls of the host, and a test is sent at once.
//!
//! Owns the shape of a call: body, headers and signature are the reference server's, so that its receivers check them as they
//! always did. An event and the calls that it causes are handed over in one transaction: each webhook gets each event once, in
//! the host's durable deliveries, which try again for about a day and send the same id every time. The body is made from the
//! event alone, so that it tells what happened and not what has become of it. Bounded by [`super::WEBHOOKS_MAX`] calls an
//! event. On failure: a webhook that the host refuses (its grant was taken back) is left out, with a line in the log; anything
//! else is an error, and the event comes again.

use super::words::{self, EventName};
use super::{Webhook, all, find};
use crate::errors::Outcome;
use crate::events::REGISTRY;
use crate::json;
use crate::wire::{Args, Kind, optional};
use mainstay_sdk::outbound::{Answer, Call, Encoding, Signature};
use mainstay_sdk::worker::Event;
use mainstay_sdk::{ErrorKind, Transaction, clock, log};
use serde_json::{Value, json};

/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "X-MLflow-Signature";
/// The header with the time of the attempt.
pub const TIMESTAMP_HEADER: &str = "X-MLflow-Timestamp";
/// The header with the delivery's id.
pub const DELIVERY_ID_HEADER: &str = "X-MLflow-Delivery-Id";
/// What is signed.
const SIGNED_CONTENT: &str = "{id}.{timestamp}.{body}";
/// The version of the signature, which stands before it.
const SIGNATURE_PREFIX: &str = "v1,";
/// The longest time of one attempt.
const TIMEOUT_MS: u32 = 30_000;
const DAY_MS: i64 = 86_400_000;

/// Something was published: tell the webhooks that wait for it.
pub fn on_event(event: &Event) -> mainstay_sdk::Result<()> {
    if event.topic().rsplit('/').next() != Some(REGISTRY) {
        return Ok(());
    }
    let told: Value = event.payload()?;
    let Some((name, data)) = words::of(&event.kind(), &told) else { return Ok(()) };
    let mut waiting = all()?;
    waiting.retain(|webhook| webhook.is_active && webhook.events.contains(&name));
    if waiting.is_empty() {
        return Ok(());
    }
    let body = body(&name, event.published_ms(), data);
    let tx = Transaction::begin()?;
    for webhook in &waiting {
        hand_over(&tx, webhook, call(webhook, &body)?)?;
    }
    event.settle(&tx)?;
    tx.commit().map(drop)
}

fn hand_over(tx: &Transaction, webhook: &Webhook, call: Call) -> mainstay_sdk::Result<()> {
    match tx.deliver(&call) {
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid) => {
            let (name, url) = (&webhook.name, &webhook.url);
            log::error!("webhook {name} to {url} was not told: {}", error.message(); webhook = webhook.id);
            Ok(())
        }
        outcome => outcome.map(drop),
    }
}

fn body(event: &EventName, time_ms: i64, data: Value) -> Value {
    json!({"entity": event.entity, "action": event.action, "timestamp": iso(time_ms), "data": data})
}

/// A time as Python writes it in UTC. By hand, because this one line of a crate for times would be a seventh of the component.
fn iso(time_ms: i64) -> String {
    let (days, ms) = (time_ms.div_euclid(DAY_MS), time_ms.rem_euclid(DAY_MS));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}000+00:00", ms % 1_000)
}

/// The day that lies so many days behind 1970-01-01. Years begin in March here, so that a leap day is a year's last, and the
/// months before it have 153 days in five.
fn date(days: i64) -> (i64, i64, i64) {
    let since_march_0 = days + 719_468;
    let (era, day) = (since_march_0.div_euclid(146_097), since_march_0.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

fn call(webhook: &Webhook, body: &Value) -> mainstay_sdk::Result<Call> {
    let call = Call::new("POST", &webhook.url)
        .json(body)?
        .timeout_ms(TIMEOUT_MS)
        .id_header(DELIVERY_ID_HEADER)
        .timestamp_header(TIMESTAMP_HEADER);
    if !webhook.is_signed {
        return Ok(call);
    }
    Ok(call.sign(Signature {
        secret: webhook.secret(),
        template: SIGNED_CONTENT.into(),
        header: SIGNATURE_HEADER.into(),
        prefix: SIGNATURE_PREFIX.into(),
        encoding: Encoding::Base64,
    }))
}

/// `POST webhooks/{id}/test`: send an example of an event, of the webhook's first one unless one is named. Whatever comes of
/// it is an answer.
pub fn test(id: &str, args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[optional("event", Kind::Object)])?;
    let webhook = find(id)?;
    let event = match (args.object("event"), webhook.events.first()) {
        (Some(event), _) => words::read(event, "event")?,
        (None, Some(first)) => first.clone(),
        (None, None) => return Err(crate::validate::missing_value("event")),
    };
    let body = body(&event, clock::now_ms(), event.example());
    let outcome = call(&webhook, &body)?.send();
    Ok(json::object(|o| {
        o.object("result", |result| match &outcome {
            Ok(Answer { status, body, .. }) => {
                result
                    .boolean("success", *status < 400)
                    .integer("response_status", i64::from(*status))
                    .text("response_body", &String::from_utf8_lossy(body));
            }
            Err(error) => {
                result
                    .boolean("success", false)
                    .text("error_message", &format!("Failed to test webhook: {}", error.message()));
            }
        });
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        // From datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ms), isoformat(timespec="microseconds").
        for (time_ms, expect) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (-1, "1969-12-31T23:59:59.999000+00:00"),
            (951_782_399_999, "2000-02-28T23:59:59.999000+00:00"),
            (951_782_400_000, "2000-02-29T00:00:00.000000+00:00"),
            (951_868_800_000, "2000-03-01T00:00:00.000000+00:00"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789000+00:00"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999000+00:00"),
            (1_767_225_600_123, "2026-01-01T00:00:00.123000+00:00"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000000+00:00"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999000+00:00"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999000+00:00"),
            (-62_135_596_800_000, "0001-01-01T00:00:00.000000+00:00"),
        ] {
            assert_eq!(iso(time_ms), expect);
        }
    }
}
