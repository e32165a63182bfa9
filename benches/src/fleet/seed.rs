//! Lays sandboxes into central's database while central is down: copies of one
//! that went through the API, in the schema that central itself made.

use std::path::Path;

use roost_proto::id::{NodeId, SandboxId};
use roost_proto::model::Sandbox;
use roost_tests::Result;
use rusqlite::{Connection, OpenFlags, params};

use crate::progress::Progress;

/// Columns of a copy that are its own.
const OWN: [&str; 4] = ["id", "name", "node_id", "node_generation"];

/// Fills every node up to `per_node` sandboxes and raises its desired
/// generation, as so many creations would have.
///
/// # Errors
/// When the database refuses.
pub(super) fn fill(bench: &str, database: &Path, model: &Sandbox, per_node: usize) -> Result<()> {
    let mut conn = Connection::open(database)?;
    // A power cut in the middle of a bench loses nothing of worth.
    conn.pragma_update(None, "synchronous", "off")?;
    let columns = columns(&conn)?;
    let copied = columns.iter().filter(|c| !OWN.contains(&c.as_str())).cloned().collect::<Vec<_>>().join(", ");
    let nodes: Vec<(NodeId, u64)> = {
        let mut rows = conn.prepare("SELECT id, sandboxes FROM nodes")?;
        let found = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        let parse = |(id, n): (String, i64)| Ok((id.parse()?, u64::try_from(n)?));
        found.map(|row| parse(row?)).collect::<Result<_>>()?
    };
    // Before the copies: what the model runs as now is not what they are.
    let tx = conn.transaction()?;
    let pending = serde_json::to_string(&model.observed)?;
    let insert = format!(
        "INSERT INTO sandboxes (id, name, node_id, node_generation, {copied}) \
         SELECT ?1, NULL, ?2, ?3, {copied} FROM sandboxes WHERE id = ?4"
    );
    let progress = Progress::new(bench, "laying rows", nodes.len())?;
    {
        let mut insert = tx.prepare(&insert)?;
        let mut reset = tx.prepare(
            "UPDATE sandboxes SET observed = ?1, observed_revision = 0, phase = 'Pending' WHERE node_id = ?2",
        )?;
        let mut room = tx.prepare(
            "UPDATE nodes SET desired_generation = desired_generation + 1, sandboxes = sandboxes + ?1, \
             cpu_requested_millis = cpu_requested_millis + ?1 * ?2, \
             memory_requested_bytes = memory_requested_bytes + ?1 * ?3 WHERE id = ?4 RETURNING desired_generation",
        )?;
        let resources = &model.spec.resources;
        for (node, held) in &nodes {
            let missing = u64::try_from(per_node)?.saturating_sub(*held);
            let asked = params![
                i64::try_from(missing)?,
                resources.cpu_request_millis,
                i64::try_from(resources.memory_request_bytes)?,
                node.as_str()
            ];
            let generation: i64 = room.query_row(asked, |row| row.get(0))?;
            for _ in 0..missing {
                insert.execute(params![SandboxId::random().as_str(), node.as_str(), generation, model.id.as_str()])?;
            }
            reset.execute(params![pending, node.as_str()])?;
            progress.step();
        }
    }
    tx.commit()?;
    Ok(())
}

fn columns(conn: &Connection) -> Result<Vec<String>> {
    let mut rows = conn.prepare("SELECT name FROM pragma_table_info('sandboxes')")?;
    Ok(rows.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// How many sandboxes central has stored as Ready.
///
/// # Errors
/// When the database cannot be read.
pub(super) fn ready(database: &Path) -> Result<u64> {
    let conn = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let ready: i64 = conn.query_row("SELECT COUNT(*) FROM sandboxes WHERE phase = 'Ready'", [], |row| row.get(0))?;
    Ok(u64::try_from(ready)?)
}
