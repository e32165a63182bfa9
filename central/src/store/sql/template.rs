//! Templates and profiles.

use roost_proto::id::{ProfileName, TemplateName, TenantId};
use roost_proto::model::{Profile, Template};

use super::row::{all, document, first, text, to_json};
use super::{Row, Transaction, values};
use crate::store::{DeleteProfileError, PutTemplateError, StoreError};

/// Whether the row holds a template: for checks.
pub(super) fn read_template(row: &dyn Row) -> Result<(), StoreError> {
    document::<Template>(row, "templates", "document").map(drop)
}

/// Whether the row holds a profile: for checks.
pub(super) fn read_profile(row: &dyn Row) -> Result<(), StoreError> {
    document::<Profile>(row, "profiles", "document").map(drop)
}

pub(super) fn templates(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<Template>, StoreError> {
    let sql = "SELECT document FROM templates WHERE tenant_id = $1 ORDER BY name";
    all(tx, sql, values![tenant.as_str()], |row| document(row, "templates", "document"))
}

pub(super) fn template(
    tx: &dyn Transaction,
    tenant: &TenantId,
    name: &TemplateName,
) -> Result<Option<Template>, StoreError> {
    let sql = "SELECT document FROM templates WHERE tenant_id = $1 AND name = $2";
    first(tx, sql, values![tenant.as_str(), name.as_str()], |row| document(row, "templates", "document"))
}

pub(super) fn put_template(tx: &dyn Transaction, tenant: &TenantId, new: &Template) -> Result<bool, PutTemplateError> {
    if profile(tx, tenant, &new.profile)?.is_none() {
        return Err(PutTemplateError::NoProfile(new.profile.clone()));
    }
    let created = template(tx, tenant, &new.name)?.is_none();
    let sql = "INSERT INTO templates (tenant_id, name, profile, document) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (tenant_id, name) DO UPDATE SET profile = excluded.profile, document = excluded.document";
    let document = to_json("templates", new)?;
    tx.execute(sql, values![tenant.as_str(), new.name.as_str(), new.profile.as_str(), document])?;
    Ok(created)
}

pub(super) fn delete_template(
    tx: &dyn Transaction,
    tenant: &TenantId,
    name: &TemplateName,
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM templates WHERE tenant_id = $1 AND name = $2";
    Ok(tx.execute(sql, values![tenant.as_str(), name.as_str()])? == 1)
}

pub(super) fn profiles(tx: &dyn Transaction, tenant: &TenantId) -> Result<Vec<Profile>, StoreError> {
    let sql = "SELECT document FROM profiles WHERE tenant_id = $1 ORDER BY name";
    all(tx, sql, values![tenant.as_str()], |row| document(row, "profiles", "document"))
}

pub(super) fn profile(
    tx: &dyn Transaction,
    tenant: &TenantId,
    name: &ProfileName,
) -> Result<Option<Profile>, StoreError> {
    let sql = "SELECT document FROM profiles WHERE tenant_id = $1 AND name = $2";
    first(tx, sql, values![tenant.as_str(), name.as_str()], |row| document(row, "profiles", "document"))
}

pub(super) fn put_profile(tx: &dyn Transaction, tenant: &TenantId, new: &Profile) -> Result<bool, StoreError> {
    let created = profile(tx, tenant, &new.name)?.is_none();
    let sql = "INSERT INTO profiles (tenant_id, name, document) VALUES ($1, $2, $3) \
               ON CONFLICT (tenant_id, name) DO UPDATE SET document = excluded.document";
    tx.execute(sql, values![tenant.as_str(), new.name.as_str(), to_json("profiles", new)?])?;
    Ok(created)
}

pub(super) fn delete_profile(
    tx: &dyn Transaction,
    tenant: &TenantId,
    name: &ProfileName,
) -> Result<(), DeleteProfileError> {
    let sql = "SELECT name FROM templates WHERE tenant_id = $1 AND profile = $2 ORDER BY name";
    let users = all(tx, sql, values![tenant.as_str(), name.as_str()], |row| text(row, "name"))?;
    if !users.is_empty() {
        return Err(DeleteProfileError::InUse(users));
    }
    let sql = "DELETE FROM profiles WHERE tenant_id = $1 AND name = $2";
    let removed = tx.execute(sql, values![tenant.as_str(), name.as_str()])?;
    if removed == 1 { Ok(()) } else { Err(DeleteProfileError::NotFound) }
}
