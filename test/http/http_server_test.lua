-- http.server: what handlers get, what clients get, and how connections go on.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local can = require 'can'
local web = require 'web'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

local function start(handler, opts)
  return assert(web.server(handler, opts))
end

-- All that comes in answer to these bytes, to the end of the connection.
local function talk(server, ...)
  local conn = web.client(server)
  for _, piece in ipairs { ... } do
    conn:write(piece)
    conn:flush()
  end
  local all, message = conn:read_all()
  conn:close()
  return all, message
end

local function once(text, handler, opts)
  local server = start(handler, opts)
  local all, message = talk(server, text)
  server:close()
  return all, message
end

local function get(lines, line)
  return (line or 'GET / HTTP/1.1') .. '\r\nHost: x\r\n' .. (lines or '') .. 'Connection: close\r\n\r\n'
end

local function body_of(answer)
  return answer:match '\r\n\r\n(.*)$'
end

-- Requests ------------------------------------------------------------------------------------

function T.test_fields()
  local seen
  once(get('X-A: 1\r\nx-a: 2\r\n', 'GET /a%20b?x=1&y=2+3&x=%41&z HTTP/1.1'), function(req)
    seen = {
      req.method, req.target, req.path, req.version, req:header 'X-a', req.headers:all 'x-A', req:query(),
      req:query_all(), req.length == nil, req.state, req.nothing == nil, (req:peer()),
    }
  end)
  lu.assertEquals(seen, {
    'GET', '/a%20b?x=1&y=2+3&x=%41&z', '/a%20b', '1.1', '1', { '1', '2' }, { x = 'A', y = '2 3', z = '' },
    { x = { '1', 'A' }, y = { '2 3' }, z = { '' } }, true, {}, true, '127.0.0.1',
  })
end

function T.test_fields_by_index()
  local seen
  once(get('X-A: 1\r\nx-a: 2\r\nget: x\r\n'), function(req, res)
    local headers = req.headers
    seen = { headers['x-a'], headers['X-A'], headers.none == nil, headers[1] == nil, headers[true] == nil,
      headers:count(), headers.get == headers['get'] }
    t.raises('string expected', res.redirect, res, 301, '/')
  end)
  lu.assertEquals(seen, { '1', '1', true, true, true, 5, true })
end

function T.test_forms_of_targets()
  local function path(target, method)
    return body_of(once(get('', (method or 'GET') .. ' ' .. target .. ' HTTP/1.1'), function(req, res)
      res:send(req.path)
    end))
  end
  lu.assertEquals(path 'http://other:80/a?b', '/a')
  lu.assertEquals(path 'http://other', '/')
  lu.assertEquals(path 'http://other?q', '/')
  lu.assertEquals(path('*', 'OPTIONS'), '*')
  lu.assertEquals(path('host:443', 'CONNECT'), 'host:443')
end

function T.test_bodies()
  local function echo(req, res) res:send(assert(req:read_all())) end
  local big = ('x'):rep(300000)
  lu.assertEquals(body_of(once(get('Content-Length: 3\r\n') .. 'abc', echo)), 'abc')
  lu.assertEquals(body_of(once(get('Content-Length: 0\r\n'), echo)), '')
  lu.assertEquals(body_of(once(get('Content-Length: 300000\r\n') .. big, echo)), big)
  local chunks = get('Transfer-Encoding: chunked\r\n') .. '3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: 1\r\n\r\n'
  lu.assertEquals(body_of(once(chunks, echo)), 'abcd')
end

function T.test_reading_in_pieces()
  local got = {}
  once(get('Content-Length: 10\r\n') .. '0123456789', function(req, res)
    got[1] = req:read(4)
    for piece in req:chunks() do got[#got + 1] = piece end
    got[#got + 1] = tostring(req:read())
    got[#got + 1] = req:read_all()
    res:send ''
  end)
  lu.assertEquals(got, { '0123', '456789', 'nil', '' })
end

function T.test_json()
  local function encode(value) return '<' .. value .. '>' end
  local opts = { json = { encode = encode, decode = function(text) return #text end } }
  local function handler(req, res) res:json(req:json()) end
  local answer = once(get 'Content-Length: 3\r\n' .. 'abc', handler, opts)
  lu.assertEquals(body_of(answer), '<3>')
  lu.assertStrContains(answer, 'Content-Type: application/json')
end

-- Responses -----------------------------------------------------------------------------------

function T.test_forms_of_send()
  local function status_and_body(...)
    local args = { n = select('#', ...), ... }
    local answer = once(get(), function(_, res) res:send(unpack(args, 1, args.n)) end)
    return answer:match '^HTTP/1.1 (%d+)' .. ' ' .. body_of(answer)
  end
  lu.assertEquals(status_and_body 'text', '200 text')
  lu.assertEquals(status_and_body(404), '404 ')
  lu.assertEquals(status_and_body(201, nil, 'made'), '201 made')
  lu.assertEquals(status_and_body(201, 'made'), '201 made')
  lu.assertEquals(status_and_body({ A = 'b' }, 'made'), '200 made')
  lu.assertEquals(status_and_body(204), '204 ')
  lu.assertEquals(status_and_body(), '200 ')
end

function T.test_headers()
  local answer = once(get(), function(_, res)
    res.headers['X-One'] = 1
    res.headers['x-two'] = 'a'
    res:send(200, { ['X-Two'] = { 'b', 'c' }, Date = 'never', ['Content-Length'] = 99 }, 'hello')
  end)
  lu.assertStrContains(answer, 'X-One: 1\r\n')
  lu.assertStrContains(answer, 'X-Two: b\r\nX-Two: c\r\n')
  lu.assertStrContains(answer, 'Content-Length: 5\r\n')
  lu.assertStrContains(answer, 'Date: never\r\n')
  lu.assertNil(answer:find('GMT', 1, true))
  lu.assertNil(answer:find('x-two', 1, true))
  lu.assertNil(answer:find('Server', 1, true))
end

function T.test_headers_that_would_break_the_message()
  local said
  local answer = once(get(), function(_, res)
    local _, err = pcall(res.send, res, 200, { X = 'a\r\nY: b' }, '')
    said = err
    res:send 'fine'
  end)
  lu.assertStrContains(said, "header 'X'")
  lu.assertEquals(body_of(answer), 'fine')
end

function T.test_head()
  local answer = once(get('', 'HEAD / HTTP/1.1'), function(_, res) res:send 'hello' end)
  lu.assertStrContains(answer, 'Content-Length: 5\r\n')
  lu.assertEquals(body_of(answer), '')
  answer = once(get('', 'HEAD / HTTP/1.1'), function(_, res)
    res:write 'hello'
    res:finish()
  end)
  lu.assertEquals(body_of(answer), '')
end

function T.test_chunks_and_trailers()
  local answer = once(get(), function(_, res)
    res.status = 201
    res:write 'abc'
    lu.assertTrue(res.sent)
    res:write ''
    res:write 'de'
    lu.assertTrue(res:finish { ['X-Sum'] = 5, ['Content-Length'] = 7 })
    lu.assertEquals(select(3, res:write 'f'), 'EALREADY')
    lu.assertEquals(select(3, res:send 'f'), 'EALREADY')
  end)
  lu.assertStrContains(answer, 'HTTP/1.1 201 Created\r\n')
  local body = select(2, answer:match '^(.-)\r\n\r\n(.*)$')
  lu.assertEquals(body, '3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n')
end

function T.test_a_given_length()
  local function with(n, text)
    return once(get(), function(_, res)
      res.headers['Content-Length'] = n
      res:write(text)
    end)
  end
  local answer = with(5, 'hello')
  lu.assertEquals(body_of(answer), 'hello')
  lu.assertNil(answer:find('chunked', 1, true))
  local all, message = with(9, 'hello')
  lu.assertNil(all)
  lu.assertStrContains(message, 'reset')
end

function T.test_http_1_0()
  local server = start(function(req, res)
    if req.path == '/stream' then
      res:write 'a'
      res:write 'b'
    else
      res:send(req.version)
    end
  end)
  local answer = talk(server, 'GET / HTTP/1.0\r\n\r\n')
  lu.assertEquals(body_of(answer), '1.0')
  lu.assertStrContains(answer, 'Connection: close')
  lu.assertEquals(body_of(talk(server, 'GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')), 'ab')
  local two = talk(server, 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n')
  lu.assertStrContains(two, 'Connection: keep-alive')
  server:close()
end

function T.test_no_answer_is_an_empty_one()
  lu.assertStrContains(once(get(), function() end), 'HTTP/1.1 200 OK')
  lu.assertStrContains(once(get(), function(_, res) res.status = 204 end), 'HTTP/1.1 204 No Content')
end

function T.test_informational()
  local answer = once(get(), function(_, res)
    res:informational(103, { Link = '</a.css>; rel=preload' })
    res:send 'x'
  end)
  lu.assertStrContains(answer, 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200')
end

function T.test_events()
  local answer = once(get(), function(_, res)
    local sse = res:sse { heartbeat = 0.01 }
    sse:send { event = 'tick', data = 'a\nb', id = 7, retry = 1000 }
    sse:send 'c'
    asio.sleep(0.05)
    sse:close()
  end)
  lu.assertStrContains(answer, 'Content-Type: text/event-stream')
  lu.assertStrContains(answer, 'event: tick\nid: 7\nretry: 1000\ndata: a\ndata: b\n\n')
  lu.assertStrContains(answer, 'data: c\n\n')
  lu.assertStrContains(answer, ': \n\n')
end

-- Connections ---------------------------------------------------------------------------------

function T.test_pipelining()
  local server = start(function(req, res)
    if req.path == '/1' then asio.sleep(0.02) end
    res:send(req.path)
  end)
  local text = {}
  for i = 1, 50 do
    local last = i == 50 and 'Connection: close\r\n' or ''
    text[i] = ('GET /%d HTTP/1.1\r\nHost: x\r\n%s\r\n'):format(i, last)
  end
  local got = {}
  for path in talk(server, table.concat(text)):gmatch '\r\n\r\n/(%d+)' do got[#got + 1] = tonumber(path) end
  lu.assertEquals(#got, 50)
  for i = 1, 50 do lu.assertEquals(got[i], i) end
  server:close()
end

function T.test_the_script_closes()
  local server = start(function(_, res) res:send(200, { Connection = 'close' }, 'x') end)
  local answer = talk(server, 'GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n')
  lu.assertEquals(select(2, answer:gsub('HTTP/1.1 200', '')), 1)
  server:close()
end

function T.test_expect()
  local server = start(function(req, res)
    if req.path == '/no' then return res:send(403) end
    res:send(req:read_all())
  end)
  local conn = web.client(server)
  conn:write 'POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n'
  lu.assertEquals(conn:read_until '\r\n\r\n', 'HTTP/1.1 100 Continue')
  conn:write 'abc'
  lu.assertStrContains(conn:read_until '\r\n\r\n', '200 OK')
  lu.assertEquals(conn:read(3), 'abc')
  conn:close()
  local no = 'POST /no HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n'
  local answer = talk(server, no)
  lu.assertStrContains(answer, '403 Forbidden')
  lu.assertStrContains(answer, 'Connection: close')
  lu.assertStrContains(talk(server, get 'Expect: miracles\r\n'), 'HTTP/1.1 417 ')
  server:close()
end

function T.test_upgrade()
  local server = start(function(req, res)
    if not req:header 'upgrade' then return res:send 'plain' end
    local conn = assert(res:upgrade { Upgrade = 'echo' })
    conn:write(conn:read(5))
    conn:close()
  end)
  local text = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello'
  local answer = talk(server, text)
  lu.assertStrContains(answer, 'HTTP/1.1 101 Switching Protocols\r\n')
  lu.assertStrContains(answer, 'Connection: Upgrade\r\n')
  lu.assertEquals(body_of(answer), 'hello')
  server:close()
  server = start(function(_, res) res:send 'plain' end)
  answer = talk(server, text:gsub('hello', '') .. get())
  lu.assertEquals(select(2, answer:gsub('200 OK', '')), 2) -- it need not be done
  server:close()
end

function T.test_connect()
  local answer = once('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nbeyond', function(req, res)
    local conn = assert(res:upgrade())
    conn:write(req.target, ' ', conn:read(6))
    conn:close()
  end)
  lu.assertStrContains(answer, 'HTTP/1.1 200 OK\r\n')
  lu.assertEquals(body_of(answer), 'a:1 beyond')
end

function T.test_unread_bodies()
  local server = start(function(_, res) res:send 'x' end, { max_drain = 1000 })
  local function post(n)
    return 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ' .. n .. '\r\n\r\n' .. ('y'):rep(n)
  end
  lu.assertEquals(select(2, talk(server, post(900) .. get()):gsub('200 OK', '')), 2)
  local answer = talk(server, post(2000) .. get())
  lu.assertEquals(select(2, answer:gsub('200 OK', '')), 1)
  lu.assertStrContains(answer, 'Connection: close')
  server:close()
end

-- Handlers that fail --------------------------------------------------------------------------

function T.test_a_handler_that_raises()
  local reports = {}
  local before = asio.on_error(function(err) reports[#reports + 1] = tostring(err) end)
  local server = start(function(req, res)
    if req.path == '/late' then res:write 'half' end
    error 'oh dear'
  end)
  local answer = talk(server, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' .. get())
  lu.assertEquals(select(2, answer:gsub('HTTP/1.1 500 Internal', '')), 2)
  local all, message = talk(server, get('', 'GET /late HTTP/1.1'))
  lu.assertNil(all)
  lu.assertStrContains(message, 'reset')
  t.wait_until(function() return #reports >= 3 end, 'the reports')
  t.next_turn()
  asio.on_error(before)
  lu.assertEquals(#reports, 3)
  lu.assertStrContains(reports[1], 'GET / failed')
  lu.assertStrContains(reports[1], 'oh dear')
  lu.assertStrContains(reports[1], 'server_test.lua')
  lu.assertEquals(server:metrics().failed, 3)
  server:close()
end

-- Stopping ------------------------------------------------------------------------------------

function T.test_shutdown()
  local began_slow = asio.event()
  local server = start(function(req, res)
    if req.path == '/slow' then
      began_slow:set()
      asio.sleep(0.1)
    end
    res:send 'x'
  end)
  local idle, fresh, busy = web.client(server), web.client(server), web.client(server)
  idle:write 'GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n' -- an empty line behind it
  idle:read_until '\r\n\r\n'
  idle:read(1)
  busy:write 'GET /slow HTTP/1.1\r\nHost: x\r\n\r\n'
  busy:flush()
  began_slow:wait()
  lu.assertEquals(server:metrics().connections, 3)
  local began = asio.now()
  lu.assertTrue(server:shutdown(5))
  lu.assertTrue(asio.now() - began < 2)
  lu.assertEquals(idle:read_all(), '')
  lu.assertEquals(fresh:read_all(), '')
  lu.assertStrContains(busy:read_all(), 'Connection: close')
  for _, conn in ipairs { idle, fresh, busy } do conn:close() end
end

-- Options -------------------------------------------------------------------------------------

function T.test_options()
  local function refused(opts, text)
    local ok, err = pcall(http.server, '127.0.0.1', 0, function() end, opts)
    lu.assertFalse(ok)
    lu.assertStrContains(err, text)
  end
  refused({ idle_timeuot = 1 }, 'idle_timeuot')
  refused({ idle_timeout = 0 }, 'idle_timeout')
  refused({ max_header = 1e9 }, 'max_header')
  refused({ trust = '10.0.0.0/99' }, '10.0.0.0/99')
  refused({ json = {} }, 'json')
  lu.assertFalse((pcall(http.server, '127.0.0.1', 0, 'handler')))
end

function T.test_trust()
  local function peer(trust, lines)
    return body_of(once(get(lines), function(req, res)
      local address, port = req:peer()
      res:send(address .. ' ' .. (type(port) == 'number' and port < 1000 and port or ''))
    end, { trust = trust }))
  end
  lu.assertEquals(peer('127.0.0.0/8', 'X-Forwarded-For: 192.0.2.1\r\n'), '192.0.2.1 ')
  lu.assertEquals(peer('10.0.0.0/8', 'X-Forwarded-For: 192.0.2.1\r\n'), '127.0.0.1 ')
  lu.assertEquals(peer('127.0.0.1', 'X-Forwarded-For: 6.6.6.6, 192.0.2.1, 127.0.0.1\r\n'), '192.0.2.1 ')
  local two = 'Forwarded: for=1.1.1.1, for="[2001:db8::1]:80";proto=https\r\n'
  lu.assertEquals(peer('127.0.0.1', two), '2001:db8::1 80')
  lu.assertEquals(peer({ '127.0.0.0/8', '2001:db8::/32' }, two), '1.1.1.1 ')
  lu.assertEquals(peer('127.0.0.1', 'Forwarded: for=_hidden\r\n'), '127.0.0.1 ')
end

function T.test_hook_and_metrics()
  local seen = {}
  local server = start(function(_, res) res:send 'hello' end, {
    on_request_end = function(req, res, seconds)
      seen[#seen + 1] = { req.path, res.status, res.bytes, seconds >= 0 }
    end,
  })
  talk(server, get('', 'GET /a HTTP/1.1'))
  talk(server, 'nonsense\r\n\r\n')
  lu.assertEquals(seen, { { '/a', 200, 5, true } })
  local m = server:metrics()
  lu.assertEquals({ m.requests, m.connections, m.refused }, { 1, 2, 1 })
  lu.assertEquals(m.responses, { [200] = 1, [400] = 1 })
  server:close()
end

function T.test_other_sockets()
  can.need('plain', 'unix_sockets')
  local function handler(req, res) res:send(req:peer() == 'unix:' and 'yes' or 'no') end
  local server = assert(http.server('unix:@', handler))
  lu.assertEquals(body_of(talk(server, get())), 'yes')
  server:close()
  local a, b = asio.socketpair()
  local serve = http.handler(function(_, res) res:send 'pair' end)
  local thread = asio.spawn(serve, b)
  a:write(get())
  lu.assertEquals(body_of(a:read_all()), 'pair')
  a:close()
  thread:join()
end

T.test_threads = t.slow(30, function()
  can.need 'threaded_servers'
  local word = 'carried'
  local server = start(function(_, res) res:send(word) end, { threads = 2 })
  lu.assertEquals(body_of(talk(server, get())), 'carried')
  lu.assertTrue(server:shutdown(5))
end)

return T
