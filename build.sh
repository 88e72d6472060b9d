#!/bin/sh
# Sets up, builds, tests and installs LuaAsio. `./build.sh help` says how.
set -eu

usage() {
    cat <<'END'
./build.sh                    install what is missing, configure, build
./build.sh example            ... and run examples/ping_pong.lua
./build.sh test [-j N] [NAME] ... and run the tests, N files at a time, or the one file NAME_test.lua
./build.sh asan [-j N] [NAME] the same tests under AddressSanitizer and UBSan
./build.sh tsan [-j N] [NAME] those of test/worker under ThreadSanitizer
./build.sh cross TRIPLET [test [ARGS]]
                              build for another processor, such as arm-linux-gnueabihf, and run the tests there
./build.sh windows [test [ARGS]]
                              build for Windows with mingw-w64, and run the tests with Wine
./build.sh musl [test [ARGS]] link all statically with musl, and run the tests so
./build.sh static [test]      build/static/asio, the program in one file; run its tests
./build.sh bench [ARGS]       compare with other libraries (installs them); ARGS go to bench/run
./build.sh lint               check the style of the Lua and C files
./build.sh install [PREFIX]   install, below /usr/local if no prefix is given
./build.sh deb                the Debian packages, in build/deb; tried in a clean root
./build.sh rock [TREE]        the rock, by LuaRocks; tried in a tree of its own if none is given
./build.sh clean              remove build/
./build.sh help               this text

Environment: PRESET=release|debug|asan|tsan (default release), ASIO_WERROR=1, CC, CFLAGS
END
}

# Building -----------------------------------------------------------------------------------------

# The settings of a preset, as options for cmake: CMake before 3.20 cannot read the file itself.
preset_options() {
    entry=$(sed -n "/\"name\": \"$1\",\$/,/^        }/p" CMakePresets.json)
    [ -n "$entry" ] || fail "no such preset: $1"
    parent=$(echo "$entry" | sed -n 's/.*"inherits": "\(.*\)".*/\1/p')
    [ -z "$parent" ] || (preset_options "$parent")
    echo "$entry" | grep -o '"[A-Z_]*": "[^"]*"' |
        # shellcheck disable=SC2016 # not the shell's
        sed 's/"\(.*\)": "\(.*\)"/-D\1=\2/; s/${sourceDir}\///' # cmake looks for relative paths in the source
}

# configure_and_build PRESET [DIRECTORY [OPTIONS...]]: the settings of CMakePresets.json, and further ones.
configure_and_build() {
    settings=$(preset_options "$1")
    directory=${2:-build/$1}
    shift $(($# < 2 ? $# : 2))
    need build
    # shellcheck disable=SC2086 # several options
    cmake -S . -B "$directory" -G Ninja $settings -DASIO_WERROR="${ASIO_WERROR:-OFF}" -DASIO_BENCH="${bench:-OFF}" "$@"
    cmake --build "$directory"
    ASIO_BUILD=$PWD/$directory
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
    luacheck -q --no-color lua src test examples tools
    luajit tools/includes.lua
    version=$(clang-format --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
    if [ "${version:-0}" -ge 14 ]; then
        find include src test bench examples -name '*.[ch]' -exec clang-format --dry-run -Werror {} +
    else
        say "no clang-format 14 or later: C files not checked"
    fi
    luajit tools/objects.lua "build/$preset"
}

start=$PWD
CDPATH='' cd -- "$(dirname -- "$0")"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # nft, ss: not on every user's path
. platform/packages.sh
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
        need_wanted fuzz
        run_tests "$@"
        ;;
    tsan)
        preset=tsan
        if [ $# -eq 0 ] || { [ $# -eq 2 ] && [ "$1" = -j ]; }; then
            for file in test/worker/*_test.lua; do set -- "$@" "$file"; done
        fi
        run_tests "$@"
        ;;
    cross)
        . ./platform/cross.sh
        cross "$@"
        ;;
    windows)
        . ./platform/windows.sh
        windows "$@"
        ;;
    musl | static)
        . ./platform/musl.sh
        "$command" "$@"
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
        configure_and_build "$preset"
        # The directory may belong to another user, most often to root.
        parent=$prefix
        until [ -e "$parent" ]; do parent=$(dirname -- "$parent"); done
        if [ -w "$parent" ]; then run=; else run=as_root; fi
        $run cmake --install "build/$preset" --prefix "$prefix" --strip
        ;;
    deb)
        exec ./packaging/deb.sh
        ;;
    rock)
        here=$PWD
        cd "$start" # what TREE is relative to
        exec "$here/packaging/rock.sh" "$@"
        ;;
    clean)
        rm -rf build build.luarocks
        ;;
    help | -h | --help)
        usage
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac
