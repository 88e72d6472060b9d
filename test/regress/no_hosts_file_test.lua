-- Without /etc/hosts, as in a small container, the first look-up by c-ares read a table that was not there.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local can = require 'can'
local lu = require 'luaunit'
local t = require 'support'

local T = {}

function T.test_no_hosts_file()
  can.need 'ares'
  local dir = os.tmpname()
  os.remove(dir)
  os.execute(('mkdir %s && echo nameserver 127.0.0.1 >%s/resolv.conf'):format(dir, dir))
  local ok, said = pcall(t.quiet_child, function()
    local asio = require 'asio'
    assert(not io.open '/etc/hosts')
    asio.run(function()
      print(assert(asio.resolve('localhost', { type = 'A' }))[1].address)
      print(select(3, asio.resolve('known.test', { timeout = 0.1 })))
      print(select(3, asio.resolve('127.0.0.1', { type = 'PTR', timeout = 0.1 })))
    end)
  end, { wrap = t.network(('mount --bind %s /etc'):format(dir)), env = 'ASIO_RESOLVER=ares' })
  os.execute('rm -r ' .. dir)
  lu.assertTrue(ok, said)
  lu.assertStrMatches(said, '127.0.0.1\n%S+\n%S+\n')
end

return T
