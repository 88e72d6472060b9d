-- What the system says of names, with c-ares: hosts file, resolv.conf, search domains. Each case in a network
-- and with files of /etc of its own.
--
-- test: 9 s
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/ns (child processes require their own)

local lu = require 'luaunit'
local ns = require 'ns'
local t = require 'support'

if not ns.has_ares() then
  return { test_names_need_c_ares = function() lu.skip 'asio/ares.so was not built' end }
end

local T = {}

-- Runs a child in which /etc has these files; it gets their real names, to change them.
local function with_files(contents, child, options)
  local mounts, paths, args = {}, {}, {}
  for _, name in ipairs { 'hosts', 'resolv.conf', 'nsswitch.conf' } do
    if contents[name] then
      local path = os.tmpname()
      local file = assert(io.open(path, 'w'))
      file:write(contents[name])
      file:close()
      paths[#paths + 1], args[#args + 1] = path, path
      mounts[#mounts + 1] = ('mount --bind %s /etc/%s'):format(path, name)
    end
  end
  options = options or {}
  options.args = args
  options.wrap = t.network(table.concat(mounts, ' && '))
  options.env = 'ASIO_RESOLVER=' .. (options.resolver or 'ares')
  local ok, result = pcall(t.quiet_child, child, options)
  for _, path in ipairs(paths) do os.remove(path) end
  if not ok then error(result, 0) end
  return result
end

local LOCAL = 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n'

function T.test_the_hosts_file_comes_first()
  with_files({
    ['resolv.conf'] = LOCAL,
    hosts = '# 9.9.9.9 four.a.test\n127.0.0.1 localhost # localhost.a.test\r\n'
      .. '10.1.1.1\tfour.a.test  Alias.a.test\r\n 10.1.1.2 four.a.test\nfd00::1 six.a.test\n'
      .. 'fd00::1 both.a.test\n10.1.1.3 both.a.test\nnonsense x.a.test\n10.1.1.1 four.a.test\n'
      .. '10.1.1.4 last.a.test',
  }, function()
    local names = require 'ns'.start(53)
    local asio = require 'asio'
    asio.run(function()
      local function addresses(host, opts)
        local list, _, code = asio.resolve(host, opts)
        if not list then return code end
        for i, record in ipairs(list) do
          list[i] = record.address
          assert(record.address == '127.0.0.1' or record.ttl == nil)
        end
        return table.concat(list, ' ')
      end
      local function expect(found, expected)
        assert(found == expected, ('%s, not %s'):format(found, expected))
      end
      expect(addresses 'four.a.test', '10.1.1.1 10.1.1.2')
      expect(addresses 'FOUR.A.TEST', '10.1.1.1 10.1.1.2')
      expect(addresses 'four.a.test.', '10.1.1.1 10.1.1.2')
      expect(addresses 'alias.a.test', '10.1.1.1')
      expect(addresses 'both.a.test', 'fd00::1 10.1.1.3')
      expect(addresses('both.a.test', { type = 'A' }), '10.1.1.3')
      expect(addresses 'last.a.test', '10.1.1.4')
      -- Not in the file: the name server's.
      expect(addresses 'x.a.test', '127.0.0.1')
      expect(addresses 'localhost.a.test', '127.0.0.1')
      expect(addresses 'nonsense.missing.test', 'EAI_NONAME')
      -- The file has another family, which was not asked for.
      expect(addresses('six.a.test', { type = 'A' }), '127.0.0.1')
      -- One that is asked by name does not read our files.
      expect(addresses('four.a.test', { servers = { '127.0.0.1' } }), '127.0.0.1')
      expect(asio.resolve('10.1.1.1', { type = 'PTR' })[1].name, 'four.a.test')
      expect(asio.resolve('fd00:0::1', { type = 'PTR' })[1].name, 'six.a.test')
      expect(asio.resolve('10.9.9.9', { type = 'PTR' })[1].name, 'name1.test')
      -- connect asks for neither family of a name in the file.
      asio.connect('last.a.test', 1, { timeout = 0.01 })
      expect(asio.resolve('count.last.a.test', { type = 'TXT' })[1].text, '0')
    end)
    names:close()
  end)
end

function T.test_localhost_is_here()
  with_files({ ['resolv.conf'] = 'nameserver 127.0.0.1\n', hosts = '' }, function()
    local asio = require 'asio'
    asio.run(function()
      for _, name in ipairs { 'localhost', 'LocalHost.', 'some.localhost' } do
        local list = assert(asio.resolve(name))
        assert(#list == 2 and list[1].address == '::1' and list[2].address == '127.0.0.1')
        assert(asio.resolve(name, { type = 'A' })[1].address == '127.0.0.1')
      end
      local server = assert(asio.server('127.0.0.1', 0, function(conn) conn:write 'x' end))
      local conn = assert(asio.connect('localhost', (select(2, server:address()))))
      assert(conn:read(1) == 'x')
      conn:close()
      server:close()
    end)
  end)
end

function T.test_search_domains()
  with_files({ ['resolv.conf'] = 'search missing.test a.test\n' .. LOCAL, hosts = '' }, function()
    local names = require 'ns'.start(53)
    local asio = require 'asio'
    asio.run(function()
      assert(asio.resolve('short', { type = 'A' })[1].address == '127.0.0.1')
      local function count(name)
        return tonumber(asio.resolve('count.' .. name .. '.', { type = 'TXT', cache = false })[1].text)
      end
      assert(count 'short.missing.test' == 1)
      assert(count 'short.a.test' == 1)
      -- Complete, or asked of servers that were named: as it is.
      asio.resolve('short.', { type = 'A' })
      asio.resolve('short', { type = 'A', servers = { '127.0.0.1' } })
      assert(count 'short.a.test' == 1)
      assert(count 'short' == 2)
    end)
    names:close()
  end)
end

function T.test_its_time_and_its_servers()
  with_files({ ['resolv.conf'] = 'nameserver 127.0.0.2\n' .. LOCAL },
    function()
      local raw, names = require 'raw', require 'ns'.start(53)
      local asio = require 'asio'
      local silent = raw.udp('127.0.0.2', 53)
      asio.run(function()
        local started = asio.now()
        assert(asio.resolve('x.a.test', { type = 'A' }))
        local took = asio.now() - started
        assert(took > 0.9 and took < 1.9, took)
        started = asio.now()
        local list, _, code = asio.resolve('x.silent.test', { type = 'A' })
        took = asio.now() - started
        assert(list == nil and code == 'EAI_AGAIN', code)
        assert(took > 1.8 and took < 3.5, took)
      end)
      silent:close()
      names:close()
    end)
end

-- No name server and no resolv.conf: an answer, soon.
function T.test_nobody_to_ask()
  with_files({ ['resolv.conf'] = '', hosts = '10.1.1.1 known\n' }, function()
    local asio = require 'asio'
    asio.run(function()
      assert(asio.resolve('known')[1].address == '10.1.1.1')
      local list, _, code = asio.resolve('unknown.test', { timeout = 10 })
      assert(list == nil and code == 'EAI_AGAIN', code)
    end)
  end)
end

function T.test_changes_are_seen()
  with_files({ hosts = '10.1.1.1 first.a.test\n', ['resolv.conf'] = 'search n2.test\n' .. LOCAL },
    function(hosts, conf)
      local names = require 'ns'.start(53)
      local asio = require 'asio'
      local function write(path, text)
        local file = assert(io.open(path, 'w'))
        file:write(text)
        file:close()
      end
      asio.run(function()
        assert(asio.resolve('first.a.test')[1].address == '10.1.1.1')
        assert(#asio.resolve('word', { type = 'A' }) == 2)
        -- A question that is under way meanwhile is answered.
        local slow = asio.spawn(asio.resolve, 'x.delay1500.a.test', { type = 'A' })
        write(hosts, '10.1.1.2 first.a.test\n10.1.1.3 second.a.test\n')
        write(conf, 'search a.test\nnameserver 127.0.0.1\noptions timeout:3\n')
        asio.sleep(1.1)
        assert(asio.resolve('first.a.test')[1].address == '10.1.1.2')
        assert(asio.resolve('second.a.test')[1].address == '10.1.1.3')
        assert(#asio.resolve('word', { type = 'A' }) == 1)
        local _, found = slow:join()
        assert(not found or #found == 1) -- the old channel gave it one second only
      end)
      names:close()
    end)
end

function T.test_the_hosts_file_is_left_out()
  with_files({
    hosts = '10.1.1.1 x.a.test\n', ['resolv.conf'] = LOCAL, ['nsswitch.conf'] = 'hosts: dns\n',
  }, function()
    local names = require 'ns'.start(53)
    local asio = require 'asio'
    asio.run(function() assert(asio.resolve('x.a.test', { type = 'A' })[1].address == '127.0.0.1') end)
    names:close()
  end)
end

-- The system's resolver has eight helpers: what was given up before one has begun with it holds up nobody.
function T.test_given_up_in_the_queue()
  with_files({ ['resolv.conf'] = LOCAL, hosts = '127.0.0.1 known\n' }, function()
    local raw = require 'raw'
    local asio = require 'asio'
    local silent = raw.udp('127.0.0.1', 53)
    asio.run(function()
      local started, threads = asio.now(), {}
      for i = 1, 40 do threads[i] = asio.spawn(asio.resolve, 'slow' .. i .. '.test') end
      for i = 9, 40 do threads[i]:cancel() end
      assert(asio.resolve('known')[1].address == '127.0.0.1')
      local took = asio.now() - started
      assert(took < 3.5, took) -- one second for each family; five times that for forty
    end)
    silent:close()
  end, { resolver = 'getaddrinfo' })
end

-- 1 MB, 27,000 names; a line of 100 KB; bytes that are no text.
T.test_a_large_hosts_file = t.slow(30, function()
  local lines = { '10.1.1.1 first.example' }
  for i = 1, 27000 do lines[#lines + 1] = ('0.0.0.0 ads%d.tracker.example.com'):format(i) end
  local aliases = {}
  for i = 1, 6000 do aliases[i] = ('alias%d.example'):format(i) end
  lines[#lines + 1] = '10.1.1.2 ' .. table.concat(aliases, ' ')
  lines[#lines + 1] = ('\0\255\1'):rep(1000)
  lines[#lines + 1] = '10.1.1.3 last.example'
  with_files({ hosts = table.concat(lines, '\n'), ['resolv.conf'] = LOCAL }, function()
    local asio = require 'asio'
    asio.run(function()
      local late, stop = 0, false
      local ticker = asio.spawn(function()
        while not stop do
          local before = asio.now()
          asio.sleep(0.001)
          late = math.max(late, asio.now() - before)
        end
      end)
      local function expect(name, address)
        local list, message = asio.resolve(name)
        assert(list and list[1].address == address, message)
        asio.yield()
      end
      local started = asio.now()
      expect('first.example', '10.1.1.1')
      expect('last.example', '10.1.1.3')
      for i = 1, 6000, 7 do expect('alias' .. i .. '.example', '10.1.1.2') end
      for i = 1, 1000 do expect('ads' .. i * 27 .. '.tracker.example.com', '0.0.0.0') end
      assert(asio.resolve('10.1.1.3', { type = 'PTR' })[1].name == 'last.example')
      -- Names that are not in it cost nothing: nobody listens on the name server's port.
      for i = 1, 100 do asio.resolve('no' .. i .. '.example') end
      local took = asio.now() - started
      stop = true
      ticker:join()
      local patience = (os.getenv 'ASIO_SANITIZED' or os.getenv 'ASIO_GC') and 16 or 1
      assert(late < 0.15 * patience, 'the loop was held up for ' .. late)
      assert(took < 1 * patience, took)
    end)
  end, { seconds = 20 })
end)

return T
