-- Transparent proxies: where a redirected connection was meant to go.
--
-- SPDX-License-Identifier: MIT

local can = require 'can'
local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- A network whose connections to port 7777 are turned to port 8888.
local function redirecting()
  t.need 'nft'
  local rules = os.tmpname()
  local file = io.open(rules, 'w')
  for _, family in ipairs { 'ip', 'ip6' } do
    file:write('table ', family, [[ nat {
      chain output {
        type nat hook output priority -100
        tcp dport 7777 redirect to :8888
      }
    }
    ]])
  end
  file:close()
  local wrap = t.network('nft -f ' .. rules)
  lu.skipIf(os.execute(wrap .. ' true >/dev/null 2>&1') ~= 0, 'this kernel has no nat tables')
  return wrap, rules
end

function T.test_the_original_destination()
  can.need 'real_kernel'
  local wrap, rules = redirecting()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    lib.run(function()
      local seen
      local server = assert(lib.server('127.0.0.1', 8888, function(conn)
        seen = assert(conn:get_original_dst())
        assert(#seen >= 64)
        conn:write(lib.addr_to_str(seen))
      end))
      local conn = assert(lib.connect('127.0.0.1', 7777))
      io.write(conn:read(14))
      conn:close()
      server:close()
      -- The string is an address to connect to: redirected once more, to a new listener.
      server = assert(lib.server('127.0.0.1', 8888, function(again) again:write ' again' end))
      io.write(assert(lib.connect(seen)):read(6))
      server:close()
    end)
  end, { wrap = wrap })
  os.remove(rules)
  lu.assertEquals(out, '127.0.0.1:7777 again')
end

function T.test_over_ipv6()
  can.need 'real_kernel'
  local wrap, rules = redirecting()
  local out = t.quiet_child(function()
    local lib = require 'asio'
    lib.run(function()
      local server, _, code = lib.server('::1', 8888, function(conn)
        conn:write(lib.addr_to_str((assert(conn:get_original_dst()))))
      end)
      if not server then return io.write(code) end
      local conn = assert(lib.connect('::1', 7777))
      io.write(conn:read(10))
      server:close()
    end)
  end, { wrap = wrap })
  os.remove(rules)
  lu.skipIf(out == 'EADDRNOTAVAIL' or out == 'EAFNOSUPPORT', 'this machine has no IPv6')
  lu.assertEquals(out, '[::1]:7777')
end

function T.test_a_proxy()
  can.need 'real_kernel'
  -- What such a proxy does: take a redirected connection, go where it was meant to go. The
  -- connections of the proxy itself carry another local address and are left alone.
  t.need 'nft'
  local rules = os.tmpname()
  local file = io.open(rules, 'w')
  file:write [[table ip nat {
    chain output {
      type nat hook output priority -100
      ip daddr 127.0.0.9 tcp dport 7777 redirect to :8888
    }
  }]]
  file:close()
  local wrap = t.network('nft -f ' .. rules)
  lu.skipIf(os.execute(wrap .. ' true >/dev/null 2>&1') ~= 0, 'this kernel has no nat tables')
  local out = t.quiet_child(function()
    local lib = require 'asio'
    lib.run(function()
      local destination
      local proxy = assert(lib.server('127.0.0.1', 8888, function(conn)
        destination = lib.addr_to_str(assert(conn:get_original_dst()))
        local onward = assert(lib.connect('127.0.0.8', 7777))
        onward:write(conn:read(4))
        conn:write(onward:read(8))
      end))
      local real = assert(lib.server('127.0.0.8', 7777, function(conn)
        conn:write(conn:read(4), 'real')
      end))
      local conn = assert(lib.connect('127.0.0.9', 7777))
      conn:write 'ping'
      io.write(conn:read(8), ' ', destination)
      proxy:close()
      real:close()
    end)
  end, { wrap = wrap })
  os.remove(rules)
  lu.assertEquals(out, 'pingreal 127.0.0.9:7777')
end

function T.test_a_connection_that_was_not_redirected()
  local a = t.tcp()
  local address, message, code = a:get_original_dst()
  -- Where connections are tracked the kernel names the address itself.
  if address then
    lu.assertStrContains(asio.addr_to_str(address), '127.0.0.1:')
  else
    lu.assertIsString(message)
    lu.assertIsString(code)
  end
  a:close()
  t.failure('EBADF', a:get_original_dst())
end

return T
