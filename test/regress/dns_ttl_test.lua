-- A time to live of 2^31-1 seconds was believed; it is at most a day, as other resolvers have it.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local ns = require 'ns'

if not ns.has_ares() then
  return { test_names_need_c_ares = function() lu.skip 'asio/ares.so was not built' end }
end

local T = {}

local server = ns.start()

function T.test_a_day_at_most()
  local day = 24 * 60 * 60
  for given, expected in pairs { [2147483647] = day, [day + 1] = day, [day - 5] = day - 5, [0] = 0 } do
    for _, way in ipairs { 'plain', 'alias' } do
      local host = ('x.ttl%d.%s.test'):format(given, way)
      for _, kind in ipairs { 'A', 'TXT' } do
        local list = assert(asio.resolve(host, { type = kind, servers = server.servers }))
        lu.assertEquals(list[1].ttl, expected, host)
      end
    end
  end
end

return T
