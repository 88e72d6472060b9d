# What is missing on this machine, and its installation. For build.sh and the scripts beside this file:
#     . platform/packages.sh
# shellcheck shell=sh

say() { printf '%s\n' "${0##*/}: $*" >&2; }
fail() { say "$@"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
has_lib() { has pkg-config && pkg-config --exists "$1"; }
has_module() { has luajit && luajit -e "require '$1'" >/dev/null 2>&1; }
has_shared() { has luajit && luajit -e "require('ffi').load '$1'" >/dev/null 2>&1; }
can_compile() { has "${CC:-cc}" && echo '#include <stdio.h>' | "${CC:-cc}" -fsyntax-only -x c - 2>/dev/null; }

# What is missing, as the packages of Debian and Ubuntu --------------------------------------------

missing_for_build() {
    can_compile || echo gcc libc6-dev
    has cmake || echo cmake
    has ninja || echo ninja-build
    has pkg-config || echo pkg-config
    has luajit || echo luajit
    has_lib luajit || echo libluajit-5.1-dev
    has_lib 'libuv >= 1.43' || echo libuv1-dev
}

# What the build goes on without.
wanted_for_build() {
    has_lib 'libssl >= 1.1.1' || echo libssl-dev # for asio/tls.so
    [ -e /usr/share/llhttp/llhttp.c ] || echo node-llhttp # for asio/http.so
    has_lib zlib || echo zlib1g-dev # for its compression
}

# Cases that need them are skipped without.
wanted_for_test() {
    has nginx || echo nginx-light
    has node || echo nodejs
    has tinyproxy || echo tinyproxy-bin
    has_module cjson || echo lua-cjson
    has_shared 'libpsl.so.5' || echo libpsl5 # public suffixes, for cookies
    has logrotate || echo logrotate
    has make || echo make # builds programs that embed the library
    [ -n "${CI:-}" ] || return 0 # too much for a machine that is not for tests alone:
    has chromium || echo chromium
    has systemd-socket-activate || echo systemd
}

# libFuzzer, for the fuzzers among the tests under the sanitizers.
wanted_for_fuzz() {
    echo 'int LLVMFuzzerTestOneInput(const char *bytes, unsigned long n) { return 0; }' |
        clang -fsanitize=fuzzer,address,undefined -x c -o /dev/null - 2>/dev/null || echo clang libclang-rt-dev
}

missing_for_test() {
    has_module luaunit || echo lua-unit
    has_lib libcares || echo libc-ares-dev # what builds without it looks names up by getaddrinfo
    has strace || echo strace
    has nft || echo nftables
    has ss || echo iproute2
    has unshare && has setpriv || echo util-linux
    has curl || echo curl
    has dig || echo bind9-dnsutils
    has haproxy || echo haproxy
    has openssl || echo openssl
    has gnutls-cli || echo gnutls-bin
    has stunnel || echo stunnel4
    has redis-server || echo redis-server
    has redis-cli && has redis-benchmark || echo redis-tools
    has_lib libedit || echo libedit-dev # for the prompt
    [ -e /etc/services ] || echo netbase
}

missing_for_bench() {
    has_module luv || echo lua-luv
    has_module cqueues || echo lua-cqueues
    has_module copas || echo lua-copas
    has_module socket || echo lua-socket
    has_module ssl || echo lua-sec
    has node || echo nodejs
    has go || echo golang-go
    has haproxy || echo haproxy
    has socat || echo socat
    has nginx || echo nginx
    has redis-server || echo redis-server
    has redis-benchmark || echo redis-tools
    has openssl || echo openssl
    has_lib 'openssl >= 1.1.1' || echo libssl-dev
    has taskset || echo util-linux
}

missing_for_lint() {
    has luacheck || echo lua-check
    has make || echo make
}

missing_for_sources() {
    has dpkg-source || echo dpkg-dev
    has patch || echo patch
    has xz || echo xz-utils
    has make || echo make
}

missing_for_windows() {
    has x86_64-w64-mingw32-gcc || echo gcc-mingw-w64-x86-64
    has wine64 || [ -x /usr/lib/wine/wine64 ] || echo wine64
}

missing_for_musl() {
    has musl-gcc || echo musl-tools
    [ -e /usr/include/linux/sockios.h ] || echo linux-libc-dev
}

missing_for_deb() {
    has dpkg-buildpackage || echo dpkg-dev
    has dh || echo debhelper
    has_lib libcares || echo libc-ares-dev
    has lintian || echo lintian
    has debootstrap || echo debootstrap
}

missing_for_rock() {
    has luarocks || echo luarocks
    has make || echo make
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; return; fi
    has sudo || fail "neither root nor sudo, needed for: $*"
    sudo "$@"
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

missing() {
    for check in "$@"; do missing_for_"$check"; done | tr '\n' ' '
}

wanted() {
    for check in "$@"; do
        case $check in build | test | fuzz) wanted_for_"$check" ;; esac
    done | tr '\n' ' '
}

# Where that can be done without a question, and once for each build directory. One that this system does not have,
# such as chromium as a package on Ubuntu, does not keep the others away.
need_wanted() {
    packages=$(wanted "$@")
    asked=build/.wanted-$(echo "$*" | tr ' ' -)
    [ -n "$packages" ] && [ "$(id -u)" = 0 ] && has apt-get || return 0
    [ "$packages" != "$(cat "$asked" 2>/dev/null)" ] || return 0
    say "installing $packages"
    # shellcheck disable=SC2086 # one word a package
    apt install --no-install-recommends $packages || { apt update && apt install --no-install-recommends $packages; } ||
        for package in $packages; do
            apt install --no-install-recommends "$package" || say "could not install $package; the build goes on without"
        done
    mkdir -p build
    echo "$packages" >"$asked"
}

# need build|test|... : installs what is missing for all of them, then looks again.
need() {
    need_wanted "$@"
    packages=$(missing "$@")
    [ -n "$packages" ] || return 0
    has apt-get || fail "please install first (names as in Debian): $packages"
    [ "$(id -u)" = 0 ] || has sudo || fail "neither root nor sudo; please install first: $packages"

    say "installing $packages"
    apt update || say "apt-get update failed; trying with the lists that are there"
    # shellcheck disable=SC2086 # one word a package
    apt install --no-install-recommends $packages || fail "could not install $packages"

    packages=$(missing "$@")
    [ -z "$packages" ] || fail "still missing, or too old here (libuv has to be 1.43 or later): $packages"
}
