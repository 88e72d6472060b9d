#!/bin/sh
# Builds the Debian packages into build/deb, has lintian look at them, installs them in a clean root and tries them
# there (./build.sh deb). The clean root is made once by debootstrap, with the packages that the tests install, and
# kept outside the checkout: ${ASIO_CACHE:-${XDG_CACHE_HOME:-~/.cache}/lua-asio}/root-KEY.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/platform/packages.sh"
cache=${ASIO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lua-asio}
case $cache in /*) ;; *) fail "ASIO_CACHE has to be an absolute path" ;; esac
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
need build deb

mkdir -p "$cache"
work=$(mktemp -d "$cache/new-XXXXXX") # beside the root, so that a copy of it can share its blocks
trap 'as_root rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
out=$root/build/deb

# Building -----------------------------------------------------------------------------------------

version=$(sed -n 's/^project(LuaAsio VERSION \([^ ]*\) .*/\1/p' "$root/CMakeLists.txt")
[ "$(sed -n '1s/.*(\(.*\)).*/\1/p' "$root/packaging/debian/changelog")" = "$version" ] ||
    fail "packaging/debian/changelog has another version than CMakeLists.txt: $version"

mkdir "$work/lua-asio"
tar -C "$root" --exclude=./build --exclude=./build.luarocks --exclude=./.git -cf - . | tar -C "$work/lua-asio" -xf -
cp -R "$root/packaging/debian" "$work/lua-asio/debian"
(cd "$work/lua-asio" && dpkg-buildpackage -us -uc -b) >"$work/log" 2>&1 || {
    tail -n 50 "$work/log" >&2
    fail "dpkg-buildpackage has failed"
}
rm -rf "$out"
mkdir -p "$out"
mv "$work"/*.deb "$work"/*.changes "$work"/*.buildinfo "$out"
(cd "$out" && ls -l ./*.deb)

say "lintian"
lintian --fail-on error "$out"/*.changes

# A clean root -------------------------------------------------------------------------------------

tried_with='luajit libuv1 libc-ares2 libssl3 zlib1g libluajit-5.1-dev libuv1-dev libc-ares-dev gcc libc6-dev make pkg-config'
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
arch=$(dpkg --print-architecture)
# The first one that apt itself is told to use, for the suite of this machine.
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$suite //p" | head -n 1)
[ -n "$mirror" ] || fail "apt's configuration names no source for $suite"

clean=$cache/root-$(echo "$suite $arch $tried_with" | cksum | cut -d ' ' -f 1)
if [ ! -d "$clean" ]; then
    say "debootstrap $suite"
    as_root debootstrap --variant=minbase "$suite" "$work/new" "$mirror" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        fail "debootstrap has failed"
    }
    # shellcheck disable=SC2086 # one word a package
    as_root chroot "$work/new" apt-get -q -y --no-install-recommends --download-only install $tried_with >&2
    as_root mv -T "$work/new" "$clean" 2>/dev/null || [ -d "$clean" ] || fail "could not make $clean"
fi
touch "$clean" 2>/dev/null || true

# Trying them --------------------------------------------------------------------------------------

in_root() { as_root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive chroot "$work/root" "$@"; }
install_in_root() { in_root apt-get -q -y --no-install-recommends install "$@" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    fail "could not install $*"
}; }

say "installing in a clean root"
as_root cp -a --reflink=auto "$clean" "$work/root"
as_root cp "$out/lua-asio_$version"_*.deb "$out/lua-asio-dev_$version"_*.deb \
    "$out/lua-asio-bin_$version"_*.deb "$root"/packaging/debian/tests/* "$work/root/tmp"
install_in_root "/tmp/lua-asio_${version}_$arch.deb" luajit
said=$(in_root env ASIO_RESOLVER=ares luajit /tmp/smoke.lua) || fail "the module does not work"
case $said in *'no TLS'* | *'no HTTP'*) fail "a part is missing: $said" ;; *) echo "$said" ;; esac
install_in_root "/tmp/lua-asio-bin_${version}_$arch.deb"
[ "$(in_root asio -e 'asio.sleep(0) io.write "asio runs"')" = "asio runs" ] || fail "the program asio does not run"
install_in_root "/tmp/lua-asio-dev_${version}_$arch.deb" gcc libc6-dev libc-ares-dev make pkg-config
in_root env AUTOPKGTEST_TMP=/tmp /tmp/embed
say "all is well; the packages are in $out"
