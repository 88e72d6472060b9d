#!/bin/sh
# Checks packaging/openwrt/Makefile without OpenWrt: that make understands it, that the package builds with its
# settings, loads, and is as small as a device wants it. The files of OpenWrt's build system that it includes are
# replaced by small ones, which do with its variables what the real ones do. All in build/openwrt.
set -eu
cd "$(dirname -- "$0")/.."
root=$PWD
top=$root/build/openwrt
LIMIT=204800 # bytes of asio.so, stripped

mkdir -p "$top/include"
cat >"$top/rules.mk" <<'END'
INCLUDE_DIR:=$(TOPDIR)/include
BUILD_DIR:=$(TOPDIR)/build_dir
PKG_INSTALL_DIR=$(PKG_BUILD_DIR)/ipkg-install
CP:=cp -fpR
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
TARGET_CC:=cc
TARGET_CFLAGS:=-Os -pipe
TARGET_LDFLAGS:=
END
cat >"$top/include/package.mk" <<'END'
define BuildPackage
$(foreach field,SECTION CATEGORY TITLE DEPENDS,$(eval $(field):=))
$(eval $(Package/$(1)))
$(foreach field,SECTION CATEGORY TITLE DEPENDS,$(if $($(field)),,$(error Package/$(1) has no $(field))))
$(if $(PKG_VERSION),,$(error no PKG_VERSION))
$(if $(Package/$(1)/description),,$(error no description))

all: $(1)
$(1): compiled
	@echo "$(1) depends: $(DEPENDS)"
	$(call Package/$(1)/install,$(TOPDIR)/package/$(1))
endef

.DEFAULT_GOAL:=all
compiled:
	$(Build/Prepare)
	$(Build/Configure/Default)
	$(Build/Compile/Default)
	$(Build/Install/Default)
END
cat >"$top/include/cmake.mk" <<'END'
define Build/Configure/Default
	cmake -S $(PKG_BUILD_DIR) -B $(PKG_BUILD_DIR) -G Ninja -DCMAKE_BUILD_TYPE=Release \
		-DCMAKE_C_FLAGS_RELEASE="-DNDEBUG" -DCMAKE_C_COMPILER=$(TARGET_CC) -DCMAKE_C_FLAGS="$(TARGET_CFLAGS)" \
		-DCMAKE_MODULE_LINKER_FLAGS="$(TARGET_LDFLAGS) -Wl,-Bsymbolic-functions" -DCMAKE_INSTALL_PREFIX=/usr \
		-DCMAKE_STRIP=: $(CMAKE_OPTIONS)
endef
define Build/Compile/Default
	ninja -C $(PKG_BUILD_DIR)
endef
define Build/Install/Default
	DESTDIR=$(PKG_INSTALL_DIR) ninja -C $(PKG_BUILD_DIR) install
endef
END

run() { make -C "$top" -f "$root/packaging/openwrt/Makefile" --warn-undefined-variables TOPDIR="$top" "$@"; }

rm -rf "$top/package"
if run -n all 2>&1 | grep -E 'warning: undefined|\*\*\*'; then exit 1; fi
run all >"$top/log" 2>&1 || { tail -n 30 "$top/log" >&2; exit 1; }
for depends in 'lua-asio depends: +libuv +luajit' 'lua-asio-worker depends: +lua-asio' \
    'lua-asio-http depends: +lua-asio +zlib'; do
    grep -qxF "$depends" "$top/log" || { echo "openwrt: not so: $depends" >&2; exit 1; }
done

# stripped PACKAGE FILE: prints its size.
stripped() {
    strip -o "$top/stripped.so" "$top/package/$1/usr/lib/lua/$2"
    size=$(wc -c <"$top/stripped.so")
    echo "openwrt: $2 of $1, stripped: $size bytes"
}
stripped lua-asio-worker asio/worker.so
stripped lua-asio-http asio/http.so
stripped lua-asio asio.so
[ "$size" -le $LIMIT ] || { echo "openwrt: that is more than $LIMIT" >&2; exit 1; }

# The one package without the others, and all in one directory, as a device has them.
rm -rf "$top/device"
cp -R "$top/package/lua-asio" "$top/device"
LUA_CPATH="$top/device/usr/lib/lua/?.so" luajit -e "
    assert(require 'asio'.run)
    assert(select(3, require 'asio'.worker(print)) == 'ENOTSUP')
    assert(not pcall(require, 'asio.http'))"
cp -R "$top/package/lua-asio-worker/." "$top/device"
LUA_CPATH="$top/device/usr/lib/lua/?.so" luajit -e "
    local worker = assert(require 'asio'.worker(function(n) return n + 1 end, 41))
    assert(select(2, worker:join(10)) == 42)"
cp -R "$top/package/lua-asio-http/." "$top/device"
LUA_CPATH="$top/device/usr/lib/lua/?.so" luajit -e "
    local http = require 'asio.http'
    local server = assert(http.server('127.0.0.1', 0, function(req, res)
        res:send(200, { ['Content-Type'] = 'text/plain' }, req.path:rep(1000))
    end, { gzip = true }))
    local url = ('http://127.0.0.1:%d/abc'):format(select(2, server:address()))
    local response = assert(http.get(url, { pool = false, proxy = false }))
    assert(#response.body == 4000 and response.decoded == 'gzip')
    server:close()"
# Without the sources of llhttp the other packages are as they were.
if run -n LLHTTP_DIR=/none all 2>&1 | grep -E 'warning: undefined|\*\*\*|asio/http'; then exit 1; fi
