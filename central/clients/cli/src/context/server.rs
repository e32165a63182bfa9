//! The address of a server.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Serialize};

/// Base address of a central: scheme, host, port and an optional path prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ServerUrl {
    is_https: bool,
    /// Lower case, without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Empty, or `/…` without a slash at the end.
    prefix: String,
}

/// The text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a server address: {problem}")]
pub(crate) struct ParseServerUrlError {
    text: String,
    problem: &'static str,
}

impl ServerUrl {
    /// Whether the connection is encrypted.
    pub(crate) fn is_https(&self) -> bool {
        self.is_https
    }

    /// Host name or address, as a resolver takes it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether nobody but this machine sees the traffic.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether both are the same server, whatever the path.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        (self.is_https, &self.host, self.port) == (other.is_https, &other.host, other.port)
    }

    /// The address of `path` (beginning with a slash) under `/api/v1`.
    pub(crate) fn api(&self, path: &str) -> String {
        format!("{self}/api/v1{path}")
    }
}

impl FromStr for ServerUrl {
    type Err = ParseServerUrlError;

    fn from_str(text: &str) -> Result<Self, ParseServerUrlError> {
        let error = |problem| ParseServerUrlError { text: text.into(), problem };
        let uri: Uri = text.parse().map_err(|_| error("use for example https://roost.example.org"))?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(error("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| error("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(ParseServerUrlError {
                text: format!("{}://…@{}", if is_https { "https" } else { "http" }, authority.host()),
                problem: "user and password do not belong here: a token goes into ROOST_TOKEN or a context",
            });
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(error("remove what follows \"?\" or \"#\""));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        // People paste the address of the API itself: both mean one server.
        let prefix = uri.path().trim_end_matches('/');
        let prefix = prefix.strip_suffix("/api/v1").unwrap_or(prefix).to_owned();
        Ok(Self { is_https, host, port, prefix })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = if self.is_https { ("https", 443) } else { ("http", 80) };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{host}")?;
        if self.port != default_port {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.prefix)
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = ParseServerUrlError;
    fn try_from(text: String) -> Result<Self, ParseServerUrlError> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(url: ServerUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> ServerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_server_are_one_address() {
        for text in ["http://LOCALHOST:80", "http://localhost/", "http://localhost/api/v1/"] {
            assert_eq!(url(text).to_string(), "http://localhost", "{text}");
        }
        assert_eq!(url("https://[::1]:8443/roost").api("/version"), "https://[::1]:8443/roost/api/v1/version");
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_reason() {
        for (bad, reason) in [
            ("127.0.0.1:7070", "http"),
            ("ftp://a", "must begin"),
            ("http://a?x=1", "remove"),
            ("https://me:secret@host", "do not belong"),
            ("", "https://"),
        ] {
            let error = bad.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for yes in ["http://localhost:1", "http://127.8.0.1", "http://[::1]:7070"] {
            assert!(url(yes).is_loopback(), "{yes}");
        }
        for no in ["http://10.0.0.1", "http://localhost.example.org", "http://127.0.0.1.nip.io"] {
            assert!(!url(no).is_loopback(), "{no}");
        }
    }
}
