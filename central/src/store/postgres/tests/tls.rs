//! Login and encryption over TCP.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::server::{Server, Tcp, name_of};
use super::*;

/// A CA in PEM, and a server's certificate and key below it.
fn certificates(dir: &Path) -> (PathBuf, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let file = dir.join("ca.crt");
    std::fs::write(&file, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params, ca_key);
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    (file, certificate.pem(), key.serialize_pem())
}

async fn refusal(config: &PostgresConfig) -> String {
    let error = open(config, Arc::new(Recorder::default()), StoreMetrics::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    crate::log::chain(&error)
}

#[tokio::test]
async fn a_password_and_a_private_ca_let_central_in_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, certificate_pem, key_pem) = certificates(dir.path());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::start_tcp(&Tcp { port, certificate_pem, key_pem });
    let database = name_of(&server.database()).to_owned();
    server.run("postgres", "CREATE ROLE guarded SUPERUSER LOGIN PASSWORD 'open sesame'");
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "open sesame\n").unwrap();
    let good = PostgresConfig {
        sslmode: SslMode::VerifyFull,
        ca_file: Some(ca_file),
        password_file: Some(password_file.clone()),
        ..config(&format!("postgres://guarded@localhost:{port}/{database}"))
    };
    let store = open(&good, Arc::new(Recorder::default()), StoreMetrics::default()).await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'roost-central'";
    assert_eq!(server.run(&database, encrypted), "t");
    drop(store);

    let other = tempfile::tempdir().unwrap();
    let stranger = PostgresConfig { ca_file: Some(certificates(other.path()).0), ..good.clone() };
    assert!(refusal(&stranger).await.contains("certificate"), "{}", refusal(&stranger).await);
    let by_number = PostgresConfig { url: good.url.replace("localhost", "127.0.0.1"), ..good.clone() };
    assert!(refusal(&by_number).await.contains("certificate"), "another name");
    std::fs::write(&password_file, "wrong\n").unwrap();
    assert!(refusal(&good).await.contains("password authentication failed"));
    std::fs::write(&password_file, "open sesame\n").unwrap();

    server.set_tls(false);
    let preferred = PostgresConfig { sslmode: SslMode::Prefer, ..good.clone() };
    let store = open(&preferred, Arc::new(Recorder::default()), StoreMetrics::default()).await;
    assert!(store.is_ok(), "{store:?}");
    assert!(refusal(&good).await.contains("TLS"), "{}", refusal(&good).await);
}
