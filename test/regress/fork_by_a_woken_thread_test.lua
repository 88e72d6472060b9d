-- A light thread that forked where it was woken closed, in the child, what the code that had woken it was
-- still going through: the list of answered questions, and the deadlines of the same turn.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local t = require 'support'
local can = require 'can'
local ns = require 'ns'

local T = {}

function T.test_by_a_deadline()
  can.need 'fork'
  t.child(function()
    local asio, forks = require 'asio', require 'forks'
    local ffi = require 'ffi'
    local silent = assert(asio.udp('127.0.0.1', 0))
    local ip, port = silent:address()
    local pid
    asio.spawn(function()
      asio.sleep(0.05)
      pid = ffi.C.fork()
    end)
    asio.spawn(asio.resolve, 'x.test', { type = 'A', servers = { ip .. ':' .. port }, timeout = 0.05 })
    asio.spawn(function() -- both deadlines pass meanwhile
      asio.sleep(0.02)
      local last = asio.now() + 0.1
      while asio.now() < last do end
    end)
    local ok = pcall(asio.run)
    if pid == 0 then ffi.C._exit(ok and 3 or 0) end
    assert(ok)
    forks.wait(pid)
  end)
end

function T.test_by_an_answer()
  if not ns.has_ares() then lu.skip 'asio/ares.so was not built' end
  t.child(function()
    local asio, forks = require 'asio', require 'forks'
    local ffi = require 'ffi'
    local server = assert(asio.udp('127.0.0.1', 0))
    local ip, port = server:address()
    asio.spawn(function()
      local query, from, from_port = server:recv()
      local question = query:sub(13, query:find('%z', 13) + 4)
      assert(server:send(query:sub(1, 2) .. '\129\128\0\1\0\1\0\0\0\0' .. question ..
        '\192\12\0\1\0\1\0\0\0\60\0\4\1\2\3\4', from, from_port))
    end)
    local pid, parent
    for _ = 1, 3 do -- one question, three light threads
      asio.spawn(function()
        assert(asio.resolve('x.test', { type = 'A', servers = { ip .. ':' .. port }, timeout = 5 }))
        if pid then return end
        pid = ffi.C.fork()
        parent = pid ~= 0
      end)
    end
    local ok = pcall(asio.run)
    if not parent then ffi.C._exit(ok and 3 or 0) end
    assert(ok)
    forks.wait(pid)
  end)
end

return T
