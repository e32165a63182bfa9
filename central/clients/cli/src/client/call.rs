//! One request, before it is sent.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use serde::Serialize;

/// Method, path under `/api/v1`, query, headers and body.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    is_repeatable: bool,
}

impl Call {
    /// A request without body. `path` begins with a slash; its segments are
    /// ids and names, which need no escaping.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let is_repeatable = method.is_idempotent();
        Self { method, path: path.into(), query: Vec::new(), headers: Vec::new(), body: Bytes::new(), is_repeatable }
    }

    /// A GET.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a query parameter that may be absent.
    pub(crate) fn query_option<T: ToString>(self, name: &'static str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.query(name, value.to_string()),
            None => self,
        }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sends a value as JSON.
    ///
    /// # Errors
    /// The value has no JSON form, which is a mistake in this program.
    pub(crate) fn json<T: Serialize>(mut self, value: &T) -> Result<Self, super::ClientError> {
        let encoded = serde_json::to_vec(value);
        self.body = encoded
            .map_err(|source| super::ClientError::Unreadable { what: format!("the body of {self}"), source })?
            .into();
        Ok(self.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json")))
    }

    /// Gives the call a random idempotency key, so that it may be repeated
    /// after a broken connection.
    pub(crate) fn with_idempotency_key(self) -> Self {
        self.with_key(&format!("{:032x}", rand::random::<u128>()))
    }

    /// The same with a key that the caller has chosen, of visible ASCII
    /// characters.
    pub(crate) fn with_key(mut self, key: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(key) {
            self.is_repeatable = true;
            self = self.header(HeaderName::from_static("idempotency-key"), value);
        }
        self
    }

    /// Whether sending it twice does no harm.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    pub(super) fn method(&self) -> Method {
        self.method.clone()
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.headers.iter()
    }

    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Path with the encoded query.
    pub(super) fn path_and_query(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.query);
        format!("{}?{}", self.path, query.finish())
    }
}

impl fmt::Display for Call {
    /// Method and path, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} /api/v1{}", self.method, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let call =
            Call::get("/x").query("command", "echo a&b").query_option("tail", Some(3)).query_option("n", None::<u8>);
        assert_eq!(call.path_and_query(), "/x?command=echo+a%26b&tail=3");
    }

    #[test]
    fn a_post_may_be_repeated_only_with_a_key() {
        let post = Call::new(Method::POST, "/sandboxes");
        assert!(!post.is_repeatable());
        let keyed = post.with_idempotency_key();
        assert!(keyed.is_repeatable());
        assert_eq!(keyed.headers().next().map(|(_, value)| value.len()), Some(32));
        assert!(Call::new(Method::DELETE, "/x").is_repeatable());
    }
}
