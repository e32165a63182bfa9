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

readonly benches=(cold-start start-rate memory daemon-idle adopt screenshot fleet placement warm-claim claim-rate density checkpoint)
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/common.sh
source "$repository/deploy/lib/common.sh"
arguments=()
names=()
seeds=
runner=

main() {
    parse_arguments "$@"
    [[ $(id -u) == 0 ]] || fail "must run as root: the benches make containers, mounts and cgroups"
    require_kernel
    require_cargo
    { build_packages; runtime_packages; } | install_missing
    # The peer of one bench: without it, that figure is left out.
    if is_wanted screenshot; then
        (install_missing <<<$'scrot scrot\nXvfb xvfb') || say "scrot and xvfb are missing: so will their figure be"
    fi
    export ROOST_IMAGES=${ROOST_IMAGES:-/var/cache/roost/images} ROOST_TEST_DIR=${ROOST_TEST_DIR:-/var/tmp}
    # Relative to the caller, as cargo takes it.
    CARGO_TARGET_DIR=$(realpath -m "$(cargo_target_dir "$repository")")
    export CARGO_TARGET_DIR
    say "building"
    build_release "$repository" --quiet >&2 || fail "the build failed"
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

# The nodes of one run share the unpacked images; they go with the run.
run_benches() {
    local status=0
    trap clean_up EXIT
    trap 'stop INT 130' INT
    trap 'stop TERM 143' TERM HUP
    seeds=$(mktemp -d "$ROOST_TEST_DIR/roost-benches.XXXXXX")
    chmod 0711 "$seeds"
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

main "$@"
