-- For LuaRocks, with LuaJIT and libuv installed; c-ares, if look-ups shall take no thread; OpenSSL, for TLS;
-- Debian's node-llhttp and zlib, for HTTP. In the source tree:
--     luarocks --lua-version=5.1 make packaging/lua-asio-scm-1.rockspec LUA_INCDIR=/usr/include/luajit-2.1
rockspec_format = '3.0'
package = 'lua-asio'
version = 'scm-1'
source = {
    url = 'git+file:.', -- `luarocks make` takes the tree as it is
}
description = {
    summary = 'Network programs in LuaJIT that read from top to bottom',
    detailed = 'Light threads, TCP, Unix sockets, TLS, UDP, names, timers and signals over libuv. Every call looks as '
        .. 'if it blocked; only the light thread that made it waits.',
    license = 'MIT',
}
dependencies = {
    'lua == 5.1', -- of LuaJIT 2.1
}
build = {
    type = 'cmake',
    variables = {
        CMAKE_INSTALL_PREFIX = '$(PREFIX)',
        ASIO_INSTALL_CDIR = '$(LIBDIR)',
        LUAJIT_INCLUDE_DIR = '$(LUA_INCDIR)',
        ASIO_TESTS = 'OFF',
    },
    platforms = {
        linux = {
            variables = { CMAKE_MODULE_LINKER_FLAGS = '-s' }, -- without what only debuggers read
        },
    },
}
