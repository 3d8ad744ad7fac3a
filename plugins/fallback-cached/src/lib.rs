//! The last good answer to the same question, while a model cannot answer.
//!
//! Owns two kinds of keys, for each endpoint and tenant: places of answers, found by the digest of what makes a question
//! ([`question`]), and one list of popular answers ([`popular`]). Questions are kept row by row where rows can be told apart, so
//! that a batch is answered from rows that came in other batches. An answer never leaves its tenant. Bounded by: the setting
//! `entries` places, [`popular::ANSWERS_MAX`] popular answers, [`ROWS_MAX`] rows of a lesson. On failure: no answer is `not-found`, and
//! the next tier is asked.

mod kept;
mod popular;
mod question;

use kept::Kept;
use mainstay_sdk::fallback::{Ask, Learner, Lesson, Reply};
use mainstay_sdk::tensors::{Parameter, Tensor};
use mainstay_sdk::{Error, Fallback, Key, Result, clock, config, keys, metric, transact};
use question::{Digest, Part};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Rows of a lesson that are kept; the rest of a large batch is left out.
pub const ROWS_MAX: usize = 64;

/// The plugin.
pub struct Cached;

mainstay_sdk::export_fallback!(Cached, learns);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    key: Vec<Part>,
    #[serde(default = "day")]
    max_age_s: i64,
    #[serde(default = "hundred_thousand")]
    entries: u64,
    #[serde(default)]
    popular: bool,
}

fn day() -> i64 {
    86_400
}

fn hundred_thousand() -> u64 {
    100_000
}

/// Where answers of one endpoint and tenant lie.
struct Shelf<'a> {
    endpoint: &'a str,
    tenant: &'a str,
    config: &'a Config,
}

impl Shelf<'_> {
    /// Two questions may share a place; what lies there says whose answer it is.
    fn place(&self, digest: &Digest) -> Key {
        let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Key::new().text("answer").text(self.endpoint).text(self.tenant).u64(number % self.config.entries.max(1))
    }

    fn popular(&self) -> Key {
        Key::new().text("popular").text(self.endpoint).text(self.tenant)
    }

    fn oldest_ms(&self, now_ms: i64) -> i64 {
        now_ms - self.config.max_age_s * 1000
    }
}

impl Learner for Cached {
    fn learn(lessons: &[Lesson]) -> Result<()> {
        let config: Config = config::get()?;
        let mut places: BTreeMap<Vec<u8>, Kept> = BTreeMap::new();
        let mut given: BTreeMap<Vec<u8>, Vec<Kept>> = BTreeMap::new();
        for lesson in lessons {
            let shelf = Shelf { endpoint: &lesson.endpoint, tenant: &lesson.tenant, config: &config };
            for (digest, kept) in answers(lesson, &config)? {
                if config.popular {
                    given.entry(shelf.popular().as_bytes().to_vec()).or_default().push(kept.clone());
                }
                places.insert(shelf.place(&digest).as_bytes().to_vec(), kept);
            }
        }
        let now_ms = clock::now_ms();
        transact(|tx, _| {
            for (place, kept) in &places {
                tx.put_json(place, kept)?;
            }
            for (place, answers) in &given {
                let mut list: popular::List = keys::get_json(place)?.unwrap_or_default();
                tx.expect_unchanged(place)?;
                list.count(answers, now_ms - config.max_age_s * 1000);
                tx.put_json(place, &list)?;
            }
            Ok(())
        })?;
        metric::add("kept_answers", places.len() as f64, &[]);
        Ok(())
    }
}

/// Each answer of a lesson with the digest of its question: row by row, or as a whole.
fn answers(lesson: &Lesson, config: &Config) -> Result<Vec<(Digest, Kept)>> {
    let kept = |digest: Digest, outputs: &[Tensor]| (digest, Kept::of(digest, lesson, outputs));
    let Some(questions) = question::rows(&config.key, &lesson.inputs, &lesson.parameters)? else {
        let whole = question::whole(&config.key, &lesson.inputs, &lesson.parameters);
        return Ok(whole.into_iter().map(|digest| kept(digest, &lesson.outputs)).collect());
    };
    let rows = questions.len();
    if rows > 1 && lesson.outputs.iter().all(|output| output.rows() == rows as u64 && !output.shape.is_empty()) {
        let columns = lesson.outputs.iter().map(Tensor::split).collect::<Result<Vec<_>>>()?;
        if columns.iter().all(|column| column.len() == rows) {
            let row = |at: usize| columns.iter().map(|column| column[at].clone()).collect::<Vec<Tensor>>();
            let numbered = questions.into_iter().take(ROWS_MAX).enumerate();
            return Ok(numbered.map(|(at, digest)| kept(digest, &row(at))).collect());
        }
    }
    let whole = match rows {
        1 => questions.first().copied(),
        _ => question::whole(&config.key, &lesson.inputs, &lesson.parameters),
    };
    Ok(whole.into_iter().map(|digest| kept(digest, &lesson.outputs)).collect())
}

impl Fallback for Cached {
    fn answer(ask: &Ask) -> Result<Reply> {
        let config: Config = config::get()?;
        let (endpoint, tenant) = (ask.endpoint(), ask.tenant());
        let shelf = Shelf { endpoint: &endpoint, tenant: &tenant, config: &config };
        let inputs = question::inputs(&config.key, ask)?;
        let parameters = ask.parameters();
        let rows = question::rows(&config.key, &inputs, &parameters)?;
        let now_ms = clock::now_ms();
        // Without rows in common, the question is one.
        let found = rows.map_or_else(|| Ok(vec![None]), |rows| find(&shelf, &rows, now_ms))?;
        if !found.is_empty() && found.iter().all(Option::is_some) {
            return reply("last-good", found.into_iter().flatten().collect(), ask, now_ms);
        }
        if let Some(kept) = whole(&shelf, &inputs, &parameters, now_ms)? {
            return reply("last-good", vec![kept], ask, now_ms);
        }
        if let Some(popular) = popular_answer(&shelf, now_ms)? {
            let rows = found.into_iter().map(|row| row.unwrap_or_else(|| popular.clone())).collect();
            return reply("popular", rows, ask, now_ms);
        }
        let most = config.max_age_s;
        Err(Error::not_found(format!(
            "no answer to this question was learned in the last {most} s; the next tier may have one"
        )))
    }
}

/// The kept answer of each question, where there is one that is young enough.
fn find(shelf: &Shelf<'_>, questions: &[Digest], now_ms: i64) -> Result<Vec<Option<Kept>>> {
    let places: Vec<Key> = questions.iter().map(|digest| shelf.place(digest)).collect();
    let values = keys::get_many(&places)?;
    let oldest_ms = shelf.oldest_ms(now_ms);
    let found = questions.iter().zip(values).map(|(digest, value)| {
        let Some(value) = value else { return Ok(None) };
        let kept: Kept = kept::read(&value)?;
        Ok((kept.is_of(digest) && kept.at_ms >= oldest_ms).then_some(kept))
    });
    found.collect()
}

fn whole(
    shelf: &Shelf<'_>,
    inputs: &[Tensor],
    parameters: &[(String, Parameter)],
    now_ms: i64,
) -> Result<Option<Kept>> {
    let Some(digest) = question::whole(&shelf.config.key, inputs, parameters) else { return Ok(None) };
    Ok(find(shelf, &[digest], now_ms)?.pop().flatten())
}

fn popular_answer(shelf: &Shelf<'_>, now_ms: i64) -> Result<Option<Kept>> {
    if !shelf.config.popular {
        return Ok(None);
    }
    let list: Option<popular::List> = keys::get_json(shelf.popular())?;
    Ok(list.and_then(|list| list.first(shelf.oldest_ms(now_ms))))
}

/// One answer of all rows. They name a model only where all came from the same version of it.
fn reply(label: &str, rows: Vec<Kept>, ask: &Ask, now_ms: i64) -> Result<Reply> {
    let misfit = || Error::not_found("the kept answers have outputs of other forms and cannot be joined");
    let first = rows.first().ok_or_else(misfit)?;
    let oldest_ms = rows.iter().map(|row| row.at_ms).min().unwrap_or(now_ms);
    let mut reply = Reply::new(label).parameter("age_ms", Parameter::Integer((now_ms - oldest_ms).max(0)));
    if rows.iter().all(|row| (&row.model, &row.version) == (&first.model, &first.version)) && !first.model.is_empty() {
        reply = reply.model(&first.model, &first.version);
    }
    let tensors = rows.iter().map(Kept::outputs).collect::<Result<Vec<_>>>()?;
    let wanted = ask.wanted();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let names: Vec<&str> =
        tensors[0].iter().map(|tensor| tensor.name.as_str()).filter(|name| is_wanted(name)).collect();
    if names.is_empty() || wanted.iter().any(|wanted| !names.contains(&wanted.as_str())) {
        return Err(Error::not_found("the kept answers lack an output that is wanted"));
    }
    for name in names {
        let parts = tensors.iter().map(|row| row.iter().find(|tensor| tensor.name == name).cloned());
        let parts: Option<Vec<Tensor>> = parts.collect();
        let parts = parts.ok_or_else(misfit)?;
        reply = reply.output(match parts.as_slice() {
            [only] => only.clone(),
            parts => Tensor::join(parts).map_err(|_| misfit())?,
        });
    }
    Ok(reply)
}
