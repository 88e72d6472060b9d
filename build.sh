#!/bin/sh
# Sets up, builds, tests and installs LuaAsio. `./build.sh help` says how.
set -eu

usage() {
    cat <<'END'
./build.sh                    install what is missing, configure, build
./build.sh example            ... and run examples/ping_pong.lua
./build.sh test [-j N] [NAME] ... and run the tests, N files at a time, or the one file NAME_test.lua
./build.sh asan [-j N] [NAME] the same tests under AddressSanitizer and UBSan
./build.sh bench [ARGS]       compare with other libraries (installs them); ARGS go to bench/run
./build.sh lint               check the style of the Lua and C files
./build.sh install [PREFIX]   install, below /usr/local if no prefix is given
./build.sh clean              remove build/
./build.sh help               this text

Environment: PRESET=release|debug|asan|tsan (default release), ASIO_WERROR=1, CC, CFLAGS
END
}

say() { printf '%s\n' "build.sh: $*" >&2; }
fail() { say "$@"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
has_lib() { has pkg-config && pkg-config --exists "$1"; }
has_module() { has luajit && luajit -e "require '$1'" >/dev/null 2>&1; }
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
    [ -e /etc/services ] || echo netbase
}

missing_for_bench() {
    has_module luv || echo lua-luv
    has_module cqueues || echo lua-cqueues
    has_module copas || echo lua-copas
    has_module socket || echo lua-socket
    has node || echo nodejs
    has go || echo golang-go
    has haproxy || echo haproxy
    has socat || echo socat
    has taskset || echo util-linux
}

missing_for_lint() {
    has luacheck || echo lua-check
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

# need build|test|... : installs what is missing for all of them, then looks again.
need() {
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

# Building -----------------------------------------------------------------------------------------

# configure_and_build PRESET: the settings of CMakePresets.json, which CMake before 3.20 cannot read.
configure_and_build() {
    type=Debug sanitize= tests=ON small=
    case $1 in
        release) type=Release ;;
        device) # everything for size, a tenth slower where no system call is; the test host cannot be made so
            type=MinSizeRel tests=OFF
            small='-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON -DCMAKE_MODULE_LINKER_FLAGS=-Wl,-z,noseparate-code' ;;
        debug) ;;
        asan) sanitize=address,undefined ;;
        tsan) sanitize=thread ;;
        *) fail "no such preset: $1" ;;
    esac
    need build
    # shellcheck disable=SC2086 # several options
    cmake -S . -B "build/$1" -G Ninja -DCMAKE_BUILD_TYPE=$type -DASIO_SANITIZE=$sanitize -DASIO_TESTS=$tests $small \
        -DASIO_WERROR="${ASIO_WERROR:-OFF}" -DASIO_BENCH="${bench:-OFF}" \
        -DASIO_STATIC="${static:-OFF}"
    cmake --build "build/$1"
    ASIO_BUILD=$PWD/build/$1
    export ASIO_BUILD
}

run_tests() {
    need build test
    configure_and_build "$preset"
    exec ./test/luajit ./test/test.lua "$@"
}

# clang-format is large and every version has its own taste: checked where there is one.
lint() {
    need build lint
    # With the settings it has, or all would be compiled anew.
    if [ -e "build/$preset/build.ninja" ]; then
        cmake --build "build/$preset"
    else
        configure_and_build "$preset"
    fi
    luacheck -q --no-color lua test examples tools
    luajit tools/includes.lua
    version=$(clang-format --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
    if [ "${version:-0}" -ge 14 ]; then
        find src test bench -name '*.[ch]' -exec clang-format --dry-run -Werror {} +
    else
        say "no clang-format 14 or later: C files not checked"
    fi
    luajit tools/objects.lua "build/$preset"
}

start=$PWD
CDPATH='' cd -- "$(dirname -- "$0")"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # nft, ss: not on every user's path
preset=${PRESET:-release}
command=${1:-build}
[ $# -eq 0 ] || shift

case $command in
    build)
        configure_and_build "$preset"
        ;;
    example)
        configure_and_build "$preset"
        exec ./test/luajit examples/ping_pong.lua "$@"
        ;;
    test)
        run_tests "$@"
        ;;
    asan)
        preset=asan
        run_tests "$@"
        ;;
    bench)
        need build bench
        configure_and_build device # how small it can be
        bench=ON
        configure_and_build "$preset"
        exec ./bench/run "$@"
        ;;
    lint)
        lint
        ;;
    install)
        prefix=${1:-/usr/local}
        case $prefix in /*) ;; *) prefix=$start/$prefix ;; esac
        [ "$preset" = device ] || static=ON # the library that programs link cannot be made so
        configure_and_build "$preset"
        # The directory may belong to another user, most often to root.
        parent=$prefix
        until [ -e "$parent" ]; do parent=$(dirname -- "$parent"); done
        if [ -w "$parent" ]; then run=; else run=as_root; fi
        $run cmake --install "build/$preset" --prefix "$prefix" --strip
        ;;
    clean)
        rm -rf build
        ;;
    help | -h | --help)
        usage
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac
