#!/bin/bash
# From a bare machine to a desktop that you can see.
#
#   quickstart.sh [up]     build, start, make one desktop, save its screenshot; again, it restarts
#                          what is of an older build or configuration: desktops run on
#   quickstart.sh status   what runs
#   quickstart.sh down     stop and remove all of it
#
# Runs as root on Debian 12 with a Rust toolchain; every other package it installs itself.
#
# Environment:
#   ROOST_HOME                directory of everything that is started [/var/lib/roost]
#   ROOST_PORT                first of four ports on loopback: API, nodes, two for metrics [7700]
#   ROOST_CONTAINERD_SOCKET   use this containerd instead of a private one
#   ROOST_IMAGES              where built images are kept [/var/cache/roost/images]
#   CARGO_TARGET_DIR          where cargo builds
#
# ROOST_HOME/etc/central.local.toml and roostd.local.toml, where they exist, are added to the
# configuration that this script writes.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly repository
# shellcheck source=deploy/lib/common.sh
source "$repository/deploy/lib/common.sh"

home=$(realpath -m "${ROOST_HOME:-/var/lib/roost}")
port=${ROOST_PORT:-7700}
images=${ROOST_IMAGES:-/var/cache/roost/images}
readonly home port images
readonly bin=$home/bin config=$home/etc logs=$home/log run=$home/run
# Cgroup and containerd namespace are named after the home: several can run side by side.
name=roost-$(printf '%s' "$home" | sha256sum | cut -c1-8)
readonly name sandbox=first picture=$home/first.png
# Processes that this run started, newest first: stopped again if it fails.
started=()

main() {
    case ${1:-up} in
        up) (($# <= 1)) || usage; up ;;
        status) status ;;
        down) down ;;
        -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
        *) usage ;;
    esac
}

usage() {
    fail "usage: quickstart.sh [up|status|down]"
}

require_root() {
    [[ $(id -u) == 0 ]] || fail "must run as root: sandboxes need mounts, namespaces and cgroups"
}

# --- up ---------------------------------------------------------------------

up() {
    require_root
    require_kernel
    if ! [[ $port =~ ^[0-9]{4,5}$ ]] || ((port < 1024 || port > 65531)); then
        fail "ROOST_PORT must be a port from 1024 to 65531"
    fi
    ((${#home} <= 60)) || fail "ROOST_HOME is too long for unix sockets: use at most 60 characters"
    require_ports
    require_cargo
    [[ -e $bin/roostd ]] || require_space "$home" 3000 "Roost"
    { build_packages; runtime_packages; } | install_missing
    mkdir -p "$bin" "$config" "$logs" "$run"
    exec {lock}>"$home/quickstart.lock"
    flock -n "$lock" || fail "another quickstart works on $home"
    trap give_up EXIT
    step "building Roost" build_binaries
    step "building the images" "$repository/deploy/images/build.sh" --out "$images" display desktop
    write_configuration
    start_containerd
    start_central
    start_node
    import_images
    make_sandbox
    trap - EXIT
    report
}

# Runs a long step; its own output shows progress.
step() {
    local title=$1 begun=$SECONDS
    shift
    say "== $title"
    "$@" || fail "$title did not work; see above"
    ((SECONDS - begun < 5)) || say "   done in $((SECONDS - begun)) s"
}

give_up() {
    local code=$? process
    trap - EXIT
    ((code)) || return 0
    for process in "${started[@]}"; do
        say "stopping $process"
        stop_process "$process"
    done
    exit "$code"
}

require_ports() {
    local offset process
    for offset in 0 1 2 3; do
        process=central
        ((offset < 3)) || process=roostd
        is_running "$process" && continue
        if (exec 3<>"/dev/tcp/127.0.0.1/$((port + offset))") 2>/dev/null; then
            fail "port $((port + offset)) is taken: stop what uses it, or set ROOST_PORT to the first of four free ones"
        fi
    done
}

build_binaries() {
    local target
    target=$(cargo_target_dir "$repository")
    require_space "$target" 4000 "the build"
    CARGO_TARGET_DIR=$target build_release "$repository" || return 1
    local binary
    for binary in roostd roost-central roost; do
        # A running binary cannot be written: it is replaced.
        cmp -s "$target/release/$binary" "$bin/$binary" || install -m 0755 "$target/release/$binary" "$bin/.$binary.new"
        [[ ! -e $bin/.$binary.new ]] || mv "$bin/.$binary.new" "$bin/$binary"
    done
}

# Writes standard input and the additions of the site to a configuration file, if that is news: what
# runs is restarted when its file is newer.
configure() {
    local file=$config/$1.toml
    { cat; [[ ! -e $config/$1.local.toml ]] || cat "$config/$1.local.toml"; } >"$file.new"
    if cmp -s "$file.new" "$file"; then rm "$file.new"; else mv "$file.new" "$file"; fi
}

write_configuration() {
    configure containerd <<END
version = 2
root = "$home/containerd/root"
state = "$home/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$run/containerd.sock"
[ttrpc]
address = "$run/containerd.sock.ttrpc"
END
    configure central <<END
state_dir = "$home/central"
seed_dir = "$repository/deploy/config"
admin_token_file = "$home/admin-token"
[api]
listen = "127.0.0.1:$port"
[link]
listen = "127.0.0.1:$((port + 1))"
[admin]
listen = "127.0.0.1:$((port + 2))"
END
    configure roostd <<END
root = "$home/node"
runc_state = "/run/$name/runc"
[containerd]
socket = "$(containerd_socket)"
namespace = "$name"
[sandboxes]
cgroup_parent = "$name"
[api]
socket = "$run/roostd.sock"
[admin]
listen = "127.0.0.1:$((port + 3))"
[central]
address = "https://127.0.0.1:$((port + 1))"
join_token_file = "$home/join-token"
END
    cat >"$bin/roost-here" <<END
#!/bin/sh
# The roost command, for this quickstart's central and node.
export ROOST_CONFIG="\${ROOST_CONFIG:-$config/cli.toml}" ROOST_NODE_SOCKET="\${ROOST_NODE_SOCKET:-$run/roostd.sock}"
exec "$bin/roost" "\$@"
END
    chmod 0755 "$bin/roost-here"
}

containerd_socket() {
    echo "${ROOST_CONTAINERD_SOCKET:-$run/containerd.sock}"
}

start_containerd() {
    [[ -z ${ROOST_CONTAINERD_SOCKET-} ]] || return 0
    start containerd "$(command -v containerd)" --config "$config/containerd.toml"
    wait_for "containerd" 30 test -S "$run/containerd.sock"
}

start_central() {
    start central "$bin/roost-central" serve --config "$config/central.toml"
    wait_for "central" 30 curl -sf -o /dev/null "http://127.0.0.1:$((port + 2))/ready"
    [[ -e $config/cli.toml ]] || roost config set-context quickstart --server "http://127.0.0.1:$port" \
        --token-file "$home/admin-token" --use >/dev/null
}

start_node() {
    if [[ ! -e $home/node/identity/identity.json ]]; then
        (umask 077 && roost node join-token --expires-in 10m >"$home/join-token")
    fi
    start roostd "$bin/roostd" --config "$config/roostd.toml"
    wait_for "the node" 60 is_node_online
    rm -f "$home/join-token"
}

is_node_online() {
    roost node ls -o json 2>/dev/null | jq -e 'map(select(.phase == "Online")) | length > 0' >/dev/null
}

import_images() {
    local image
    for image in display desktop; do
        if ! roost image ls -o json | jq -e --arg r "roost/$image:latest" 'any(.reference == $r)' >/dev/null; then
            say "== importing $image"
            roost image import "$images/$image.tar"
        fi
    done
    wait_for "the node's display image" 30 curl -sf -o /dev/null "http://127.0.0.1:$((port + 3))/ready"
}

make_sandbox() {
    if ! roost sandbox get "$sandbox" >/dev/null 2>&1; then
        say "== making a desktop"
        roost sandbox create desktop --name "$sandbox" --wait --timeout 2m >/dev/null
    fi
    take_picture
}

# The browser's window comes after the terminal's, and a page some frames after its window: the
# picture is taken when both windows are there and two in a row are equal.
take_picture() {
    local before='' now _
    for _ in {1..75}; do
        (($(windows) < 2)) || break
        sleep 0.4
    done
    for _ in {1..40}; do
        roost sandbox screenshot "$sandbox" -o "$picture" >/dev/null
        now=$(sha256sum <"$picture")
        [[ $now != "$before" ]] || return 0
        before=$now
        sleep 0.4
    done
    say "the screen does not come to rest; the picture shows its last state"
}

windows() {
    roost sandbox exec "$sandbox" -- xprop -root _NET_CLIENT_LIST 2>/dev/null | grep -o 0x | wc -l
}

report() {
    say ""
    roost sandbox ls
    roost debug trace "$(roost sandbox get "$sandbox" -o json | jq -r .id)" || true
    cat <<END

Picture       $picture
API           http://127.0.0.1:$port/api/v1
END
    if [[ -e $home/admin-token && ! -e $home/admin-token.shown ]]; then
        touch "$home/admin-token.shown"
        echo "Admin token   $(<"$home/admin-token")   (shown once; kept in $home/admin-token)"
    fi
    cat <<END

Try next:
  alias roost=$bin/roost-here
  roost sandbox exec -it $sandbox -- bash
  roost sandbox screenshot $sandbox -o now.png
  roost sandbox create desktop --name second --wait
  roost debug sandboxes
  $repository/deploy/quickstart.sh down
END
}

roost() {
    "$bin/roost-here" "$@"
}

# --- processes --------------------------------------------------------------

# start NAME PROGRAM ARG…: in a session of its own, unless it runs.
start() {
    local process=$1 pid
    shift
    if is_running "$process"; then
        is_current "$process" && return 0
        say "== stopping the older $process"
        stop_process "$process"
    fi
    say "== starting $process"
    # The lock is this script's alone: a daemon must not inherit it.
    setsid "$@" >>"$logs/$process.log" 2>&1 </dev/null {lock}>&- &
    pid=$!
    echo "$pid" >"$run/$process.pid"
    started=("$process" "${started[@]}")
    # Before it is its program it is this shell, then setsid: is_running would say that it ended.
    until is_running "$process" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
}

# The pid file may be older than the machine's last boot: the program must be the right one.
is_running() {
    local pid program
    pid=$(cat "$run/$1.pid" 2>/dev/null) || return 1
    program=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    case $1 in
        containerd) [[ $program == */containerd ]] ;;
        central) [[ $program == "$bin/roost-central"* ]] ;;
        roostd) [[ $program == "$bin/roostd"* ]] ;;
    esac
}

# Whether a process runs the program and the configuration that are there now. A new containerd is
# the machine's affair.
is_current() {
    [[ $1 != containerd ]] || return 0
    [[ $(readlink "/proc/$(<"$run/$1.pid")/exe") != *" (deleted)" && ! $config/$1.toml -nt $run/$1.pid ]]
}

stop_process() {
    local pid _
    is_running "$1" || { rm -f "$run/$1.pid"; return 0; }
    pid=$(<"$run/$1.pid")
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..100}; do
        is_running "$1" || break
        sleep 0.1
    done
    if is_running "$1"; then
        kill -KILL "$pid" 2>/dev/null || true
        sleep 0.2
    fi
    rm -f "$run/$1.pid"
}

# wait_for WHAT SECONDS COMMAND…
wait_for() {
    local what=$1 deadline=$((SECONDS + $2)) process
    shift 2
    until "$@"; do
        for process in "${started[@]}"; do
            is_running "$process" || { tail -3 "$logs/$process.log" >&2; fail "$process ended; see $logs/$process.log"; }
        done
        ((SECONDS < deadline)) || fail "$what does not answer; see $logs"
        sleep 0.1
    done
}

# --- status -----------------------------------------------------------------

status() {
    require_root
    [[ -d $home ]] || { say "nothing is installed at $home"; return 3; }
    local process code=0
    for process in containerd central roostd; do
        [[ $process != containerd || -z ${ROOST_CONTAINERD_SOCKET-} ]] || continue
        if is_running "$process"; then
            printf '%-12s running   pid %s\n' "$process" "$(<"$run/$process.pid")"
        else
            printf '%-12s stopped\n' "$process"
            code=3
        fi
    done
    if ((code == 0)); then
        echo
        roost node ls
        echo
        roost sandbox ls
    fi
    return "$code"
}

# --- down -------------------------------------------------------------------

down() {
    require_root
    [[ -d $home ]] || { say "nothing is installed at $home"; return 0; }
    if is_running central && is_running roostd; then
        say "== deleting the sandboxes"
        roost sandbox rm --all --wait --timeout 2m </dev/null >/dev/null 2>&1 || say "some sandboxes are removed the hard way"
        if [[ -n ${ROOST_CONTAINERD_SOCKET-} ]]; then
            roost image rm --all-nodes roost/desktop:latest roost/display:latest >/dev/null 2>&1 || true
        fi
    fi
    say "== stopping"
    stop_process roostd
    stop_process central
    kill_cgroup
    stop_process containerd
    unmount_home
    remove_cgroup
    rm -rf --one-file-system "$home" "/run/$name"
    say "nothing of $home is left"
}

cgroup_dirs() {
    local dir
    for dir in /sys/fs/cgroup/*/"$name" /sys/fs/cgroup/"$name"; do
        [[ ! -d $dir ]] || find "$dir" -depth -type d
    done
}

# Containers and shims that are left when the daemons were not there to remove them.
kill_cgroup() {
    local dir pids
    while read -r dir; do
        pids=$(cat "$dir/cgroup.procs" 2>/dev/null) || continue
        # shellcheck disable=SC2086
        [[ -z $pids ]] || kill -KILL $pids 2>/dev/null || true
    done < <(cgroup_dirs)
}

remove_cgroup() {
    local dir _
    for _ in {1..50}; do
        while read -r dir; do rmdir "$dir" 2>/dev/null || true; done < <(cgroup_dirs)
        [[ -n $(cgroup_dirs) ]] || return 0
        sleep 0.1
    done
    say "cgroups named $name stay: something still runs in them"
}

unmount_home() {
    local point
    while read -r point; do
        umount -l "$point" 2>/dev/null || true
    done < <(awk -v home="$home/" 'index($5, home) == 1 { print $5 }' /proc/self/mountinfo | tac)
}

main "$@"
