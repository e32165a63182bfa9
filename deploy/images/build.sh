#!/bin/bash
# Builds the images of Roost from Debian packages, without a container engine, as OCI layout tars.
#
#   build.sh [--out DIR] [--cache DIR] [--force] [display|display-glx|desktop|all]
#
# Runs as root on Debian 12 and takes the packages from the mirror that this machine uses.
# Equal recipes and equal packages give equal digests.
set -euo pipefail

readonly suite=bookworm
# Every file that is newer gets this time (2025-01-01), so that a build does not know its day.
export SOURCE_DATE_EPOCH=1735689600
export LC_ALL=C.UTF-8 TZ=UTC

recipes=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=/var/cache/roost/images
cache=/var/cache/roost/packages
force=
wanted=()
work=

main() {
    parse_arguments "$@"
    local image stale=()
    for image in "${wanted[@]}"; do
        if [[ -z $force ]] && is_built "$image"; then
            say "$image: up to date"
        else
            stale+=("$image")
        fi
    done
    ((${#stale[@]})) || return 0

    [[ $(id -u) == 0 ]] || fail "must run as root"
    # Mounts made in here end with this process, whatever ends it.
    if [[ -z ${ROOST_IMAGES_UNSHARED-} ]]; then
        unshare --mount true 2>/dev/null || fail "may not mount: run outside of unprivileged containers"
        ROOST_IMAGES_UNSHARED=1 exec unshare --mount --propagation private -- \
            "${BASH_SOURCE[0]}" --out "$out" --cache "$cache" ${force:+--force} "${stale[@]}"
    fi
    install_tools
    mkdir -p "$out" "$cache/archives/partial" || fail "cannot make $out and $cache"
    exec {lock}>"$cache/lock"
    flock "$lock"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    work=$(mktemp -d "$cache/build.XXXXXX")
    for image in "${stale[@]}"; do
        build "$image"
    done
}

parse_arguments() {
    while (($#)); do
        case $1 in
            --out) out=${2-}; shift ;;
            --cache) cache=${2-}; shift ;;
            --force) force=yes ;;
            display | display-glx | desktop) wanted+=("$1") ;;
            all) wanted+=(display desktop) ;;
            -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
            *) fail "unknown argument: $1" ;;
        esac
        shift || fail "missing directory"
    done
    [[ -n $out && -n $cache ]] || fail "missing directory"
    ((${#wanted[@]})) || wanted=(display desktop)
    out=$(realpath -m "$out")
    cache=$(realpath -m "$cache")
}

# display-glx is the recipe of display with one part more.
recipe_of() {
    echo "$recipes/${1%-glx}"
}

# The digest of everything that a recipe is made of: names, modes and contents.
recipe_digest() {
    (
        cd "$recipes"
        echo "$1"
        find build.sh "${1%-glx}" \( -type f -o -type l \) -printf '%p %y %l ' \
            \( -perm -u+x -printf 'x\n' -o -printf '-\n' \) | sort
        find build.sh "${1%-glx}" -type f -print0 | sort -z | xargs -0 sha256sum
    ) | sha256sum | cut -d' ' -f1
}

is_built() {
    local stored=$out/$1.tar.recipe-sha256
    [[ -s $out/$1.tar && -f $stored && $(<"$stored") == "$(recipe_digest "$1")" ]]
}

install_tools() {
    local tool missing=()
    for tool in mmdebstrap zstd jq; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "missing tools: ${missing[*]}"
    say "installing ${missing[*]}"
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends \
        "${missing[@]}"; } >/dev/null 2>&1 || fail "cannot install ${missing[*]}: is the package mirror reachable?"
}

build() {
    local image=$1 digest need_mib=1000 started=$SECONDS
    [[ $image == desktop ]] && need_mib=3000
    (($(df --output=avail -m "$work" | tail -1) >= need_mib)) ||
        fail "$image: needs $need_mib MiB of free disk space at $cache"
    digest=$(recipe_digest "$image")
    say "$image: installing packages"
    install_packages "$image"
    say "$image: packing"
    pack "$image"
    mv "$work/$image.tar" "$out/$image.tar" || fail "$image: cannot write to $out"
    echo "$digest" >"$out/$image.tar.recipe-sha256"
    rm -rf "$work/rootfs" "$work/layout"
    say "$image: $(manifest_digest "$out/$image.tar"), $(($(stat -c %s "$out/$image.tar") >> 20)) MiB," \
        "$((SECONDS - started)) s"
}

install_packages() {
    local image=$1 log=$out/$1.log root=$work/rootfs
    mirror_lines >"$work/sources.list"
    apt-config dump | grep -E '^Acquire::(http|https|ftp|Check-|Retries|ForceIPv)' >"$work/apt.conf" || true
    # The hooks run in mmdebstrap's shell, with the root as $1.
    # shellcheck disable=SC2016
    if ! IMAGE=$image IMAGE_RECIPE=$(recipe_of "$image") IMAGE_ARCHIVES=$cache/archives TMPDIR=$work \
        mmdebstrap \
        --mode=root --variant=apt --format=directory --skip=essential/unlink \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include="$(packages_of "$image")" --aptopt="$work/apt.conf" \
        --setup-hook='mkdir -p "$1/var/cache/apt/archives"' \
        --setup-hook='mount --bind "$IMAGE_ARCHIVES" "$1/var/cache/apt/archives"' \
        --customize-hook='umount "$1/var/cache/apt/archives"' \
        --customize-hook='cp -R --no-preserve=ownership "$IMAGE_RECIPE" "$1/build"' \
        --customize-hook='chmod -R u=rwX,go=rX "$1/build"' \
        --customize-hook='chroot "$1" sh /build/setup /build/files "$IMAGE"' \
        --customize-hook='rm -r "$1/build"' \
        "$suite" "$root" "$work/sources.list" >"$log" 2>&1 </dev/null; then
        fail "$image: $(reason_of "$log") (log: $log)"
    fi
    rm -f "$log"
}

# The Debian mirrors of this machine, in apt's one-line form. Apt tells them once it has an index.
mirror_lines() {
    local lines
    lines=$(known_mirrors)
    [[ -n $lines ]] || apt-get -q update >/dev/null 2>&1 || fail "apt-get update fails: is the package mirror reachable?"
    lines=$(known_mirrors)
    [[ $lines == *" $suite main"* ]] || fail "apt on this machine names no mirror for Debian $suite"
    echo "$lines"
}

known_mirrors() {
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$suite" '$1 == "Debian" && $2 == "main" && $3 ~ "^" suite "(-updates|-security)?$" {
            print "deb", $4, $3, "main"
        }' | sort -u
}

packages_of() {
    sed 's/#.*//' "$(recipe_of "$1")/packages" | xargs | tr ' ' ,
}

reason_of() {
    if grep -q 'No space left' "$1"; then
        echo "no space left on the disk"
    elif grep -qE 'Could not (resolve|connect)|Failed to fetch|Unable to connect|Temporary failure' "$1"; then
        echo "cannot fetch packages: is the package mirror reachable?"
    else
        echo "cannot build the root file system: $(grep -E '^(E|dpkg: error|[^ ]*cannot)' "$1" | tail -3 | head -1)"
    fi
}

# Packs the root file system as an image of one layer, in an OCI layout.
pack() {
    local image=$1 root=$work/rootfs layout=$work/layout blobs=$work/layout/blobs/sha256
    [[ -d $root/image ]] && root=$root/image
    mkdir -p "$blobs"
    # In one pass: the digest of the plain tar is the identity of the layer, of the packed one its address.
    mkfifo "$work/plain"
    sha256sum <"$work/plain" | cut -d' ' -f1 >"$work/diff_id" &
    tar --create --directory "$root" --sort=name --format=gnu --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime . |
        tee "$work/plain" | zstd -q -6 -T2 -o "$work/layer" || fail "$image: cannot pack the layer"
    wait "$!"
    rm "$work/plain"
    local layer config manifest
    layer=$(add_blob "$work/layer")
    config_of "$image" "$(<"$work/diff_id")" >"$work/config"
    config=$(add_blob "$work/config")
    jq -cnS --argjson config "$config" --argjson layer "$layer" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: ($config + {mediaType: "application/vnd.oci.image.config.v1+json"}),
        layers: [$layer + {mediaType: "application/vnd.oci.image.layer.v1.tar+zstd"}]
    }' >"$work/manifest"
    manifest=$(add_blob "$work/manifest")
    jq -cnS --argjson manifest "$manifest" --argjson platform "$(platform)" --arg name "roost/$image:latest" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
        manifests: [$manifest + {
            mediaType: "application/vnd.oci.image.manifest.v1+json", platform: $platform,
            annotations: {"org.opencontainers.image.ref.name": $name, "io.containerd.image.name": $name}
        }]
    }' >"$layout/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar --create --directory "$layout" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner \
        --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" --file "$work/$image.tar" blobs index.json oci-layout ||
        fail "$image: cannot write the image"
}

# Moves a file among the blobs of the layout and prints its descriptor.
add_blob() {
    local digest size
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    size=$(stat -c %s "$1")
    mv "$1" "$work/layout/blobs/sha256/$digest"
    jq -cn --arg digest "sha256:$digest" --argjson size "$size" '{digest: $digest, size: $size}'
}

platform() {
    jq -cn --arg architecture "$(dpkg --print-architecture)" '{architecture: $architecture, os: "linux"}'
}

# The image configuration, read from the last stage of the recipe's Dockerfile.
config_of() {
    tac "$(recipe_of "$1")/Dockerfile" | sed '/^FROM/q' | tac | jq -cRnS --argjson platform "$(platform)" \
        --arg diff_id "sha256:$2" --arg created "$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" '
        [inputs | capture("^(?<verb>ENV|USER|WORKDIR|ENTRYPOINT|CMD) (?<value>.*)$")] as $lines
        | def values($verb): $lines | map(select(.verb == $verb).value);
        $platform + {
            created: $created,
            config: {
                Env: values("ENV"), User: values("USER")[0], WorkingDir: values("WORKDIR")[0],
                Entrypoint: (values("ENTRYPOINT")[0] | fromjson)
            },
            rootfs: {type: "layers", diff_ids: [$diff_id]},
            history: [{created: $created, created_by: "deploy/images/build.sh"}]
        }'
}

manifest_digest() {
    tar --extract --to-stdout --file "$1" index.json | jq -r '.manifests[0].digest'
}

clean_up() {
    [[ -n $work ]] || return 0
    local mount
    for mount in $(findmnt --noheadings --raw --output TARGET | grep -F "$work/" | tac); do
        umount --lazy "$mount" || true
    done
    rm -rf --one-file-system "$work"
}

say() {
    printf '%s\n' "$*" >&2
}

fail() {
    say "error: $*"
    exit 1
}

main "$@"
