-- asio.connect by name: which address is tried when, and what becomes of the others (RFC 8305).
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw 431/ns (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local ns = require 'ns'
local raw = require 'raw'
local t = require 'support'

if not ns.has_ares() then
  return { test_names_need_c_ares = function() lu.skip 'asio/ares.so was not built' end }
end

local T = {}

local names = ns.start()

local function connect(host, port, opts)
  opts = opts or {}
  opts.servers = names.servers
  return asio.connect(host, port, opts)
end

local function listen(ip, port, answer)
  return assert(asio.server(ip, port, function(conn)
    conn:write(answer)
    conn:close()
  end))
end

-- 127.0.0.1 with a port on which every SYN is dropped, and the port.
local function with_black_hole(fn)
  local hole, fillers = raw.full_listener()
  local ok, err = pcall(fn, hole:port())
  for _, filler in ipairs(fillers) do filler:close() end
  hole:close()
  if not ok then error(err, 0) end
end

-- The names' addresses are 127.0.0.1, 127.0.0.2, ...
function T.test_a_dead_first_address()
  with_black_hole(function(port)
    local server = listen('127.0.0.2', port, 'second')
    connect('dead.n2.a.test', 1) -- known from now on: only connecting is measured
    local started = asio.now()
    local conn = assert(connect('dead.n2.a.test', port))
    local took = asio.now() - started
    lu.assertTrue(took >= 0.24, took)
    lu.assertTrue(took < (t.patience > 1 and 2 or 0.3), took)
    lu.assertEquals(conn:read(6), 'second')
    lu.assertEquals((conn:peer()), '127.0.0.2')
    conn:close()
    server:close()
  end)
end

T.test_a_dead_first_address_in_the_main_chunk = t.main(function()
  with_black_hole(function(port)
    local server = listen('127.0.0.2', port, 'second')
    local conn = assert(connect('main.n2.a.test', port))
    lu.assertEquals(conn:read(6), 'second')
    conn:close()
    server:close()
    t.failure('ETIMEDOUT', connect('main.a.test', port, { timeout = 0.05 }))
  end)
end)

T.test_stopped_in_the_main_chunk = t.main(function()
  with_black_hole(function(port)
    asio.spawn(function()
      asio.sleep(0.02)
      asio.stop()
    end)
    t.failure('ECANCELED', connect('main.n2.a.test', port))
  end)
end)

function T.test_one_that_fails_does_not_hold_up_the_next()
  local server = listen('127.0.0.3', 0, 'third')
  local _, port = server:address()
  local started = asio.now()
  local conn = assert(connect('next.n3.a.test', port))
  lu.assertTrue(asio.now() - started < 0.2 * t.patience, 'it waited')
  lu.assertEquals(conn:read(5), 'third')
  conn:close()
  server:close()
end

function T.test_no_address_answers()
  local listener = raw.listen()
  local port = listener:port()
  listener:close()
  t.failure('ECONNREFUSED', connect('nobody.n3.a.test', port))
  with_black_hole(function(dead)
    -- One is refused, one hangs: the deadline ends it.
    local started = asio.now()
    t.failure('ETIMEDOUT', connect('nobody.n2.a.test', dead, { timeout = 0.4 }))
    local took = asio.now() - started
    lu.assertTrue(took >= 0.39 and took < 1 * t.patience, took)
  end)
end

function T.test_the_deadline_is_one_for_all()
  with_black_hole(function(port)
    local before = raw.count_fds()
    for _, seconds in ipairs { 0, 0.01, 0.3 } do
      local started = asio.now()
      t.failure('ETIMEDOUT', connect('one.a.delay20.ttl0.test', port, { timeout = seconds }))
      lu.assertTrue(asio.now() - started < seconds + 0.5 * t.patience)
    end
    t.failure('ETIMEDOUT', connect('one.silent.test', port, { timeout = 0.05 }))
    local _, _, code = asio.timeout(0.05, connect, 'two.a.test', port)
    lu.assertEquals(code, 'ETIMEDOUT')
    t.wait_until(function() return raw.count_fds() <= before end, 'the descriptors to go')
  end)
end

function T.test_what_is_there_now_is_enough()
  local server = listen('127.0.0.1', 0, 'x')
  local _, port = server:address()
  connect('now.a.test', 1)
  local conn, _, code = connect('now.a.test', port, { timeout = 0 })
  if conn then
    lu.assertEquals(conn:read(1), 'x')
    conn:close()
  else
    lu.assertEquals(code, 'ETIMEDOUT')
  end
  server:close()
end

-- While it looks up, while one address is tried, while two are.
function T.test_cancelled_at_every_stage()
  with_black_hole(function(port)
    local before = raw.count_fds()
    for _, delay in ipairs { 0, 0.01, 0.03, 0.1, 0.3 } do
      local thread = asio.spawn(connect, 'cancel.n2.delay20.ttl0.a.test', port)
      asio.sleep(delay)
      lu.assertTrue(thread:cancel())
      local ok, err = thread:join()
      lu.assertFalse(ok)
      lu.assertIs(err, asio.cancelled)
    end
    t.wait_until(function() return raw.count_fds() <= before end, 'the descriptors to go')
  end)
end

-- Another light thread than those that look up may be told of a failure first.
function T.test_names_that_fail()
  t.failure('EAI_NONAME', connect('x.missing.test', 80))
  t.failure('EAI_NODATA', connect('x.none.test', 80))
  t.failure('EAI_AGAIN', connect('x.servfail.test', 80))
  t.failure('EAI_NONAME', connect('no such name', 80))
end

function T.test_ipv4_does_not_wait_for_ipv6()
  local server = listen('127.0.0.1', 0, 'four')
  local _, port = server:address()
  for _, host in ipairs { 'x.silent6.test', 'x.delay6x3000.test' } do
    local started = asio.now()
    local conn = assert(connect(host, port))
    local took = asio.now() - started
    lu.assertTrue(took >= 0.04 and took < 0.2 * t.patience, took)
    lu.assertEquals((conn:peer()), '127.0.0.1')
    conn:close()
  end
  server:close()
end

-- The answer on IPv6 comes while 127.0.0.1 is tried in vain: ::1 is tried as well.
function T.test_an_answer_that_comes_while_connecting()
  with_black_hole(function(port)
    local server, _, code = asio.server('::1', port, function(conn)
      conn:write 'six'
      conn:close()
    end)
    lu.skipIf(code == 'EADDRNOTAVAIL' or code == 'EAFNOSUPPORT', 'this machine has no IPv6')
    local conn = assert(connect('x.delay6x150.test', port))
    lu.assertEquals(conn:read(3), 'six')
    conn:close()
    server:close()
  end)
end

function T.test_ipv6_comes_first_and_then_they_take_turns()
  local six, _, code = asio.server('::1', 0, function() end)
  lu.skipIf(code == 'EADDRNOTAVAIL' or code == 'EAFNOSUPPORT', 'this machine has no IPv6')
  local _, port = six:address()
  local four = listen('127.0.0.1', port, 'four')
  local conn = assert(connect('both.test', port))
  lu.assertEquals((conn:peer()), '::1')
  conn:close()
  six:close()
  conn = assert(connect('both.test', port))
  lu.assertEquals(conn:read(4), 'four')
  conn:close()
  four:close()
end

-- A network that has no way out by IPv6: known at once, and told last.
function T.test_addresses_that_are_nowhere()
  t.quiet_child(function()
    local own = require 'ns'.start()
    local asio = require 'asio'
    local opts = { servers = own.servers }
    asio.run(function()
      local server = assert(asio.server('127.0.0.1', 0, function(conn)
        conn:write 'four'
        conn:close()
      end))
      local _, port = server:address()
      local list = assert(asio.resolve('x.far6.n3.test', opts))
      assert(#list == 6 and list[1].family == 'inet' and list[4].family == 'inet6')
      local started = asio.now()
      local conn = assert(asio.connect('x.far6.n3.test', port, opts))
      assert(asio.now() - started < 0.7, asio.now() - started)
      assert(conn:read(4) == 'four')
      conn:close()
      server:close()
    end)
    own:close()
  end, { wrap = t.network() })
end

function T.test_many_at_once()
  with_black_hole(function(port)
    local server = listen('127.0.0.2', port, 'x')
    local threads, n = {}, t.stress and 10 or 100
    for i = 1, n do
      threads[i] = asio.spawn(function()
        local conn = assert(connect(('many%d.n2.a.test'):format(i % 10), port))
        local data = conn:read(1)
        conn:close()
        return data
      end)
    end
    for i = 1, n do lu.assertEquals({ threads[i]:join() }, { true, 'x' }) end
    server:close()
  end)
end

function T.test_the_state_closes_meanwhile()
  with_black_hole(function(port)
    for _, seconds in ipairs { 0.01, 0.1, 0.3 } do
      t.quiet_child(function(name_server, to, after)
        local asio = require 'asio'
        local opts = { servers = { name_server } }
        for _ = 1, 3 do asio.spawn(asio.connect, 'x.n2.a.delay50.test', to, opts) end
        asio.spawn(asio.sleep, tonumber(after))
        local deadline = asio.now() + tonumber(after)
        while asio.now() < deadline do asio.run_once(0.01) end
      end, { args = { names.servers[1], port, seconds } })
    end
  end)
end

-- By the hosts file, IPv6 dead: whoever looks up.
function T.test_ipv6_is_a_black_hole()
  t.need 'nft'
  local rules, hosts = os.tmpname(), os.tmpname()
  local file = io.open(rules, 'w')
  file:write [[
    table inet filter {
      chain input {
        type filter hook input priority 0
        ip6 daddr ::1 tcp dport 7000 drop
      }
    }
  ]]
  file:close()
  file = io.open(hosts, 'w')
  file:write '::1 dual\n127.0.0.1 dual\n192.0.2.1 mixed\n127.0.0.1 mixed\n192.0.2.9 mixed\n'
  file:close()
  local wrap = t.network(('nft -f %s && mount --bind %s /etc/hosts'):format(rules, hosts))
  for _, resolver in ipairs { 'ares', 'getaddrinfo' } do
    t.quiet_child(function()
      local asio = require 'asio'
      asio.run(function()
        local server = assert(asio.server('127.0.0.1', 7000, function(conn)
          conn:write 'four'
          conn:close()
        end))
        local started = asio.now()
        local conn = assert(asio.connect('dual', 7000))
        local took = asio.now() - started
        assert(took < 1, took)
        assert(conn:read(4) == 'four')
        conn:close()
        server:close()
        -- Refused says more than that there is no way to the others, whatever comes last.
        local _, _, code = asio.connect('mixed', 1)
        assert(code == 'ECONNREFUSED', code)
      end)
    end, { wrap = wrap, env = 'ASIO_RESOLVER=' .. resolver })
  end
  os.remove(rules)
  os.remove(hosts)
end

return T
