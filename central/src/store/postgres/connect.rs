//! New connections, and what every connection is told.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification, Socket};

use super::{PostgresConfig, SslMode, open_error, tls};
use crate::changes::lock;
use crate::store::StoreError;

/// After a failed attempt nobody tries again for so long: while the server is
/// away every call is refused at once instead of after its timeout.
const PAUSE: Duration = Duration::from_millis(500);
/// Silence on a connection after which the kernel asks whether the other end
/// still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// How much longer than the server this end waits for a statement: beyond it
/// the network is at fault.
const NETWORK_GRACE: Duration = Duration::from_secs(2);

/// Takes notifications as they come in.
pub(super) type OnNotice = Box<dyn FnMut(Notification) + Send>;

/// Makes connections.
pub(super) struct Connector {
    config: Config,
    tls: Option<tls::Tls>,
    connect_timeout: Duration,
    /// Time after which a statement without an answer means a lost connection.
    pub(super) patience: Duration,
    /// When an attempt failed last.
    failed_at: Mutex<Option<Instant>>,
}

/// The password file is empty.
#[derive(Debug, thiserror::Error)]
#[error("store.password_file {0} cannot be read: does it exist and may this user read it?")]
struct PasswordFile(String, #[source] std::io::Error);

/// No connection within the time.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0} ms")]
struct ConnectTimeout(u128);

/// The server was away a moment ago.
#[derive(Debug, thiserror::Error)]
#[error("the server did not answer a moment ago")]
struct Away;

impl Connector {
    pub(super) fn new(given: &PostgresConfig) -> Result<Self, StoreError> {
        let mut config: Config = given.url.parse().map_err(|error| open_error(given, error))?;
        if let Some(path) = &given.password_file {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|e| open_error(given, PasswordFile(path.display().to_string(), e)))?;
            config.password(text.trim_end_matches(['\r', '\n']));
        }
        let timeout_ms = given.statement_timeout.as_millis();
        // An idle transaction can only be one whose central is gone or stuck.
        config
            .options(format!("-c statement_timeout={timeout_ms} -c idle_in_transaction_session_timeout={timeout_ms}"))
            .application_name("roost-central")
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(given.connect_timeout)
            .keepalives_idle(KEEPALIVE_IDLE)
            .ssl_mode(match given.sslmode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
        let tls = match given.sslmode {
            SslMode::Disable => None,
            _ => Some(tls::client(given.ca_file.as_deref()).map_err(|error| open_error(given, error))?),
        };
        Ok(Self {
            config,
            tls,
            connect_timeout: given.connect_timeout,
            patience: given.statement_timeout + NETWORK_GRACE,
            failed_at: Mutex::new(None),
        })
    }

    /// Opens a connection on the present runtime, which must go on for it.
    pub(super) async fn connect(&self, on_notice: OnNotice) -> Result<Client, StoreError> {
        let failed_at = *lock(&self.failed_at);
        if failed_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(StoreError::Unavailable(Box::new(Away)));
        }
        let connecting = async {
            match &self.tls {
                Some(tls) => self.connect_with(tls.clone(), on_notice).await,
                None => self.connect_with(NoTls, on_notice).await,
            }
        };
        let connected = tokio::time::timeout(self.connect_timeout, connecting).await;
        let connected =
            connected.map_err(|_| StoreError::Unavailable(Box::new(ConnectTimeout(self.connect_timeout.as_millis()))));
        let connected = connected.and_then(|c| c.map_err(|error| StoreError::Unavailable(Box::new(error))));
        *lock(&self.failed_at) = connected.is_err().then(Instant::now);
        connected
    }

    async fn connect_with<T>(&self, tls: T, mut on_notice: OnNotice) -> Result<Client, tokio_postgres::Error>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, mut connection) = self.config.connect(tls).await?;
        // Ends with the connection, or with its runtime.
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| pin!(&mut connection).get_mut().poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(notification)) => on_notice(notification),
                    Ok(AsyncMessage::Notice(notice)) => tracing::debug!(notice = notice.message(), "database notice"),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = crate::log::chain(&error), "connection to the database lost");
                        return;
                    }
                }
            }
        });
        Ok(client)
    }
}
