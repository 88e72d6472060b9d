#!/bin/sh
# Makes the rock with LuaRocks, in a tree (./build.sh rock TREE), or in a temporary one where it is only tried.
set -eu

start=$PWD
cd "$(dirname -- "$0")/.."
. platform/packages.sh
need build rock

work=$(mktemp -d)
trap 'rm -rf "$work" build.luarocks' EXIT # the place of the build is LuaRocks's choice
trap 'exit 1' HUP INT TERM
tree=${1:-$work/tree}
case $tree in /*) ;; *) tree=$start/$tree ;; esac

# LuaRocks would take the header files of plain Lua 5.1.
include=$(pkg-config --variable=includedir luajit)
MAKEFLAGS=-j$(getconf _NPROCESSORS_ONLN)
export MAKEFLAGS
luarocks --lua-version=5.1 --tree="$tree" make packaging/lua-asio-scm-1.rockspec LUA_INCDIR="$include" >"$work/log" 2>&1 || {
    tail -n 40 "$work/log" >&2
    fail "luarocks has failed"
}

LUA_PATH=';;' LUA_CPATH="$tree/lib/lua/5.1/?.so" luajit packaging/debian/tests/smoke.lua
luarocks --lua-version=5.1 --tree="$tree" list --porcelain
