-- At the end of the Lua state a finalizer began TLS with options whose context had been finalized before: a
-- crash.
-- test: needs tls
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local certs = require 'certs'
local t = require 'support'

local T = {}

function T.test_start_tls()
  t.child(function(dir)
    local asio = require 'asio'
    local options = { ca = dir .. 'ca.pem', server_name = 'localhost' }
    local a, b = asio.socketpair()
    local last = newproxy(true) -- older than the context, newer than the connection
    getmetatable(last).__gc = function() pcall(a.start_tls, a, options) end
    local c, d = asio.socketpair()
    asio.spawn(d.start_tls, d, { server = true, cert = dir .. 'server.pem', key = dir .. 'server.key' })
    assert(c:start_tls(options))
    _G.kept = { a, b, c, d, last }
  end, { args = { certs.dir() } })
end

function T.test_set_tls()
  t.child(function(dir)
    local asio = require 'asio'
    local options = { cert = dir .. 'server.pem', key = dir .. 'server.key' }
    local server = assert(asio.server('127.0.0.1', 0, print, { tls = options }))
    local last = newproxy(true)
    getmetatable(last).__gc = function() pcall(server.set_tls, server, options) end
    assert(server:set_tls(options))
    _G.kept = { server, last }
  end, { args = { certs.dir() } })
end

return T
