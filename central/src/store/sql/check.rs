//! Rules that no constraint of the schema states, or that a damaged file may
//! break all the same.

use super::row::{all, text};
use super::{Row, Transaction, Value, node, sandbox, values};
use crate::store::StoreError;

/// Most faults of one rule that are named.
const FAULTS_MAX: u32 = 100;

/// Looks for what breaks a rule.
type Look = fn(&dyn Transaction) -> Result<Vec<String>, StoreError>;

/// Every rule in one sentence.
pub(in crate::store) const RULES: [(&str, Look); 5] = [
    ("every reference leads to a row", references),
    ("the room that is taken on a node is what its sandboxes request", room),
    ("no sandbox is ahead of its node's generation", generations),
    ("a sandbox and its node belong to one tenant", tenants),
    ("every document can be read", documents),
];

fn named(tx: &dyn Transaction, sql: &str) -> Result<Vec<String>, StoreError> {
    all(tx, &format!("{sql} LIMIT $1"), values![FAULTS_MAX], |row| text(row, "fault"))
}

fn references(tx: &dyn Transaction) -> Result<Vec<String>, StoreError> {
    // Child, its column, parent, its column.
    let simple = [
        ("api_tokens", "tenant_id", "tenants"),
        ("join_tokens", "tenant_id", "tenants"),
        ("profiles", "tenant_id", "tenants"),
        ("templates", "tenant_id", "tenants"),
        ("nodes", "tenant_id", "tenants"),
        ("node_images", "node_id", "nodes"),
        ("sandboxes", "node_id", "nodes"),
        ("sandboxes", "tenant_id", "tenants"),
        ("idempotency_keys", "tenant_id", "tenants"),
        ("pools", "tenant_id", "tenants"),
        ("node_pools", "node_id", "nodes"),
        ("claims", "tenant_id", "tenants"),
    ];
    let (mut faults, present) = (Vec::new(), tx.tables()?);
    // An older schema has not all of them.
    for (child, column, parent) in simple.into_iter().filter(|(child, ..)| present.iter().any(|name| name == child)) {
        let sql = format!(
            "SELECT '{child}.{column} = ' || c.{column} AS fault FROM {child} c \
             WHERE NOT EXISTS (SELECT 1 FROM {parent} p WHERE p.id = c.{column})"
        );
        faults.extend(named(tx, &sql)?);
    }
    let sql = "SELECT 'profile ' || t.profile || ' of template ' || t.name AS fault FROM templates t WHERE NOT EXISTS \
               (SELECT 1 FROM profiles p WHERE p.tenant_id = t.tenant_id AND p.name = t.profile)";
    faults.extend(named(tx, sql)?);
    Ok(faults)
}

fn room(tx: &dyn Transaction) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT n.id AS fault FROM nodes n LEFT JOIN sandboxes s ON s.node_id = n.id \
               GROUP BY n.id, n.sandboxes, n.orphans, n.cpu_requested_millis, n.memory_requested_bytes \
               HAVING COUNT(s.id) <> n.sandboxes OR COUNT(s.orphaned_at_unix_ms) <> n.orphans \
               OR COALESCE(SUM(s.cpu_request_millis), 0) <> n.cpu_requested_millis \
               OR COALESCE(SUM(s.memory_request_bytes), 0) <> n.memory_requested_bytes ORDER BY n.id";
    named(tx, sql)
}

fn generations(tx: &dyn Transaction) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT s.id AS fault FROM sandboxes s JOIN nodes n ON n.id = s.node_id \
               WHERE s.node_generation > n.desired_generation ORDER BY s.id";
    named(tx, sql)
}

fn tenants(tx: &dyn Transaction) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT s.id AS fault FROM sandboxes s JOIN nodes n ON n.id = s.node_id \
               WHERE s.tenant_id <> n.tenant_id ORDER BY s.id";
    named(tx, sql)
}

fn documents(tx: &dyn Transaction) -> Result<Vec<String>, StoreError> {
    let (mut faults, present) = (Vec::new(), tx.tables()?);
    let mut look = |sql: &str, what: &str, read: &dyn Fn(&dyn Row) -> Result<(), StoreError>| {
        tx.query(sql, &[] as &[Value<'_>], &mut |row| {
            if let Err(error) = read(row) {
                faults.push(format!("{what} {}: {}", text(row, "id")?, crate::log::chain(&error)));
            }
            Ok(u32::try_from(faults.len()).is_ok_and(|found| found < FAULTS_MAX))
        })
    };
    look(&format!("SELECT {} FROM sandboxes", sandbox::COLUMNS), "sandbox", &|row| sandbox::read(row).map(drop))?;
    look(&format!("SELECT {} FROM nodes", node::COLUMNS), "node", &|row| node::read(row).map(drop))?;
    for (table, read) in [
        ("templates", super::template::read_template as fn(&dyn Row) -> Result<(), StoreError>),
        ("profiles", super::template::read_profile),
        ("pools", super::pool::read_pool),
    ] {
        if !present.iter().any(|name| name == table) {
            continue;
        }
        look(&format!("SELECT name AS id, document FROM {table}"), table.trim_end_matches('s'), &read)?;
    }
    Ok(faults)
}
