#!/bin/sh
# Waits for each claim of this sandbox and runs a hook with its variables.
#
#   /run/roost/claim/await HOOK [ARGUMENT...]
#
# The exit status of the hook becomes that of the claim.
dir=/run/roost/claim
while [ -p "$dir/wait" ]; do
    read -r claim <"$dir/wait" || continue
    (
        set -a
        # shellcheck source=/dev/null
        . "$dir/env"
        set +a
        exec "$@"
    )
    echo "$claim $?" >"$dir/status"
done
exit 1
