//! The display room against a real Xvfb. The window manager and the hostile
//! clients are X clients of the tests' own.

// A test fails by a panic, in its helpers as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use roost_proto::model::DisplaySpec;
use roostd::display::server::{self, ServerPaths};
use roostd::display::{
    Cookie, Framebuffer, Geometry, Owner, ReadyError, ReadyFifo, Screenshots, XAddress, XError, resize_screen,
    wait_for_window_manager, wait_for_window_title, window_manager_lost,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    AtomEnum, ConnectionExt as _, CreateGCAux, CreateWindowAux, DestroyNotifyEvent, EventMask, PropMode, Rectangle,
    WindowClass,
};
use x11rb::rust_connection::{DefaultStream, RustConnection};
use x11rb::wrapper::ConnectionExt as _;

/// A screen that no other test of this file's kind uses by chance.
const SPEC: DisplaySpec =
    DisplaySpec { kind: roost_proto::model::DisplayKind::Xvfb, width_px: 320, height_px: 200, glx: false };
/// The display number that is tried next: no two tests try the same, and
/// another run of this file most likely begins elsewhere.
static NEXT_NUMBER: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(1000 + std::process::id() % 500 * 100));

/// An Xvfb with its files; ends with the value.
struct Display {
    server: Child,
    files: tempfile::TempDir,
    address: XAddress,
    number: u32,
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        // A killed server leaves both behind.
        let _ = std::fs::remove_file(server::lock_path(self.number));
        let _ = std::fs::remove_file(Path::new(server::SOCKET_DIR).join(server::socket_name(self.number)));
    }
}

fn me() -> Owner {
    Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn paths(files: &Path) -> ServerPaths {
    let path = |name| files.join(name).to_str().unwrap().to_owned();
    ServerPaths {
        ready_fifo: path("displayfd"),
        framebuffer_dir: path("fb"),
        authority: path("xauth"),
        manager_dir: path(""),
    }
}

impl Display {
    /// Starts Xvfb as the display container does. A number that is taken makes
    /// the server end: the next one is tried.
    async fn start() -> Self {
        loop {
            let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
            let files = tempfile::tempdir().unwrap();
            let paths = paths(files.path());
            std::fs::create_dir(&paths.framebuffer_dir).unwrap();
            let cookie = Cookie::create(Path::new(&paths.authority), me()).unwrap();
            let ready = ReadyFifo::create_and_open(Path::new(&paths.ready_fifo), me()).unwrap();
            let command = server::command(&SPEC, number, &paths);
            let mut child = Command::new(&command[0]).args(&command[1..]).stderr(Stdio::null()).spawn().unwrap();
            match ready.wait(soon()).await {
                Ok(heard) => {
                    assert_eq!(heard, number);
                    let socket = Path::new(server::SOCKET_DIR).join(server::socket_name(number));
                    return Self { server: child, files, address: XAddress { socket, cookie }, number };
                }
                Err(ReadyError::Ended) => drop(child.wait()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A client of the sandbox: it reads the cookie from the file, as every
    /// client does.
    fn client(&self) -> RustConnection {
        let authority = std::fs::read(self.files.path().join("xauth")).unwrap();
        let secret = authority[authority.len() - 16..].to_vec();
        let socket = std::os::unix::net::UnixStream::connect(&self.address.socket).unwrap();
        let (stream, _peer) = DefaultStream::from_unix_stream(socket).unwrap();
        RustConnection::connect_to_stream_with_auth_info(stream, 0, b"MIT-MAGIC-COOKIE-1".to_vec(), secret).unwrap()
    }

    fn framebuffer_dir(&self) -> PathBuf {
        self.files.path().join("fb")
    }

    fn wait_for_window_manager(&self) -> JoinHandle<Result<Option<String>, XError>> {
        let address = self.address.clone();
        tokio::spawn(async move { Ok(wait_for_window_manager(&address, soon()).await?.name) })
    }

    /// Waits until the window manager is lost, with this grace for another.
    fn lose_window_manager(&self, grace: Duration) -> JoinHandle<Result<(), XError>> {
        let address = self.address.clone();
        tokio::spawn(async move { window_manager_lost(&address, grace).await })
    }

    fn wait_for_title(&self, text: &'static str) -> JoinHandle<Result<String, XError>> {
        let address = self.address.clone();
        tokio::spawn(async move { Ok(wait_for_window_title(&address, text, soon()).await?.title) })
    }
}

/// What a client of the tests does.
trait Does {
    fn root(&self) -> u32;
    fn window(&self, parent: u32) -> u32;
    fn manage(&self) -> u32;
    fn atom(&self, name: &str) -> u32;
    fn name_in(&self, window: u32, title: &str);
    fn check_in(&self, window: u32, check: u32);
    fn fill(&self, color: u32, area: Rectangle);
}

impl Does for RustConnection {
    fn root(&self) -> u32 {
        self.setup().roots[0].root
    }

    fn window(&self, parent: u32) -> u32 {
        let window = self.generate_id().unwrap();
        let aux = CreateWindowAux::new();
        let class = WindowClass::INPUT_OUTPUT;
        self.create_window(0, window, parent, 0, 0, 50, 50, 0, class, 0, &aux).unwrap().check().unwrap();
        window
    }

    /// Becomes the window manager; returns its window.
    fn manage(&self) -> u32 {
        let check = self.window(self.root());
        self.check_in(check, check);
        self.check_in(self.root(), check);
        check
    }

    fn atom(&self, name: &str) -> u32 {
        self.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom
    }

    fn name_in(&self, window: u32, title: &str) {
        let (name, utf8) = (self.atom("_NET_WM_NAME"), self.atom("UTF8_STRING"));
        self.change_property8(PropMode::REPLACE, window, name, utf8, title.as_bytes()).unwrap().check().unwrap();
    }

    fn check_in(&self, window: u32, check: u32) {
        let atom = self.atom("_NET_SUPPORTING_WM_CHECK");
        self.change_property32(PropMode::REPLACE, window, atom, AtomEnum::WINDOW, &[check]).unwrap().check().unwrap();
    }

    fn fill(&self, color: u32, area: Rectangle) {
        let gc = self.generate_id().unwrap();
        self.create_gc(gc, self.root(), &CreateGCAux::new().foreground(color)).unwrap();
        self.poly_fill_rectangle(self.root(), gc, &[area]).unwrap().check().unwrap();
    }
}

/// Gives the other tasks time to do what they must not do; a test that passes
/// by mistake here would only be too kind.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(150)).await;
}

#[tokio::test]
async fn a_wrong_cookie_is_refused_in_the_servers_words() {
    let display = Display::start().await;
    let address = XAddress { cookie: Cookie::random(), ..display.address.clone() };
    let error = wait_for_window_manager(&address, soon()).await.unwrap_err();
    assert!(matches!(&error, XError::Refused { reason } if !reason.is_empty()), "{error}");
}

#[tokio::test]
async fn a_window_manager_counts_when_both_windows_name_it_and_not_before() {
    let display = Display::start().await;
    let waiting = display.wait_for_window_manager();
    let manager = display.client();
    let check = manager.window(manager.root());
    manager.name_in(check, "testwm");
    a_while().await;
    assert!(!waiting.is_finished(), "without any property");
    manager.check_in(manager.root(), check);
    a_while().await;
    assert!(!waiting.is_finished(), "with the property of a dead manager");
    manager.check_in(check, check);
    assert_eq!(waiting.await.unwrap().unwrap().as_deref(), Some("testwm"));
    // And one that is there already.
    assert_eq!(display.wait_for_window_manager().await.unwrap().unwrap().as_deref(), Some("testwm"));
}

#[tokio::test]
async fn a_manager_that_names_a_window_which_is_gone_does_not_count() {
    let display = Display::start().await;
    let manager = display.client();
    let check = manager.window(manager.root());
    manager.check_in(manager.root(), check);
    manager.destroy_window(check).unwrap().check().unwrap();
    let waiting = display.wait_for_window_manager();
    a_while().await;
    assert!(!waiting.is_finished());
    let check = manager.window(manager.root());
    manager.check_in(check, check);
    manager.check_in(manager.root(), check);
    assert_eq!(waiting.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_window_manager_is_lost_with_its_connection_and_not_before() {
    let display = Display::start().await;
    let manager = display.client();
    let check = manager.manage();
    let waiting = display.lose_window_manager(Duration::from_millis(100));
    a_while().await;
    // What happens on a desktop all day, and a client's lie.
    manager.name_in(manager.root(), "busy");
    let event = DestroyNotifyEvent { response_type: 17, sequence: 0, event: check, window: check };
    let liar = display.client();
    liar.send_event(false, check, EventMask::STRUCTURE_NOTIFY, event).unwrap().check().unwrap();
    a_while().await;
    assert!(!waiting.is_finished());
    drop(manager);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_window_manager_that_another_replaces_is_not_lost() {
    let display = Display::start().await;
    let first = display.client();
    first.manage();
    let waiting = display.lose_window_manager(Duration::from_secs(30));
    a_while().await;
    drop(first);
    a_while().await;
    let second = display.client();
    second.manage();
    a_while().await;
    assert!(!waiting.is_finished());
    // Each wait is its own: one without grace tells at once.
    let strict = display.lose_window_manager(Duration::from_millis(50));
    a_while().await;
    drop(second);
    strict.await.unwrap().unwrap();
    assert!(!waiting.is_finished());
}

#[tokio::test]
async fn an_end_of_the_server_is_no_loss_but_an_error() {
    let mut display = Display::start().await;
    let waiting = display.lose_window_manager(Duration::from_secs(30));
    let manager = display.client();
    manager.manage();
    a_while().await;
    display.server.kill().unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, XError::Lost(_) | XError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_title_counts_once_its_window_is_visible_inside_a_frame() {
    let display = Display::start().await;
    let waiting = display.wait_for_title("Inbox");
    let client = display.client();
    let frame = client.window(client.root());
    let window = client.window(frame);
    client.map_window(window).unwrap().check().unwrap();
    client.name_in(window, "Inbox (3) – Mail ✉");
    a_while().await;
    assert!(!waiting.is_finished(), "inside a frame that is not mapped");
    client.map_window(frame).unwrap().check().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "Inbox (3) – Mail ✉");
}

#[tokio::test]
async fn a_title_that_changes_later_and_the_old_property_count_as_well() {
    let display = Display::start().await;
    let client = display.client();
    let window = client.window(client.root());
    client.map_window(window).unwrap().check().unwrap();
    let name = |title: &str| {
        let (name, string) = (AtomEnum::WM_NAME, AtomEnum::STRING);
        client.change_property8(PropMode::REPLACE, window, name, string, title.as_bytes()).unwrap().check().unwrap();
    };
    name("loading");
    let waiting = display.wait_for_title("ready");
    a_while().await;
    assert!(!waiting.is_finished());
    name("now ready");
    assert_eq!(waiting.await.unwrap().unwrap(), "now ready");
}

#[tokio::test]
async fn a_grabbed_server_meets_the_deadline_and_its_screen_can_still_be_read() {
    let display = Display::start().await;
    let client = display.client();
    client.fill(0x0012_3456, Rectangle { x: 0, y: 0, width: 320, height: 200 });
    client.grab_server().unwrap().check().unwrap();
    let deadline = Instant::now() + Duration::from_millis(200);
    let error = wait_for_window_manager(&display.address, deadline).await.unwrap_err();
    assert!(matches!(error, XError::Deadline { .. }), "{error}");
    let frame = Framebuffer::open(&display.framebuffer_dir(), Geometry::from(&SPEC)).unwrap().read_frame().unwrap();
    assert_eq!(frame.pixel(100, 100), Some([0x12, 0x34, 0x56]));
}

#[tokio::test]
async fn a_server_that_ends_ends_the_wait() {
    let mut display = Display::start().await;
    let waiting = display.wait_for_window_manager();
    a_while().await;
    display.server.kill().unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, XError::Lost(_)), "{error}");
}

#[tokio::test]
async fn the_screenshot_shows_what_a_client_drew() {
    let display = Display::start().await;
    let client = display.client();
    client.fill(0x00ff_ffff, Rectangle { x: 0, y: 0, width: 320, height: 200 });
    client.fill(0x00ff_8001, Rectangle { x: 10, y: 20, width: 30, height: 40 });
    let geometry = Geometry::from(&SPEC);
    let screenshots = Screenshots::new(2);
    let screenshot = screenshots.take(display.framebuffer_dir(), geometry, geometry).await.unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&screenshot.png)).read_info().unwrap();
    let mut rgb = vec![0; geometry.rgb_bytes()];
    reader.next_frame(&mut rgb).unwrap();
    let frame = screenshots.read(display.framebuffer_dir(), geometry).await.unwrap();
    assert_eq!(frame.rgb, rgb);
    for (x, y, color) in [(10, 20, [0xff, 0x80, 0x01]), (39, 59, [0xff, 0x80, 0x01]), (9, 20, [0xff; 3])] {
        assert_eq!(frame.pixel(x, y), Some(color), "{x},{y}");
    }
    assert_eq!(frame.pixel(40, 59), Some([0xff; 3]));
}

#[tokio::test]
async fn a_framebuffer_that_shrinks_under_the_reader_is_an_error_and_no_signal() {
    let display = Display::start().await;
    let open = Framebuffer::open(&display.framebuffer_dir(), Geometry::from(&SPEC)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(display.framebuffer_dir().join("Xvfb_screen0")).unwrap();
    file.set_len(5000).unwrap();
    assert!(open.read_frame().is_err());
    assert!(
        Screenshots::new(1)
            .take(display.framebuffer_dir(), Geometry::from(&SPEC), Geometry::from(&SPEC))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_socket_path_longer_than_a_socket_address_works() {
    let display = Display::start().await;
    let long = display.files.path().join("d".repeat(120));
    std::os::unix::fs::symlink(server::SOCKET_DIR, &long).unwrap();
    let address = XAddress { socket: long.join(server::socket_name(display.number)), ..display.address.clone() };
    let client = display.client();
    let window = client.window(client.root());
    client.name_in(window, "here");
    client.map_window(window).unwrap().check().unwrap();
    assert_eq!(wait_for_window_title(&address, "here", soon()).await.unwrap().title, "here");
}

#[tokio::test]
async fn a_link_or_a_file_in_the_place_of_the_socket_is_refused() {
    let display = Display::start().await;
    let link = display.files.path().join("X0");
    std::os::unix::fs::symlink(&display.address.socket, &link).unwrap();
    let address = XAddress { socket: link.clone(), ..display.address.clone() };
    let error = wait_for_window_manager(&address, soon()).await.unwrap_err();
    assert!(matches!(error, XError::Connect { .. }), "{error}");
    std::fs::remove_file(&link).unwrap();
    std::fs::write(&link, "").unwrap();
    let error = wait_for_window_manager(&address, soon()).await.unwrap_err();
    assert!(matches!(error, XError::Connect { .. }), "{error}");
}

/// Width and height of the root window, as any client is told.
fn root_size(client: &RustConnection) -> (u16, u16) {
    let geometry = client.get_geometry(client.setup().roots[0].root).unwrap().reply().unwrap();
    (geometry.width, geometry.height)
}

#[tokio::test]
async fn a_screen_gets_smaller_and_whole_again_and_never_larger_than_its_framebuffer() {
    let display = Display::start().await;
    let client = display.client();
    let resize =
        async |width_px, height_px| resize_screen(&display.address, Geometry { width_px, height_px }, soon()).await;
    for size in [(200, 150), (200, 150), (320, 200), (64, 200)] {
        resize(size.0.into(), size.1.into()).await.unwrap();
        assert_eq!(root_size(&client), size);
    }
    for too_large in [(321, 200), (320, 201), (70_000, 200)] {
        let error = resize(too_large.0, too_large.1).await.unwrap_err();
        assert!(matches!(error, XError::Request { .. }), "{error}");
        assert_eq!(root_size(&client), (64, 200), "it stays as it was");
    }
    // New clients are told the same, and windows are drawn where they were.
    client.fill(0x00ff_8001, Rectangle { x: 0, y: 0, width: 64, height: 200 });
    assert_eq!(root_size(&display.client()), (64, 200));
    let framebuffer = Framebuffer::open(&display.framebuffer_dir(), Geometry::from(&SPEC)).unwrap();
    let frame = framebuffer.showing(Geometry { width_px: 64, height_px: 200 }).read_frame().unwrap();
    assert_eq!((frame.pixel(63, 199), frame.pixel(64, 0)), (Some([0xff, 0x80, 0x01]), None));
}

#[tokio::test]
async fn a_client_that_holds_the_server_holds_no_change_of_the_screen_for_ever() {
    let display = Display::start().await;
    let client = display.client();
    client.grab_server().unwrap().check().unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = resize_screen(&display.address, Geometry { width_px: 64, height_px: 64 }, deadline).await.unwrap_err();
    assert!(matches!(error, XError::Deadline { .. }), "{error}");
}
