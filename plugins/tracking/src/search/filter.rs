//! `clause (AND clause)*`: the filter's grammar, and what each entity allows in it.
//!
//! Pure. There is no OR and there are no parentheses but those of a list: that is the grammar its users know. Bounded by
//! `validate::FILTER_BYTES_MAX` and by the index's limit on nodes.

use super::token::{self, Kind, Token};
use super::{Entity, Family, Key, Shape};
use crate::errors::{Failure, Outcome};
use crate::validate::FILTER_BYTES_MAX;

/// Most clauses in a filter.
pub const CLAUSES_MAX: usize = 200;
/// Most values in a list.
pub const LIST_MAX: usize = 10_000;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `LIKE`
    Like,
    /// `ILIKE`
    ILike,
    /// `IN`
    In,
    /// `NOT IN`
    NotIn,
    /// `IS NULL`
    IsNull,
    /// `IS NOT NULL`
    IsNotNull,
}

impl Op {
    fn is_order(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }

    fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }

    fn is_list(self) -> bool {
        matches!(self, Self::In | Self::NotIn)
    }

    fn is_null(self) -> bool {
        matches!(self, Self::IsNull | Self::IsNotNull)
    }
}

/// What a key is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// Several texts.
    List(Vec<String>),
    /// Nothing: `IS NULL`.
    None,
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// What is compared.
    pub key: Key,
    /// How.
    pub op: Op,
    /// With what.
    pub value: Value,
}

/// Read a filter.
pub fn parse(entity: Entity, text: &str) -> Outcome<Vec<Clause>> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "The filter is {} bytes long, more than {FILTER_BYTES_MAX}. Ask for less at once.",
            text.len()
        )));
    }
    let tokens = token::tokens(text)?;
    let mut parser = Parser { entity, tokens: &tokens, at: 0 };
    let mut clauses = Vec::new();
    while parser.at < tokens.len() {
        if !clauses.is_empty() {
            parser.conjunction()?;
        }
        clauses.push(parser.clause()?);
        if clauses.len() > CLAUSES_MAX {
            return Err(Failure::invalid(format!("The filter has more than {CLAUSES_MAX} conditions.")));
        }
    }
    Ok(clauses)
}

struct Parser<'a> {
    entity: Entity,
    tokens: &'a [Token<'a>],
    at: usize,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a Token<'a>> {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token
    }

    fn peek_is(&self, ahead: usize, keyword: &str) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|t| t.is(keyword))
    }

    fn conjunction(&mut self) -> Outcome<()> {
        match self.next() {
            Some(token) if token.is("AND") && self.at < self.tokens.len() => Ok(()),
            Some(token) if token.kind == Kind::Mark(';') => {
                Err(Failure::invalid("Search filter contained multiple expression. Provide AND-ed expression list."))
            }
            token => Err(invalid_clause(token)),
        }
    }

    fn clause(&mut self) -> Outcome<Clause> {
        let Some(left) = self.next() else { return Err(invalid_clause(None)) };
        match left.kind {
            Kind::Name if !left.is("AND") && !left.is("OR") && !left.is("NOT") => {}
            Kind::Name | Kind::Mark(_) | Kind::Operator => return Err(invalid_clause(Some(left))),
            Kind::Text(_) | Kind::Integer(_) | Kind::Real(_) => {
                return Err(Failure::invalid(format!(
                    "Invalid comparison clause. Expected 'Identifier' found '{}'",
                    left.raw
                )));
            }
        }
        let (op, written) = self.operator(left)?;
        let key = super::key(self.entity, left.raw, false)?;
        let value = match op {
            Some(op) if op.is_null() => Value::None,
            _ => self.value(left, &key)?,
        };
        let op = allowed(self.entity, &key, op, &written, &value)?;
        Ok(Clause { key, op, value })
    }

    /// The operator, none if no entity knows it, and as it was written.
    fn operator(&mut self, left: &Token<'_>) -> Outcome<(Option<Op>, String)> {
        let Some(token) = self.next() else { return Err(invalid_clause(Some(left))) };
        if token.kind == Kind::Operator {
            let op = match token.raw {
                "=" => Some(Op::Equal),
                "!=" => Some(Op::NotEqual),
                "<" => Some(Op::Less),
                "<=" => Some(Op::LessOrEqual),
                ">" => Some(Op::Greater),
                ">=" => Some(Op::GreaterOrEqual),
                _ => None,
            };
            return Ok((op, token.raw.to_owned()));
        }
        let (op, extra) = match () {
            () if token.is("LIKE") => (Some(Op::Like), 0),
            () if token.is("ILIKE") => (Some(Op::ILike), 0),
            () if token.is("RLIKE") => (None, 0),
            () if token.is("IN") => (Some(Op::In), 0),
            () if token.is("NOT") && self.peek_is(0, "IN") => (Some(Op::NotIn), 1),
            () if token.is("NOT") && (self.peek_is(0, "LIKE") || self.peek_is(0, "ILIKE")) => (None, 1),
            () if token.is("IS") && self.peek_is(0, "NULL") => (Some(Op::IsNull), 1),
            () if token.is("IS") && self.peek_is(0, "NOT") && self.peek_is(1, "NULL") => (Some(Op::IsNotNull), 2),
            () => return Err(invalid_clause(Some(left))),
        };
        let written: Vec<_> =
            self.tokens[self.at - 1..=self.at - 1 + extra].iter().map(|t| t.raw.to_uppercase()).collect();
        self.at += extra;
        Ok((op, written.join(" ")))
    }

    fn value(&mut self, left: &Token<'_>, key: &Key) -> Outcome<Value> {
        let Some(token) = self.next() else { return Err(invalid_clause(Some(left))) };
        let quoted = |raw: &str| raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).map(str::to_owned);
        if token.kind == Kind::Mark('(') {
            return self.list().map(Value::List);
        }
        let numeric = key.shape == Shape::Number;
        match &token.kind {
            Kind::Integer(value) if numeric => Ok(Value::Integer(*value)),
            Kind::Real(value) if numeric => Ok(Value::Real(*value)),
            // A version's number may be written in quotes.
            Kind::Text(text) if numeric && self.entity == Entity::ModelVersion => match text.trim().parse() {
                Ok(number) => Ok(Value::Integer(number)),
                Err(_) => Err(bad_number(key, token.raw)),
            },
            _ if numeric => Err(bad_number(key, token.raw)),
            Kind::Text(text) => Ok(Value::Text(text.clone())),
            Kind::Name if !token.is("AND") => match quoted(token.raw) {
                Some(text) => Ok(Value::Text(text)),
                None => Err(Failure::invalid(format!(
                    "Parameter value is either not quoted or unidentified quote types used for string value {}. Use \
                     either single or double quotes.",
                    token.raw
                ))),
            },
            _ => Err(Failure::invalid(match key.family {
                Family::Param => {
                    format!("Expected a quoted string value for parameter (e.g. 'my-value'). Got value {}", token.raw)
                }
                Family::Tag => {
                    format!("Expected a quoted string value for tag (e.g. 'my-value'). Got value {}", token.raw)
                }
                Family::Dataset => {
                    format!("Expected a quoted string value for dataset attributes. Got value {}", token.raw)
                }
                _ => format!("Expected a quoted string value for attributes. Got value {}", token.raw),
            })),
        }
    }

    /// The rest of `('a', "b")`; a comma may follow the last value.
    fn list(&mut self) -> Outcome<Vec<String>> {
        let mut out = Vec::new();
        loop {
            match self.next().map(|t| (&t.kind, t.raw)) {
                Some((Kind::Text(text), _)) => out.push(text.clone()),
                Some((Kind::Name, raw)) if raw.len() > 1 && raw.starts_with('"') && raw.ends_with('"') => {
                    out.push(raw[1..raw.len() - 1].to_owned());
                }
                Some((Kind::Mark(')'), _)) if !out.is_empty() => return Ok(out),
                Some((Kind::Mark(')'), _)) => {
                    return Err(Failure::invalid(
                        "While parsing a list in the query, expected a non-empty list of string values, but got empty list",
                    ));
                }
                Some((_, raw)) => {
                    return Err(Failure::invalid(format!(
                        "While parsing a list in the query, expected string value, punctuation, or whitespace, but got \
                         different type in list: {raw}"
                    )));
                }
                None => return Err(ill_formed_list()),
            }
            if out.len() > LIST_MAX {
                return Err(Failure::invalid(format!("A list in the query has more than {LIST_MAX} values.")));
            }
            match self.next().map(|t| &t.kind) {
                Some(Kind::Mark(',')) => {}
                Some(Kind::Mark(')')) => return Ok(out),
                _ => return Err(ill_formed_list()),
            }
        }
    }
}

fn ill_formed_list() -> Failure {
    Failure::invalid(
        "While parsing a list in the query, expected a non-empty list of string values, but got ill-formed list.",
    )
}

fn invalid_clause(token: Option<&Token<'_>>) -> Failure {
    Failure::invalid(format!("Invalid clause(s) in filter string: '{}'", token.map_or("", |t| t.raw)))
}

fn bad_number(key: &Key, raw: &str) -> Failure {
    Failure::invalid(match key.family {
        Family::Metric => format!("Expected numeric value type for metric. Found {raw}"),
        _ => format!("Expected numeric value type for numeric attribute: {}. Found {raw}", key.name),
    })
}

/// Whether this entity compares this key so; the operator, if it does.
fn allowed(entity: Entity, key: &Key, op: Option<Op>, written: &str, value: &Value) -> Outcome<Op> {
    let refuse =
        |valid: &str| Err(Failure::invalid(format!("Invalid comparator '{written}' not one of '{{{valid}}}'")));
    let Some(op) = op else {
        return refuse(valid_operators(entity, key));
    };
    if op.is_null() {
        let known = entity.knows_null() && matches!(key.family, Family::Tag | Family::Param);
        return if known {
            Ok(op)
        } else {
            Err(Failure::invalid(format!(
                "IS NULL / IS NOT NULL is only supported for tags{}, not for {} '{}'",
                if entity == Entity::Run { " and params" } else { "" },
                match key.family {
                    Family::Metric => "'metric'",
                    Family::Dataset => "'dataset'",
                    _ => "attribute",
                },
                key.name
            )))
        };
    }
    if op.is_list() != matches!(value, Value::List(_)) {
        return Err(Failure::invalid(format!(
            "Invalid comparison clause. '{written}' and its value do not go together"
        )));
    }
    let fits = match key.shape {
        Shape::Number => op.is_order() || op.is_equality(),
        Shape::QuotedNumber => op.is_equality() || op.is_list(),
        Shape::Text => op.is_equality() || matches!(op, Op::Like | Op::ILike),
        Shape::TextOrList => op.is_equality() || op.is_list() || matches!(op, Op::Like | Op::ILike),
    };
    if op.is_list() && key.family == Family::Attribute && key.shape == Shape::Text {
        let listed: Vec<_> = entity
            .attributes()
            .iter()
            .filter(|a| matches!(a.shape, Shape::TextOrList | Shape::QuotedNumber))
            .map(|a| format!("'{}'", a.names[0]))
            .collect();
        return Err(Failure::invalid(format!(
            "Only [{}] attributes support comparison with a list of quoted string values.",
            listed.join(", ")
        )));
    }
    if !fits {
        return refuse(valid_operators(entity, key));
    }
    if matches!(value, Value::Real(_)) && matches!(entity, Entity::Experiment | Entity::ModelVersion) {
        return Err(Failure::invalid(format!(
            "Invalid value for numeric attribute '{}': a whole number is needed",
            key.name
        )));
    }
    Ok(op)
}

fn valid_operators(entity: Entity, key: &Key) -> &'static str {
    match key.shape {
        Shape::Number => "'>', '>=', '!=', '=', '<', '<='",
        Shape::QuotedNumber => "'!=', '=', 'IN', 'NOT IN'",
        Shape::TextOrList => "'!=', '=', 'LIKE', 'ILIKE', 'IN', 'NOT IN'",
        Shape::Text if key.family != Family::Attribute && entity.knows_null() => {
            "'!=', '=', 'LIKE', 'ILIKE', 'IS NULL', 'IS NOT NULL'"
        }
        Shape::Text => "'!=', '=', 'LIKE', 'ILIKE'",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entity: Entity, text: &str, expect: &[(&str, Op, Value)]) {
        let clauses = parse(entity, text).unwrap_or_else(|e| panic!("{text}: {}", e.message));
        let got: Vec<_> = clauses.iter().map(|c| (c.key.field.as_str(), c.op, c.value.clone())).collect();
        assert_eq!(got, expect, "{text}");
    }

    #[track_caller]
    fn refuse(entity: Entity, text: &str, part: &str) {
        match parse(entity, text) {
            Ok(clauses) => panic!("{text} was read as {clauses:?}"),
            Err(failure) => assert!(failure.message.contains(part), "{text}: {}", failure.message),
        }
    }

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn runs() {
        use Entity::Run;
        check(Run, "", &[]);
        check(Run, "  ", &[]);
        check(Run, "metrics.a > 0.5", &[("metrics.a", Op::Greater, Value::Real(0.5))]);
        check(Run, "metric.`a b` <= -3", &[("metrics.a b", Op::LessOrEqual, Value::Integer(-3))]);
        check(Run, "metrics.\"a.b\" != 1e3", &[("metrics.a.b", Op::NotEqual, Value::Real(1000.0))]);
        check(Run, "metrics.a.b = 1", &[("metrics.a.b", Op::Equal, Value::Integer(1))]);
        check(Run, "parameters.lr = '0.1'", &[("params.lr", Op::Equal, text("0.1"))]);
        check(Run, "param.lr like \"0.%\"", &[("params.lr", Op::Like, text("0.%"))]);
        check(Run, "tags.mlflow.parentRunId = 'x'", &[("tags.mlflow.parentRunId", Op::Equal, text("x"))]);
        check(Run, "tag.x iLiKe '%a%'", &[("tags.x", Op::ILike, text("%a%"))]);
        check(Run, "tags.x IS NULL", &[("tags.x", Op::IsNull, Value::None)]);
        check(Run, "params.x is not null", &[("params.x", Op::IsNotNull, Value::None)]);
        check(Run, "status = 'RUNNING'", &[("status", Op::Equal, text("RUNNING"))]);
        check(Run, "attributes.`Run name` = 'x'", &[("run_name", Op::Equal, text("x"))]);
        check(Run, "`Run name` = 'x'", &[("run_name", Op::Equal, text("x"))]);
        check(Run, "attr.created >= 12", &[("start_time", Op::GreaterOrEqual, Value::Integer(12))]);
        check(Run, "run.end_time < 1.5", &[("end_time", Op::Less, Value::Real(1.5))]);
        check(Run, "run_id IN ('a', \"b\")", &[("@id", Op::In, Value::List(vec!["a".into(), "b".into()]))]);
        check(Run, "run_id not  in ('a',)", &[("@id", Op::NotIn, Value::List(vec!["a".into()]))]);
        check(Run, "dataset.name = 'd'", &[("dataset.name", Op::Equal, text("d"))]);
        check(Run, "datasets.context NOT IN ('t')", &[("dataset.context", Op::NotIn, Value::List(vec!["t".into()]))]);
        check(
            Run,
            "metrics.a>1 AND params.b='and' and tags.c LIKE 'x'",
            &[
                ("metrics.a", Op::Greater, Value::Integer(1)),
                ("params.b", Op::Equal, text("and")),
                ("tags.c", Op::Like, text("x")),
            ],
        );
        check(Run, "params.a = 'it\"s'", &[("params.a", Op::Equal, text("it\"s"))]);
        check(Run, "params.a = 'it''s'", &[("params.a", Op::Equal, text("it''s"))]);
        check(Run, "params.a = ''", &[("params.a", Op::Equal, text(""))]);
    }

    #[test]
    fn runs_refuse() {
        use Entity::Run;
        refuse(Run, "metrics.a > 1 OR metrics.b > 1", "Invalid clause(s) in filter string: 'OR'");
        refuse(Run, "metrics.a > 1 AND", "Invalid clause(s)");
        refuse(Run, "AND metrics.a > 1", "Invalid clause(s)");
        refuse(Run, "metrics.a > 1 AND AND metrics.b > 1", "Invalid clause(s)");
        refuse(Run, "metrics.a > 1 AND AND", "Invalid clause(s)");
        refuse(Run, "(metrics.a > 1)", "Invalid clause(s) in filter string: '('");
        refuse(Run, "metrics.a > 1; metrics.b > 2", "multiple expression");
        refuse(Run, "metrics.a > 1 metrics.b > 2", "Invalid clause(s)");
        refuse(Run, "1 = 1", "Expected 'Identifier' found '1'");
        refuse(Run, "'a' = 1", "Expected 'Identifier'");
        refuse(Run, "foo.a = 'x'", "Invalid entity type 'foo'");
        refuse(Run, "foo = 'x'", "Invalid attribute key 'foo' specified");
        refuse(Run, "experiment_id = '1'", "Invalid attribute key");
        refuse(Run, "metrics.a = '1'", "Expected numeric value type for metric. Found '1'");
        refuse(Run, "metrics.a LIKE 1", "Invalid comparator 'LIKE'");
        refuse(Run, "metrics.a ~ 1", "Invalid comparator '~'");
        refuse(Run, "metrics.a <> 1", "Invalid comparator '<>'");
        refuse(Run, "params.a = 1", "Expected a quoted string value for parameter");
        refuse(Run, "tags.a = 1", "Expected a quoted string value for tag");
        refuse(Run, "params.a = b", "not quoted");
        refuse(Run, "params.a = `b`", "not quoted");
        refuse(Run, "params.a > 'x'", "Invalid comparator '>'");
        refuse(Run, "tags.a NOT LIKE 'x'", "Invalid comparator 'NOT LIKE'");
        refuse(Run, "start_time = 'x'", "Expected numeric value type for numeric attribute: start_time");
        refuse(Run, "status IN ('a')", "Only ['run_id'] attributes support");
        refuse(Run, "run_id IN ()", "empty list");
        refuse(Run, "run_id IN (1)", "different type in list");
        refuse(Run, "run_id IN ('a' 'b')", "ill-formed list");
        refuse(Run, "run_id IN ('a'", "ill-formed list");
        refuse(Run, "run_id IN 'a'", "do not go together");
        refuse(Run, "run_id = ('a')", "do not go together");
        refuse(Run, "params.a IN ('a')", "Invalid comparator 'IN'");
        refuse(Run, "metrics.a IS NULL", "only supported for tags and params");
        refuse(Run, "status IS NULL", "only supported for tags and params");
        refuse(Run, "dataset.schema = 'x'", "Invalid dataset key 'schema'");
        refuse(Run, "metrics.a >", "Invalid clause(s)");
        refuse(Run, "metrics.a", "Invalid clause(s)");
        refuse(Run, "params.a-b = 'x'", "Invalid clause(s)");
        refuse(Run, "params.a = 'x", "not closed");
        refuse(Run, &"a".repeat(FILTER_BYTES_MAX + 1), "bytes long");
        refuse(Run, &["metrics.a > 1"; CLAUSES_MAX + 1].join(" AND "), "more than 200 conditions");
    }

    #[test]
    fn other_entities() {
        use Entity::{Experiment, LoggedModel, ModelVersion, RegisteredModel};
        check(Experiment, "name ILIKE 'a%'", &[("name", Op::ILike, text("a%"))]);
        check(Experiment, "experiment_id IN ('1','2')", &[("id", Op::In, Value::List(vec!["1".into(), "2".into()]))]);
        check(Experiment, "attribute.creation_time > 5", &[("creation_time", Op::Greater, Value::Integer(5))]);
        check(Experiment, "tags.a IS NULL", &[("tags.a", Op::IsNull, Value::None)]);
        refuse(Experiment, "attributes.name = 'x'", "Valid entity types are ('attribute', 'tag', 'tags')");
        refuse(Experiment, "name > 'x'", "Invalid comparator");
        refuse(Experiment, "name IN ('x')", "Only ['experiment_id']");
        refuse(Experiment, "creation_time = 1.5", "whole number");
        refuse(Experiment, "experiment_id LIKE '1'", "Invalid comparator");
        refuse(Experiment, "metrics.a > 1", "Invalid entity type 'metrics'");
        check(RegisteredModel, "name IN ('a')", &[("name", Op::In, Value::List(vec!["a".into()]))]);
        check(
            RegisteredModel,
            "name='a' AND tag.`mlflow.prompt.is_prompt` != 'true'",
            &[("name", Op::Equal, text("a")), ("tags.mlflow.prompt.is_prompt", Op::NotEqual, text("true"))],
        );
        refuse(RegisteredModel, "creation_timestamp > 1", "Invalid attribute key");
        refuse(RegisteredModel, "tags.a IS NULL", "only supported");
        check(ModelVersion, "version_number >= 2", &[("version", Op::GreaterOrEqual, Value::Integer(2))]);
        check(ModelVersion, "version_number = '2'", &[("version", Op::Equal, Value::Integer(2))]);
        check(ModelVersion, "source_path = 'x'", &[("source", Op::Equal, text("x"))]);
        check(ModelVersion, "run_id NOT IN ('x')", &[("run_id", Op::NotIn, Value::List(vec!["x".into()]))]);
        refuse(ModelVersion, "source_path IN ('x')", "attributes support comparison with a list");
        refuse(ModelVersion, "version_number LIKE '2'", "Invalid comparator");
        refuse(ModelVersion, "name = 2", "Expected a quoted string value");
        check(LoggedModel, "metrics.a > 1", &[("metrics.a", Op::Greater, Value::Integer(1))]);
        check(LoggedModel, "source_run_id = 'r'", &[("source_run_id", Op::Equal, text("r"))]);
        check(LoggedModel, "creation_time > 5", &[("creation_timestamp_ms", Op::Greater, Value::Integer(5))]);
        check(LoggedModel, "model_id in ('m')", &[("@id", Op::In, Value::List(vec!["m".into()]))]);
        refuse(LoggedModel, "metric.a > 1", "Invalid entity type 'metric'");
    }
}
