-- connect: hosts, ports, what can go wrong, raw addresses.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'

local T = {}

local function listen(answer, ip)
  local server = assert(asio.server(ip or '127.0.0.1', 0, function(conn) conn:write(answer) end))
  return server, (select(2, server:address()))
end

-- A port on which nobody listens: it was free a moment ago.
local function closed_port()
  local listener = raw.listen()
  local port = listener:port()
  listener:close()
  return port
end

function T.test_an_address_and_a_port()
  local server, port = listen 'yes'
  for _, given in ipairs { port, tostring(port) } do
    local conn = assert(asio.connect('127.0.0.1', given))
    lu.assertEquals(conn:read(3), 'yes')
    lu.assertEquals({ conn:peer() }, { '127.0.0.1', port })
    conn:close()
  end
  server:close()
end

function T.test_a_name()
  local server, port = listen 'yes'
  for _ = 1, 3 do
    local conn = assert(asio.connect('localhost', port))
    lu.assertEquals(conn:read(3), 'yes')
    conn:close()
  end
  server:close()
end

-- The kernel's EINVAL is no sign of a name: that there is no such name is no help.
function T.test_an_address_that_the_kernel_calls_invalid()
  for ip, bind in pairs { ['fe80::1'] = false, ['192.0.2.77'] = '127.0.0.1' } do
    local conn, _, code = asio.connect(ip, 9, { bind = bind or nil, timeout = 0.1 })
    lu.assertNil(conn)
    lu.assertNotEquals(code, 'EAI_NONAME')
  end
end

function T.test_ipv6()
  local server, message, code = asio.server('::1', 0, function(conn) conn:write 'six' end)
  lu.skipIf(not server and (code == 'EADDRNOTAVAIL' or code == 'EAFNOSUPPORT'),
    'this machine has no IPv6')
  lu.assertNotNil(server, message)
  local _, port = server:address()
  local conn = assert(asio.connect('::1', port))
  lu.assertEquals(conn:read(3), 'six')
  lu.assertEquals({ conn:peer() }, { '::1', port })
  lu.assertEquals((conn:address()), '::1')
  conn:close()
  server:close()
end

function T.test_refused()
  local conn, message, code = asio.connect('127.0.0.1', closed_port())
  lu.assertNil(conn)
  lu.assertEquals(message, 'connection refused')
  lu.assertEquals(code, 'ECONNREFUSED')
  t.failure('ECONNREFUSED', asio.connect('localhost', closed_port()))
end

function T.test_refused_many_times_leaves_nothing()
  local port, before = closed_port(), raw.count_fds()
  for _ = 1, t.count(4000) do t.failure('ECONNREFUSED', asio.connect('127.0.0.1', port)) end
  asio.yield()
  t.wait_until(function() return raw.count_fds() <= before end, 'the descriptors to go')
end

function T.test_unreachable()
  -- In a network with nothing but a loopback interface, everything else is.
  local out = t.quiet_child(function()
    local asio = require 'asio'
    local conn, message, code = asio.connect('192.0.2.1', 80, { timeout = 5 })
    assert(conn == nil)
    assert(type(message) == 'string')
    io.write(code)
  end, { wrap = t.network() })
  lu.assertEquals(out, 'ENETUNREACH')
end

function T.test_a_listener_that_drops_everything()
  t.need 'nft'
  local rules = os.tmpname()
  local file = io.open(rules, 'w')
  file:write [[
    table inet filter {
      chain input {
        type filter hook input priority 0
        tcp dport 7000 drop
      }
    }
  ]]
  file:close()
  local out = t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local listener = raw.listen { port = 7000 }
    local started, fds = asio.now(), raw.count_fds()
    local _, _, code = asio.connect('127.0.0.1', 7000, { timeout = 0.1 })
    assert(asio.now() - started < 2)
    assert(code == 'ETIMEDOUT', code)
    local _, _, by_name = asio.connect('localhost', 7000, { timeout = 0.1 })
    assert(by_name == 'ETIMEDOUT' or by_name == 'ECONNREFUSED', by_name)
    asio.sleep(0.01)
    assert(raw.count_fds() <= fds + 1)
    listener:close()
    io.write(code)
  end, { wrap = t.network('nft -f ' .. rules) })
  os.remove(rules)
  lu.assertEquals(out, 'ETIMEDOUT')
end

function T.test_a_full_queue_times_out()
  local listener, fillers = raw.full_listener()
  local started, before = asio.now(), raw.count_fds()
  local conn, message, code = asio.connect('127.0.0.1', listener:port(), { timeout = 0.05 })
  lu.assertNil(conn)
  lu.assertEquals(message, 'operation timed out')
  lu.assertEquals(code, 'ETIMEDOUT')
  lu.assertTrue(asio.now() - started < 1 * t.patience)
  t.wait_until(function() return raw.count_fds() <= before end, 'the descriptor to go')
  t.failure('ETIMEDOUT', asio.connect('127.0.0.1', listener:port(), { timeout = 0 }))
  t.failure('ETIMEDOUT', asio.connect('localhost', listener:port(), { timeout = 0.05 }))
  for _, filler in ipairs(fillers) do filler:close() end
  listener:close()
end

function T.test_a_time_out_of_connect_is_not_one_of_reading()
  local kept
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    kept = conn
    conn:write 'late'
  end))
  local _, port = server:address()
  local conn = assert(asio.connect('127.0.0.1', port, { timeout = 0.05 * t.patience }))
  asio.sleep(0.06 * t.patience)
  lu.assertEquals(conn:read(4), 'late')
  local reader = asio.spawn(function() return conn:read(1) end)
  asio.sleep(0.06 * t.patience)
  lu.assertEquals(reader:status(), 'waiting')
  kept:close()
  reader:join()
  server:close()
end

function T.test_many_at_once()
  local server, port = listen 'x'
  local threads, n = {}, t.stress and 20 or 200
  for i = 1, n do
    threads[i] = asio.spawn(function()
      local conn = assert(asio.connect(i % 2 == 0 and '127.0.0.1' or 'localhost', port))
      local data = conn:read(1)
      conn:close()
      return data
    end)
  end
  for i = 1, n do lu.assertEquals({ threads[i]:join() }, { true, 'x' }) end
  server:close()
end

function T.test_bad_arguments()
  t.bad_argument(1, 'connect', function() asio.connect() end)
  t.bad_argument(1, 'connect', function() asio.connect({}, 80) end)
  t.bad_argument(1, 'connect', function() asio.connect(false, 80) end)
  t.bad_argument(2, 'connect', function() asio.connect('127.0.0.1', {}) end)
  t.bad_argument(2, 'connect', function() asio.connect('127.0.0.1') end)
  for _, port in ipairs { -1, 65536, 1.5, 0 / 0, math.huge, 'http', '', '80x', ' ', true } do
    t.raises("bad argument #2 to 'connect'", asio.connect, '127.0.0.1', port)
  end
  t.bad_argument(3, 'connect', function() asio.connect('127.0.0.1', 80, 'options') end)
  t.bad_argument(3, 'connect', function() asio.connect('127.0.0.1', 80, 17) end)
end

function T.test_names_that_are_none()
  -- What no resolver is asked for: the answer comes from this machine, at once.
  for _, name in ipairs { 'no such host', 'a..b', '', ('x'):rep(300), '999.999.999.999 ' } do
    local conn, message, code = asio.connect(name, 80)
    lu.assertNil(conn)
    lu.assertIsString(message)
    lu.assertStrMatches(code, 'EAI_%u+')
  end
end

function T.test_a_name_with_a_zero_in_it()
  local ok, conn = pcall(asio.connect, 'localhost\0.example', 80)
  lu.assertTrue(not ok or conn == nil)
end

function T.test_an_option_that_nobody_knows_or_that_has_the_wrong_type()
  for _, options in ipairs { { timeout = 'long' }, { linger = {} } } do
    t.raises('connect', asio.connect, '127.0.0.1', 80, options)
  end
end

function T.test_nodelay_can_be_switched_off()
  local server, port = listen 'x'
  for _, value in ipairs { true, false } do
    local conn = assert(asio.connect('127.0.0.1', port, { nodelay = value }))
    lu.assertEquals(conn:read(1), 'x')
    conn:close()
  end
  server:close()
end

function T.test_the_handle_of_the_other_side_is_told_of_the_end()
  -- A connect that gives up must not leave a half-open connection behind.
  local listener, fillers = raw.full_listener()
  t.failure('ETIMEDOUT', asio.connect('127.0.0.1', listener:port(), { timeout = 0.01 }))
  for _, filler in ipairs(fillers) do filler:close() end
  local accepted = 0
  while true do
    local conn = listener:accept(0)
    if not conn then break end
    lu.assertNotNil(conn:recv(1, 1), 'a connection that nobody holds')
    conn:close()
    accepted = accepted + 1
  end
  lu.assertTrue(accepted >= 1)
  listener:close()
end

-- Raw addresses -------------------------------------------------------------------------------

function T.test_a_raw_address()
  can.need 'numbers'
  local server, port = listen 'raw'
  local address = raw.address('127.0.0.1', port)
  lu.assertEquals(asio.addr_to_str(address), '127.0.0.1:' .. port)
  lu.assertEquals(asio.addr_to_str(address:sub(1, 64)), '127.0.0.1:' .. port)
  local conn = assert(asio.connect(address))
  lu.assertEquals(conn:read(3), 'raw')
  lu.assertEquals({ conn:peer() }, { '127.0.0.1', port })
  conn:close()
  server:close()
  t.failure('ECONNREFUSED', asio.connect(raw.address('127.0.0.1', closed_port())))
end

function T.test_a_raw_address_with_options()
  can.need 'numbers'
  local listener, fillers = raw.full_listener()
  local address = raw.address('127.0.0.1', listener:port())
  local ok, _, code = pcall(asio.connect, address, { timeout = 0.02 })
  if not ok then ok, _, code = pcall(asio.connect, address, nil, { timeout = 0.02 }) end
  lu.assertTrue(ok)
  lu.assertIsString(code)
  for _, filler in ipairs(fillers) do filler:close() end
  listener:close()
end

function T.test_an_ipv6_address()
  can.need 'numbers'
  -- family 10, port 8080, flow 0, ::1, scope 0
  local address = '\10\0\31\144' .. ('\0'):rep(4) .. ('\0'):rep(15) .. '\1' .. ('\0'):rep(104)
  if require 'ffi'.abi 'be' then address = '\0\10' .. address:sub(3) end
  lu.assertEquals(asio.addr_to_str(address), '[::1]:8080')
end

function T.test_addresses_that_are_none()
  for _, bad in ipairs { '', 'short', ('x'):rep(63) } do
    t.raises("bad argument #1 to 'addr_to_str'", asio.addr_to_str, bad)
  end
  t.bad_argument(1, 'addr_to_str', function() asio.addr_to_str() end)
  t.bad_argument(1, 'addr_to_str', function() asio.addr_to_str({}) end)
  for _, strange in ipairs { ('\0'):rep(128), ('\255'):rep(64), ('x'):rep(1000) } do
    local ok, result = pcall(asio.addr_to_str, strange)
    lu.assertTrue(not ok or result == nil)
    ok, result = pcall(asio.connect, strange)
    lu.assertTrue(not ok or result == nil)
  end
end

return T
