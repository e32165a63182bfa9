//! A private PostgreSQL under a temporary directory, on a unix socket.
//!
//! A shell watches over each server: when the tests end, in whatever way, its
//! standard input closes, and it stops the server and removes the directory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

/// $1 = root, $2 = directory of PostgreSQL's programs, $3 = more settings. The
/// order of text follows a language here, so that nothing relies on bytes by
/// chance. The server refuses to run as root.
const KEEPER: &str = r#"
root=$1 bin=$2
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown -R postgres "$root"
cd "$root"
as "$bin/initdb" -D "$root/data" -U roost -A trust --no-sync -E UTF8 --locale=C.UTF-8 \
    --locale-provider=icu --icu-locale=en >"$root/initdb.log" 2>&1 || { cat "$root/initdb.log"; exit 1; }
settings="-c listen_addresses= -c unix_socket_directories=$root -c fsync=off -c max_connections=200 $3"
while read -r word; do
    case $word in
        start) as "$bin/pg_ctl" -D "$root/data" -w -l "$root/log" -o "$settings" start >"$root/ctl.log" 2>&1 && echo done || cat "$root/ctl.log" "$root/log" ;;
        stop | kill)
            mode=fast; [ "$word" = stop ] || mode=immediate
            as "$bin/pg_ctl" -D "$root/data" -w -m $mode stop >"$root/ctl.log" 2>&1 && echo done || cat "$root/ctl.log" ;;
    esac
done
as "$bin/pg_ctl" -D "$root/data" -m immediate stop >/dev/null 2>&1
cd / && rm -rf "$root"
"#;

/// A server of its own.
pub(crate) struct Server {
    root: PathBuf,
    bin: PathBuf,
    keeper: Mutex<(Child, ChildStdin, BufReader<ChildStdout>)>,
    databases: AtomicU32,
    port: u16,
}

/// How a server is reached over TCP: with TLS, and the role `guarded` by its
/// password only.
pub(crate) struct Tcp {
    pub(crate) port: u16,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// The newest installed release.
fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is not installed: apt-get install postgresql")
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL's server is not installed: apt-get install postgresql")
}

impl Server {
    /// The server that the tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Another server.
    pub(crate) fn start() -> Self {
        Self::start_with(5432, |_| String::new())
    }

    /// Another server, which listens on loopback as well.
    pub(crate) fn start_tcp(tcp: &Tcp) -> Self {
        let server = Self::start_with(tcp.port, |root| {
            let write = |name: &str, text: &str| {
                let path = root.join(name);
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
                path.display().to_string()
            };
            let certificate = write("server.crt", &tcp.certificate_pem);
            let key = write("server.key", &tcp.key_pem);
            let logins = write("logins", "local all all trust\nhost all guarded all scram-sha-256\n");
            format!(
                "-c listen_addresses=127.0.0.1 -c hba_file={logins} \
                 -c ssl_cert_file={certificate} -c ssl_key_file={key}"
            )
        });
        server.set_tls(true);
        server
    }

    /// Switches TLS on or off.
    pub(crate) fn set_tls(&self, is_on: bool) {
        let word = if is_on { "on" } else { "off" };
        self.run("postgres", &format!("ALTER SYSTEM SET ssl = {word}; SELECT pg_reload_conf();"));
        let is_done = || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.run("postgres", "SHOW ssl") == word
        };
        assert!((0..500).any(|_| is_done()), "TLS did not go {word}");
    }

    /// `prepare` puts files into its directory and says more settings.
    fn start_with(port: u16, prepare: impl Fn(&Path) -> String) -> Self {
        let root = tempfile::Builder::new().prefix("roost-pg.").tempdir().unwrap().keep();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = format!("-c port={port} {}", prepare(&root));
        let bin = programs();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args([&root, &bin])
            .arg(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the tests: the keeper has yet to clear up.
            .process_group(0)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (keeper.stdin.take().unwrap(), BufReader::new(keeper.stdout.take().unwrap()));
        let keeper = Mutex::new((keeper, stdin, stdout));
        let server = Self { root, bin, keeper, databases: AtomicU32::new(0), port };
        server.tell("start");
        server
    }

    /// `start`, `stop` (after its sessions are told) or `kill` (as a crash).
    pub(crate) fn tell(&self, word: &str) {
        let (_, stdin, stdout) = &mut *self.keeper.lock().unwrap();
        writeln!(stdin, "{word}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "done", "PostgreSQL did not {word}: see {}", self.root.display());
    }

    /// Path of its unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join(format!(".s.PGSQL.{}", self.port))
    }

    /// URL of a new, empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://roost@{}/{name}", self.root.display().to_string().replace('/', "%2F"))
    }

    /// Runs SQL in a database and returns what it prints, unaligned.
    pub(crate) fn run(&self, database: &str, sql: &str) -> String {
        let mut child = Command::new(self.bin.join("psql"))
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "roost", "-d", database, "-p", &self.port.to_string(), "-h"])
            .arg(&self.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "psql failed: {sql}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// The name of the database in a URL.
pub(crate) fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}
