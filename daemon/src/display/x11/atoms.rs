//! The property names that are asked for.

use x11rb::protocol::xproto::{Atom, AtomEnum};
use x11rb_async::protocol::xproto::ConnectionExt as _;

use super::{Connection, XError, request_error, unless_gone};

/// Longest title that is read, in words of four bytes: 4 KiB.
const MAX_TITLE_WORDS: u32 = 1024;

/// Atoms of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Atoms {
    /// `_NET_SUPPORTING_WM_CHECK`.
    pub(super) wm_check: Atom,
    /// `_NET_WM_NAME`.
    net_wm_name: Atom,
}

impl Atoms {
    /// Asks the server for all of them at once.
    pub(super) async fn intern(connection: &Connection) -> Result<Self, XError> {
        let wm_check = connection.intern_atom(false, b"_NET_SUPPORTING_WM_CHECK").await?;
        let net_wm_name = connection.intern_atom(false, b"_NET_WM_NAME").await?;
        Ok(Self {
            wm_check: wm_check.reply().await.map_err(request_error("intern an atom"))?.atom,
            net_wm_name: net_wm_name.reply().await.map_err(request_error("intern an atom"))?.atom,
        })
    }

    /// Title of a window: its `_NET_WM_NAME`, else its `WM_NAME`; `None` if it
    /// has neither or is gone. At most 4 KiB, damaged text mended.
    pub(super) async fn title(self, connection: &Connection, window: u32) -> Result<Option<String>, XError> {
        let ask = |property: Atom| connection.get_property(false, window, property, AtomEnum::ANY, 0, MAX_TITLE_WORDS);
        let modern = ask(self.net_wm_name).await?;
        let old = ask(AtomEnum::WM_NAME.into()).await?;
        for reply in [modern.reply().await, old.reply().await] {
            match unless_gone(reply)? {
                Some(property) if property.format == 8 && !property.value.is_empty() => {
                    return Ok(Some(String::from_utf8_lossy(&property.value).into_owned()));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
