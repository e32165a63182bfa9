//! What a registry wants to see before it answers.

use bytes::Bytes;
use http_auth::ParamValue;
use http_auth::parser::ChallengeParser;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;

use super::credentials::Credential;
use super::error::RegistryError;
use super::http::{Api, read_body};
use super::{advice, retry};

/// Largest answer of a token service, in bytes.
const MAX_TOKEN_BYTES: usize = 256 << 10;
/// How token services are told who asks.
const CLIENT_ID: &str = "roostd";
/// Public registries whose token services are known to lie elsewhere, each
/// with that host.
const KNOWN_TOKEN_HOSTS: [(&str, &str); 2] = [("docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// What a 401 asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The header that answers a 401, or none if there is nothing to answer with.
///
/// # Errors
/// The token service refuses, or cannot be reached.
pub(super) async fn answer(api: &Api, refused: &Response) -> Result<Option<HeaderValue>, RegistryError> {
    if let Some(Credential::Bearer(token)) = api.credential() {
        return Ok(secret(&format!("Bearer {token}")));
    }
    let headers = refused.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    match headers.flat_map(challenges).next() {
        Some(Challenge::Bearer { realm, service }) => token(api, &realm, service.as_deref()).await.map(Some),
        Some(Challenge::Basic) => Ok(basic(api)),
        None => Ok(None),
    }
}

fn challenges(header: &str) -> Vec<Challenge> {
    let parsed = ChallengeParser::new(header).filter_map(Result::ok);
    let known = parsed.filter_map(|challenge| {
        let param = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value): &(_, ParamValue<'_>)| value.to_unescaped())
        };
        match challenge.scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer { realm: param("realm")?, service: param("service") }),
            _ => None,
        }
    });
    known.collect()
}

fn basic(api: &Api) -> Option<HeaderValue> {
    use base64::Engine;
    let Some(Credential::Password { username, password }) = api.credential() else { return None };
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {pair}"))
}

/// A header value that no log shows.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn token(api: &Api, realm: &str, service: Option<&str>) -> Result<HeaderValue, RegistryError> {
    let url = token_service(api, realm)?;
    let mut attempt = 1;
    loop {
        let error = match api.send(token_request(api, url.clone(), service)).await {
            Ok(response) if response.status().is_success() => {
                return read_token(api, &read_body(api, response, MAX_TOKEN_BYTES).await?);
            }
            Ok(response) if response.status().is_redirection() => {
                return Err(api.wrong("its token service answers with a redirect"));
            }
            Ok(response) => api.status_error("token", response).await,
            Err(source) if advice::is_final(&*source) => return Err(api.unreachable(attempt, source)),
            Err(source) => api.unreachable(attempt, source),
        };
        if !error.is_transient() || attempt >= api.attempts() {
            return Err(error);
        }
        attempt += 1;
        tokio::time::sleep(retry::pause(attempt, rand::random())).await;
    }
}

/// The address of the token service, if it may be asked.
fn token_service(api: &Api, realm: &str) -> Result<Url, RegistryError> {
    let url: Url = realm.parse().map_err(|_| api.wrong("its token service has no usable address"))?;
    // A password must not go in the clear because an answer says so.
    if url.scheme() != "https" && !(api.is_plain() && url.scheme() == "http") {
        return Err(api.wrong("its token service is to be asked without TLS"));
    }
    api.route().guard.check(&url).map_err(|detour| api.wrong(format!("its token service: {detour}")))?;
    let host = url.host_str().unwrap_or_default();
    if api.credential().is_some() && !may_have_credential(api, host) {
        return Err(api.wrong(format!(
            "it wants the credentials to go to {host}: if they may, add that to token_hosts of its entry in images.registries"
        )));
    }
    Ok(url)
}

/// A registry's credentials go to its own host; elsewhere only where a person
/// said so.
fn may_have_credential(api: &Api, host: &str) -> bool {
    let own: Option<Url> = api.base().parse().ok();
    let is_own = own.is_some_and(|own| own.host_str() == Some(host));
    let known = || KNOWN_TOKEN_HOSTS.contains(&(api.host(), host));
    is_own || known() || api.token_hosts().iter().any(|trusted| trusted.eq_ignore_ascii_case(host))
}

fn token_request(api: &Api, mut url: Url, service: Option<&str>) -> RequestBuilder {
    let scope = format!("repository:{}:pull", api.repository());
    let client = &api.route().tokens;
    if let Some(Credential::IdentityToken(refresh)) = api.credential() {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", refresh);
        form.append_pair("client_id", CLIENT_ID).append_pair("scope", &scope);
        form.append_pair("service", service.unwrap_or_default());
        let request = client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        return request.body(form.finish());
    }
    url.query_pairs_mut().append_pair("scope", &scope).append_pair("client_id", CLIENT_ID);
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", service);
    }
    let request = client.get(url);
    match basic(api) {
        Some(value) => request.header(AUTHORIZATION, value),
        None => request,
    }
}

fn read_token(api: &Api, body: &Bytes) -> Result<HeaderValue, RegistryError> {
    let wrong = || api.wrong("its token service gives no token");
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| wrong())?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(wrong)?;
    secret(&format!("Bearer {token}")).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_both_kinds_are_read() {
        let bearer =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a:pull""#;
        let expected =
            Challenge::Bearer { realm: "https://auth.example/token".into(), service: Some("registry.example".into()) };
        assert_eq!(challenges(bearer), [expected]);
        assert_eq!(challenges("Basic realm=\"x\""), [Challenge::Basic]);
        assert!(challenges("Negotiate").is_empty());
    }
}
