#!/bin/sh
# ./build.sh musl [test ARGS]: everything linked statically with musl in build/musl, and the tests with that.
# ./build.sh static [test]: the program asio like that, as small as it can be: build/static/asio.
set -eu
cd "$(dirname -- "$0")/.."
. platform/packages.sh

# musl-gcc answers -print-file-name for the other libc.
libc() { echo 'int main(void) { return 0; }' | musl-gcc -static -xc - -o /dev/null -w -Wl,-t | grep '/libc\.a$' | head -n 1; }

# configure NAME OPTIONS...
configure() {
    name=$1
    shift
    need build musl sources
    prefix=$(sh platform/deps.sh musl-x86_64)
    build=build/$name
    PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig cmake -S . -B "$build" -G Ninja -DCMAKE_C_COMPILER=musl-gcc \
        -DCMAKE_C_FLAGS="-fno-pie -isystem $prefix/include" -DCMAKE_PREFIX_PATH="$prefix" \
        -DCMAKE_EXE_LINKER_FLAGS="-static -no-pie -Wl,--eh-frame-hdr,--gc-sections $prefix/lib/support.o" \
        -DASIO_STANDALONE=ON -DASIO_STANDALONE_LUAJIT="$prefix/lib/luajit.o" \
        -DASIO_STANDALONE_LIBC="$(libc)" -DASIO_WERROR="${ASIO_WERROR:-OFF}" "$@"
}

kind=${1:?musl or static}
shift
case $kind in
    musl)
        configure musl -DCMAKE_BUILD_TYPE=Release
        cmake --build build/musl
        ;;
    static)
        configure static -DCMAKE_BUILD_TYPE=MinSizeRel -DASIO_TESTS=OFF -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON
        cmake --build build/static --target asio_program
        strip -s -R .comment -o build/static/asio build/static/bin/asio
        ;;
esac
[ $# -gt 0 ] || exit 0
[ "$1" = test ] || fail "what is '$1'?"
shift
need test
case $kind in
    musl) ASIO_BUILD=$PWD/build/musl exec ./test/luajit ./test/test.lua "$@" ;;
    static) ASIO_PROGRAM=$PWD/build/static/asio exec ./build.sh test "$@" ;;
esac
