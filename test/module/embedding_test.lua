-- What is installed: the module where plain luajit finds it, and what a C program needs that links it. The
-- program of examples/embed is built by pkg-config and by CMake, and run.
--
-- test: 5 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local T = {}

local function sh(script, ...)
  local words = { "timeout 60 sh -ec " .. t.quote(script) .. ' sh' }
  for _, word in ipairs { ... } do words[#words + 1] = t.quote(word) end
  local pipe = io.popen(table.concat(words, ' ') .. ' 2>&1 </dev/null; echo "exit $?"')
  local said = pipe:read '*a'
  pipe:close()
  lu.assertStrContains(said, 'exit 0\n', false, said)
  return (said:gsub('exit 0\n$', ''))
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- Calls fn with a directory below which all is installed, at PREFIX.
local function installed(fn)
  lu.skipIf(os.getenv 'ASIO_SANITIZED', 'a sanitizer has to be linked as well')
  can.need 'native'
  t.need('cmake', 'pkg-config', 'make', 'cc')
  lu.skipIf(not exists(os.getenv 'ASIO_BUILD' .. '/liblua-asio.a'), 'the build has no static library')
  local dir = sh('mktemp -d'):gsub('\n', '')
  local ok, err = xpcall(function()
    sh('cmake --install "$1" --prefix "$2/PREFIX" --strip', os.getenv 'ASIO_BUILD', dir)
    sh('cp -r "$1" "$2/embed"', t.root .. 'examples/embed', dir)
    fn(dir)
  end, debug.traceback)
  os.execute('rm -rf ' .. t.quote(dir))
  if not ok then error(err, 0) end
end

local SAID = 'one\tONE\ntwo\tTWO\nstop\tSTOP\ndone\n'

function T.test_the_module_is_where_luajit_looks()
  installed(function(dir)
    local said = sh([[
      cd /
      export LUA_CPATH="$1/PREFIX/lib/lua/5.1/?.so" ASIO_RESOLVER=ares
      luajit -e "local asio = require 'asio' print(asio.resolve 'localhost')"]], dir)
    -- Without c-ares the build has no asio/ares.so.
    if exists(dir .. '/PREFIX/lib/lua/5.1/asio/ares.so') then
      lu.assertStrMatches(said, 'table: [^\n]*\n')
    else
      lu.assertStrContains(said, 'is not there')
    end
  end)
end

function T.test_a_program_by_pkg_config()
  installed(function(dir)
    local said = sh([[
      cd "$1/embed"
      export PKG_CONFIG_PATH="$1/PREFIX/lib/pkgconfig:$PKG_CONFIG_PATH"
      pkg-config --modversion lua-asio
      make -s CFLAGS='-Wall -Wextra -Werror'
      ./embed server.lua client.lua]], dir)
    local cmake = assert(io.open(t.root .. 'CMakeLists.txt')):read '*a'
    lu.assertEquals(said, cmake:match 'project%(LuaAsio VERSION ([%d.]+)' .. '\n' .. SAID)
  end)
end

-- A program that can load no files: what it has in package.preload is in the states of its workers too.
local WORKERS = [[
#include <lua-asio.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

static int open_host(lua_State *L)
{
    lua_pushliteral(L, "host");
    return 1;
}

int main(void)
{
    static const luaL_Reg modules[] = { { "asio", luaopen_asio }, { "asio.worker", luaopen_asio_worker },
        { "host", open_host }, { NULL, NULL } };
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    luaL_register(L, NULL, modules);
    lua_pushcclosure(L, open_host, 1); /* its upvalue is this state's */
    lua_setfield(L, -2, "closure");
    int failed = luaL_dofile(L, "script.lua");
    if (failed)
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    return failed;
}
]]

function T.test_workers_of_a_program_that_links_all()
  installed(function(dir)
    local said = sh([[
      cd "$1/embed"
      export PKG_CONFIG_PATH="$1/PREFIX/lib/pkgconfig:$PKG_CONFIG_PATH"
      printf %s "$2" >workers.c
      printf %s "$3" >script.lua
      cc -Wall -Wextra -Werror -o workers workers.c $(pkg-config --cflags --libs lua-asio)
      ./workers]], dir, WORKERS, [[
        package.path, package.cpath = '', ''
        local asio = require 'asio'
        local function depth(n)
          local asio = require 'asio'
          assert(not package.preload.closure)
          if n == 0 then return require 'host' end
          return select(2, assert(asio.worker(depth, n - 1):join(10)))
        end
        print(assert(asio.worker(depth, 2):join(10)))]])
    lu.assertEquals(said, 'true\thost\n')
  end)
end

function T.test_a_program_by_cmake()
  installed(function(dir)
    local ares = exists(dir .. '/PREFIX/lib/lua/5.1/asio/ares.so') and 'ON' or 'OFF'
    local said = sh([[
      cd "$1/embed"
      cmake -S . -B build -DCMAKE_PREFIX_PATH="$1/PREFIX" -DARES="$2" >log || cat log
      cmake --build build >log || cat log
      ./build/embed server.lua client.lua]], dir, ares)
    lu.assertEquals(said, SAID)
  end)
end

-- HTTP from the library alone, in two states: a server whose answer is compressed, and a client.
local HTTP_SERVER = [[
package.path, package.cpath = '', ''
local http, server = require 'asio.http', nil
server = assert(http.server('127.0.0.1', 0, function(req, res)
  res:send(200, { ['Content-Type'] = 'text/plain' }, req.path:rep(300))
  server:close()
end, { gzip = true }))
return select(2, server:address())
]]
local HTTP_CLIENT = [[
package.path, package.cpath = '', ''
local asio, port = require 'asio', ...
asio.spawn(function()
  local url = ('http://127.0.0.1:%d/abc'):format(port)
  local response = assert(require('asio.http').get(url, { pool = false, proxy = false }))
  print(response.status, #response.body, response.decoded)
end)
]]

function T.test_http_of_a_program_that_links_all()
  can.need('http', 'zlib')
  installed(function(dir)
    local said = sh([[
      cd "$1/embed"
      printf %s "$2" >http_server.lua
      printf %s "$3" >http_client.lua
      export PKG_CONFIG_PATH="$1/PREFIX/lib/pkgconfig:$PKG_CONFIG_PATH"
      make -s HTTP=1 CFLAGS='-Wall -Wextra -Werror'
      ./embed http_server.lua http_client.lua
      cmake -S . -B build -DCMAKE_PREFIX_PATH="$1/PREFIX" -DHTTP=ON >log || cat log
      cmake --build build >log || cat log
      ./build/embed http_server.lua http_client.lua]], dir, HTTP_SERVER, HTTP_CLIENT)
    lu.assertEquals(said, ('200\t1200\tgzip\ndone\n'):rep(2))
  end)
end

-- Nothing of the build directory, and no path of the prefix: what is installed can be moved.
function T.test_no_path_of_this_machine_is_installed()
  installed(function(dir)
    local said = sh([[
      cd "$1/PREFIX"
      grep -rlF -e "$1" -e "$2" . || true]], dir, os.getenv 'ASIO_BUILD')
    lu.assertEquals(said, '')
  end)
end

return T
