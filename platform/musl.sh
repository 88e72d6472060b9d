# Everything linked statically with musl. build.sh sources this.
# shellcheck shell=sh

# musl-gcc answers -print-file-name for the other libc.
musl_libc() {
    echo 'int main(void) { return 0; }' | musl-gcc -static -xc - -o /dev/null -Wl,-t | grep '/libc\.a$' | head -n 1
}

# musl_build PRESET DIRECTORY OPTIONS...
musl_build() {
    need build musl sources
    prefix=$(sh platform/deps.sh musl-x86_64)
    PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig
    export PKG_CONFIG_LIBDIR
    configure_and_build "$@" -DCMAKE_C_COMPILER=musl-gcc -DCMAKE_C_FLAGS="-fno-pie -isystem $prefix/include" \
        -DCMAKE_EXE_LINKER_FLAGS="-static -no-pie -Wl,--eh-frame-hdr,--gc-sections,-z,noseparate-code $prefix/lib/support.o" \
        -DASIO_STATIC=OFF -DASIO_STANDALONE=ON -DASIO_STANDALONE_LUAJIT="$prefix/lib/luajit.o" \
        -DASIO_STANDALONE_LIBRARIES="$(musl_libc);$prefix/lib/libluajit-5.1.a"
    unset PKG_CONFIG_LIBDIR
}

# musl [test ARGS]: build/musl, and the tests there by a luajit that has the module inside.
musl() {
    musl_build "$preset" build/musl
    [ "${1:-}" = test ] || return 0
    shift
    need test
    exec ./test/luajit ./test/test.lua "$@"
}

# static [test]: the program, as small as it can be: build/static/asio; and the tests of the program with that.
static() {
    musl_build device build/static
    strip -s -R .comment -o build/static/asio build/static/bin/asio
    [ "${1:-}" = test ] || return 0
    ASIO_PROGRAM=$PWD/build/static/asio
    export ASIO_PROGRAM
    run_tests cli prompt
}
