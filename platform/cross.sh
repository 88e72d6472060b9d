# Builds for another processor with Debian's cross compiler, and runs the tests there: ./build.sh cross TRIPLET
# [test [ARGS]]. build.sh sources this. The build is in build/TRIPLET, or in build/TRIPLET-PRESET.
# shellcheck shell=sh

# cross_target TRIPLET: Debian's architecture, and qemu's name of the processor.
cross_target() {
    case $1 in
        i686-linux-gnu) architecture=i386 processor=i386 ;;
        arm-linux-gnueabihf) architecture=armhf processor=arm ;;
        arm-linux-gnueabi) architecture=armel processor=arm ;;
        aarch64-linux-gnu) architecture=arm64 processor=aarch64 ;;
        mipsel-linux-gnu) architecture=mipsel processor=mipsel ;;
        mips64el-linux-gnuabi64) architecture=mips64el processor=mips64el ;;
        s390x-linux-gnu) architecture=s390x processor=s390x ;;
        *) fail "no such target: $1 (i686-linux-gnu, arm-linux-gnueabihf, arm-linux-gnueabi, aarch64-linux-gnu," \
            "mipsel-linux-gnu, mips64el-linux-gnuabi64, s390x-linux-gnu)" ;;
    esac
    # Whether this machine's processor runs such programs.
    case $(uname -m)-$1 in x86_64-i686-*) emulated= ;; *) emulated=yes ;; esac
}

missing_for_cross() {
    # Debian calls the cross compiler of the machine's own architecture like any other.
    if ! has "$triplet-gcc" || [ ! -e "/usr/$triplet/include/stdio.h" ]; then
        echo "gcc-$triplet" "libc6-dev-$architecture-cross"
    fi
    [ -z "$emulated" ] || has "qemu-$processor" || echo qemu-user
}

# Executable, with the text of standard input.
script() {
    cat >"$1.new"
    chmod +x "$1.new"
    mv "$1.new" "$1"
}

# What runs the programs: `run PROGRAM ARGS` for any, `luajit` for test/luajit, and one of its name for each other.
cross_scripts() {
    if [ -n "$emulated" ]; then
        command="qemu-$processor -L '$sysroot'"
        patience=6
    else
        libraries=$(echo "$sysroot"/lib/*-linux-gnu*):$(echo "$sysroot"/usr/lib/*-linux-gnu*)
        command="$(echo "$sysroot"/lib/ld-linux*.so.*) --library-path '$libraries'"
        patience=1
    fi
    script "$1/run" <<SCRIPT
#!/bin/sh
export ASIO_PATIENCE="\${ASIO_PATIENCE:-$patience}"${emulated:+ ASIO_EMULATED=1}
exec $command "\$@"
SCRIPT
    script "$1/luajit" <<SCRIPT
#!/bin/sh
exec "\${0%/*}/run" '$sysroot/usr/bin/luajit' "\$@"
SCRIPT
    for program in "$1"/test/*.elf "$1"/bin/*.elf; do
        [ -e "$program" ] || continue
        script "${program%.elf}" <<SCRIPT
#!/bin/sh
exec "\${0%/*}/../run" "\$0.elf" "\$@"
SCRIPT
    done
}

# What qemu does wrong and the programs can do otherwise: a library for all of them, and for no program of this machine.
# qemu looks below the sysroot first, for /etc/ld.so.preload as well.
cross_preload() {
    [ -n "$emulated" ] || return 0
    library=$sysroot/lib/asio-qemu.so
    [ "$library" -nt platform/qemu.c ] || {
        "$triplet-gcc" -O2 -shared -fPIC -o "$library.$$" platform/qemu.c
        mv "$library.$$" "$library"
    }
    mkdir -p "$sysroot/etc"
    echo /lib/asio-qemu.so >"$sysroot/etc/ld.so.preload.$$"
    mv "$sysroot/etc/ld.so.preload.$$" "$sysroot/etc/ld.so.preload"
}

# cross TRIPLET [test [ARGS]]
cross() {
    [ $# -gt 0 ] || fail "cross: which target?"
    triplet=$1
    shift
    cross_target "$triplet"
    need build cross
    sysroot=$(platform/sysroot.sh "$architecture")
    directory=build/$triplet
    [ "$preset" = release ] || directory=$directory-$preset
    # What cmake found in a sysroot of before is not looked for again.
    grep -qs "^ASIO_SYSROOT:.*=$sysroot\$" "$directory/CMakeCache.txt" || rm -f "$directory/CMakeCache.txt"
    configure_and_build "$preset" "$directory" -DCMAKE_TOOLCHAIN_FILE="$PWD/platform/cross.cmake" \
        -DASIO_TRIPLET="$triplet" -DASIO_SYSROOT="$sysroot"
    cross_scripts "$directory"
    cross_preload
    [ "${1:-}" = test ] || return 0
    shift
    need test
    exec ./test/luajit ./test/test.lua "$@"
}
