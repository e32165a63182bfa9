//! Templates and profiles.

use roost_proto::id::{ProfileName, TemplateName, TenantId};
use roost_proto::model::{Profile, Template};
use rusqlite::{Connection, Transaction, params};

use super::row::{all, document, execute, first, to_json};
use crate::store::{DeleteProfileError, PutTemplateError, StoreError};

pub(super) fn templates(conn: &Connection, tenant: &TenantId) -> Result<Vec<Template>, StoreError> {
    let sql = "SELECT document FROM templates WHERE tenant_id = $1 ORDER BY name";
    all(conn, sql, params![tenant.as_str()], |row| document(row, "templates", "document"))
}

pub(super) fn template(
    conn: &Connection,
    tenant: &TenantId,
    name: &TemplateName,
) -> Result<Option<Template>, StoreError> {
    let sql = "SELECT document FROM templates WHERE tenant_id = $1 AND name = $2";
    first(conn, sql, params![tenant.as_str(), name.as_str()], |row| document(row, "templates", "document"))
}

pub(super) fn put_template(tx: &Transaction<'_>, tenant: &TenantId, new: &Template) -> Result<bool, PutTemplateError> {
    if profile(tx, tenant, &new.profile)?.is_none() {
        return Err(PutTemplateError::NoProfile(new.profile.clone()));
    }
    let created = template(tx, tenant, &new.name)?.is_none();
    let sql = "INSERT INTO templates (tenant_id, name, profile, document) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (tenant_id, name) DO UPDATE SET profile = excluded.profile, document = excluded.document";
    let text = to_json("templates", new)?;
    execute(tx, sql, params![tenant.as_str(), new.name.as_str(), new.profile.as_str(), text])?;
    Ok(created)
}

pub(super) fn delete_template(
    tx: &Transaction<'_>,
    tenant: &TenantId,
    name: &TemplateName,
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM templates WHERE tenant_id = $1 AND name = $2";
    Ok(execute(tx, sql, params![tenant.as_str(), name.as_str()])? == 1)
}

pub(super) fn profiles(conn: &Connection, tenant: &TenantId) -> Result<Vec<Profile>, StoreError> {
    let sql = "SELECT document FROM profiles WHERE tenant_id = $1 ORDER BY name";
    all(conn, sql, params![tenant.as_str()], |row| document(row, "profiles", "document"))
}

pub(super) fn profile(conn: &Connection, tenant: &TenantId, name: &ProfileName) -> Result<Option<Profile>, StoreError> {
    let sql = "SELECT document FROM profiles WHERE tenant_id = $1 AND name = $2";
    first(conn, sql, params![tenant.as_str(), name.as_str()], |row| document(row, "profiles", "document"))
}

pub(super) fn put_profile(tx: &Transaction<'_>, tenant: &TenantId, new: &Profile) -> Result<bool, StoreError> {
    let created = profile(tx, tenant, &new.name)?.is_none();
    let sql = "INSERT INTO profiles (tenant_id, name, document) VALUES ($1, $2, $3) \
               ON CONFLICT (tenant_id, name) DO UPDATE SET document = excluded.document";
    execute(tx, sql, params![tenant.as_str(), new.name.as_str(), to_json("profiles", new)?])?;
    Ok(created)
}

pub(super) fn delete_profile(
    tx: &Transaction<'_>,
    tenant: &TenantId,
    name: &ProfileName,
) -> Result<(), DeleteProfileError> {
    let sql = "SELECT name FROM templates WHERE tenant_id = $1 AND profile = $2 ORDER BY name";
    let users = all(tx, sql, params![tenant.as_str(), name.as_str()], |row| Ok(row.get(0)?))?;
    if !users.is_empty() {
        return Err(DeleteProfileError::InUse(users));
    }
    let sql = "DELETE FROM profiles WHERE tenant_id = $1 AND name = $2";
    let removed = execute(tx, sql, params![tenant.as_str(), name.as_str()])?;
    if removed == 1 { Ok(()) } else { Err(DeleteProfileError::NotFound) }
}
