use super::*;
use serde_json::json;

fn redactor() -> Redactor {
    Redactor::new(["correct horse battery".to_owned(), "line1\nline2".to_owned(), "true".to_owned()]).unwrap()
}

#[test]
fn a_known_value_goes_wherever_it_stands() {
    let text = redactor().text("started with correct horse battery, twice: correct horse battery");
    assert_eq!(text, "started with [redacted], twice: [redacted]");
    assert_eq!(redactor().text(r#"{"text":"line1\nline2"}"#), r#"{"text":"[redacted]"}"#);
}

#[test]
fn a_short_known_value_does_not_tear_texts_apart() {
    assert_eq!(redactor().text("is_ready true"), "is_ready true");
}

#[test]
fn what_looks_like_a_secret_goes() {
    let secret = "s3cr3tS3cr3tS3cr3tS3cr3t";
    for text in [
        format!("https://user:{secret}@registry.example/v2"),
        format!("postgres://{secret}@db/roost"),
        format!("postgres://roost:p%40{secret}@db:5432/roost?sslmode=require"),
        format!("Authorization: Bearer {secret}"),
        format!("authorization: basic {secret}"),
        format!("token rjt_{secret}.abcdef0123"),
        format!("rat_{secret}"),
        format!("sk-{secret}"),
        format!("ghp_{secret}"),
        format!("-----BEGIN EC PRIVATE KEY-----\nMHcCAQ{secret}\nAAA\n-----END EC PRIVATE KEY-----"),
        format!("-----BEGIN PRIVATE KEY-----\n{secret}"),
        format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n{secret}\n-----END RSA PRIVATE KEY-----"),
        format!("eyJhbGciOi.eyJzdWIiOi{secret}.sig{secret}"),
        format!("DB_PASSWORD={secret}"),
        format!("password: {secret}"),
        format!("\"api_key\": \"{secret}\""),
        format!("secret = '{secret} and more {secret}'"),
        format!("?token={secret}&x=1"),
        format!("set-cookie: {secret}"),
    ] {
        let redacted = redactor().text(&text);
        assert!(!redacted.contains("s3cr3t"), "{text} became {redacted}");
        assert!(redacted.contains(REDACTED), "{text} became {redacted}");
    }
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        "join_token_file = \"/etc/roost/join-token\"",
        "tls_key = \"/etc/roost/tls.key\"",
        "https://central.example:7701/api/v1/nodes",
        "sandbox changed phase sandbox=sbx-0123456789abcdef from=Starting to=Ready",
        "token_id=join-0123456789abcdef",
        "mail to me@example.org",
        "root_maxkeys = 1000000",
        "roost_sandbox_start_stage_duration_seconds 5",
        "time=2026-01-01T00:00:00Z level=info",
    ] {
        assert_eq!(redactor().text(text), text);
    }
}

#[test]
fn fields_named_like_a_secret_lose_their_texts() {
    let mut value = json!({
        "registry": {"username": "u", "password": "p", "credentials": [{"a": "b"}]},
        "join_token_file": "/etc/roost/join-token",
        "tokens": [{"id": "join-1", "expires_at_unix_ms": 5}],
        "note": "https://u:p@host/",
    });
    redactor().json(&mut value);
    assert_eq!(
        value,
        json!({
            "registry": {"username": "u", "password": REDACTED, "credentials": [{"a": REDACTED}]},
            "join_token_file": "/etc/roost/join-token",
            "tokens": [{"id": REDACTED, "expires_at_unix_ms": 5}],
            "note": "https://[redacted]@host/",
        })
    );
}

#[test]
fn a_spec_keeps_names_and_program_only() {
    let spec: SandboxSpec = serde_json::from_value(json!({
        "template": "desktop", "image": "roost/desktop",
        "command": ["/bin/agent", "--key", "x"], "env": {"API": "y", "MODE": "z"}
    }))
    .unwrap();
    let redacted = redacted_spec(&spec);
    assert_eq!(redacted.command, ["/bin/agent", REDACTED, REDACTED]);
    assert_eq!(redacted.env.keys().collect::<Vec<_>>(), ["API", "MODE"]);
    assert!(redacted.env.values().all(|value| value == REDACTED));
}

#[test]
fn passwords_are_looked_for_even_when_they_are_short() {
    let short = || ["hunt".to_owned(), "abc".to_owned()];
    let redactor = Redactor::with_passwords([], short()).unwrap();
    assert_eq!(redactor.text("he said hunt and abc"), format!("he said {REDACTED} and abc"));
    assert_eq!(Redactor::new(short()).unwrap().text("he said hunt"), "he said hunt");
}
