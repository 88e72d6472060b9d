#!/bin/sh
# Builds LuaJIT, libuv, c-ares and zlib for another system, from Debian's source packages, and prints where they are:
#     platform/deps.sh TARGET
# TARGET is one of the functions target_* below. What is built is kept outside the checkout, in
# ${ASIO_CACHE:-${XDG_CACHE_HOME:-~/.cache}/lua-asio}/TARGET-KEY. KEY stands for the versions and for this script.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/platform/packages.sh"
target=${1:?which target?}
cache=${ASIO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lua-asio}
case $cache in /*) ;; *) fail "ASIO_CACHE has to be an absolute path" ;; esac

key() { cksum | cut -d ' ' -f 1; }

# The source packages of a target, and of each a package whose version is that of the source: as apt's lists have it;
# without lists, as it is installed.
wanted='luajit libuv1 c-ares zlib' packages='libluajit-5.1-common libuv1 libc-ares2 zlib1g'
case $target in
    musl-*) wanted="$wanted libedit" packages="$packages libedit2" ;;
esac
# shellcheck disable=SC2086 # one word a package
versions=$(apt-cache policy $packages | sed -n 's/^ *Candidate: //p')

# Sources ------------------------------------------------------------------------------------------

# The sources of the distribution that the packages of this machine come from. A list of our own: the machine's own
# names packages alone, as a rule. In its order: of two mirrors with the same version apt takes the first.
source_list() {
    for origin in Debian Ubuntu; do
        keys=/usr/share/keyrings/$(echo $origin | tr DU du)-archive-keyring.gpg
        [ ! -e "$keys" ] || keys=" [signed-by=$keys]"
        case $keys in /*) keys= ;; esac
        apt-get indextargets --format "deb-src$keys \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
            'Created-By: Packages' "Origin: $origin"
    done | grep ' \(main\|universe\)$'
}

# Unpacked, patched, in ./luajit, ./libuv1, ./c-ares, ...
fetch_sources() {
    source_list >sources.list
    [ -s sources.list ] || fail "no sources of Debian or Ubuntu in apt's configuration"
    mkdir -p lists/partial
    set -- -q -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$PWD/lists" -o Dir::Cache="$PWD" -o APT::Sandbox::User=root
    apt-get "$@" update >&2
    # shellcheck disable=SC2086 # one word a package
    apt-get "$@" source --download-only $wanted >&2
    for name in $wanted; do
        dpkg-source --no-check -x "$name"_*.dsc "$name" >&2
    done
    rm -rf lists
}

# Fetched once for all targets that want the same. Made in a directory of its own and moved in its place as a whole: two runs at once
# disturb neither one another nor a reader.
sources() {
    kept=$cache/sources-$(echo "$versions" | key)
    if [ ! -d "$kept" ]; then
        need sources
        rm -rf "$work/sources"
        mkdir "$work/sources"
        (cd "$work/sources" && fetch_sources)
        keep "$work/sources" "$kept"
    fi
    touch "$kept"
    echo "$kept"
}

# keep DIRECTORY NAME: whichever run comes first has made it.
keep() {
    mv -T "$1" "$2" 2>/dev/null || [ -d "$2" ] || fail "could not make $2"
}

# Building -----------------------------------------------------------------------------------------
#
# A target's function runs in a directory that holds the sources. Everything is built for $prefix, and installed below
# $stage until it is complete: $stage$prefix/lib/libuv.a. Its output goes to a file, which is shown when it fails.

jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

# make_luajit ARGS...: variables of its Makefile, CROSS=... above all.
make_luajit() {
    make -C luajit -j "$jobs" PREFIX="$prefix" "$@"
}

install_luajit() {
    make -C luajit install PREFIX="$prefix" DESTDIR="$stage" LDCONFIG=: "$@"
    ln -sf "$(basename "$stage$prefix"/bin/luajit-*)" "$stage$prefix/bin/luajit"
}

# cmake_install DIRECTORY OPTIONS...
cmake_install() {
    directory=$1
    shift
    cmake -S "$directory" -B "$directory/out" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$prefix" \
        -DCMAKE_INSTALL_LIBDIR=lib "$@"
    cmake --build "$directory/out"
    DESTDIR=$stage cmake --install "$directory/out" --strip
}

# The same two as static libraries alone, which end up in what is linked with them.
install_static_libuv() {
    cmake_install libuv1 -DLIBUV_BUILD_TESTS=OFF -DBUILD_TESTING=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON "$@"
    mv "$stage$prefix/lib/libuv_a.a" "$stage$prefix/lib/libuv-static.a"
    rm -rf "$stage$prefix"/lib/libuv.* "$stage$prefix"/bin/libuv.* "$stage$prefix/lib/cmake/libuv" \
        "$stage$prefix/lib/pkgconfig/libuv-static.pc"
    mv "$stage$prefix/lib/libuv-static.a" "$stage$prefix/lib/libuv.a"
}

install_static_cares() {
    cmake_install c-ares -DCARES_STATIC=ON -DCARES_SHARED=OFF -DCARES_STATIC_PIC=ON -DCARES_BUILD_TOOLS=OFF "$@"
}

# install_static_zlib COMPILER ARCHIVER FLAGS...: without its functions for files. Debian's sources have not all that its
# own build needs.
install_static_zlib() (
    compiler=$1 archiver=$2
    shift 2
    cd zlib
    objects=
    for name in adler32 compress crc32 deflate inffast inflate inftrees trees uncompr zutil; do
        "$compiler" -O2 "$@" -c "$name.c" -o "$name.o"
        objects="$objects $name.o"
    done
    # shellcheck disable=SC2086 # several
    "$archiver" rcs "$stage$prefix/lib/libz.a" $objects
    cp zlib.h zconf.h "$stage$prefix/include"
    cat >"$stage$prefix/lib/pkgconfig/zlib.pc" <<END
Name: zlib
Description: Compression
Version: $(sed -n 's/^#define ZLIB_VERSION "\(.*\)"/\1/p' zlib.h)
Libs: -L$prefix/lib -lz
Cflags: -I$prefix/include
END
)

# Without c-ares: names are looked up by getaddrinfo.
target_windows() {
    set -- -DCMAKE_TOOLCHAIN_FILE="$root/platform/windows.cmake"
    make_luajit CROSS=x86_64-w64-mingw32- TARGET_SYS=Windows HOST_CC=cc
    mkdir -p "$stage$prefix/bin/lua/jit" "$stage$prefix/include/luajit-2.1" "$stage$prefix/lib/pkgconfig"
    (
        cd luajit/src
        x86_64-w64-mingw32-strip luajit.exe lua51.dll
        cp luajit.exe lua51.dll "$stage$prefix/bin"
        cp jit/*.lua "$stage$prefix/bin/lua/jit"
        cp lua.h lua.hpp lauxlib.h lualib.h luaconf.h luajit.h "$stage$prefix/include/luajit-2.1"
    )
    # A DLL is linked as it is. It has no import library, and needs none.
    cat >"$stage$prefix/lib/pkgconfig/luajit.pc" <<END
Name: LuaJIT
Description: Just-in-time compiler for Lua
Version: 2.1.0
Libs: $prefix/bin/lua51.dll
Cflags: -I$prefix/include/luajit-2.1
END
    install_static_libuv "$@"
    install_static_zlib x86_64-w64-mingw32-gcc x86_64-w64-mingw32-ar
}

# Static libraries alone, as small as they can be; libedit, and the main file of the program luajit as well.
target_musl_x86_64() {
    small='-Os -fno-pie -no-pie -ffunction-sections -fdata-sections'
    here=$root/platform/musl
    mkdir -p "$stage$prefix/include/luajit-2.1" "$stage$prefix/lib/pkgconfig"
    ln -s /usr/include/linux /usr/include/asm-generic "$stage$prefix/include" # the kernel's headers
    ln -s "/usr/include/$(cc -print-multiarch)/asm" "$stage$prefix/include"
    musl-gcc $small -Wall -c "$here/support.c" -o "$stage$prefix/lib/support.o"

    # PREFIX: where modules in Lua are.
    make -C luajit/src -j "$jobs" CC=musl-gcc HOST_CC=cc BUILDMODE=static PREFIX=/usr TARGET_CFLAGS="$small" \
        libluajit.a luajit.o
    (
        cd luajit/src
        cp lua.h lauxlib.h lualib.h luaconf.h luajit.h "$stage$prefix/include/luajit-2.1"
        cp luajit.o "$stage$prefix/lib"
        cp libluajit.a "$stage$prefix/lib/libluajit-5.1.a"
        mkdir -p "$stage$prefix/share/jit"
        cp jit/*.lua "$stage$prefix/share/jit"
    )
    cat >"$stage$prefix/lib/pkgconfig/luajit.pc" <<END
Name: LuaJIT
Description: Just-in-time compiler for Lua
Version: 2.1.0
Libs: -L$prefix/lib -lluajit-5.1 -lm
Cflags: -I$prefix/include/luajit-2.1
END
    set -- -DCMAKE_C_COMPILER=musl-gcc -DCMAKE_C_FLAGS="$small" -DCMAKE_BUILD_TYPE=MinSizeRel
    install_static_libuv "$@" -DCMAKE_POSITION_INDEPENDENT_CODE=OFF
    install_static_cares "$@" -DCARES_STATIC_PIC=OFF
    install_static_zlib musl-gcc ar $small

    # The compiler of a glibc system does not say of musl that wchar_t is Unicode.
    ar rcs "$work/libtermcap.a" "$stage$prefix/lib/support.o"
    (
        cd libedit
        LIBBSD_CFLAGS=" " LIBBSD_LIBS=" " ./configure --host=x86_64-linux-musl --disable-shared --disable-examples \
            --prefix="$prefix" CC="musl-gcc -I$here" LDFLAGS="-static -no-pie -L$work" \
            CFLAGS="$small -D__STDC_ISO_10646__=201706L"
        set -- -C src ACLOCAL=: AUTOCONF=: AUTOMAKE=: AUTOHEADER=:
        make "$@" vi.h emacs.h common.h fcns.h func.h help.h
        make "$@" -j "$jobs" libedit.la
    )
    cp libedit/src/.libs/libedit.a "$stage$prefix/lib"
    cp libedit/src/histedit.h "$stage$prefix/include"
    cat >"$stage$prefix/lib/pkgconfig/libedit.pc" <<END
Name: libedit
Description: Editing of lines
Version: 3.1
Libs: -L$prefix/lib -ledit
Cflags: -I$prefix/include
END
    rm -rf "$stage$prefix/bin" "$stage$prefix/share/man"
}

case $target in *[!a-z0-9_-]*) fail "no such target: $target" ;; esac
function=target_$(echo "$target" | tr - _)
command -v "$function" >/dev/null || fail "no such target: $target"

# What changes for another target does not rebuild this one.
recipe() {
    echo "$versions"
    sed '/^target_.*() {/,/^}/d' "$root/platform/deps.sh"
    sed -n "/^$function() {/,/^}/p" "$root/platform/deps.sh"
    [ ! -d "$root/platform/${target%%-*}" ] || cat "$root/platform/${target%%-*}"/*
}

prefix=$cache/$target-$(recipe | key)
if [ ! -d "$prefix" ]; then
    mkdir -p "$cache"
    find "$cache" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} + # what no run has used for a month
    work=$(mktemp -d "$cache/new-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    stage=$work/stage
    from=$(sources)
    say "building $wanted for $target"
    for name in $wanted; do cp -R "$from/$name" "$work"; done
    # Not in an `if`, in which the shell would go on after a command that failed.
    set +e
    (set -e; cd "$work"; "$function") >"$work/log" 2>&1
    status=$?
    set -e
    if [ $status -ne 0 ]; then
        tail -n 40 "$work/log" >&2
        fail "building them has failed"
    fi
    keep "$stage$prefix" "$prefix"
fi
touch "$prefix"
echo "$prefix"
