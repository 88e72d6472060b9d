#!/bin/sh
# Prints a directory with LuaJIT, libuv, c-ares, OpenSSL, zlib and libc of another processor, from Debian's packages for it:
#     platform/sysroot.sh ARCHITECTURE
# It is kept in the cache, as what platform/deps.sh builds. apt has lists, state and an architecture of its own here:
# the machine's stay as they are.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/platform/packages.sh"
architecture=${1:?which architecture?}
cache=${ASIO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lua-asio}
case $cache in /*) ;; *) fail "ASIO_CACHE has to be an absolute path" ;; esac

packages='libc6 libgcc-s1 luajit libluajit-5.1-2 libluajit-5.1-common libluajit-5.1-dev libuv1 libuv1-dev
    libc-ares2 libc-ares-dev libssl3 libssl-dev libatomic1 zlib1g zlib1g-dev'

# The distribution that the packages of this machine come from.
source_list() {
    for origin in Debian Ubuntu; do
        keys=/usr/share/keyrings/$(echo $origin | tr DU du)-archive-keyring.gpg
        [ ! -e "$keys" ] || keys=" [signed-by=$keys]"
        case $keys in /*) keys= ;; esac
        apt-get indextargets --format "deb$keys \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
            'Created-By: Packages' "Origin: $origin"
    done | grep ' \(main\|universe\)$'
}

# Unpacked below ./root, without what only documentation needs.
fetch() {
    source_list >sources.list
    [ -s sources.list ] || fail "no sources of Debian or Ubuntu in apt's configuration"
    mkdir -p lists/partial archives/partial packages
    : >status
    set -- -q -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
        -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::status="$PWD/status" \
        -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD" -o APT::Sandbox::User=root
    apt-get "$@" update >&2 || say "apt-get update failed in part; trying with the lists that came"
    # shellcheck disable=SC2086 # one word a package
    (cd packages && apt-get "$@" download $packages >&2)
    for package in packages/*.deb; do
        dpkg-deb -x "$package" root
    done
    mv root/usr/include/*-linux-gnu*/openssl/* root/usr/include/openssl # the compiler is not told of such folders
    rm -rf root/usr/share/doc root/usr/share/man
}

versions=$(apt-cache policy libc6 libluajit-5.1-common libuv1 libc-ares2 libssl3 | sed -n 's/^ *Candidate: //p')
kept=$cache/$architecture-$( (echo "$versions"; cat "$root/platform/sysroot.sh") | cksum | cut -d ' ' -f 1)
if [ ! -d "$kept" ]; then
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/new-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    say "fetching the packages of $architecture"
    (cd "$work" && fetch)
    # Two runs at once: whichever comes first has made it.
    mv -T "$work/root" "$kept" 2>/dev/null || [ -d "$kept" ] || fail "could not make $kept"
fi
touch "$kept"
echo "$kept"
