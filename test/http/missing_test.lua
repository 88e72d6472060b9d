-- What `require 'asio.http'` says where asio.so has no asio/http.so beside it, and that it finds the one that
-- is there. What a script gets that asks for TLS where there is no asio/tls.so: no connection.
--
-- test: needs shell
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local T = {}

-- What a script says in a folder that has asio.so, and asio/http.so or not.
local function said(script, with_http)
  can.need('shell', 'module_file', 'native')
  local dir = t.temporary()
  os.remove(dir)
  local build = t.quote(os.getenv 'ASIO_BUILD')
  os.execute(('mkdir -p %s/asio && cp %s/asio.so %s'):format(dir, build, dir))
  if with_http then os.execute(('cp %s/asio/http.so %s/asio'):format(build, dir)) end
  local file = io.popen(('timeout 60 %s -e %s 2>&1'):format(
    t.quote(t.launcher), t.quote(([[
      package.cpath = '%s/?.so'
      package.loaded.asio = assert(package.loadlib('%s/asio.so', 'luaopen_asio'))()
      %s]]):format(dir, dir, script))))
  local text = file:read '*a'
  file:close()
  os.execute('rm -r ' .. dir)
  return text
end

function T.test_without_the_plugin()
  local text = said "require 'asio.http'"
  lu.assertStrContains(text, "module 'asio.http' not found")
  lu.assertStrContains(said "print(pcall(require, 'asio.https'))", "module 'asio.https' not found")
end

function T.test_with_the_plugin()
  can.need 'http'
  lu.assertEquals(said("print(type(require('asio.http').server))", true), 'function\n')
end

function T.test_tls_without_its_plugin()
  local text = said [[
    local asio = require 'asio'
    local server = assert(asio.server('127.0.0.1', 0))
    local _, port = server:address()
    print(select(3, asio.connect('127.0.0.1', port, { tls = {} })))
    print(select(3, asio.server('127.0.0.1', 0, print, { tls = {} })))
    print(server:accept(0.1))
    server:close()]]
  lu.assertEquals(text, 'ENOTSUP\nENOTSUP\nnil\toperation timed out\tETIMEDOUT\n')
end

return T
