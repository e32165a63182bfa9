#!/bin/bash
# Builds the guest of the cgroup v2 suite: Debian's cloud kernel and a root file system of Debian
# packages. Writes `kernel`, `initramfs` and `root.img` into a directory named by the digest of the
# recipe and prints its path; what is there is not built again.
#
#   build.sh [--out DIR]      default: /var/cache/roost/guest
#
# Runs as root on Debian 12 and takes the packages from the mirror that this machine uses.
set -euo pipefail

recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly recipe suite=bookworm
# Size of the root file system: the packages take half of it.
readonly root_mib=1024
# shellcheck source=deploy/lib/common.sh
source "$recipe/../../deploy/lib/common.sh"
# shellcheck source=deploy/lib/debian.sh
source "$recipe/../../deploy/lib/debian.sh"
out=/var/cache/roost/guest
work=

main() {
    case ${1-} in
        '') ;;
        --out) out=${2:?missing directory} ;;
        *) fail "unknown argument: $1" ;;
    esac
    local guest
    guest=$(realpath -m "$out")/$(recipe_digest)
    if [[ ! -d $guest ]]; then
        build "$guest"
    fi
    touch "$guest"
    # Guests of other recipes that nobody used for a week.
    find "$out" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf {} +
    echo "$guest"
}

# Twelve digits are plenty to tell recipes apart, and people can read them.
recipe_digest() {
    (cd "$recipe" && sha256sum build.sh packages files/*) | sha256sum | cut -c1-12
}

build() {
    [[ $(id -u) == 0 ]] || fail "must run as root"
    printf '%s\n' 'mmdebstrap mmdebstrap' 'mke2fs e2fsprogs' | install_missing
    mkdir -p "$out"
    require_space "$out" 3000 "the guest"
    work=$(mktemp -d "$out/build.XXXXXX")
    trap 'rm -rf --one-file-system "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    say "guest: installing packages"
    install_packages
    say "guest: making the disk"
    mkdir "$work/guest"
    make_initramfs
    make_root
    # Two builds at once: the second finds it made.
    mv -T "$work/guest" "$1" 2>/dev/null || [[ -d $1 ]] || fail "guest: cannot write to $out"
}

# Unpacked and not configured: no program of a package runs, and no service is set up.
install_packages() {
    debian_mirrors "$suite" >"$work/sources.list"
    apt-config dump | grep -E '^Acquire::(http|https|ftp|Check-|Retries|ForceIPv)' >"$work/apt.conf" || true
    TMPDIR=$work mmdebstrap --mode=root --variant=extract --format=directory \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include="$(sed 's/#.*//' "$recipe/packages" | xargs | tr ' ' ,)" --aptopt="$work/apt.conf" \
        "$suite" "$work/root" "$work/sources.list" >"$work/log" 2>&1 </dev/null || {
        tail -5 "$work/log" >&2
        fail "guest: cannot unpack the packages: is the package mirror reachable?"
    }
}

# Busybox and the drivers of the disks.
make_initramfs() {
    local tree=$work/initramfs release module number=10
    release=$(ls "$work/root/lib/modules")
    chroot "$work/root" /sbin/depmod "$release"
    mkdir -p "$tree/bin" "$tree/modules"
    cp "$work/root/bin/busybox" "$tree/bin/busybox"
    cp "$recipe/files/initramfs" "$tree/init"
    # In the order in which they need each other.
    while read -r module; do
        cp "$work/root$module" "$tree/modules/$((number++))-${module##*/}"
    done < <(chroot "$work/root" /sbin/modprobe --set-version "$release" --show-depends --all virtio_pci virtio_blk |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
    (cd "$tree" && find . | "$work/root/bin/busybox" cpio -o -H newc 2>/dev/null) >"$work/guest/initramfs"
    mv "$work/root/boot/vmlinuz-$release" "$work/guest/kernel"
}

make_root() {
    local root=$work/root
    install -m 0755 "$recipe/files/guest-init" "$root/usr/sbin/guest-init"
    mkdir -p "$root/suite" "$root/data" "$root/root"
    echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    rm -rf "${root:?}"/{boot,var/cache/apt,var/lib/apt,usr/share/doc,usr/share/man,usr/share/locale}
    mke2fs -q -t ext4 -L guest -d "$root" "$work/guest/root.img" "${root_mib}M" >/dev/null
}

main "$@"
