-- What a server bears with: slow clients, large requests, clients that do not read or go away.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local t = require 'support'
local web = require 'web'

local T = {}

local function hello(_, res) res:send 'hello' end

local function echo(req, res)
  local body = req:read_all()
  if body then res:send(body) end
end

local function start(handler, opts)
  return assert(web.server(handler, opts))
end

local function status_of(answer)
  return tonumber((answer or ''):match '^HTTP/1.1 (%d+)')
end

-- The status of the answer to these bytes, and how long the connection lasted.
local function talk(handler, opts, ...)
  local server = start(handler, opts)
  local conn, began = web.client(server), asio.now()
  for _, piece in ipairs { ... } do
    conn:write(piece)
    conn:flush()
  end
  local answer = conn:read_all()
  local took = asio.now() - began
  conn:close()
  server:close()
  return status_of(answer), took, answer
end

local GET = 'GET / HTTP/1.1\r\nHost: x\r\n'
local POST = 'POST / HTTP/1.1\r\nHost: x\r\n'

-- Time ----------------------------------------------------------------------------------------

function T.test_idle_connections()
  local status, took, answer = talk(hello, { idle_timeout = 0.1 }, GET .. '\r\n')
  lu.assertEquals(status, 200)
  lu.assertTrue(took >= 0.09 and took < 3)
  lu.assertEquals(select(2, answer:gsub('HTTP/1.1', '')), 1) -- closed without a word
  -- An empty line behind it is no request that has begun.
  status, took, answer = talk(hello, { idle_timeout = 0.1 }, GET .. '\r\n\r\n')
  lu.assertEquals({ status, select(2, answer:gsub('HTTP/1.1', '')) }, { 200, 1 })
  lu.assertTrue(took < 3)
  local none, waited = talk(hello, { header_timeout = 0.1 })
  lu.assertNil(none)
  lu.assertTrue(waited >= 0.09 and waited < 3)
end

-- A byte now and then: the deadline is for the whole head.
local function drip(handler, opts, first, byte)
  local server = start(handler, opts)
  local conn, began = web.client(server), asio.now()
  conn:write(first)
  local dripping = asio.spawn(function()
    for _ = 1, 500 do
      asio.sleep(0.01)
      if not conn:write(byte) then return end
    end
  end)
  local answer = conn:read_all()
  dripping:cancel()
  local took = asio.now() - began
  conn:close()
  server:close()
  return answer, took
end

function T.test_slow_heads()
  local answer, took = drip(hello, { header_timeout = 0.2 }, GET .. 'X: ', 'a')
  lu.assertEquals(status_of(answer), 408)
  lu.assertTrue(took < 3)
  answer = drip(hello, { header_timeout = 0.2, idle_timeout = 0.1 }, GET .. '\r\n' .. GET .. 'X: ', 'a')
  lu.assertStrContains(answer, 'HTTP/1.1 408 ') -- a second one
end

function T.test_slow_bodies()
  local answer, took = drip(echo, { request_timeout = 0.2 }, POST .. 'Content-Length: 1000\r\n\r\n', 'a')
  lu.assertEquals(status_of(answer), 408)
  lu.assertTrue(took < 3)
  answer = drip(echo, { request_timeout = 0.2 }, POST .. 'Transfer-Encoding: chunked\r\n\r\n', '1\r\na\r\n')
  lu.assertEquals(status_of(answer), 408)
end

function T.test_a_slow_body_that_no_handler_reads()
  local answer, took = drip(hello, { idle_timeout = 0.2 }, POST .. 'Content-Length: 1000\r\n\r\n', 'a')
  lu.assertEquals(status_of(answer), 200)
  lu.assertTrue(took < 3)
end

-- Size ----------------------------------------------------------------------------------------

function T.test_large_heads()
  lu.assertEquals((talk(hello, nil, GET .. 'X: ' .. ('a'):rep(20000) .. '\r\n\r\n')), 431)
  lu.assertEquals((talk(hello, { max_header = 1000 }, GET .. 'X: ' .. ('a'):rep(1000) .. '\r\n\r\n')), 431)
  lu.assertEquals((talk(hello, { max_headers = 3 }, GET .. ('X: a\r\n'):rep(3) .. '\r\n')), 431)
  local four = { max_headers = 4, idle_timeout = 0.1 }
  lu.assertEquals((talk(hello, four, GET .. ('X: a\r\n'):rep(3) .. '\r\n')), 200)
  lu.assertEquals((talk(hello, nil, GET .. ('X: a\r\n'):rep(101) .. '\r\n')), 431)
end

function T.test_long_targets()
  lu.assertEquals((talk(hello, nil, 'GET /' .. ('a'):rep(8192) .. ' HTTP/1.1\r\nHost: x\r\n\r\n')), 414)
  lu.assertEquals((talk(hello, nil, 'GET /' .. ('a'):rep(30000))), 414)
  lu.assertEquals((talk(hello, { max_target = 10 }, 'GET /1234567890 HTTP/1.1\r\nHost: x\r\n\r\n')), 414)
end

function T.test_large_bodies()
  local said
  local function handler(req)
    said = select(3, req:read_all())
  end
  lu.assertEquals((talk(handler, { max_body = 10 }, POST .. 'Content-Length: 11\r\n\r\nhello world')), 413)
  lu.assertEquals(said, 'EMSGSIZE')
  local chunked = POST .. 'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n'
  lu.assertEquals((talk(handler, { max_body = 10 }, chunked)), 413)
  lu.assertEquals((talk(function(req) assert(req:read_all()) end, { max_body = 10 }, chunked)), 413)
  local function streaming(req, res)
    local n = 0
    for piece in req:chunks() do n = n + #piece end
    res:send(tostring(n))
  end
  local _, _, answer = talk(streaming, { max_body = 10, idle_timeout = 0.1 }, chunked)
  lu.assertStrContains(answer, '\r\n\r\n11')
end

-- Clients that do not read --------------------------------------------------------------------

function T.test_a_client_that_never_reads()
  local code, queued
  local server = start(function(req, res)
    while true do
      local ok, _, why = res:write(('x'):rep(10000))
      if not ok then
        code, queued = why, select(2, req.conn:pending())
        return
      end
    end
  end, { write_timeout = 0.2, linger = 0.2 })
  local conn = web.client(server)
  conn:write(GET .. '\r\n')
  conn:flush()
  t.wait_until(function() return code end, 'the end of the response')
  lu.assertEquals(code, 'ETIMEDOUT')
  lu.assertTrue(queued < 200000)
  conn:close()
  server:close()
end

function T.test_pipelining_waits_for_its_reader()
  local served = 0
  local server = start(function(_, res)
    served = served + 1
    res:send(('x'):rep(30000))
  end, { write_timeout = 0.3, linger = 0.2 })
  local conn = web.client(server)
  conn:set_timeout(0.5)
  for _ = 1, 3000 do
    if not conn:write(GET .. '\r\n') then break end
  end
  asio.sleep(0.5)
  lu.assertTrue(served > 0 and served < 1000) -- what sockets hold, not all
  conn:abort()
  server:close()
end

-- Clients that go away ------------------------------------------------------------------------

-- The connection ends after these bytes; the server has nothing left of it, and reports nothing.
local function gone(handler, text, orderly)
  local server = start(handler or hello)
  local conn, read = web.client(server), asio.stats().bytes_in
  if text ~= '' then
    conn:write(text)
    conn:flush()
  end
  t.wait_until(function()
    return server:metrics().connections == 1 and asio.stats().bytes_in >= read + #text
  end, 'the server to read ' .. text)
  t.next_turn()
  if orderly then conn:close() else conn:abort() end
  t.wait_until(function() return server:metrics().active == 0 end, 'the end of the connection after ' .. text)
  lu.assertEquals(server:metrics().failed, 0)
  server:close()
end

function T.test_clients_that_go_away()
  for _, orderly in ipairs { false, true } do
    gone(nil, '', orderly)
    gone(nil, 'GET / HT', orderly)
    gone(nil, GET .. 'X: ', orderly)
    gone(echo, POST .. 'Content-Length: 10\r\n\r\n', orderly)
    gone(echo, POST .. 'Content-Length: 10\r\n\r\nabc', orderly)
    gone(echo, POST .. 'Transfer-Encoding: chunked\r\n\r\n5\r\nab', orderly)
    gone(echo, POST .. 'Expect: 100-continue\r\nContent-Length: 10\r\n\r\n', orderly)
    gone(nil, GET .. '\r\n', orderly)
    gone(nil, GET .. '\r\n' .. 'GET /', orderly)
  end
end

function T.test_clients_that_go_away_from_a_response()
  local function endless(_, res)
    repeat
      local ok = res:write(('x'):rep(10000))
      asio.sleep(0.001)
    until not ok
  end
  gone(endless, GET .. '\r\n')
  gone(function(_, res)
    asio.sleep(0.05)
    res:send 'late'
  end, GET .. '\r\n')
  gone(function(_, res)
    local sse = res:sse { heartbeat = 0.01 }
    while sse:send 'tick' do asio.sleep(0.01) end
    sse:close()
  end, GET .. '\r\n')
end

function T.test_bad_options()
  local function raises(words, opts)
    t.raises(words, http.server, '127.0.0.1', 0, function() end, opts)
  end
  raises("option 'idle_timeout': seconds expected", { idle_timeout = 0 })
  raises("option 'max_header': a number, at least 256,", { max_header = 100 })
  raises("option 'max_header': at most 65000 bytes", { max_header = 70000 })
  raises("option 'on_request_end': a function expected", { on_request_end = 1 })
  raises("option 'json': a table with the functions", { json = {} })
  raises("unknown option 'timeout': idle_timeout, header_timeout", { timeout = 5 })
  raises("unknown option 'colour'", { colour = 1 })
end

return T
