#!/bin/bash
# Everything that must pass.
#
#   run.sh [SUITE…]    all suites but the last, or the named ones
#
# Suites:
#   style    shellcheck, rustfmt, clippy without a warning
#   unit     tests inside the crates, and their tests against real X servers, containerd, SQLite, PostgreSQL, TLS
#   node     the life of sandboxes on a private containerd: lifecycle, recovery, resilience, cgroups, traces,
#            images, limits, neighbours, claims, copy, disk, volumes, timing
#   system   central, node and command together, support bundles
#   fleet    central and simulated nodes; commands of central; kills of central and of its database
#   torture  everything is killed, again and again, while people are busy; what is short, slow or too much;
#            ROOST_TORTURE_KILLS says how often (100), ROOST_TORTURE_SEED repeats the choices of a run
#   cgroup2  the life of sandboxes once more, with runc and with crun, in a guest that has cgroup v2
#            alone: Debian 12's cloud kernel under QEMU's software emulation, without a network
#            (tests/guest). A run of its own: docs/spec.md says what of it, and has the last result
#
# Runs as root on Debian 12 with a Rust toolchain; installs what else it needs. Everything runs
# under one temporary directory and ports of its own, beside whatever else runs, and is gone
# afterwards.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly repository suites=(style unit node system fleet torture) further=(cgroup2)
# shellcheck source=deploy/lib/common.sh
source "$repository/deploy/lib/common.sh"

main() {
    local suite wanted=("$@")
    ((${#wanted[@]})) || wanted=("${suites[@]}")
    for suite in "${wanted[@]}"; do
        [[ " ${suites[*]} ${further[*]} " == *" $suite "* ]] ||
            fail "no suite \"$suite\": choose of ${suites[*]} ${further[*]}"
    done
    [[ $(id -u) == 0 ]] || fail "must run as root: sandboxes need mounts, namespaces and cgroups"
    require_kernel
    require_cargo
    no_own_postgresql
    { build_packages; runtime_packages; test_packages; } | install_missing
    cd "$repository"
    CARGO_TARGET_DIR=$(cargo_target_dir "$repository")
    ROOST_IMAGES=${ROOST_IMAGES:-/var/cache/roost/images}
    export CARGO_TARGET_DIR ROOST_IMAGES
    require_space "$CARGO_TARGET_DIR" 6000 "the build"
    own_target_dir "$repository"
    scratch=$(mktemp -d /var/tmp/roost-tests.XXXXXX)
    # The ids of a sandbox are strangers here: they must get through to its root file system.
    chmod 0711 "$scratch"
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    # Test roots and the copy of containerd's state that they share, on one file system.
    export ROOST_TEST_DIR=$scratch ROOST_TEST_SEEDS=$scratch/seeds
    mkdir -p "$ROOST_TEST_SEEDS"
    : >"$scratch/log"
    local failed=() code
    for suite in "${wanted[@]}"; do
        say "== $suite"
        # A subshell of its own: the first failure in it ends it and not the others. Not in a
        # condition, where bash would ignore `set -e`.
        set +e
        (set -e; "suite_$suite")
        code=$?
        set -e
        ((code == 0)) || failed+=("$suite")
    done
    summary
    ((${#failed[@]} == 0)) || fail "failed: ${failed[*]}"
}

test_packages() {
    cat <<'END'
docker-registry docker-registry
tinyproxy tinyproxy-bin
openssl openssl
Xvfb xvfb
shellcheck shellcheck
scrot scrot
/usr/lib/postgresql/15/bin/initdb postgresql-15
END
}

# Debian's package would make a server and start it: the tests make their own.
no_own_postgresql() {
    local settings=/etc/postgresql-common/createcluster.conf
    [[ -e $settings ]] && return
    mkdir -p "${settings%/*}"
    echo 'create_main_cluster = false' >"$settings"
}

suite_style() {
    shellcheck -x deploy/quickstart.sh deploy/images/build.sh tests/run.sh tests/guest/*.sh tests/guest/main \
        tests/guest/files/guest-init benches/run.sh
    cargo fmt --all --check
    cargo clippy --quiet --workspace --all-targets --features roost-tests/machine --locked -- -D warnings
    if cargo tree --quiet -i aws-lc-rs >/dev/null 2>&1; then
        fail "aws-lc-rs is in the dependency graph: one TLS provider (ring) only"
    fi
}

suite_unit() {
    run_tests --lib --bins --tests
}

suite_node() {
    binaries_and_images
    run_tests --features roost-tests/machine --test lifecycle --test recovery --test resilience --test cgroups \
        --test traces --test images --test limits --test neighbours --test claims --test copy --test disk \
        --test volumes --test timing -- --test-threads 2
}

suite_system() {
    binaries_and_images
    run_tests --features roost-tests/machine --test system --test support -- --test-threads 2
}

suite_fleet() {
    cargo build --quiet --workspace --locked
    run_tests --features roost-tests/machine --test fleet --test central -- --test-threads 2
}

# One test at a time: what one of them does to the machine must not slow the others.
suite_torture() {
    binaries_and_images
    run_tests --features roost-tests/machine --test torture -- --nocapture --test-threads 1
}

suite_cgroup2() {
    binaries_and_images
    mkdir "$scratch/guest"
    tests/guest/cgroup2.sh "$scratch/guest" 2>&1 | tee -a "$scratch/log"
}

binaries_and_images() {
    cargo build --quiet --workspace --locked
    "$repository/deploy/images/build.sh" --out "$ROOST_IMAGES" display desktop
}

# Passes cargo's output on and keeps it for the count at the end. Always the whole workspace: a
# part of it would be built again with other features.
run_tests() {
    cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee -a "$scratch/log"
}

# One line for all suites together, as the last one.
summary() {
    awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
         END { if (passed + failed) printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$scratch/log"
}

main "$@"
