-- Compressed responses: what is negotiated, what is left alone, streams.
-- test: needs http
-- test: needs zlib
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local http = require 'asio.http'
local t = require 'support'
local web = require 'web'

local T = {}

local TEXT = ('all work and no play '):rep(1000)

-- What our own client makes of it.
local function decoded(data)
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:read_until '\r\n\r\n'
    conn:write('HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ', #data, '\r\n\r\n', data)
    conn:close()
  end))
  local url = ('http://127.0.0.1:%d/'):format((select(2, server:address())))
  local response = assert(http.get(url, { pool = false, proxy = false }))
  server:close()
  return response.body
end

-- What gzip makes of it, where it can be run; of a stream that is cut, too, if `cut` is set.
local function gunzip(data, cut)
  if not cut and not can.has 'shell' then return decoded(data) end
  can.run 'gzip'
  local path = t.temporary(data)
  local pipe = io.popen(('gzip -dc %s %s'):format(cut and '2>/dev/null' or '', '< ' .. t.quote(path)))
  local text = pipe:read '*a'
  pipe:close()
  os.remove(path)
  return text
end

local function dechunk(body)
  local list, at = {}, 1
  while true do
    local size, from = body:match('^(%x+)\r\n()', at)
    size = tonumber(size, 16)
    if size == 0 then return table.concat(list) end
    list[#list + 1] = body:sub(from, from + size - 1)
    at = from + size + 2
  end
end

local function answer(res, kind, body, headers)
  res.headers['Content-Type'] = kind
  for name, value in pairs(headers or {}) do res.headers[name] = value end
  return res:send(body)
end

-- Coding, Vary and decoded body of what the handler sends to a client that accepts this.
local function ask(handler, accepts, opts, method)
  local coding, vary, body, head, status
  web.with(handler, function(port)
    status, head, body = web.request(port, method or 'GET', '/', { ['Accept-Encoding'] = accepts })
    coding, vary = web.field(head, 'Content-Encoding'), web.field(head, 'Vary')
    if web.field(head, 'Transfer-Encoding') and body ~= '' then body = dechunk(body) end
    if coding == 'gzip' and body ~= '' then body = gunzip(body) end
  end, { gzip = opts or true })
  return coding, vary, body, head, status
end

local function text(_, res) return answer(res, 'text/plain', TEXT) end

function T.test_negotiation()
  for _, accepts in ipairs { 'gzip', 'GZIP', 'deflate, gzip;q=0.5', '*', 'x-gzip', 'br;q=1, *;q=0.1',
    'gzip;q=0.5, identity;q=0.5', 'gzip ; q=1.000' } do
    local coding, vary, body, head = ask(text, accepts)
    lu.assertEquals({ coding, vary, body == TEXT }, { 'gzip', 'Accept-Encoding', true }, accepts)
    lu.assertTrue(tonumber(web.field(head, 'Content-Length')) < #TEXT / 10)
  end
  for _, accepts in ipairs { '', 'identity', 'gzip;q=0', 'gzip;q=0.0, *', '*;q=0', 'br, deflate', 'gzipped',
    'gzip;q=0.3, identity;q=0.7', 'gzip;q=x' } do
    local coding, vary, body = ask(text, accepts)
    lu.assertEquals({ coding or 'none', vary, body == TEXT }, { 'none', 'Accept-Encoding', true }, accepts)
  end
end

function T.test_types_and_sizes()
  for kind, coded in pairs { ['text/html; charset=utf-8'] = true, ['application/json'] = true,
    ['image/svg+xml'] = true, ['application/ld+json'] = true, ['image/png'] = false, ['video/mp4'] = false,
    ['text/event-stream'] = false, ['application/octet-stream'] = false, ['application/x-own'] = true } do
    local coding, vary = ask(function(_, res) return answer(res, kind, TEXT) end, 'gzip',
      { types = { 'application/X-own' } })
    lu.assertEquals({ coding, vary }, { coded and 'gzip' or nil, coded and 'Accept-Encoding' or nil }, kind)
  end
  for size, coded in pairs { [99] = false, [100] = true } do
    local coding = ask(function(_, res) return answer(res, 'text/plain', ('x'):rep(size)) end, 'gzip',
      { min = 100 })
    lu.assertEquals(coding, coded and 'gzip' or nil, size)
  end
  lu.assertNil((ask(function(_, res) return res:send(TEXT) end, 'gzip'))) -- of no type
end

function T.test_what_is_left_alone()
  for _, headers in ipairs { { ['Content-Encoding'] = 'br' }, { ['cache-control'] = 'public, No-Transform' },
    { ['Content-Range'] = 'bytes 0-1/2' } } do
    local coding = ask(function(_, res) return answer(res, 'text/plain', TEXT, headers) end, 'gzip')
    lu.assertEquals(coding, headers['Content-Encoding'])
  end
  local _, _, body = ask(function(_, res)
    res.headers['Content-Type'] = 'text/plain'
    return res:send(206, nil, TEXT)
  end, 'gzip')
  lu.assertEquals(body, TEXT)
end

function T.test_headers_beside_it()
  local coding, vary, body, head = ask(function(_, res)
    res.headers.ETag, res.headers.vary = '"abc"', 'Origin'
    return res:send(201, { ['content-type'] = 'text/plain', ['X-Own'] = '1' }, TEXT)
  end, 'gzip')
  lu.assertEquals({ coding, vary, body }, { 'gzip', 'Origin, Accept-Encoding', TEXT })
  lu.assertStrContains(head, 'HTTP/1.1 201 ')
  lu.assertEquals({ web.field(head, 'ETag'), web.field(head, 'X-Own') }, { 'W/"abc"', '1' })
end

function T.test_head_has_the_same_headers()
  local _, _, _, get = ask(text, 'gzip')
  local coding, vary, body, head = ask(text, 'gzip', true, 'HEAD')
  lu.assertEquals({ coding, vary, body }, { 'gzip', 'Accept-Encoding', '' })
  lu.assertEquals(web.field(head, 'Content-Length'), web.field(get, 'Content-Length'))
end

function T.test_streams()
  local function stream(_, res)
    res.headers['Content-Type'] = 'text/plain'
    for _ = 1, 50 do res:write(TEXT) end
    return res:finish()
  end
  local coding, _, body, head = ask(stream, 'gzip')
  lu.assertEquals({ coding, body == TEXT:rep(50) }, { 'gzip', true })
  lu.assertEquals(web.field(head, 'Transfer-Encoding'), 'chunked')
  local _, _, plain = ask(stream, 'identity')
  t.same_bytes(plain, TEXT:rep(50))
  coding, _, body = ask(function(_, res) -- the handler leaves the end to the server; its length is of no use
    res.headers['Content-Type'], res.headers['Content-Length'] = 'text/plain', #TEXT
    res:write(TEXT)
  end, 'gzip')
  lu.assertEquals({ coding, body }, { 'gzip', TEXT })
  coding, _, body = ask(stream, 'gzip', true, 'HEAD')
  lu.assertEquals({ coding, body }, { 'gzip', '' })
end

-- What was written can be read before more is written.
function T.test_a_stream_is_not_kept()
  local go_on = asio.channel(1)
  web.with(function(_, res)
    res.headers['Content-Type'] = 'text/plain'
    res:write 'first'
    go_on:recv()
    return res:write 'second'
  end, function(port)
    local conn = assert(web.connect(port))
    conn:write 'GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n'
    conn:read_until '\r\n\r\n'
    local size = tonumber(conn:read_line(), 16)
    lu.assertEquals(gunzip(conn:read(size), true), 'first')
    go_on:send(true)
    conn:read_all()
    conn:close()
  end, { gzip = true })
end

function T.test_files()
  t.with_files({ ['a.txt'] = TEXT:rep(20) }, function(dir)
    t.touch(dir .. '/a.txt', 1577934245)
    web.with(http.files(dir), function(port)
      local function get(headers) return web.request(port, 'GET', '/a.txt', headers) end
      local _, head, body = get { ['Accept-Encoding'] = 'gzip' }
      lu.assertEquals(web.field(head, 'Content-Encoding'), 'gzip')
      lu.assertNil(web.field(head, 'Accept-Ranges'))
      t.same_bytes(gunzip(dechunk(body)), TEXT:rep(20))
      local tag = web.field(head, 'ETag')
      lu.assertStrMatches(tag, 'W/".*"')
      lu.assertEquals((get { ['Accept-Encoding'] = 'gzip', ['If-None-Match'] = tag }), 304)
      _, head, body = web.request(port, 'HEAD', '/a.txt', { ['Accept-Encoding'] = 'gzip' })
      lu.assertEquals({ web.field(head, 'Content-Encoding'), body }, { 'gzip', '' })
      _, head, body = get {}
      lu.assertEquals({ web.field(head, 'Vary'), web.field(head, 'ETag') }, { 'Accept-Encoding', tag:sub(3) })
      t.same_bytes(body, TEXT:rep(20))
      local status
      status, head, body = get { Range = 'bytes=0-4' }
      lu.assertEquals({ status, body, web.field(head, 'Content-Encoding') }, { 206, TEXT:sub(1, 5), nil })
    end, { gzip = true })
  end)
end

function T.test_as_middleware()
  local r = http.router()
  r:use(http.gzip { min = 10 }):get('/x', text)
  web.with(r, function(port)
    local _, head, body = web.request(port, 'GET', '/x', { ['Accept-Encoding'] = 'gzip' })
    lu.assertEquals({ web.field(head, 'Content-Encoding'), gunzip(body) }, { 'gzip', TEXT })
  end)
end

function T.test_curl()
  web.with(text, function(port)
    local body, code = web.curl(port, '/', '--compressed')
    lu.assertEquals({ body, code }, { TEXT, 0 })
  end, { gzip = true })
end

function T.test_options_that_raise()
  t.raises("unknown option 'minimum'", http.gzip, { minimum = 1 })
  t.raises("option 'level'", http.gzip, { level = 10 })
  t.raises("option 'min': number expected, got string", http.gzip, { min = '1' })
  t.raises("'server' (gzip: table expected", http.server, '127.0.0.1', 0, text, { gzip = 'yes' })
end

return T
