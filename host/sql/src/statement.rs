//! Which SQL texts are run.
//!
//! Owns the way from a text to one statement: how long and how deep it may be, and that it only reads. Separate from the
//! engine, because all this is decided before the engine sees anything: planning cannot be bounded once it has begun. What
//! stands inside one another costs it the square, and a common table expression that is used twice by another, which is used
//! twice, and so on, doubles it each time.
//!
//! Bounded by [`crate::limits`]. On failure: `invalid` for a text that is none or too much, `denied` for a statement that
//! would change something.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{self, Expr, ObjectName, Query, Select, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use mainstay_base::{Error, Result};

use crate::limits::{SQL_BYTES_MAX, SQL_DEPTH_MAX, SQL_PARTS_MAX, SQL_TOKENS_MAX};

/// One statement that reads.
pub(crate) fn parsed(text: &str) -> Result<Statement> {
    check_length(text)?;
    let parsed = DFParserBuilder::new(text).build().and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(crate::engine::told)?;
    match statements.pop_back() {
        Some(statement) if statements.is_empty() => {
            check_reads(&statement)?;
            Ok(statement)
        }
        Some(_) => Err(Error::invalid("several statements; run them one by one")),
        None => Err(Error::invalid("no statement; write a query, such as `SHOW TABLES`")),
    }
}

fn check_length(text: &str) -> Result<()> {
    if text.len() > SQL_BYTES_MAX {
        return Err(Error::invalid(format!("a text of {} bytes; a query has at most {SQL_BYTES_MAX}", text.len())));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize();
    // What is no text at all is the parser's to explain.
    let tokens =
        tokens.map_or(0, |tokens| tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).count());
    if tokens > SQL_TOKENS_MAX {
        return Err(Error::invalid(format!(
            "{tokens} words, numbers and signs; a query has at most {SQL_TOKENS_MAX}: ask in several, or join a table"
        )));
    }
    Ok(())
}

fn check_reads(statement: &Statement) -> Result<()> {
    use ast::Statement as Sql;
    match statement {
        Statement::Explain(explain) => check_reads(&explain.statement),
        Statement::Statement(inner) => match &**inner {
            Sql::Query(query) => check_depth(query),
            Sql::ExplainTable { .. } => Ok(()),
            Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ShowVariable { .. } => Ok(()),
            Sql::ShowFunctions { .. } => Ok(()),
            Sql::Explain { statement, .. } => check_reads(&Statement::Statement(statement.clone())),
            other => Err(refused(&format!("not `{}`", first_words(&other.to_string())))),
        },
        other => Err(refused(&format!("not `{}`", first_words(&other.to_string())))),
    }
}

/// What a statement that would change something is answered.
pub(crate) fn refused(why: &str) -> Error {
    Error::denied(format!("only queries, EXPLAIN, DESCRIBE and SHOW are run here: {why}"))
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn check_depth(query: &Query) -> Result<()> {
    match query.visit(&mut Measure::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(TooMuch::Deep) => Err(Error::invalid(format!(
            "more than {SQL_DEPTH_MAX} expressions stand inside one another; a long sum or condition is one in the other, too"
        ))),
        ControlFlow::Break(TooMuch::Wide) => Err(Error::invalid(format!(
            "more than {SQL_PARTS_MAX} tables and SELECTs, where a common table expression counts as often as it is used"
        ))),
    }
}

enum TooMuch {
    Deep,
    Wide,
}

/// Goes through a query in the order in which it is written: what is defined in front is measured before it is used.
#[derive(Default)]
struct Measure {
    depth: usize,
    /// Tables and SELECTs of each query that is open.
    parts: Vec<usize>,
    /// Names of queries that are common table expressions, by where they lie.
    defined: HashMap<*const Query, String>,
    /// Parts of each, the most where a name is used again.
    known: HashMap<String, usize>,
}

impl Measure {
    fn deeper(&mut self) -> ControlFlow<TooMuch> {
        self.depth += 1;
        if self.depth > SQL_DEPTH_MAX { ControlFlow::Break(TooMuch::Deep) } else { ControlFlow::Continue(()) }
    }

    fn wider(&mut self, parts: usize) -> ControlFlow<TooMuch> {
        if let Some(open) = self.parts.last_mut() {
            *open = open.saturating_add(parts);
        }
        let all = self.parts.iter().fold(0_usize, |all, open| all.saturating_add(*open));
        if all > SQL_PARTS_MAX { ControlFlow::Break(TooMuch::Wide) } else { ControlFlow::Continue(()) }
    }
}

impl Visitor for Measure {
    type Break = TooMuch;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<TooMuch> {
        for definition in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.defined.insert(&*definition.query, definition.alias.name.value.to_lowercase());
        }
        self.parts.push(0);
        self.deeper()
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<TooMuch> {
        self.depth -= 1;
        let parts = self.parts.pop().unwrap_or_default();
        match self.defined.get(&std::ptr::from_ref(query)) {
            Some(name) => {
                let known = self.known.entry(name.clone()).or_default();
                *known = parts.max(*known);
                ControlFlow::Continue(())
            }
            None => self.wider(parts),
        }
    }

    fn pre_visit_select(&mut self, _select: &Select) -> ControlFlow<TooMuch> {
        self.wider(1)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<TooMuch> {
        // A definition is always of one word, so what is of several is none.
        let name = match &relation.0[..] {
            [only] => only.as_ident().map(|word| word.value.to_lowercase()),
            _ => None,
        };
        let parts = name.and_then(|name| self.known.get(&name).copied());
        self.wider(parts.unwrap_or(1))
    }

    fn pre_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<TooMuch> {
        self.deeper()
    }

    fn post_visit_expr(&mut self, _expression: &Expr) -> ControlFlow<TooMuch> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ErrorKind;

    use super::*;

    fn check(text: &str, expect: Option<ErrorKind>) {
        let kind = parsed(text).err().map(|error| error.kind());
        assert_eq!(kind, expect, "{}", text.chars().take(200).collect::<String>());
    }

    #[test]
    fn what_reads_is_taken() {
        for text in [
            "SELECT 1",
            "select 1;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1)",
            "SELECT a FROM t UNION ALL SELECT b FROM u ORDER BY 1 LIMIT 3",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "DESCRIBE t",
            "SHOW TABLES",
            "SHOW COLUMNS FROM t",
        ] {
            check(text, None);
        }
    }

    /// Each as a check of its own: what is refused for one reason must not hide that another is not.
    macro_rules! denied {
        ($($name:ident: $text:expr,)*) => {$(
            #[test]
            fn $name() {
                check($text, Some(ErrorKind::Denied));
            }
        )*};
    }

    denied! {
        insert_is_denied: "INSERT INTO t VALUES (1)",
        delete_is_denied: "DELETE FROM t",
        update_is_denied: "UPDATE t SET a = 1",
        merge_is_denied: "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
        truncate_is_denied: "TRUNCATE TABLE t",
        drop_table_is_denied: "DROP TABLE t",
        alter_table_is_denied: "ALTER TABLE t ADD COLUMN a INT",
        create_table_is_denied: "CREATE TABLE t AS SELECT 1",
        create_view_is_denied: "CREATE VIEW v AS SELECT 1",
        create_schema_is_denied: "CREATE SCHEMA s",
        create_external_table_is_denied: "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        create_function_is_denied: "CREATE FUNCTION f(BIGINT) RETURNS BIGINT RETURN $1",
        copy_of_a_table_is_denied: "COPY t TO '/tmp/x.csv'",
        copy_of_a_query_is_denied: "COPY (SELECT 1) TO '/tmp/x'",
        set_is_denied: "SET datafusion.execution.target_partitions = 1",
        reset_is_denied: "RESET datafusion.execution.target_partitions",
        explain_of_an_insert_is_denied: "EXPLAIN INSERT INTO t VALUES (1)",
        explain_of_a_copy_is_denied: "EXPLAIN COPY t TO '/tmp/x.csv'",
        prepare_is_denied: "PREPARE p AS SELECT 1",
        execute_is_denied: "EXECUTE p",
        deallocate_is_denied: "DEALLOCATE p",
        begin_is_denied: "BEGIN",
        commit_is_denied: "COMMIT",
        use_is_denied: "USE other",
    }

    #[test]
    fn what_is_no_statement_or_several_is_invalid() {
        for text in ["", ";", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE t", "SELEKT", "SELECT '", "TABLE t"] {
            check(text, Some(ErrorKind::Invalid));
        }
    }

    #[test]
    fn limits_hold_at_n_and_not_at_n_plus_one() {
        let invalid = Some(ErrorKind::Invalid);
        let of_bytes = |bytes: usize| format!("SELECT '{}'", "x".repeat(bytes - 9));
        check(&of_bytes(SQL_BYTES_MAX), None);
        check(&of_bytes(SQL_BYTES_MAX + 1), invalid);
        // SELECT, 1, IN, two brackets; then numbers with commas between them.
        let of_tokens = |tokens: usize| {
            format!("SELECT {}1 IN ({})", "- ".repeat((tokens - 6) % 2), {
                let numbers = (tokens - 6 - (tokens - 6) % 2) / 2 + 1;
                vec!["1"; numbers].join(",")
            })
        };
        check(&of_tokens(SQL_TOKENS_MAX), None);
        check(&of_tokens(SQL_TOKENS_MAX + 1), invalid);
        // The query is one, and a sum of n numbers is n - 1 sums and a number inside one another.
        let of_depth = |depth: usize| format!("SELECT {}", vec!["1"; depth - 1].join("+"));
        check(&of_depth(SQL_DEPTH_MAX), None);
        check(&of_depth(SQL_DEPTH_MAX + 1), invalid);
        // The SELECT is one, too.
        let of_parts = |parts: usize| format!("SELECT 1 FROM {}", vec!["t"; parts - 1].join(","));
        check(&of_parts(SQL_PARTS_MAX), None);
        check(&of_parts(SQL_PARTS_MAX + 1), invalid);
    }

    #[test]
    fn definitions_that_double_are_counted_as_often_as_they_are_used() {
        let doubled = |times: usize| {
            let first = "WITH a0 AS (SELECT 1 AS x)".to_owned();
            let more = (1..=times).map(|at| format!(", a{at} AS (SELECT l.x FROM a{0} l, A{0} r)", at - 1));
            format!("{first}{} SELECT * FROM a{times}", more.collect::<String>())
        };
        check(&doubled(5), None);
        check(&doubled(7), Some(ErrorKind::Invalid));
        check(&doubled(60), Some(ErrorKind::Invalid));
        // A smaller definition of the same name somewhere inside does not make the outer one small.
        let hidden =
            doubled(5).replace("SELECT * FROM a5", "SELECT * FROM (WITH a5 AS (SELECT 1) SELECT * FROM a5), a5, a5");
        check(&hidden, Some(ErrorKind::Invalid));
    }
}
