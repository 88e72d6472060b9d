-- The transparent proxy among the examples, in networks of its own.
--
-- SPDX-License-Identifier: MIT

local can = require 'can'
local lu = require 'luaunit'
local t = require 'support'

local T = {}

local RULES = [[
table %s nat {
  chain output {
    type nat hook output priority -100
    %s
  }
}
]]

-- A network in which the firewall turns connections as these rules say.
local function redirecting(family, ...)
  t.need 'nft'
  local rules = os.tmpname()
  local file = assert(io.open(rules, 'w'))
  file:write(RULES:format(family, table.concat({ ... }, '\n')))
  file:close()
  local wrap = t.network('ip addr add fd00::5/128 dev lo && ip addr add fd00::9/128 dev lo && nft -f '
    .. rules)
  local works = os.execute(wrap .. ' true >/dev/null 2>&1') == 0
  return works and wrap, function() os.remove(rules) end
end

-- Who connects from one address is turned to the proxy; the proxy itself, from another, is not.
local function through_the_proxy(family, client, target, proxy)
  local wrap, clean = redirecting(family,
    ('%s saddr %s %s daddr %s tcp dport 7777 redirect to :8888'):format(family, client, family, target))
  if not wrap then clean() end
  lu.skipIf(not wrap, 'this kernel has no such tables, or this machine no such addresses')
  local out = t.quiet_child(function(from, to, listen)
    local asio, programs = require 'asio', require 'programs'
    local server = assert(asio.server(to, 7777, function(conn)
      local text = conn:read_all()
      conn:write(#text, ' bytes for ', (conn:address()))
      conn:close()
    end))
    local rest = programs.with(function()
      local function ask()
        local conn = assert(asio.connect(to, 7777, { bind = from }))
        conn:write(('x'):rep(300000))
        conn:shutdown()
        print(conn:read_all())
        conn:close()
      end
      ask()
      ask()
      server:close()
      -- Nobody is there any more: an end that cannot be taken for a good one.
      -- It may come before connect has returned.
      local conn, _, code = asio.connect(to, 7777, { bind = from })
      print(code or select(3, conn:read_all()))
    end, 'transparent_proxy', {}, listen, 8888)
    io.write(rest)
  end, { wrap = wrap, args = { client, target, proxy } })
  clean()
  return out
end

function T.test_transparent_proxy()
  can.need 'real_kernel'
  local told = '127.0.0.5\t127.0.0.9:7777\t300000 bytes out, 26 back\n'
  local got = '300000 bytes for 127.0.0.9\n'
  lu.assertEquals(through_the_proxy('ip', '127.0.0.5', '127.0.0.9', '0.0.0.0'), got .. got .. 'ECONNRESET\n'
    .. told .. told .. '127.0.0.5\t127.0.0.9:7777\tconnection refused\n')
end

function T.test_transparent_proxy_ipv6()
  can.need 'real_kernel'
  local told = 'fd00::5\t[fd00::9]:7777\t300000 bytes out, 24 back\n'
  local got = '300000 bytes for fd00::9\n'
  lu.assertEquals(through_the_proxy('ip6', 'fd00::5', 'fd00::9', '::'), got .. got .. 'ECONNRESET\n'
    .. told .. told .. 'fd00::5\t[fd00::9]:7777\tconnection refused\n')
end

-- A rule that turns the proxy's own connections to itself, and a connection that no rule has turned.
function T.test_transparent_proxy_does_not_talk_to_itself()
  can.need 'real_kernel'
  local wrap, clean = redirecting('ip', 'tcp dport 7777 redirect to :8888')
  if not wrap then clean() end
  lu.skipIf(not wrap, 'this kernel has no nat tables')
  local out = t.quiet_child(function()
    local asio, programs = require 'asio', require 'programs'
    io.write(programs.with(function()
      for _, port in ipairs { 7777, 8888 } do
        local conn, _, code = asio.connect('127.0.0.9', port)
        print(code or select(3, conn:read_all()))
      end
    end, 'transparent_proxy', {}, '0.0.0.0', 8888))
  end, { wrap = wrap })
  clean()
  -- The first was let through to the second, which is the proxy's own and is reset.
  local lines = {}
  for line in out:gmatch '[^\n]+' do lines[#lines + 1] = line end
  lu.assertEquals(#lines, 5, out)
  lu.assertEquals({ lines[1], lines[2] }, { 'ECONNRESET', 'ECONNRESET' }, out)
  lu.assertStrContains(out, '127.0.0.9:7777: a connection of the proxy itself, check the rule\n')
  lu.assertStrContains(out, 'was not redirected, it would go on to itself\n')
end

return T
