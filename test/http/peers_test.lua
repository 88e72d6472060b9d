-- The server of HTTP with other programs: behind nginx and HAProxy, with PROXY headers and without, our
-- client in front of them; Node's client; curl as HTTP/1.0 and as one that would like HTTP/2; pipelining.
-- test: needs http
-- test: 15 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local programs = require 'programs'
local t = require 'support'
local web = require 'web'

local T = {}

local LARGE = ('0123456789abcdef'):rep(500000) -- 8 MB

-- What all peers talk to: /back sends the body back as it comes, /whole when it is there, /large much, /who
-- where it comes from; else the request is told.
local function handler(req, res)
  if req.path == '/back' then
    res.headers['X-Length'] = tostring(req.length)
    for piece in req:chunks() do assert(res:write(piece)) end
    return res:finish()
  elseif req.path == '/whole' then
    return res:send(200, nil, assert(req:read_all(#LARGE)))
  elseif req.path == '/large' then
    return res:send(200, nil, LARGE)
  elseif req.path == '/who' then
    return res:send((req:peer()))
  end
  local body = req:read_all()
  res:send(200, { ['X-Version'] = req.version }, ('%s %s %s %s'):format(
    req.method, req.target, req:header 'host' or '-', body))
end

-- fn(port of our server) while it runs.
local function with_ours(fn, options) return web.with(handler, fn, options) end

-- The client's address as the server sees it is 127.0.0.9, where it can be.
local function from_nine(opts)
  if can.has 'loopback_net' then opts.connect = { bind = '127.0.0.9' } end
  return opts
end

local NINE = can.has 'loopback_net' and '127.0.0.9' or '127.0.0.1'

-- What holds whatever is between our client and our server.
local function talk_through(pool, url)
  for i = 1, 20 do
    local body = ('x'):rep(i * 500)
    t.same_bytes(assert(pool:post(url .. '/whole', { body = body })).body, body)
  end
  t.same_bytes(assert(pool:get(url .. '/large')).body, LARGE)
  t.same_bytes(assert(pool:post(url .. '/whole', { body = LARGE, timeout = 30 })).body, LARGE)
  local at = 0
  local response = assert(pool:put(url .. '/whole', { stream = true, timeout = 30, body = function()
    at = at + 1
    return at <= 100 and LARGE:sub(at * 50000 - 49999, at * 50000) or nil
  end }))
  local size = 0
  for piece in response:chunks() do size = size + #piece end
  lu.assertEquals(size, 5000000)
  local head = assert(pool:head(url .. '/large'))
  lu.assertEquals({ head.status, head.body, head.length }, { 200, '', #LARGE })
  -- Many at once, over the same few connections between proxy and server.
  asio.group(function(g)
    for i = 1, 20 do
      g:spawn(function()
        for k = 1, 20 do
          local target = ('/n?%d-%d'):format(i, k)
          lu.assertStrContains(assert(pool:get(url .. target)).body, 'GET ' .. target .. ' ')
        end
      end)
    end
  end)
  -- A client that leaves in the middle.
  local cut = assert(pool:get(url .. '/large', { stream = true }))
  assert(cut:read())
  cut:close()
  lu.assertStrContains(assert(pool:get(url .. '/after')).body, 'GET /after')
end

-- nginx -----------------------------------------------------------------------------------------

local NGINX = [[
client_max_body_size 100m;
upstream ours { server 127.0.0.1:OURS; keepalive 4; }
server {
  listen 127.0.0.1:PORT;
  SETTINGS
  location / {
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_pass http://ours;
  }
}
]]

local function behind_nginx(settings, fn)
  with_ours(function(ours)
    local port = programs.free_port()
    local text = NGINX:gsub('%u%u%u%u+', { OURS = ours, PORT = port, SETTINGS = settings })
    web.with_nginx(text, port, fn)
  end, { trust = '127.0.0.1' })
end

function T.test_behind_nginx()
  behind_nginx([[proxy_http_version 1.1; proxy_set_header Connection "";]], function(pool, url)
    talk_through(pool, url)
    lu.assertEquals(assert(pool:get(url .. '/who', from_nine {})).body, NINE)
  end)
end

function T.test_behind_nginx_without_buffers()
  behind_nginx([[proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; proxy_request_buffering off;]], talk_through)
end

-- Its own default: HTTP/1.0, a connection for each request.
function T.test_behind_nginx_with_http_1_0()
  behind_nginx('proxy_http_version 1.0;', function(pool, url)
    talk_through(pool, url)
    lu.assertEquals(assert(pool:get(url .. '/v')):header 'x-version', '1.0')
  end)
end

-- HAProxy ---------------------------------------------------------------------------------------

local HAPROXY = [[
global
  maxconn 200
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  HTTP_REUSE
frontend all
  bind 127.0.0.1:PORT
  default_backend ours
backend ours
  option forwardfor
  server one 127.0.0.1:OURS OPTIONS
]]

local function behind_haproxy(options, server_options, fn, reuse)
  with_ours(function(ours)
    local port = programs.free_port()
    local text = HAPROXY:gsub('%u[%u_]+%f[^%u_]', {
      PORT = port, OURS = ours, OPTIONS = options, HTTP_REUSE = reuse or 'http-reuse always',
    })
    web.with_program('haproxy', 'haproxy -db -f %s', text, port, fn)
  end, server_options)
end

function T.test_behind_haproxy()
  behind_haproxy('', { trust = '127.0.0.1' }, function(pool, url)
    talk_through(pool, url)
    lu.assertEquals(assert(pool:get(url .. '/who', from_nine {})).body, NINE)
  end)
end

function T.test_behind_haproxy_with_proxy_headers()
  for _, version in ipairs { 'send-proxy', 'send-proxy-v2' } do
    behind_haproxy(version, { proxy_protocol = { from = '127.0.0.1' } }, function(pool, url)
      talk_through(pool, url)
      local opts = from_nine { pool = false }
      lu.assertEquals(assert(pool:get(url .. '/who', opts)).body, NINE)
    end, 'http-reuse never')
  end
end

-- Node ------------------------------------------------------------------------------------------

local NODE = [[
const http = require('http'), agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
const large = Buffer.from('0123456789abcdef'.repeat(500000));
function ask(method, path, options, pieces) {
  return new Promise((done, failed) => {
    const parts = [], hints = [];
    const where = { port: PORT, host: '127.0.0.1', method, path, agent, ...options };
    const req = http.request(where, (res) => {
      res.on('data', (d) => parts.push(d));
      res.on('error', failed);
      res.on('end', () => done({ res, hints, body: Buffer.concat(parts) }));
    });
    req.on('information', (info) => hints.push(info.statusCode));
    req.on('error', failed);
    if (options.headers && options.headers.Expect) {
      req.on('continue', () => { hints.push('continue'); req.end(pieces[0]); });
      return req.flushHeaders();
    }
    for (const piece of pieces || []) req.write(piece);
    req.end();
  });
}
function same(a, b, what) {
  if (a !== b && !(Buffer.isBuffer(a) && a.equals(b))) throw new Error(what + ': ' + String(a).slice(0, 200));
}
(async () => {
  for (let i = 0; i < 50; i++) {
    same((await ask('GET', '/n' + i, {})).body.toString().split(' ')[1], '/n' + i, 'GET');
  }
  same((await ask('GET', '/large', {})).body, large, '/large');
  same((await ask('POST', '/back', {}, [large])).body, large, 'chunks');
  const headers = { 'Content-Length': large.length };
  same((await ask('PUT', '/back', { headers }, [large])).body, large, 'a length');
  same((await ask('HEAD', '/large', {})).body.length, 0, 'HEAD');
  const waits = { Expect: '100-continue', 'Content-Length': 5 };
  const expect = await ask('POST', '/back', { headers: waits }, ['hello']);
  same(expect.body.toString(), 'hello', 'expect');
  same(expect.hints.join(), 'continue,100', '100');
  const trailers = await ask('GET', '/trailers', {});
  same(trailers.res.trailers['x-sum'], '7', 'trailers');
  same(trailers.hints.join(), '103', 'hints');
  const all = [];
  for (let i = 0; i < 200; i++) all.push(ask('POST', '/x', {}, ['body ' + i]));
  (await Promise.all(all)).forEach((a, i) => same(a.body.toString().endsWith('body ' + i), true, 'many'));
  agent.destroy();
  console.log('all is well');
})().catch((e) => { console.log(e); process.exit(1); });
]]

function T.test_nodes_client()
  can.run 'node'
  local function more(req, res)
    if req.path ~= '/trailers' then return handler(req, res) end
    res:informational(103, { Link = '</a.css>; rel=preload' })
    res:write 'text'
    res:finish { ['X-Sum'] = '7' }
  end
  web.with(more, function(port)
    local path = t.temporary(NODE:gsub('PORT', port))
    local said, status = programs.run('node ' .. path)
    os.remove(path)
    lu.assertEquals({ said, status }, { 'all is well\n', 0 })
  end)
end

-- curl ------------------------------------------------------------------------------------------

local function curl(words)
  local said, status = programs.run('curl -s -S --noproxy "*" ' .. words)
  lu.assertEquals(status, 0, said)
  return said
end

function T.test_curl_as_http_1_0()
  can.run 'curl'
  with_ours(function(port)
    local url = 'http://127.0.0.1:' .. port
    local said = curl(('--http1.0 -i %s/a %s/b'):format(url, url))
    lu.assertStrContains(said, 'X-Version: 1.0')
    lu.assertStrContains(said, 'GET /b 127.0.0.1')
    lu.assertStrContains(curl(('--http1.0 -H "Connection: keep-alive" -i %s/a'):format(url)),
      'Connection: keep-alive')
    -- Without a length: to the end of the connection, and no chunks.
    said = curl(('--http1.0 -i -d hello %s/back'):format(url))
    lu.assertStrContains(said, '\r\n\r\nhello')
    lu.assertNotStrContains(said, 'Transfer-Encoding')
  end)
end

function T.test_curl_with_large_bodies()
  can.run 'curl'
  with_ours(function(port)
    local path = t.temporary(LARGE)
    local url = 'http://127.0.0.1:' .. port
    for _, words in ipairs { '', '-H "Transfer-Encoding: chunked"', '--http1.0', '-H Expect:' } do
      local line = ('%s -T %s -o %s.back -w "%%{http_code}" %s/back'):format(words, path, path, url)
      lu.assertEquals(curl(line), '200', words)
      t.same_bytes(t.contents(path .. '.back'), LARGE)
    end
    os.remove(path)
    os.remove(path .. '.back')
  end)
end

-- RFC 9113, 3.1: Upgrade to h2c is no more, and a server may ignore it; who begins with HTTP/2 is refused.
function T.test_http_2_without_tls()
  can.run 'curl'
  with_ours(function(port)
    local url = 'http://127.0.0.1:' .. port
    lu.skipIf(not can.works 'curl --version | grep -q HTTP2', 'curl was built without HTTP/2')
    lu.assertEquals(curl(('--http2 -w " %%{http_version} %%{http_code}" %s/a'):format(url)),
      ('GET /a 127.0.0.1:%d  1.1 200'):format(port))
    lu.assertEquals(curl(('--http2 -d hello -w " %%{http_version}" %s/a'):format(url)),
      ('POST /a 127.0.0.1:%d hello 1.1'):format(port))
    local _, status = programs.run('curl -s --noproxy "*" --http2-prior-knowledge ' .. url)
    lu.assertNotEquals(status, 0)
    local answer = web.send(port, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0')
    lu.assertStrMatches(answer, 'HTTP/1%.1 505 .*Connection: close\r\n.*')
  end)
end

-- Pipelining ------------------------------------------------------------------------------------

function T.test_pipelining()
  with_ours(function(port)
    local requests, n = {}, 2000
    for i = 1, n do
      local body = i % 3 == 0 and ('b'):rep(i % 700) or ''
      requests[i] = ('POST /%d HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s'):format(
        i, i == n and 'Connection: close\r\n' or '', #body, body)
    end
    local conn = assert(asio.connect('127.0.0.1', port))
    local writer = asio.spawn(function() return conn:write(table.concat(requests)) end)
    local answers = assert(conn:read_all(64 * 1048576))
    assert(writer:join())
    conn:close()
    local i = 0
    for target in answers:gmatch 'POST /(%d+) x ' do
      i = i + 1
      lu.assertEquals(tonumber(target), i)
    end
    lu.assertEquals(i, n)
  end)
end

-- Nothing is read while a client does not take its answers.
function T.test_pipelining_and_no_reading()
  local served = 0
  web.with(function(_, res)
    served = served + 1
    res:send(200, nil, LARGE:sub(1, 100000))
  end, function(port)
    local conn = assert(asio.connect('127.0.0.1', port))
    local writer = asio.spawn(function()
      return conn:write(('GET / HTTP/1.1\r\nHost: x\r\n\r\n'):rep(5000))
    end)
    asio.sleep(0.3)
    local then_served = served
    lu.assertTrue(then_served < 500, then_served)
    asio.sleep(0.1)
    lu.assertEquals(served, then_served)
    conn:abort()
    writer:cancel()
  end)
end

return T
