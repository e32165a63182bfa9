#!/bin/bash
# Runs a suite in the guest that build.sh made, under software emulation, and exits as it did.
#
#   run.sh --guest DIR --suite IMAGE --data IMAGE --limit SECONDS --console FILE
#
#   --guest     what build.sh printed
#   --suite     ext4 image with the program `main`; the guest mounts it read-only at /suite
#   --data      ext4 image with the project quota feature; the guest mounts it at /data
#   --limit     the guest is ended after so many seconds
#   --console   the kernel's messages
#
# What the suite prints goes to standard output. The guest has no network. No image changes: what
# the guest writes is kept in temporary files. Processors are emulated: that runs everywhere, at a
# tenth of the speed.
set -euo pipefail

# shellcheck source=deploy/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/lib/common.sh"
# The least that Debian's programs can use. What newer processors have costs time in emulation: wide
# registers at every switch of processes, `rep movsb` a step for each byte.
readonly processor=qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+fsgsbase,+rdrand,+rdtscp
guest='' suite='' data='' limit='' console='' emulator=''

main() {
    parse_arguments "$@"
    local code output
    output=$(mktemp)
    trap 'rm -f "$output"; [[ -z $emulator ]] || kill "$emulator" 2>/dev/null || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    boot > >(tee "$output") &
    emulator=$!
    wait "$emulator" && code=0 || code=$?
    emulator=
    # tee has the last line only when it has ended.
    wait
    ((code != 124)) || fail "the guest did not end within $limit s"
    ((code == 0)) || fail "the emulator ended with $code"
    code=$(sed -n 's/^guest: the suite ended with //p' "$output" | tail -1)
    [[ -n $code ]] || fail "the guest stopped before its suite ended: $(tail -1 "$console")"
    exit "$code"
}

parse_arguments() {
    while (($#)); do
        case $1 in
            --guest | --suite | --data | --limit | --console) declare -g "${1#--}=${2:?missing value of $1}" ;;
            *) fail "unknown argument: $1" ;;
        esac
        shift 2
    done
    [[ -n $guest && -n $suite && -n $data && -n $limit && -n $console ]] || fail "an argument is missing"
}

# In place of this process: a signal to it reaches `timeout`, which ends the emulator.
boot() {
    exec nice timeout --kill-after=10 "$limit" qemu-system-x86_64 \
        -accel tcg,thread=multi -machine q35 -smp 2 -m 4096 \
        -cpu "$processor" -nodefaults -no-user-config -display none -nic none -no-reboot \
        -kernel "$guest/kernel" -initrd "$guest/initramfs" \
        -append "console=ttyS0 panic=-1 random.trust_cpu=on mitigations=off" \
        -drive "file=$guest/root.img,format=raw,if=none,id=root,snapshot=on" -device virtio-blk-pci,drive=root \
        -drive "file=$suite,format=raw,if=none,id=suite,readonly=on" -device virtio-blk-pci,drive=suite \
        -drive "file=$data,format=raw,if=none,id=data,snapshot=on" -device virtio-blk-pci,drive=data \
        -serial "file:$console" -serial stdio </dev/null
}

main "$@"
