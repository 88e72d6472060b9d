-- Without descriptors a look-up fails with that code, and the next one is tried again. c-ares was given up
-- for the life of the Lua state when it could not be loaded once, and names then "did not exist"; it asked
-- 127.0.0.1 for ever when it could not open resolv.conf; a hosts file that could not be opened counted as
-- empty.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/raw (child processes require their own)

local ns = require 'ns'
local t = require 'support'
local can = require 'can'

local T = {}

local ares = ns.has_ares()
local server = ares and ns.start()

local function need_ares()
  can.need 'ares'
  can.need 'descriptors'
end

function T.test_the_library_is_loaded_at_the_next_look_up()
  need_ares()
  t.quiet_child(function(address)
    local asio, raw = require 'asio', require 'raw'
    local opts = { type = 'A', servers = { address } }
    asio.run(function()
      raw.limit_fds(0)
      assert(asio.resolve('127.0.0.1')) -- needs no library
      assert(not pcall(asio.resolve, 'x.a.test', { tpye = 'A' }))
      for _ = 1, 2 do
        local list, message, code = asio.resolve('x.a.test', opts)
        assert(list == nil and code == 'EMFILE', message)
        list, message, code = asio.connect('x.a.test', 9, { servers = opts.servers })
        assert(list == nil and code == 'EMFILE', message)
      end
      raw.unlimit_fds()
      assert(asio.resolve('x.a.test', opts)) -- getaddrinfo takes no servers
    end)
  end, { args = { server.servers[1] } })
end

function T.test_require_as_well()
  need_ares()
  t.quiet_child(function(address)
    local asio, raw = require 'asio', require 'raw'
    local loadlib = package.loadlib
    rawset(package, 'loadlib', function() return nil, 'not this way', 'open' end)
    raw.limit_fds(0)
    local list, _, code = asio.resolve('localhost')
    assert(list == nil and code == 'EMFILE', code)
    raw.unlimit_fds()
    rawset(package, 'loadlib', loadlib)
    assert(asio.resolve('x.a.test', { type = 'A', servers = { address } }))
  end, { args = { server.servers[1] } })
end

-- The library is there; now the sockets, the hosts file and resolv.conf are missing.
function T.test_questions()
  need_ares()
  t.quiet_child(function(address, other)
    local asio, raw = require 'asio', require 'raw'
    local opts = { type = 'A', servers = { address }, cache = false }
    local function fails(...)
      local list, message, code = asio.resolve(...)
      assert(list == nil and code == 'EMFILE', tostring(code) .. ' ' .. tostring(message))
    end
    asio.run(function()
      assert(asio.resolve('x.a.test', opts)) -- the channel is there
      local before = raw.count_fds()
      for _ = 1, 3 do
        raw.limit_fds(0)
        fails('y.a.test', opts)
        fails('y.a.test', { servers = { address } })
        fails('y.a.test', { servers = { address, other } }) -- a channel that is new
        fails 'localhost'
        fails('127.0.0.1', { type = 'PTR' })
        assert(asio.resolve('127.0.0.1')) -- needs none
        fails 'fe80::1%lo' -- the number of the interface
        raw.unlimit_fds()
        assert(raw.count_fds() == before, 'left open')
      end
      assert(asio.resolve('y.a.test', opts))
      assert(asio.resolve('y.a.test', { servers = { address, other } }))
      assert(asio.resolve 'localhost')
    end)
  end, { args = { server.servers[1], '127.0.0.1:' .. server.port + 1 } })
end

-- The system's name server and hosts file, first asked when nothing could be opened.
function T.test_the_systems_own()
  need_ares()
  local setup = 'mkdir -p /tmp/$$ && echo nameserver 127.0.0.5 >/tmp/$$/r && '
    .. 'echo 192.0.2.9 here >/tmp/$$/h && mount --bind /tmp/$$/r /etc/resolv.conf && '
    .. 'mount --bind /tmp/$$/h /etc/hosts && rm -r /tmp/$$'
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local names = raw.udp('127.0.0.5', 53)
    asio.run(function()
      assert(asio.resolve('x.test', { type = 'A', timeout = 0.001, servers = { '127.0.0.9' } }) == nil)
      raw.limit_fds(0)
      for _, name in ipairs { 'here', 'elsewhere.test' } do
        local list, _, code = asio.resolve(name, { type = 'A' })
        assert(list == nil and code == 'EMFILE', code)
      end
      raw.unlimit_fds()
      assert(asio.resolve('here', { type = 'A' })[1].address == '192.0.2.9')
      local _, _, code = asio.resolve('elsewhere.test', { type = 'A', timeout = 0.05 })
      assert(code == 'ETIMEDOUT', code)
      assert(names:recv(100, 1), 'another name server was asked')
    end)
    names:close()
  end, { wrap = t.network(setup) })
end

-- Those on their way go on; a new one may use a socket that is there.
function T.test_in_the_middle_of_others()
  need_ares()
  t.quiet_child(function(address)
    local asio, raw = require 'asio', require 'raw'
    local opts = { type = 'A', servers = { address } }
    asio.run(function()
      local threads = {}
      for i = 1, 200 do
        if i == 20 then raw.limit_fds(0) end
        threads[i] = asio.spawn(asio.resolve, ('q%d.delay50.a.test'):format(i), opts)
      end
      for i = 1, 200 do
        local _, list, _, code = threads[i]:join()
        assert(list and list[1].address == '127.0.0.1', code)
      end
      raw.unlimit_fds()
    end)
  end, { args = { server.servers[1] } })
end

function T.test_getaddrinfo()
  can.need 'descriptors'
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    asio.run(function()
      raw.limit_fds(0)
      for _ = 1, 3 do
        for _, name in ipairs { 'localhost', 'nosuch.invalid' } do
          for _, kind in ipairs { false, 'A', 'AAAA' } do
            local list, _, code = asio.resolve(name, { type = kind or nil })
            assert(list == nil and code == 'EMFILE', code)
          end
          local conn, _, code = asio.connect(name, 9)
          assert(conn == nil and code == 'EMFILE', code)
        end
      end
      raw.unlimit_fds()
      assert(asio.resolve('localhost'))
    end)
  end, { env = 'ASIO_RESOLVER=getaddrinfo' })
end

return T
