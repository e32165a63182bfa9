# Shell functions that quickstart.sh, tests/run.sh and benches/run.sh share.
# shellcheck shell=bash

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

# Packages of Debian that provide what is named: "command package" a line.
install_missing() {
    local command package missing=()
    while read -r command package; do
        [[ -n $command ]] || continue
        command -v "$command" >/dev/null || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "these packages are missing and there is no apt-get: ${missing[*]}"
    say "installing ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends \
        "${missing[@]}"; } >"$log" 2>&1; then
        tail -5 "$log" >&2
        rm -f "$log"
        fail "cannot install ${missing[*]}: is the package mirror reachable?"
    fi
    rm -f "$log"
}

# What it takes to run sandboxes on Debian 12.
runtime_packages() {
    cat <<'END'
containerd containerd
runc runc
mkfs.ext4 e2fsprogs
END
}

# What it takes to build: a C compiler for SQLite and zstd, protoc for the wire format.
build_packages() {
    cat <<'END'
protoc protobuf-compiler
cc gcc
curl curl
jq jq
END
}

require_cargo() {
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    command -v cargo >/dev/null || fail "no Rust toolchain: install Rust 1.95 or newer (rustup), then run this again"
}

# A target directory outside the clone is used again when there is one.
cargo_target_dir() {
    if [[ -n ${CARGO_TARGET_DIR-} ]]; then
        echo "$CARGO_TARGET_DIR"
    elif [[ -d /var/cache/roost/target ]]; then
        echo /var/cache/roost/target
    else
        echo "$1/target"
    fi
}

# own_target_dir REPOSITORY: before a build into CARGO_TARGET_DIR. Cargo goes by the age of files
# and cannot tell two clones apart: what another clone built would pass as built from this one.
own_target_dir() {
    local stamp=${CARGO_TARGET_DIR:-$1/target}/roost-clone
    [[ -e $stamp && $(<"$stamp") == "$1" ]] && return
    find "$1" -path "$1/target" -prune -o -type f \
        \( -name '*.rs' -o -name '*.proto' -o -name '*.sql' \) -exec touch {} +
    mkdir -p "${stamp%/*}"
    echo "$1" >"$stamp"
}

# Idmapped layers below an overlay came with Linux 5.19.
require_kernel() {
    local release major minor
    release=$(uname -r)
    IFS=. read -r major minor _ <<<"$release"
    minor=${minor%%[!0-9]*}
    ((major > 5 || (major == 5 && minor >= 19))) ||
        fail "kernel $release is too old: Roost needs 5.19 or newer (idmapped layers below an overlay)"
}

# require_space PATH MIB WHAT
require_space() {
    local dir=$1 free
    while [[ ! -d $dir ]]; do dir=$(dirname "$dir"); done
    free=$(df --output=avail -m "$dir" | tail -1)
    ((free >= $2)) || fail "$3 needs $2 MiB of free disk space at $1; there are $((free)) MiB"
}

# build_release REPOSITORY [ARGUMENT…]: always the same selection, so that nothing is built twice
# with other features.
build_release() {
    own_target_dir "$1" || return 1
    (cd "$1" && cargo build --release --locked -p roostd -p roost-central -p roost-cli -p roost-benches "${@:2}")
}
