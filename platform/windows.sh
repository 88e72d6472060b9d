# Builds for Windows with mingw-w64, and runs the tests with Wine: ./build.sh windows [test [ARGS]]. build.sh sources
# this. The build is in build/windows, with Wine's files in build/windows/prefix.
# shellcheck shell=sh

windows() {
    need build test windows
    prefix=$(sh platform/deps.sh windows)
    PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig
    export PKG_CONFIG_LIBDIR
    configure_and_build windows-mingw build/windows
    unset PKG_CONFIG_LIBDIR
    [ ! -d "$ASIO_BUILD/test" ] || cp "$prefix/bin/lua51.dll" "$ASIO_BUILD/test" # for the programs of the tests
    windows_luajit
    [ "${1:-}" = test ] || return 0
    shift
    # Sockets are made by Wine's server, which is one for all files.
    export ASIO_SHARED_NETWORK=1 ASIO_PATIENCE="${ASIO_PATIENCE:-2}"
    status=0
    luajit test/test.lua "$@" || status=$?
    WINEPREFIX=$ASIO_BUILD/prefix wineserver64 -k || : # it would stay for some seconds more
    exit $status
}

# What test/luajit and the tests start: build/windows/luajit. luaunit is where this system's luajit has it.
windows_luajit() {
    PATH=$PATH:/usr/lib/wine
    mkdir -p "$ASIO_BUILD/lua"
    cp "$(luajit -e 'print(package.searchpath("luaunit", package.path))')" "$ASIO_BUILD/lua"
    cat >"$ASIO_BUILD/luajit" <<END
#!/bin/sh
PATH=\$PATH:/usr/lib/wine
export WINEPREFIX="$ASIO_BUILD/prefix" WINEDEBUG="\${WINEDEBUG:--all}" LUA_PATH="\$LUA_PATH;$ASIO_BUILD/lua/?.lua"
export WINEDLLOVERRIDES="mscoree,mshtml,winemenubuilder.exe=" # it would fetch a browser and .NET
unset DISPLAY
exec wine64 "\${ASIO_PROGRAM:-$prefix/bin/luajit.exe}" "\$@"
END
    chmod +x "$ASIO_BUILD/luajit"
    [ ! -e "$ASIO_BUILD/prefix/made" ] || return 0
    say "making a directory for Wine"
    rm -rf "$ASIO_BUILD/prefix"
    ASIO_PROGRAM=wineboot "$ASIO_BUILD/luajit" -i
    touch "$ASIO_BUILD/prefix/made"
}
