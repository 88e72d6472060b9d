-- The examples of HTTP: rest_service, file_server, reverse_proxy, sse_clock, crawler, http_load.
-- test: needs http
-- test: 20 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local t = require 'support'
local can = require 'can'
local programs = require 'programs'
local web = require 'web'

local T = {}

local has_cjson, cjson = pcall(require, 'cjson')

-- A function request(method, target, opts) for a server on this port, over a pool that is closed behind fn.
local function with_requests(port, fn)
  local pool = http.pool()
  local url = 'http://127.0.0.1:' .. port
  local ok, err = pcall(fn, function(method, target, opts)
    opts = opts or {}
    opts.proxy, opts.redirects, opts.timeout = false, false, 20 * t.patience
    return assert(pool:request(method, url .. target, opts))
  end, url, pool)
  pool:close()
  if not ok then error(err, 0) end
end

-- Runs a browser that loads a page of 127.0.0.1:port, and fn(browser) beside it.
local function with_browser(port, fn)
  can.need 'chromium'
  local profile = os.tmpname()
  os.remove(profile)
  local line = 'chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run ' ..
    '--user-data-dir=%s --virtual-time-budget=500 --dump-dom http://127.0.0.1:%d/'
  local ok, err = pcall(programs.talk, line:format(profile, port), fn)
  os.execute('rm -rf ' .. t.quote(profile))
  if not ok then error(err, 0) end
end

-- rest_service ------------------------------------------------------------------------------------

local function notes(request)
  local function send(method, target, value)
    local body = type(value) == 'table' and cjson.encode(value) or value
    local response = request(method, target, { body = body })
    return response.status, response.body ~= '' and response:json() or nil, response
  end
  local status, note, response = send('POST', '/notes', { text = 'buy milk' })
  lu.assertEquals({ status, note, response:header 'location' },
    { 201, { id = 1, text = 'buy milk', done = false }, '/notes/1' })
  lu.assertEquals(select(2, send('GET', '/notes/1')), note)
  lu.assertEquals(send('POST', '/notes', { text = 'sleep', done = true }), 201)
  lu.assertEquals(#select(2, send('GET', '/notes')), 2)
  lu.assertEquals(select(2, send('GET', '/notes?done=false')), { note })
  note.text = 'buy bread'
  lu.assertEquals(select(2, send('PUT', '/notes/1', { text = 'buy bread' })), note)
  lu.assertEquals(send('DELETE', '/notes/1'), 204)
  lu.assertEquals(send('DELETE', '/notes/1'), 404)
  lu.assertEquals(send('GET', '/notes/x'), 404)
  lu.assertEquals(select(3, send('GET', '/notes?done=maybe')).body, '[]')
  lu.assertEquals(send('POST', '/notes', 'no JSON'), 400)
  lu.assertEquals(send('POST', '/notes', { text = 7 }), 422)
  lu.assertEquals(send('POST', '/notes', { text = ('x'):rep(20000) }), 413)
end

function T.test_rest_service()
  if not has_cjson then
    local out, status = programs.run_example('rest_service', '127.0.0.1', 0)
    lu.assertEquals(out, 'rest_service.lua: lua-cjson is not installed\n')
    return lu.assertEquals(status, 1)
  end
  local log = programs.with(function(port)
    with_requests(port, notes)
    with_requests(port, function(request)
      local response = request('DELETE', '/notes')
      lu.assertEquals({ response.status, response:header 'allow' }, { 405, 'GET, HEAD, OPTIONS, POST' })
      response = request('GET', '/elsewhere')
      lu.assertEquals({ response.status, response.body }, { 404, '{"error":"no such place"}' })
    end)
  end, 'rest_service', {}, '127.0.0.1', 0)
  lu.assertStrContains(log, '"POST /notes HTTP/1.1" 201 39\n')
end

-- file_server -------------------------------------------------------------------------------------

function T.test_file_server()
  local page = '<p>hello</p>' .. ('x'):rep(5000)
  local files = { ['index.html'] = page, ['a.bin'] = ('0123456789'):rep(10000), ['.secret'] = 'no' }
  t.with_files(files, function(dir)
    local log = programs.with(function(port)
      with_requests(port, function(request)
        local response = request('GET', '/')
        lu.assertEquals({ response.status, response.body }, { 200, page })
        lu.assertEquals(response.decoded, can.has 'zlib' and 'gzip' or nil)
        local tag = response:header 'etag'
        lu.assertEquals(request('GET', '/', { headers = { ['If-None-Match'] = tag } }).status, 304)
        response = request('GET', '/a.bin', { headers = { Range = 'bytes=99995-' } })
        lu.assertEquals({ response.status, response.body }, { 206, '56789' })
        for _, target in ipairs { '/.secret', '/none', '/../index.html', '/%2e%2e/x' } do
          lu.assertEquals(request('GET', target).status, 404, target)
        end
        lu.assertEquals(request('POST', '/', { body = '' }).status, 405)
      end)
    end, 'file_server', {}, dir, '127.0.0.1', 0)
    lu.assertStrContains(log, '"GET /a.bin HTTP/1.1" 206 5 "-" "lua-asio"\n')
  end)
end

function T.test_file_server_in_a_browser()
  can.need 'chromium'
  t.with_files({
    ['index.html'] = '<!DOCTYPE html><link rel="stylesheet" href="style.css"><p id="p">-</p>' ..
      '<script type="module" src="script.mjs"></script>',
    ['style.css'] = 'p { color: rgb(1, 2, 3) }',
    ['script.mjs'] = 'p.textContent = getComputedStyle(p).color + " " + ' ..
      '(await (await fetch("a.json")).json()).a',
    ['a.json'] = '{"a":[' .. ('1,'):rep(1000) .. '1]}',
  }, function(dir)
    programs.with(function(port)
      with_browser(port, function(browser)
        lu.assertStrContains(browser:wait(), '<p id="p">rgb(1, 2, 3) 1,1,1')
      end)
    end, 'file_server', {}, dir, '127.0.0.1', 0)
  end)
end

-- reverse_proxy -----------------------------------------------------------------------------------

-- The server behind: tells what has come to it.
local function behind(req, res)
  if req.path == '/echo' then
    res.headers['X-Length'] = tostring(req.length)
    for piece in req:chunks() do res:write(piece) end
  elseif req.path == '/fields' then
    local list = {}
    for i = 1, req.headers:count() do list[i] = table.concat({ req.headers:field(i) }, ': ') end
    table.sort(list)
    res.headers['Set-Cookie'] = { 'a=1', 'b=2' }
    res.headers['Keep-Alive'] = 'timeout=3'
    res:send(404, table.concat(list, '\n'))
  elseif req.path == '/cut' then
    res.headers['Content-Length'] = 1000
    res:write(('x'):rep(500))
    req.conn:close() -- what was written still arrives
  elseif req.path == '/upgrade' then
    local conn = res:upgrade { Upgrade = req:header 'upgrade' }
    conn:write(conn:read_line():upper(), '\n')
    conn:close()
  elseif req.path == '/steps' then
    res:write 'one'
    asio.sleep(0.2)
    res:write 'two'
  else
    res:send(req.target)
  end
end

local function with_proxy(fn, options)
  local connections
  web.with(behind, function(upstream)
    programs.with(function(port)
      with_requests(port, function(request, url) connections = fn(request, port, url) end)
    end, 'reverse_proxy', {}, 'http://127.0.0.1:' .. upstream .. '/', '127.0.0.1', 0)
  end, options)
  return connections
end

function T.test_reverse_proxy()
  with_proxy(function(request)
    lu.assertEquals(request('GET', '/a%20b/?c=d&e').body, '/a%20b/?c=d&e')
    local head = request('HEAD', '/abc')
    lu.assertEquals({ head.status, head.length, head.body }, { 200, 4, '' })
    local response = request('GET', '/fields', { headers = {
      Connection = 'X-Hop', ['X-Hop'] = 1, ['X-End'] = { 1, 2 }, ['X-Forwarded-For'] = '192.0.2.7',
      ['Accept-Encoding'] = 'br', Host = 'www.example.org',
    } })
    lu.assertEquals({ response.status, response.headers:all 'set-cookie' }, { 404, { 'a=1', 'b=2' } })
    lu.assertNil(response:header 'keep-alive')
    local fields = response.body:lower()
    for _, line in ipairs { 'host: www.example.org', 'x-end: 1\nx-end: 2', 'accept-encoding: br',
      'x-forwarded-for: 192.0.2.7, 127.0.0.1' } do
      lu.assertStrContains(fields, line)
    end
    lu.assertNil(fields:find('x-hop', 1, true))
  end)
end

function T.test_reverse_proxy_streams_both_ways()
  with_proxy(function(request)
    local body = ('0123456789abcdef'):rep(655360)
    local response = request('POST', '/echo', { body = body })
    lu.assertEquals(response:header 'x-length', tostring(#body))
    t.same_bytes(response.body, body)
    local sent = 0
    response = request('PUT', '/echo', { body = function()
      sent = sent + 1
      return sent <= 100 and body:sub(1, 10000) or nil
    end })
    lu.assertEquals({ response:header 'x-length', #response.body }, { '-1', 1000000 })
    -- Each piece is echoed before the next one is sent.
    local back, number = asio.channel(1), 0
    response = request('POST', '/echo', { stream = true, body = function()
      if number > 0 then lu.assertEquals(back:recv(), 'piece ' .. number) end
      number = number + 1
      return number <= 20 and 'piece ' .. number or nil
    end })
    for piece in response:chunks() do back:send(piece) end
    lu.assertEquals(number, 21)
    -- The first piece does not wait for the second one.
    response = request('GET', '/steps', { stream = true })
    lu.assertEquals({ response:read(), response:read(), response:read() }, { 'one', 'two' })
  end)
end

function T.test_reverse_proxy_half_a_response_is_none()
  with_proxy(function(request, port)
    local ok, response = pcall(request, 'GET', '/cut', { stream = true })
    if ok then
      local text, _, code = response:read_all()
      lu.assertNil(text)
      lu.assertTrue(code == 'ECONNRESET' or code == 'EOF', code)
    else -- the reset took with it what had come before
      lu.assertStrContains(response, 'connection reset')
    end
    lu.assertEquals(request('GET', '/x').body, '/x')
    lu.assertStrContains(web.send(port, 'GET *x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), ' 400 ')
  end)
end

function T.test_reverse_proxy_upgrades()
  with_proxy(function(request)
    local response = request('GET', '/upgrade', { headers = { Connection = 'upgrade', Upgrade = 'shout' } })
    lu.assertEquals({ response.status, response:header 'upgrade' }, { 101, 'shout' })
    response.conn:write 'hello\n'
    lu.assertEquals(response.conn:read_all(), 'HELLO\n')
    response.conn:close()
  end)
end

function T.test_reverse_proxy_without_a_server_behind()
  local closed = assert(asio.server('127.0.0.1', 0))
  local _, free = closed:address()
  closed:close()
  local out = programs.with(function(port)
    with_requests(port, function(request) lu.assertEquals(request('GET', '/x').status, 502) end)
  end, 'reverse_proxy', {}, 'http://127.0.0.1:' .. free, '127.0.0.1', 0)
  lu.assertEquals(out, 'GET\t/x\tconnection refused\tECONNREFUSED\n')
  out = programs.run_example 'reverse_proxy'
  lu.assertStrContains(out, 'usage: ')
end

-- sse_clock ---------------------------------------------------------------------------------------

-- Reads events until one has this name; its data.
local function await_event(response, name)
  local text = ''
  while true do
    local data = text:match('event: ' .. name .. '\n[^\n]-\n?data: ([^\n]*)\n\n')
    if data then return data end
    text = text .. assert(response:read())
  end
end

function T.test_sse_clock()
  local left
  programs.with(function(port)
    with_requests(port, function(request)
      lu.assertEquals(request('GET', '/'):header 'content-type', 'text/html; charset=utf-8')
      local one = request('GET', '/events', { stream = true })
      lu.assertEquals(one:header 'content-type', 'text/event-stream')
      lu.assertEquals(await_event(one, 'viewers'), '1')
      local two = request('GET', '/events', { stream = true })
      lu.assertEquals(await_event(one, 'viewers'), '2')
      lu.assertStrMatches(await_event(two, 'tick'), '%d%d:%d%d:%d%d')
      two:close()
      lu.assertEquals(await_event(one, 'viewers'), '1')
      left = one
    end)
  end, 'sse_clock', {}, '127.0.0.1', 0, 0.05)
  local _, _, code = left:read_all() -- the server has stopped
  lu.assertNotNil(code)
end

-- The browser shows the page when the server, and with it the stream of events, has ended.
function T.test_sse_clock_in_a_browser()
  can.need 'chromium'
  local server = programs.start('sse_clock', {}, '127.0.0.1', 0, 0.05)
  local port = server:line():match '(%d+)$'
  local ok, err = pcall(with_browser, port, function(browser)
    with_requests(port, function(request)
      local events = request('GET', '/events', { stream = true })
      repeat local viewers = await_event(events, 'viewers') until viewers == '2'
      for _ = 1, 5 do await_event(events, 'tick') end
      events:close()
    end)
    server:stop()
    server = nil
    local page = browser:wait()
    lu.assertStrMatches(page, '.*<time id="time" class="%a*">%d%d:%d%d:%d%d</time>.*')
    local count = tonumber(page:match '<span id="events">(%d+)</span>')
    lu.assertTrue(count and count >= 1, page)
  end)
  if server then server:stop() end
  if not ok then error(err, 0) end
end

-- crawler -----------------------------------------------------------------------------------------

function T.test_crawler()
  local pages = {
    ['/'] = '<a href="a.html">a</a> <A HREF = \'sub/\'>s</A> <a href="#x">x</a> <a href="mailto:a@b.c">m</a>',
    ['/a.html'] = '<a href="/old.html">o</a> <a href="sub/../a.html">self</a> <a href="?q=1&amp;r=2">q</a>',
    ['/sub/'] = '<a href="../a.html">up</a> <a href="deep.html#here">d</a> <a href="//other.invalid/">no</a>',
    ['/sub/deep.html'] = '<a href="http://other.invalid/x">elsewhere</a> <a href="/moved">m</a>',
  }
  local at_once, most, seen = 0, 0, {}
  web.with(function(req, res)
    seen[req.target] = (seen[req.target] or 0) + 1
    at_once = at_once + 1
    most = math.max(most, at_once)
    asio.sleep(0.01)
    at_once = at_once - 1
    if req.path == '/moved' then return res:redirect '/a.html' end
    local page = pages[req.path]
    res:send(page and 200 or 404, { ['Content-Type'] = 'text/html; charset=utf-8' }, page or 'none')
  end, function(port)
    local url = 'http://127.0.0.1:' .. port .. '/'
    local out, status = programs.run_example('crawler', url, 2)
    lu.assertEquals(out, ('404\t%sold.html\tfrom %sa.html\n7 pages, 1 missing\n'):format(url, url))
    lu.assertEquals(status, 0)
    lu.assertEquals({ seen['/old.html'], seen['/a.html?q=1&r=2'], seen['/sub/deep.html'] }, { 1, 1, 1 })
    lu.assertEquals(most, 2)
    out = programs.run_example('crawler', url, 2, 1)
    lu.assertEquals(out, '1 pages, 0 missing\n')
  end)
  local out, status = programs.run_example('crawler', 'ftp://x/')
  lu.assertStrContains(out, 'usage: ')
  lu.assertEquals(status, 2)
end

-- http_load ---------------------------------------------------------------------------------------

function T.test_http_load()
  web.with(function(req, res)
    res:send(req.path == '/' and 200 or 404, ('x'):rep(100))
  end, function(port)
    local url = 'http://127.0.0.1:' .. port
    local out, status = programs.run_example('http_load', url .. '/', 3, 0.5)
    lu.assertEquals(status, 0, out)
    local n = out:match '^(%d+) requests in %d+%.%d s: %d+ a second, %d+%.%d MB of bodies\n'
    lu.assertTrue(tonumber(n) > 0)
    lu.assertStrContains(out, '\nstatus 200: ' .. n .. '\n')
    lu.assertStrContains(out, '\nmilliseconds: 50% ')
    out = programs.run_example('http_load', url .. '/none', 1, 0.1)
    lu.assertStrContains(out, '\nstatus 404: ')
  end)
  local out, status = programs.run_example('http_load', 'nonsense', 2, 0.1)
  lu.assertStrContains(out, 'failed URL: http:// or https:// expected: 2\n')
  lu.assertEquals(status, 1)
end

return T
