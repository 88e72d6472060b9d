-- The collector: what is waited on stays, what is unreachable goes, once.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'

local T = {}

-- Collects during every wait of `fn`.
local function under_collection(fn)
  local stop = false
  local collector = asio.spawn(function()
    while not stop do
      collectgarbage()
      asio.yield()
    end
  end)
  local ok, err = pcall(fn)
  stop = true
  collector:join()
  if not ok then error(err, 0) end
end

function T.test_a_temporary_is_kept_while_it_reads()
  under_collection(function()
    local other
    local function temporary()
      local a
      a, other = t.pair()
      return a
    end
    local reader = asio.spawn(function() return (temporary():read(5)) end)
    for _ = 1, 20 do asio.sleep(0.0005) end
    other:write 'alive'
    lu.assertEquals({ reader:join() }, { true, 'alive' })
    t.failure('EOF', other:read(1))
  end)
end

function T.test_a_temporary_is_kept_while_it_writes()
  under_collection(function()
    local other
    local function temporary()
      local a
      a, other = t.pair()
      return a
    end
    local size = 4 * 2 ^ 20
    local writer = asio.spawn(function() return temporary():write(('k'):rep(size)) end)
    asio.sleep(0.005)
    t.same_bytes(other:read(size), ('k'):rep(size))
    lu.assertEquals({ writer:join() }, { true, true })
    t.failure('EOF', other:read(1))
  end)
end

function T.test_a_thread_without_a_name_that_is_joined()
  under_collection(function()
    local joiner = asio.spawn(function()
      return asio.spawn(function()
        asio.sleep(0.01)
        return 'joined'
      end):join()
    end)
    lu.assertEquals({ joiner:join() }, { true, true, 'joined' })
  end)
end

function T.test_strings_that_are_being_written()
  under_collection(function()
    local a, b = t.pair()
    local writer = asio.spawn(function()
      for i = 1, 20 do assert(a:write(('%04d'):format(i):rep(20000))) end
    end)
    for i = 1, 20 do t.same_bytes(b:read(80000), ('%04d'):format(i):rep(20000)) end
    lu.assertTrue(writer:join())
  end)
end

function T.test_a_server_with_handlers_under_way()
  under_collection(function()
    local server = assert(asio.server('127.0.0.1', 0, function(conn)
      for _ = 1, 5 do conn:write(conn:read(3)) end
    end))
    local _, port = server:address()
    local clients = {}
    for i = 1, 10 do
      clients[i] = asio.spawn(function()
        local conn = assert(asio.connect('127.0.0.1', port))
        for j = 1, 5 do
          local message = ('%d%02d'):format(j, i)
          conn:write(message)
          assert(conn:read(3) == message)
        end
        return true
      end)
    end
    for i = 1, 10 do lu.assertEquals({ clients[i]:join() }, { true, true }) end
    server:close()
  end)
end

function T.test_both_ends_of_a_pair_unreachable()
  local fds = raw.count_fds()
  for i = 1, 50 do
    local a = t.pair()
    if i % 2 == 0 then a:write(('x'):rep(50000)) end
  end
  t.wait_until(function()
    t.collect()
    return raw.count_fds() <= fds
  end, 'the descriptors to go')
end

function T.test_threads_that_wait_for_each_other_over_connections_stay()
  -- Nothing in the world but the loop refers to them.
  local got
  do
    local a, b = t.pair()
    local c, d = t.pair()
    asio.spawn(function() c:write(a:read(2)) end)
    asio.spawn(function()
      asio.sleep(0.01)
      b:write 'go'
      got = d:read(2)
    end)
  end
  t.wait_until(function()
    t.collect()
    return got
  end)
  lu.assertEquals(got, 'go')
end

function T.test_a_connection_held_only_by_its_handler()
  local got
  local server = assert(asio.server('127.0.0.1', 0, function(conn) got = conn:read(4) end))
  local peer = raw.connect((select(2, server:address())))
  asio.sleep(0.005)
  server:close()
  server = nil -- luacheck: ignore 311
  for _ = 1, 5 do
    t.collect()
    asio.yield()
  end
  peer:send('held', 1)
  t.wait_until(function() return got end)
  lu.assertEquals(got, 'held')
  peer:close()
end

function T.test_finalizers_that_use_the_library()
  local finished = 0
  for i = 1, 20 do
    local a, b = t.pair()
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function()
      a:write 'x'
      pcall(a.read, a, 1)
      if i % 2 == 0 then a:close() end
      b:close()
      finished = finished + 1
    end
  end
  t.collect()
  t.wait_until(function()
    t.collect()
    return finished == 20
  end)
end

function T.test_finalizers_that_spawn()
  -- In a finalizer LuaJIT takes a yield for one out of a debug hook: a light thread that began
  -- there and waited would be resumed into nowhere.
  t.quiet_child(function()
    local lib = require 'asio'
    local finished = 0
    local function dying()
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function()
        lib.spawn(function()
          lib.yield()
          lib.sleep(0.001)
          finished = finished + 1
        end)
      end
    end
    for _ = 1, 10 do dying() end
    collectgarbage()
    lib.run()
    lib.run(function()
      for _ = 1, 10 do dying() end
      collectgarbage()
      lib.sleep(0.05)
    end)
    assert(finished >= 18, finished) -- the last ones may still stand in a register
  end)
end

T.test_unreachable_things_in_the_main_chunk = t.main(function()
  local fds = raw.count_fds()
  for _ = 1, 20 do
    asio.socketpair()
    asio.server('127.0.0.1', 0, function() end)
  end
  t.collect()
  for _ = 1, 10 do asio.run_once(0) end
  t.wait_until(function()
    t.collect()
    return raw.count_fds() <= fds
  end, 'the descriptors to go')
end)

function T.test_idle_connections_cost_little()
  lu.skipIf(t.sanitized or t.stress, 'measures memory')
  t.quiet_child(function()
    local lib, bare = require 'asio', require 'raw'
    lib.run(function()
      local n, parked = 2000, 0
      local server = assert(lib.server('127.0.0.1', 0, function(conn)
        parked = parked + 1
        conn:read(64)
      end, { backlog = 4000 }))
      local _, port = server:address()
      local function open(clients, count)
        for i = 1, count do
          clients[#clients + 1] = bare.connect(port)
          if i % 50 == 0 then lib.sleep(0) end
        end
        while parked < #clients do lib.yield() end
        collectgarbage()
        collectgarbage()
      end
      local clients = {}
      open(clients, 200) -- what is needed once is there now
      local before = bare.status 'VmRSS'
      open(clients, n)
      local each = (bare.status 'VmRSS' - before) * 1024 / n
      -- The clients' own objects are in it as well.
      assert(each < 2000, each .. ' bytes for an idle connection')
      os.exit(0, true)
    end)
  end)
end

return T
