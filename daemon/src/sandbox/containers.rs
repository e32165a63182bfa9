//! What the two containers of a sandbox run and see. Pure.

use std::collections::BTreeMap;

use roost_proto::model::{SandboxSpec, WindowManager};

use super::claim::CLAIM_DIR;
use super::image::PreparedImage;
use super::layout::SandboxDirs;
use crate::containerd::spec::{BindMount, Program, User};
use crate::display::server;

/// Where both containers find the X authority file.
const XAUTHORITY: &str = server::ServerPaths::AUTHORITY;
/// Search path of an image that sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn user_of(image: &PreparedImage) -> User {
    User { uid: image.account.uid, gid: image.account.gid, groups: image.account.groups.clone() }
}

fn bind(source: std::path::PathBuf, target: &'static str, writable: bool) -> BindMount {
    BindMount { source, target, writable }
}

/// The X server. It runs as the workload's user: shared memory segments of
/// MIT-SHM are readable by their owner alone.
#[must_use]
pub fn display_program(spec: &SandboxSpec, number: u32, workload: &PreparedImage) -> Program {
    let paths = server::ServerPaths::default();
    let mut env = vec![format!("PATH={DEFAULT_PATH}")];
    let args = match spec.window_manager {
        WindowManager::Platform => {
            // For the window manager, which the server's shell starts.
            env.extend([format!("DISPLAY=:{number}"), format!("XAUTHORITY={XAUTHORITY}")]);
            server::command_with_manager(&spec.display, number, &paths)
        }
        WindowManager::None | WindowManager::Image => server::command(&spec.display, number, &paths),
    };
    Program { args, env, cwd: "/".into(), user: User { groups: Vec::new(), ..user_of(workload) }, terminal: false }
}

/// What the display container sees of the host. The framebuffer's tmpfs lies
/// below the first and is named again: crun 1.8 leaves mounts below a bind out
/// when there is a user namespace.
#[must_use]
pub fn display_binds(dirs: &SandboxDirs) -> Vec<BindMount> {
    vec![
        bind(dirs.display(), "/run/roost", true),
        bind(dirs.framebuffer(), server::ServerPaths::FRAMEBUFFER_DIR, true),
        bind(dirs.x11(), server::SOCKET_DIR, true),
    ]
}

/// The user's program; the spec's command wins over the image's.
#[must_use]
pub fn workload_program(spec: &SandboxSpec, number: u32, image: &PreparedImage, sandbox_id: &str) -> Program {
    let own = || image.config.entrypoint.iter().chain(&image.config.cmd).cloned().collect();
    let args = if spec.command.is_empty() { own() } else { spec.command.clone() };
    let image_dir = Some(&image.config.working_dir).filter(|d| d.starts_with('/'));
    let cwd = spec.working_dir.as_ref().or(image_dir).map_or("/", String::as_str);
    Program {
        args,
        env: workload_env(spec, number, image, sandbox_id),
        cwd: cwd.to_owned(),
        user: user_of(image),
        terminal: false,
    }
}

/// The image's environment, the spec's over it, Roost's own over both.
#[must_use]
pub fn workload_env(spec: &SandboxSpec, number: u32, image: &PreparedImage, sandbox_id: &str) -> Vec<String> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("PATH".into(), DEFAULT_PATH.into());
    env.insert("HOME".into(), image.account.home.clone());
    if !image.account.name.is_empty() {
        env.insert("USER".into(), image.account.name.clone());
    }
    let pairs = image.config.env.iter().filter_map(|pair| pair.split_once('='));
    env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    env.extend(spec.env.clone());
    env.insert("DISPLAY".into(), format!(":{number}"));
    env.insert("XAUTHORITY".into(), XAUTHORITY.into());
    env.insert("ROOST_SANDBOX_ID".into(), sandbox_id.into());
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What the workload sees of the host: the X socket's directory and the
/// cookie read-only, so that it cannot take the display's place.
#[must_use]
pub fn workload_binds(dirs: &SandboxDirs) -> Vec<BindMount> {
    let etc = |name: &str| dirs.etc().join(name);
    vec![
        bind(dirs.shm(), "/dev/shm", true),
        bind(dirs.x11(), server::SOCKET_DIR, false),
        bind(dirs.xauth(), XAUTHORITY, false),
        bind(dirs.claim(), CLAIM_DIR, false),
        bind(etc("hosts"), "/etc/hosts", false),
        bind(etc("hostname"), "/etc/hostname", false),
        bind(etc("resolv.conf"), "/etc/resolv.conf", false),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::image::ImageConfig;
    use crate::host::passwd::Account;

    fn image() -> PreparedImage {
        PreparedImage {
            reference: "a".parse().unwrap(),
            chain_id: "sha256:0".into(),
            layers: vec![],
            config: ImageConfig {
                entrypoint: vec!["/init".into()],
                cmd: vec!["run".into()],
                env: vec!["PATH=/image".into(), "LANG=C".into()],
                working_dir: "/image".into(),
                user: "agent".into(),
            },
            account: Account {
                uid: 1000,
                gid: 1000,
                groups: vec![29],
                home: "/home/agent".into(),
                name: "agent".into(),
            },
        }
    }

    fn spec(json: &str) -> SandboxSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_image_runs_its_own_program_unless_told_otherwise() {
        let plain = spec(r#"{"template":"t","image":"a"}"#);
        assert_eq!(workload_program(&plain, 0, &image(), "sbx").args, ["/init", "run"]);
        let told = spec(r#"{"template":"t","image":"a","command":["/bin/sh"],"working_dir":"/w"}"#);
        let program = workload_program(&told, 0, &image(), "sbx");
        assert_eq!((program.args, program.cwd), (vec!["/bin/sh".to_owned()], "/w".to_owned()));
    }

    #[test]
    fn the_specs_environment_wins_over_the_images_and_roosts_over_both() {
        let spec = spec(r#"{"template":"t","image":"a","env":{"LANG":"de","XAUTHORITY":"/evil"}}"#);
        let env = workload_env(&spec, 3, &image(), "sbx");
        for expected in ["LANG=de", "PATH=/image", "DISPLAY=:3", "XAUTHORITY=/run/roost/xauth", "HOME=/home/agent"] {
            assert!(env.iter().any(|e| e == expected), "{expected} in {env:?}");
        }
    }

    #[test]
    fn the_workload_cannot_write_where_the_display_listens() {
        let dirs = super::super::layout::Layout::new("/r".as_ref()).sandbox(&roost_proto::id::SandboxId::random());
        let x11 = workload_binds(&dirs).into_iter().find(|b| b.target == server::SOCKET_DIR).unwrap();
        assert!(!x11.writable);
    }
}
