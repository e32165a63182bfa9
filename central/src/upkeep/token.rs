//! `roost-central admin-token` and `token rotate`.

use std::time::Duration;

use crate::app::{App, StartError, default_tenant, keep_admin_token, new_admin_token};
use crate::config::Config;

/// Makes a new admin token; the one before it is good for `overlap` more.
///
/// # Errors
/// See [`StartError`].
pub async fn rotate(config: &Config, overlap: Duration) -> Result<String, StartError> {
    let (store, _) = App::open_store(config).await?;
    let secret = new_admin_token();
    keep_admin_token(&*store, &default_tenant()?, &secret, overlap).await?;
    Ok(secret.reveal().to_owned())
}
