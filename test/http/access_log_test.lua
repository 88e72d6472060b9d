-- Access logs: the formats, and what a client cannot do to them.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local http = require 'asio.http'
local t = require 'support'
local web = require 'web'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

-- The lines for some requests, each a text without its end.
local function lines(how, requests, handler)
  local list = {}
  web.with(handler or function(_, res) return res:send(201, nil, 'hello') end, function(port)
    for _, request in ipairs(requests) do
      web.send(port, request, '\r\nHost: x\r\nConnection: close\r\n\r\n')
    end
  end, { on_request_end = http.access_log(function(line) list[#list + 1] = line end, how) })
  return list
end

function T.test_common()
  local list = lines(nil, { 'GET /a?b=c HTTP/1.1', 'HEAD /x HTTP/1.0' })
  lu.assertEquals(#list, 2)
  lu.assertStrMatches(list[1],
    '127%.0%.0%.1 %- %- %[%d%d/%a%a%a/%d%d%d%d:%d%d:%d%d:%d%d %+0000%] "GET /a%?b=c HTTP/1%.1" 201 5\n')
  lu.assertStrContains(list[2], '"HEAD /x HTTP/1.0" 201 ')
end

function T.test_combined_and_what_a_client_sends()
  local list = lines('combined', {
    'GET /%22 HTTP/1.1\r\nReferer: a"b\\\195\r\nUser-Agent: x\ty', 'GET / HTTP/1.1',
  })
  lu.assertStrContains(list[1], '"GET /%22 HTTP/1.1" 201 5 "a\\x22b\\x5C\\xC3" "x\\x09y"\n')
  lu.assertStrContains(list[2], ' 201 5 "-" "-"\n')
end

function T.test_json()
  local list = lines('json', { 'GET /x HTTP/1.1\r\nUser-Agent: a"b\\\195\188' })
  lu.assertStrMatches(list[1], '{"time":"%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ","peer":"127%.0%.0%.1",' ..
    '"method":"GET","target":"/x","version":"1%.1","status":201,"bytes":5,"seconds":0%.%d+,"referer":null,' ..
    '"user_agent":"a\\u0022b\\u005c\\u00c3\\u00bc"}\n')
end

function T.test_files_are_counted()
  local path = t.temporary(('x'):rep(300000))
  local list = lines(nil, { 'GET / HTTP/1.1', 'GET / HTTP/1.1\r\nRange: bytes=0-9' },
    function(_, res) return res:file(path) end)
  os.remove(path)
  lu.assertStrContains(list[1], '" 200 300000\n')
  lu.assertStrContains(list[2], '" 206 10\n')
end

function T.test_a_format_and_a_file_of_the_script()
  local list = lines(function(req, _, seconds)
    return req.path ~= '/quiet' and req.path .. (seconds >= 0 and ' ok' or ' no') or nil
  end, { 'GET /a HTTP/1.1', 'GET /quiet HTTP/1.1' })
  lu.assertEquals(list, { '/a ok\n' })
  local path = t.temporary()
  local file = assert(io.open(path, 'wb'))
  web.with(function(_, res) return res:send 'x' end, function(port)
    web.send(port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  end, { on_request_end = http.access_log(file) })
  file:close()
  lu.assertStrContains(t.contents(path), '"GET / HTTP/1.1" 200 1\n')
  os.remove(path)
  t.raises('something with a method write', http.access_log, 7)
  t.raises("'common', 'combined', 'json'", http.access_log, print, 'apache')
end

local function ask(port)
  web.send(port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
end

function T.test_a_file_by_its_path()
  local path = t.temporary 'before\n'
  local log = assert(http.access_log(path))
  web.with(function(_, res) return res:send 'x' end, function(port)
    ask(port)
    lu.assertStrMatches(t.contents(path), 'before\n127[^\n]* 200 1\n') -- at once
    local file = assert(io.open(path, 'w')) -- emptied meanwhile: lines go to its end
    file:close()
    ask(port)
    lu.assertStrMatches(t.contents(path), '127[^\n]* 200 1\n')
  end, { on_request_end = log })
  os.remove(path)
  local none, message, code = http.access_log(path .. '/none.log')
  lu.assertEquals({ none, code }, { nil, 'ENOENT' })
  lu.assertStrContains(message, path .. '/none.log')
end

-- Files that are renamed or removed --------------------------------------------------------------

-- What was looked at in this second is not looked at again.
local function next_second()
  local now = os.time()
  t.wait_until(function() return os.time() > now end, 'the next second', 3)
end

local function count_lines(path)
  return select(2, t.contents(path):gsub('[^\n]* 200 1\n', ''))
end

T.test_a_file_that_was_renamed_or_removed = t.slow(20, function()
  can.need 'renames'
  t.with_files({}, function(dir)
    local path = dir .. '/access.log'
    web.with(function(_, res) return res:send 'x' end, function(port)
      ask(port)
      assert(os.rename(path, path .. '.1'))
      next_second()
      ask(port)
      ask(port)
      lu.assertEquals({ count_lines(path .. '.1'), count_lines(path) }, { 1, 2 })
      assert(os.remove(path))
      next_second()
      ask(port)
      lu.assertEquals(count_lines(path), 1)
      -- What cannot be opened leaves the lines where they went, until it can.
      assert(os.rename(path, path .. '.2'))
      os.execute('mkdir ' .. t.quote(path))
      next_second()
      ask(port)
      lu.assertEquals(count_lines(path .. '.2'), 2)
      assert(os.remove(path))
      next_second()
      ask(port)
      lu.assertEquals({ count_lines(path .. '.2'), count_lines(path) }, { 2, 1 })
    end, { on_request_end = http.access_log(path) })
  end)
end)

T.test_a_file_that_was_renamed_below_threads = t.slow(20, function()
  can.need('renames', 'threaded_servers')
  t.with_files({}, function(dir)
    local path = dir .. '/access.log'
    web.with(function(_, res) return res:send 'x' end, function(port)
      for _ = 1, 20 do ask(port) end
      assert(os.rename(path, path .. '.1'))
      next_second()
      for _ = 1, 20 do ask(port) end
      lu.assertEquals({ count_lines(path .. '.1'), count_lines(path) }, { 20, 20 })
    end, { threads = 2, on_request_end = http.access_log(path) })
  end)
end)

-- Relative to where the program was when the log was made.
function T.test_a_relative_path_stays_what_it_was()
  can.need('renames', 'plain')
  t.with_files({}, function(dir)
    t.quiet_child(function(directory)
      local a, h, ffi = require 'asio', require 'asio.http', require 'ffi'
      ffi.cdef 'int chdir(const char *);'
      assert(ffi.C.chdir(directory) == 0)
      local log = assert(h.access_log 'access.log')
      assert(ffi.C.chdir '/' == 0)
      local server = assert(h.server('127.0.0.1', 0, function(_, res) return res:send 'x' end,
        { on_request_end = log }))
      local _, port = server:address()
      a.run(function()
        assert(os.remove(directory .. '/access.log'))
        a.sleep(1.1)
        assert(h.get('http://127.0.0.1:' .. port, { pool = false, proxy = false }))
        server:shutdown()
        assert(io.open(directory .. '/access.log')):close()
      end)
    end, { args = { dir } })
  end)
end

T.test_logrotate = t.slow(30, function()
  can.run 'logrotate'
  t.with_files({}, function(dir)
    local path, conf = dir .. '/access.log', dir .. '/logrotate.conf'
    local file = assert(io.open(conf, 'w'))
    file:write(('%s {\n  rotate 5\n  compress\n  delaycompress\n}\n'):format(path))
    file:close()
    local function rotate()
      local line = 'chmod go-w %s %s && logrotate -f -s %s %s'
      lu.assertEquals(os.execute(line:format(dir, conf, dir .. '/state', conf)), 0)
    end
    web.with(function(_, res) return res:send 'x' end, function(port)
      for n = 1, 3 do
        ask(port)
        rotate()
        ask(port) -- to the old file, if still in the same second
        next_second()
        ask(port)
        lu.assertTrue(count_lines(path) >= 1, n)
      end
    end, { on_request_end = http.access_log(path) })
    os.execute('gunzip ' .. dir .. '/*.gz')
    local all = 0
    for _, suffix in ipairs { '', '.1', '.2', '.3' } do all = all + count_lines(path .. suffix) end
    lu.assertEquals(all, 9)
  end)
end)

-- Lines longer than any buffer of the library, of threads and light threads at once.
T.test_lines_of_threads_do_not_mix = t.slow(20, function()
  can.need 'threaded_servers'
  local path = t.temporary()
  local filler = ('x'):rep(12000)
  web.with(function(_, res) return res:send 'x' end, function(port)
    local group = {}
    for i = 1, 16 do
      group[i] = asio.spawn(function()
        local request = ('GET /%d HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\n'):format(i, filler)
        web.send(port, (request .. '\r\n'):rep(19), request, 'Connection: close\r\n\r\n')
      end)
    end
    for i = 1, 16 do assert(group[i]:join()) end
  end, { threads = 4, on_request_end = assert(http.access_log(path, 'combined')) })
  local lines_of = {}
  for line in (t.contents(path)):gmatch '([^\n]*)\n' do
    local target, agent = line:match '^127%.0%.0%.1 [^\n]* "GET /(%d+) HTTP/1%.1" 200 1 "%-" "(x*)"$'
    lu.assertEquals(agent and #agent, #filler, line:sub(1, 200))
    lines_of[tonumber(target)] = (lines_of[tonumber(target)] or 0) + 1
  end
  os.remove(path)
  for i = 1, 16 do lu.assertEquals(lines_of[i], 20) end
end)

function T.test_standard_streams_in_threads()
  can.need('threaded_servers', 'plain')
  local result = t.child(function()
    local a, h = require 'asio', require 'asio.http'
    local function handler(_, res) return res:send 'x' end
    a.run(function()
      for _, to in ipairs { 'stdout', 'stderr', io.stdout } do
        local server = assert(h.server('127.0.0.1', 0, handler,
          { threads = 2, on_request_end = h.access_log(to) }))
        local _, port = server:address()
        local url = ('http://127.0.0.1:%d/%s'):format(port, type(to))
        for _ = 1, 3 do assert(h.get(url, { pool = false })) end
        server:shutdown()
      end
    end)
  end)
  local out, err = result.out, result.err
  local _, by_name = out:gsub('"GET /string HTTP/1%.1" 200 1\n', '')
  local _, by_file = out:gsub('"GET /userdata HTTP/1%.1" 200 1\n', '')
  local _, errors = err:gsub('"GET /string HTTP/1%.1" 200 1\n', '')
  lu.assertEquals({ by_name, by_file, errors }, { 3, 3, 3 })
end

return T
