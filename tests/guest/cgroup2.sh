#!/bin/bash
# Runs the tests of sandboxes in a guest with cgroup v2 alone, with runc and with crun.
#
#   cgroup2.sh SCRATCH [RUNTIME PROGRAM [FILTER]]    all tests, or those of one program with one runtime
#
# Everything temporary goes below SCRATCH. CARGO_TARGET_DIR holds what cargo builds, ROOST_IMAGES
# the images. tests/run.sh calls this as its suite "cgroup2".
set -euo pipefail
# A failure within a command substitution ends the run, too.
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
readonly here repository cache=/var/cache/roost/guest
# Tests of roost-tests that run in the guest, beside the unit tests of the daemon; tests/guest/main
# says what of each.
readonly tests=(lifecycle recovery cgroups limits resilience neighbours disk claims volumes timing)
# Daemons and commands that they start.
readonly parts=(roostd roost-central roost)
# The guest is ended after so long: three times what it takes on two processors of its own.
readonly limit_s=2700
# Room for a run: every test has a containerd state of its own, made of links, and the test that
# fills a disk must not bring the others' nodes under pressure. Sparse.
readonly data_mib=12288
# shellcheck source=deploy/lib/common.sh
source "$repository/deploy/lib/common.sh"
scratch=${1:?missing directory}
readonly chosen=("${@:2}")

main() {
    printf '%s\n' 'qemu-system-x86_64 qemu-system-x86' 'mke2fs e2fsprogs' 'strip binutils' 'jq jq' | install_missing
    local guest data started
    guest=$("$here/build.sh" --out "$cache")
    data=$(data_image)
    suite_image
    say "cgroup2: starting the guest; its processors are emulated, which takes a while"
    started=$SECONDS
    "$here/run.sh" --guest "$guest" --suite "$scratch/suite.img" --data "$data" --limit "$limit_s" \
        --console "$scratch/console" || {
        say "--- last messages of the guest's kernel"
        tail -40 "$scratch/console" >&2
        fail "the suite failed in the guest after $((SECONDS - started)) s"
    }
    say "cgroup2: $((SECONDS - started)) s in the guest"
}

# The images of Roost, unpacked by containerd, on a disk of their own. Named by what it is made of.
data_image() {
    local digest image seed
    digest=$(cd "$repository" && {
        cat "$ROOST_IMAGES"/{display,desktop}.tar.recipe-sha256
        find daemon/src/containerd tests/src/seed.rs -type f -print0 | sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c1-12)
    image=$cache/data-$digest.img
    if [[ ! -f $image ]]; then
        say "cgroup2: unpacking the images for the guest"
        require_space "$cache" 4000 "the guest's data"
        seed=$(ROOST_TEST_SEEDS=$scratch/seeds "$CARGO_TARGET_DIR/debug/roost-test-seed")
        mkdir "$scratch/data"
        mv "$seed" "$scratch/data/seed"
        mke2fs -q -t ext4 -O quota,project -E quotatype=prjquota -d "$scratch/data" "$scratch/data.img" "${data_mib}M" >/dev/null
        rm -rf "$scratch/data"
        find "$cache" -maxdepth 1 -name 'data-*.img' -delete
        mv "$scratch/data.img" "$image"
    fi
    echo "$image"
}

# The test programs, what they start, and the files of the repository that they read.
suite_image() {
    local dir=$scratch/suite name executable
    mkdir -p "$dir/bin/tests" "$dir/repository"
    cp "$here/main" "$dir/main"
    echo "${chosen[@]}" >"$dir/chosen"
    echo "$repository" >"$dir/repository-path"
    cp -r --parents -t "$dir/repository" deploy/config daemon/src/containerd
    for name in "${parts[@]}"; do
        strip -o "$dir/bin/$name" "$CARGO_TARGET_DIR/debug/$name"
    done
    # In the folder below the daemons', as cargo has it.
    while read -r name executable; do
        strip -o "$dir/bin/tests/$name" "$executable"
    done < <(test_programs)
    mke2fs -q -t ext4 -d "$dir" "$scratch/suite.img" "$(($(du -sm "$dir" | cut -f1) * 12 / 10 + 16))M" >/dev/null
}

# "name path" a line.
test_programs() {
    cargo test --quiet --workspace --locked --features roost-tests/machine --lib "${tests[@]/#/--test=}" --no-run \
        --message-format=json |
        jq -r --args 'select(.executable and .profile.test)
            | .target.name |= if . == "roostd" then "unit" else . end
            | select(.target.name | IN($ARGS.positional[]))
            | "\(.target.name) \(.executable)"' unit "${tests[@]}"
}

cd "$repository"
main
