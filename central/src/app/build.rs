//! Builds and spawns everything, in the order in which things need each other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tracing::info_span;

use super::{Central, Scope, SeedError, TokenError, default_tenant, keep_first_admin_token, new_admin_token};
use crate::ca::{Authorities, CaError, Keeper, write_private};
use crate::changes::Changes;
use crate::config::{Config, ConfigError};
use crate::link::{self, Admission, LinkSettings, Pace, Pressure, Sessions};
use crate::live::{Live, Silence};
use crate::metrics::Metrics;
use crate::pools::Pools;
use crate::rooms::Rooms;
use crate::serve::{self, ServeError};
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;
use crate::{admin, api, background, clock};

/// Why central does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be made.
    #[error("cannot make the state directory {}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The CA cannot be opened.
    #[error("cannot open the certificate authority")]
    Ca(#[from] CaError),
    /// The configuration cannot be used.
    #[error("cannot use the configuration")]
    Config(#[from] ConfigError),
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[from] StoreError),
    /// A token cannot be made.
    #[error("cannot make the admin token")]
    Token(#[from] TokenError),
    /// The seed directory is faulty.
    #[error("cannot use the seed directory")]
    Seed(#[from] SeedError),
    /// A listener cannot be opened.
    #[error("cannot serve")]
    Serve(#[from] ServeError),
    /// The name of the tenant is none.
    #[error("cannot name the tenant")]
    Tenant(#[from] roost_proto::id::ParseIdError),
}

/// Where central listens.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// REST and gRPC.
    pub api: SocketAddr,
    /// NodeLink.
    pub link: SocketAddr,
    /// Liveness, readiness, metrics.
    pub admin: SocketAddr,
}

/// Central, built and bound, not yet serving.
#[derive(Debug)]
pub struct App {
    central: Arc<Central>,
    api: (TcpListener, Option<TlsAcceptorEnd>),
    link: TcpListener,
    admin: TcpListener,
    config: Config,
}

/// Hides what cannot be shown.
struct TlsAcceptorEnd(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// Makes a directory that only its owner may enter.
fn private_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::StateDir { path: path.to_owned(), source })
}

impl App {
    /// Opens store and CA without serving: for the commands that work beside a
    /// running server. The metrics that the store feeds are nobody's.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn open_store(config: &Config) -> Result<(Arc<dyn Store>, Authorities), StartError> {
        let (store, authorities) = open(config, Arc::new(Changes::default()), &Metrics::default()).await?;
        store.system().ensure_tenant(default_tenant()?, clock::now_unix_ms()).await?;
        Ok((store, authorities))
    }

    /// Opens everything and binds every listener; nothing is served yet.
    ///
    /// # Errors
    /// See [`StartError`]. What was bound is released.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        // Listeners first: of two instances the second fails before it opens
        // the database.
        let api = serve::bind(config.api.listen, "api.listen").await?;
        let link = serve::bind(config.link.listen, "link.listen").await?;
        let admin = serve::bind(config.admin.listen, "admin.listen").await?;
        let tls = match (&config.api.tls_cert, &config.api.tls_key) {
            (Some(cert), Some(key)) => Some(TlsAcceptorEnd(serve::tls(cert, key)?)),
            _ => None,
        };
        let (changes, metrics) = (Arc::new(Changes::default()), Metrics::default());
        let (store, authorities) = open(&config, changes.clone(), &metrics).await?;
        let tenant = default_tenant()?;
        store.system().ensure_tenant(tenant.clone(), clock::now_unix_ms()).await?;
        let silence = Silence { stale_after: config.link.stale_after(), offline_after: config.link.offline_after() };
        let central = Arc::new(Central {
            rooms: Rooms::default(),
            pools: Pools::default(),
            live: Live::new(silence, store.system().heartbeat_times().await?),
            store,
            changes,
            sessions: Arc::new(Sessions::default()),
            admission: Admission::new(config.link.entries_max),
            pressure: Pressure::default(),
            ca: Arc::new(Keeper::new(config.ca_dir(), authorities)),
            metrics,
            strategy: config.placement.strategy,
            replica: config.replica_name(),
            config_shown: serde_json::json!(config),
            tasks: Tasks::default(),
        });
        if let Some(dir) = &config.seed_dir {
            Scope::of(&central, tenant).seed(dir).await?;
        }
        first_admin_token(&central, config.admin_token_file.as_deref()).await?;
        Ok(Self { central, api: (api, tls), link, admin, config })
    }

    /// Where it listens, with the ports that the system chose.
    ///
    /// # Errors
    /// When the system does not know its own sockets.
    pub fn ends(&self) -> std::io::Result<Ends> {
        Ok(Ends { api: self.api.0.local_addr()?, link: self.link.local_addr()?, admin: self.admin.local_addr()? })
    }

    /// The parts, for tests and embedders.
    #[must_use]
    pub fn central(&self) -> Arc<Central> {
        self.central.clone()
    }

    /// Starts everything and returns the tasks that it consists of.
    #[must_use]
    pub fn spawn(self) -> Tasks {
        let Self { central, api: (api, tls), link, admin, config } = self;
        let tasks = central.tasks.clone();
        background::spawn(&central);
        let settings = LinkSettings {
            certificate_validity: Duration::from_secs(config.link.certificate_validity_s),
            server_certificate_validity: Duration::from_secs(config.link.server_certificate_validity_s),
            handshakes_max: config.link.handshakes_max,
            pace: Pace::new(config.link.heartbeat_period_ms, config.link.stale_after()),
        };
        tasks.spawn(info_span!("link"), serve_link(link, central.clone(), settings));
        let admin = serve::serve(admin, None, admin::router(central.clone()), tasks.clone());
        tasks.spawn(info_span!("admin"), admin);
        let router = api::router(&central, &config.api);
        let api = serve::serve(api, tls.map(|end| end.0), router, tasks.clone());
        tasks.spawn(info_span!("api"), api);
        tasks
    }
}

/// Opens CA and store.
async fn open(
    config: &Config,
    changes: Arc<Changes>,
    metrics: &Metrics,
) -> Result<(Arc<dyn Store>, Authorities), StartError> {
    private_dir(&config.state_dir)?;
    let authorities = Authorities::open_or_create(&config.ca_dir())?;
    let store = config.database()?.open(changes, metrics.store.clone()).await?;
    Ok((store, authorities))
}

/// Without NodeLink central is of no use: its end ends the process.
async fn serve_link(listener: TcpListener, central: Arc<Central>, settings: LinkSettings) {
    let tasks = central.tasks.clone();
    if let Err(error) = link::serve(listener, central, tasks.clone(), settings).await {
        tracing::error!(error = crate::log::chain(&error), "NodeLink ended");
        tasks.ending().cancel();
    }
}

/// Makes the admin token of the first start and hands it over, once.
async fn first_admin_token(central: &Central, file: Option<&Path>) -> Result<(), StartError> {
    let tenant = default_tenant()?;
    if central.store.tenant(&tenant).has_admin_token().await? {
        return Ok(());
    }
    let secret = new_admin_token();
    // The file first: a token that is kept and was never handed over is lost.
    if let Some(path) = file {
        write_private(path, format!("{}\n", secret.reveal()).as_bytes())?;
        tracing::info!(path = %path.display(), "admin token written");
    }
    if !keep_first_admin_token(&*central.store, &tenant, &secret).await? {
        // Another replica came first, and its token is the one that counts.
        if let Some(path) = file {
            std::fs::remove_file(path).map_err(|source| StartError::StateDir { path: path.to_owned(), source })?;
        }
        return Ok(());
    }
    if file.is_none() {
        println!("{}", secret.reveal());
    }
    Ok(())
}
