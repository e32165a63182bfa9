# Shell functions around Debian's packages.
# shellcheck shell=bash

# debian_mirrors SUITE: the mirrors of this machine in apt's one-line form. Apt tells them once it
# has an index.
debian_mirrors() {
    local lines
    lines=$(known_mirrors "$1")
    [[ -n $lines ]] || apt-get -q update >/dev/null 2>&1 || fail "apt-get update fails: is the package mirror reachable?"
    lines=$(known_mirrors "$1")
    [[ $lines == *" $1 main"* ]] || fail "apt on this machine names no mirror for Debian $1"
    echo "$lines"
}

known_mirrors() {
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == "Debian" && $2 == "main" && $3 ~ "^" suite "(-updates|-security)?$" {
            print "deb", $4, $3, "main"
        }' | sort -u
}
