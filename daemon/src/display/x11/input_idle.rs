//! How long ago somebody typed or moved the pointer.

use std::time::Duration;

use tokio::time::Instant;
use x11rb_async::protocol::screensaver::ConnectionExt as _;

use super::{XAddress, XError, request_error, root, with_connection};

/// Time since the last input of any client of the display, as the server itself
/// counts it (MIT-SCREEN-SAVER).
///
/// # Errors
/// See [`XError`].
pub async fn input_idle(address: &XAddress, deadline: Instant) -> Result<Duration, XError> {
    with_connection(address, deadline, "the answer to when the last input was", async |connection| {
        let info = connection.screensaver_query_info(root(connection)).await?;
        let info = info.reply().await.map_err(request_error("tell when the last input was"))?;
        Ok(Duration::from_millis(info.ms_since_user_input.into()))
    })
    .await
}
