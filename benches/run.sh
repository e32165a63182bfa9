#!/bin/bash
# Runs the system benches on real parts and prints one JSON object a line:
# {"bench","metric","value","unit","n","note"}. Progress goes to stderr.
#
#   run.sh [--n N] [NAME...]    the named benches, or all
#   run.sh --list               prints the names
#
# Runs as root on Debian 12 with a Rust toolchain and installs the other packages that it needs.
# Reads CARGO_TARGET_DIR, ROOST_IMAGES (where the images are kept) and ROOST_TEST_DIR.
set -euo pipefail

readonly benches=(cold-start start-rate memory daemon-idle adopt screenshot)
readonly images_default=/var/cache/roost/images
readonly target_default=/var/cache/roost/target

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
arguments=()
names=()
seeds=
runner=

main() {
    parse_arguments "$@"
    [[ $(id -u) == 0 ]] || fail "must run as root: the benches make containers, mounts and cgroups"
    install_packages
    export PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
    command -v cargo >/dev/null || fail "cargo is missing: install the Rust toolchain of rust-toolchain.toml"
    choose_directories
    say "building"
    (cd "$repository" && cargo build --release --locked --quiet -p roostd -p roost-benches) >&2 ||
        fail "the build failed"
    "$repository/deploy/images/build.sh" --out "$ROOST_IMAGES" >&2 || fail "the images cannot be built"
    run_benches
}

parse_arguments() {
    while (($#)); do
        case $1 in
            --list) printf '%s\n' "${benches[@]}"; exit 0 ;;
            -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
            --n) arguments+=(--n "${2:?--n needs a number}"); shift ;;
            *) [[ " ${benches[*]} " == *" $1 "* ]] || fail "no bench is called $1; there are: ${benches[*]}"
               names+=("$1") ;;
        esac
        shift
    done
}

# True if a bench is to run.
is_wanted() {
    [[ ${#names[@]} == 0 || " ${names[*]} " == *" $1 "* ]]
}

install_packages() {
    local pair missing=() wanted=(containerd:containerd runc:runc protoc:protobuf-compiler cc:build-essential)
    for pair in "${wanted[@]}"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]} == 0)) || install "${missing[@]}" ||
        fail "cannot install ${missing[*]}: is the package mirror reachable?"
    # The peer of one bench: without it, that figure is left out.
    is_wanted screenshot || return 0
    if ! command -v scrot >/dev/null || ! command -v Xvfb >/dev/null; then
        install scrot xvfb || say "cannot install scrot and xvfb: their figure will be missing"
    fi
}

install() {
    command -v apt-get >/dev/null || return 1
    say "installing $*"
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "$@"; } \
        >/dev/null 2>&1
}

choose_directories() {
    export ROOST_IMAGES=${ROOST_IMAGES:-$images_default}
    if [[ -z ${CARGO_TARGET_DIR-} && -d $target_default ]]; then
        CARGO_TARGET_DIR=$target_default
    fi
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repository/target}
    # Relative to the caller, as cargo takes it.
    CARGO_TARGET_DIR=$(realpath -m "$CARGO_TARGET_DIR")
    export ROOST_TEST_DIR=${ROOST_TEST_DIR:-/var/tmp}
}

# The nodes of one run share the unpacked images; they go with the run.
run_benches() {
    local status=0
    trap clean_up EXIT
    trap 'stop INT 130' INT
    trap 'stop TERM 143' TERM HUP
    seeds=$(mktemp -d "$ROOST_TEST_DIR/roost-benches.XXXXXX")
    ROOST_TEST_SEEDS=$seeds "$CARGO_TARGET_DIR/release/roost-benches" "${arguments[@]}" "${names[@]}" &
    runner=$!
    wait "$runner" || status=$?
    exit "$status"
}

# The benches end and remove what they made; only then does the script end.
# shellcheck disable=SC2317  # called by traps
stop() {
    [[ -z $runner ]] || kill -s "$1" "$runner" 2>/dev/null || true
    [[ -z $runner ]] || wait "$runner" || true
    exit "$2"
}

# shellcheck disable=SC2317  # called by a trap
clean_up() {
    [[ -z $seeds ]] || rm -rf --one-file-system "$seeds"
}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

main "$@"
