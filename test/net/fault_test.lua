-- Faults of the system below: accept that fails, files that run out, connections dropped by
-- the thousand. Each runs in a process of its own.
--
-- test: 20 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

-- accept fails --------------------------------------------------------------------------------

-- A server whose first calls of accept fail. The loop's other work may not be late meanwhile,
-- and the client, who came during the fault, is served once it ends.
local function serve_through_the_fault()
  local asio = require 'asio'
  asio.run(function()
    local late, stop = {}, false
    local ticker = asio.spawn(function()
      while not stop do
        local before = asio.now()
        asio.sleep(0.005)
        late[#late + 1] = asio.now() - before - 0.005
      end
    end)
    local server = assert(asio.server('127.0.0.1', 0, function(conn)
      conn:write(conn:read(4), '-pong')
      conn:close()
    end))
    local _, port = server:address()
    local client = assert(asio.connect('127.0.0.1', port))
    client:set_timeout(10)
    client:write 'ping'
    local answer, _, code = client:read(9)
    assert(answer == 'ping-pong', code)
    -- And the next one at once.
    local conn = assert(asio.connect('127.0.0.1', port))
    conn:write 'pung'
    assert(conn:read(9) == 'pung-pong')
    stop = true
    ticker:join()
    server:close()
    table.sort(late)
    io.write(('%.3f'):format(late[#late - 2] or 0)) -- one or two: the machine is busy
  end)
end

local function inject(error_name)
  local log = os.tmpname()
  local result = t.child(serve_through_the_fault, {
    seconds = 30,
    env = t.ignore_leaks,
    wrap = t.strace(('-e trace=accept,accept4 -e inject=accept,accept4:error=%s:when=1..6 -o %s')
      :format(error_name, log)),
  })
  local calls = 0
  for line in io.lines(log) do
    if line:find('INJECTED', 1, true) then calls = calls + 1 end
  end
  os.remove(log)
  lu.assertEquals(calls, 6)
  local late = tonumber(result.out)
  -- The pauses are 5, 10, ... 160 ms: had the loop slept, three would be later than this.
  lu.assertTrue(late < 0.035 * t.patience, late .. ' s late')
  local _, lines = result.err:gsub('\n', '\n')
  lu.assertTrue(lines <= 2, result.err)
  return result
end

function T.test_accept_fails_for_want_of_memory()
  inject('ENOMEM')
end

function T.test_accept_fails_for_want_of_buffers()
  inject('ENOBUFS')
end

function T.test_accept_is_forbidden()
  inject('EPERM')
end

function T.test_accept_finds_no_free_file()
  inject('EMFILE')
  inject('ENFILE')
end

function T.test_accept_that_never_works_takes_no_processor()
  local log = os.tmpname()
  local result = t.child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.run(function()
      local server = assert(asio.server('127.0.0.1', 0, function() end))
      local client = raw.connect((select(2, server:address())))
      local cpu = raw.cpu()
      asio.sleep(1)
      cpu = raw.cpu() - cpu
      assert(cpu < 0.5, cpu)
      client:close()
      server:close()
    end)
  end, {
    env = t.ignore_leaks,
    wrap = t.strace('-e trace=accept,accept4 -e inject=accept,accept4:error=ENOMEM -o ' .. log),
  })
  local calls = 0
  for _ in io.lines(log) do calls = calls + 1 end
  os.remove(log)
  lu.assertTrue(calls < 100, calls .. ' calls in a second')
  local _, lines = result.err:gsub('\n', '\n')
  lu.assertTrue(lines <= 2, result.err)
end

function T.test_a_server_can_be_closed_while_accept_fails()
  t.child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.run(function()
      asio.server('127.0.0.1', 0, function() end):close() -- the loop opens files of its own
      asio.sleep(0.005)
      local fds = raw.count_fds()
      local server = assert(asio.server('127.0.0.1', 0, function() end))
      local client = raw.connect((select(2, server:address())))
      asio.sleep(0.03)
      server:close()
      client:close()
      while raw.count_fds() > fds do asio.sleep(0.005) end
      -- One that is dropped while it backs off.
      server = assert(asio.server('127.0.0.1', 0, function() end))
      client = raw.connect((select(2, server:address())))
      asio.sleep(0.03)
      client:close()
      server = nil -- luacheck: ignore 311
      while raw.count_fds() > fds do
        collectgarbage()
        asio.sleep(0.005)
      end
    end)
  end, {
    env = t.ignore_leaks,
    wrap = t.strace '-e inject=accept,accept4:error=ENOMEM -o /dev/null',
  })
end

function T.test_an_accept_that_is_interrupted_or_aborted_is_no_fault()
  for _, name in ipairs { 'EINTR', 'ECONNABORTED' } do inject(name) end
end

-- One that backs off has no handle, and goes as soon as it is closed.
function T.test_a_server_that_backs_off_is_closed_while_it_tells_its_address()
  t.child(function()
    local asio = require 'asio'
    collectgarbage('setpause', 0)
    collectgarbage('setstepmul', 1000000)
    local name = 'unix:@' .. ('name'):rep(20)
    for i = 1, 10 do
      local text
      local server = assert(asio.server(name .. i, print))
      local conn = assert(asio.connect(name .. i))
      asio.sleep(0.002)
      getmetatable(newproxy(true)).__gc = function() server:close() end
      repeat
        text = server:address()
        assert(not text or text == name .. i, text)
        newproxy() -- the same text again is nothing that the collector would run for
      until not text
      conn:close()
    end
  end, {
    env = t.ignore_leaks,
    wrap = t.strace '-e trace=accept,accept4 -e inject=accept,accept4:error=ENOMEM -o /dev/null',
  })
end

-- Out of files --------------------------------------------------------------------------------

function T.test_out_of_files()
  local result = t.child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.run(function()
      local served = 0
      local conns = {}
      local server = assert(asio.server('127.0.0.1', 0, function(conn)
        served = served + 1
        conns[conn] = true
        while true do
          local data = conn:read(4)
          if not data then break end
          conn:write(data)
        end
        conns[conn] = nil
        conn:close()
      end))
      local _, port = server:address()
      -- The kernel answers the clients; the server runs out while it takes them in.
      local clients = {}
      for i = 1, 60 do clients[i] = raw.connect(port) end
      raw.limit_fds(30)
      local cpu = raw.cpu()
      asio.sleep(0.6)
      cpu = raw.cpu() - cpu
      assert(cpu < 0.3, 'a busy loop: ' .. cpu)
      assert(served >= 10 and served <= 30, served)
      -- Those that were taken in live.
      local function echo(client)
        if client:send('ping', 1) < 4 then return false end
        local deadline = asio.now() + 0.5
        repeat
          local answer = client:recv(4, 0)
          if answer then return answer == 'ping' end
          if answer == false then return false end
          asio.sleep(0.001)
        until asio.now() > deadline
        return false
      end
      local live = 0
      for i = 1, served do
        if echo(clients[i]) then live = live + 1 end
      end
      assert(live >= 10, live)
      -- The clients go; their files come back; accepting goes on.
      for i = 1, 60 do clients[i]:close() end
      local deadline = asio.now() + 5
      while next(conns) and asio.now() < deadline do asio.sleep(0.005) end
      local again = false
      while not again and asio.now() < deadline do
        local client = raw.connect(port)
        again = echo(client)
        client:close()
      end
      assert(again, 'nobody is taken in any more')
      server:close()
      io.write(live)
    end)
  end, { seconds = 30 })
  local _, lines = result.err:gsub('\n', '\n')
  lu.assertTrue(lines <= 3, result.err)
end

function T.test_near_the_limit_dropped_connections_are_collected()
  t.quiet_child(function()
    local raw = require 'raw'
    -- Clients that stay, so that nothing but a collection frees the server's files.
    local tell = raw.companion(function(port)
      local clients = {}
      for i = 1, 500 do
        clients[i] = raw.connect(port)
        assert(clients[i]:recv(1, 5) == 'x', 'client ' .. i .. ' was turned away')
      end
    end)
    local asio = require 'asio'
    asio.run(function()
      local handled = 0
      local server = assert(asio.server('127.0.0.1', 0, function(conn)
        handled = handled + 1
        conn:write 'x'
      end))
      raw.limit_fds(40)
      tell((select(2, server:address())))
      local deadline = asio.now() + 8
      while handled < 500 and asio.now() < deadline do asio.sleep(0.005) end
      server:close()
      assert(handled == 500, handled .. ' of 500 were taken in')
    end)
  end)
end

function T.test_near_the_limit_with_the_last_numbers_taken()
  local result = t.child(function()
    local raw = require 'raw'
    local tell = raw.companion(function(port)
      local clients = {}
      for i = 1, 60 do clients[i] = raw.connect(port) end
      for i, client in ipairs(clients) do
        assert(client:recv(1, 5) == 'x', 'client ' .. i .. ' was turned away')
        client:close()
      end
    end)
    local asio = require 'asio'
    asio.run(function()
      local handled = 0
      local server = assert(asio.server('127.0.0.1', 0, function(conn)
        handled = handled + 1
        conn:write 'x'
        conn:read(1)
        conn:close()
      end))
      raw.limit_fds(40)
      local files = {}
      for i = 1, 40 do files[i] = assert(io.open '/dev/null') end
      for i = 1, 28 do files[i]:close() end
      tell((select(2, server:address())))
      local deadline = asio.now() + 8
      while handled < 60 and asio.now() < deadline do asio.sleep(0.005) end
      server:close()
      assert(handled == 60, handled .. ' of 60 were taken in')
    end)
  end)
  local _, lines = result.err:gsub('\n', '\n')
  lu.assertTrue(lines <= 2, result.err)
end

function T.test_connect_and_socketpair_without_files()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.run(function()
      local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:write 'x' end))
      local _, port = server:address()
      raw.limit_fds(20)
      local spare = {}
      for i = 1, 20 do spare[i] = assert(io.open '/dev/null') end
      for _ = 1, 100 do
        local conn, message, code = asio.connect('127.0.0.1', port)
        assert(conn == nil and type(message) == 'string' and code == 'EMFILE', code)
        local a, _, pair_code = asio.socketpair()
        assert(a == nil and pair_code == 'EMFILE', pair_code)
        local none, _, server_code = asio.server('127.0.0.1', 0, function() end)
        assert(none == nil and server_code == 'EMFILE', server_code)
        local named, _, name_code = asio.connect('localhost', port)
        assert(named == nil and type(name_code) == 'string')
      end
      for _, file in ipairs(spare) do file:close() end
      local conn = assert(asio.connect('127.0.0.1', port))
      assert(conn:read(1) == 'x')
      server:close()
    end)
  end)
end

-- Dropped by the thousand ---------------------------------------------------------------------

-- A server that does nothing else, and a process that connects one client after another; the
-- handler drops its connection or raises.
local function drop_many(what, count)
  local raw = require 'raw'
  count = tonumber(count)
  local tell = raw.companion(function(port)
    local clients = {}
    for i = 1, count do
      -- From ever other addresses, and reset: nothing lingers and no ports run out.
      local from = ('127.0.%d.%d'):format(i % 50 + 1, i % 200 + 1)
      local connected, conn = pcall(raw.connect, port, { from = from })
      if connected then
        local got = conn:recv(1, 60)
        assert(got == 'x' or what == 'raise' and got == false, 'not taken in') -- false: reset
        clients[i] = conn
      else -- on a busy machine the reset is there before `connect` has returned
        assert(what == 'raise' and conn:find 'reset by peer', conn)
      end
      if clients[i - 20] then
        clients[i - 20]:reset()
        clients[i - 20] = nil
      end
    end
  end)
  local asio = require 'asio'
  asio.run(function() -- libuv opens a spare descriptor with its first stream
    for _, conn in ipairs { asio.socketpair() } do conn:close() end
  end)
  local handled, highest, memory = 0, 0, nil
  local fds
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    handled = handled + 1
    if handled % 100 == 0 then highest = math.max(highest, raw.count_fds(20000) - fds) end
    if handled == math.floor(count / 10) then memory = raw.status 'VmRSS' end
    conn:write 'x'
    conn:flush() -- what a handler that raises has queued is given up
    if what == 'raise' then error('expected', 0) end
  end))
  fds = raw.count_fds()
  tell((select(2, server:address())))
  fds = fds - 1
  asio.run(function()
    while handled < count do asio.sleep(0.05) end
    collectgarbage()
    collectgarbage()
    memory = raw.status 'VmRSS' - memory
    assert(highest < 2000, highest .. ' descriptors at once')
    if os.getenv 'ASIO_SANITIZED' ~= '1' then
      assert(memory < 6000, memory .. ' KiB more')
    end
    local deadline = asio.now() + 10
    while raw.count_fds(20000) > fds and asio.now() < deadline do
      collectgarbage()
      asio.sleep(0.005)
    end
    assert(raw.count_fds(20000) <= fds, 'descriptors are left')
    server:close()
    io.write(handled)
  end)
end

T.test_handlers_that_drop_their_connections = t.slow(200, function()
  local n = t.count(100000)
  lu.assertEquals(t.quiet_child(drop_many, { args = { 'drop', n }, seconds = 180 }), tostring(n))
end)

T.test_handlers_that_raise = t.slow(200, function()
  local n = t.count(100000)
  local result = t.child(drop_many, { args = { 'raise', n }, seconds = 180 })
  lu.assertEquals(result.out, tostring(n))
  local _, reports = result.err:gsub('expected', '')
  lu.assertEquals(reports, n)
end)

return T
