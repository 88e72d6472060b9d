-- Under load c-ares kept one UDP socket: 4,000 questions came from 2 source ports, and a forger that knows
-- the port has only the 16 bits of the id to guess.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local ns = require 'ns'
local raw = require 'raw'

if not ns.has_ares() then
  return { test_names_need_c_ares = function() lu.skip 'asio/ares.so was not built' end }
end

local T = {}

local server = ns.start()

local function ports_of(rest)
  local opts = { type = 'TXT', servers = server.servers, cache = false }
  return tonumber(assert(asio.resolve('ports.' .. rest, opts))[1].text)
end

-- So many questions, of which always `at_once` are under way.
local function ask(count, at_once, rest)
  local room = asio.semaphore(at_once)
  local opts = { type = 'A', servers = server.servers }
  local threads = {}
  for i = 1, count do
    room:acquire()
    threads[i] = asio.spawn(function()
      local list, message = asio.resolve(('q%d.%s'):format(i, rest), opts)
      room:release()
      return list and list[1].address or message
    end)
  end
  for i = 1, count do lu.assertEquals({ threads[i]:join() }, { true, '127.0.0.1' }) end
end

function T.test_one_after_the_other()
  ask(100, 1, 'seq.a.test')
  lu.assertTrue(ports_of 'seq.a.test' > 90, ports_of 'seq.a.test')
end

function T.test_always_some_under_way()
  for at_once, least in pairs { [2] = 240, [50] = 240, [500] = 50 } do
    local rest = ('load%d.a.test'):format(at_once)
    ask(4000, at_once, rest)
    local ports = ports_of(rest)
    lu.assertTrue(ports >= least, ("%d at once: %d ports"):format(at_once, ports))
  end
end

-- Not without bound: the sockets of a crowd must leave some for others.
function T.test_all_at_once()
  local before = raw.count_fds()
  local threads = {}
  for i = 1, 2000 do
    threads[i] = asio.spawn(asio.resolve, ('q%d.all.delay100.a.test'):format(i),
      { type = 'A', servers = server.servers })
  end
  local sockets = raw.count_fds() - before
  for i = 1, 2000 do lu.assertEquals((threads[i]:join()), true) end
  lu.assertTrue(sockets > 16 and sockets <= 64, sockets)
  local ports = ports_of 'all.delay100.a.test' -- more where a busy machine has asked once more
  lu.assertTrue(ports >= sockets and ports <= 64, ports)
  asio.yield()
  lu.assertTrue(raw.count_fds() <= before + 1)
end

return T
