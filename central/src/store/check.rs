//! Whether a database is what central relies on.

use super::copy::tables_of;
use super::sql::{Mode, Transaction, check as statements, migrate};
use super::{Change, Database, StoreError};

/// What a look at a database found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Version of the schema; 0 = there is none.
    pub schema: i64,
    /// Newest version that this central knows.
    pub newest: i64,
    /// Every rule that was checked, in one sentence, and what breaks it.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rule {
    /// What must hold.
    pub rule: &'static str,
    /// Where it does not, at most a hundred of them.
    pub faults: Vec<String>,
}

impl Report {
    /// Whether every rule holds. A schema that is older than the newest is no
    /// fault: the next start brings it up to date.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rules.iter().all(|rule| rule.faults.is_empty())
    }
}

impl Database {
    /// Looks at everything and changes nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn check(&self) -> Result<Report, StoreError> {
        let look = |tx: &dyn Transaction, _: &mut Vec<Change>| check(tx);
        self.open_as_it_is(false)?.call("check", Mode::ReadLong, look).await
    }
}

fn check(tx: &dyn Transaction) -> Result<Report, StoreError> {
    let newest = migrate::newest();
    let tables = tx.tables()?;
    if !tables.iter().any(|table| table == "schema_version") {
        return Ok(Report { schema: 0, newest, rules: Vec::new() });
    }
    let schema = migrate::version(tx)?;
    if schema > newest {
        return Err(StoreError::Newer { found: schema, known: newest });
    }
    let missing =
        tables_of(schema).iter().map(|(table, _)| (*table).to_owned()).filter(|table| !tables.contains(table));
    let mut rules = vec![
        Rule { rule: "every table is there", faults: missing.collect() },
        Rule { rule: "the engine finds no damage", faults: tx.damage()? },
    ];
    if rules.iter().all(|rule| rule.faults.is_empty()) {
        for (rule, look) in statements::RULES {
            rules.push(Rule { rule, faults: look(tx)? });
        }
    }
    Ok(Report { schema, newest, rules })
}
