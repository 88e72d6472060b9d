-- The HTTP client with nginx, Node's server, Python's, and tinyproxy between. The odd cases: client_test.lua.
-- test: needs http
-- test: 20 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local http = require 'asio.http'
local can = require 'can'
local certs = require 'certs'
local programs = require 'programs'
local t = require 'support'
local web = require 'web'

local T = {}

-- nginx -----------------------------------------------------------------------------------------

local ROUTES = [[
gzip on;
gzip_types text/plain;
gzip_min_length 100;
default_type text/plain;
server {
  listen 127.0.0.1:%d;
  location /hello { return 200 hello; }
  location /agent { return 200 "$http_user_agent|$http_host"; }
  location /to { return 301 /hello; }
  location /private { return 401 none; }
  location /close { keepalive_timeout 0; return 200 hello; }
  location /upload { client_max_body_size 10m; proxy_pass http://127.0.0.1:%d/sink; }
  location /sink { client_max_body_size 10m; return 200 "$content_length"; }
  location /big { return 200 "%s"; }
}
]]

function T.test_nginx()
  local port = programs.free_port()
  local big = ('abcdefghij'):rep(300)
  web.with_nginx(ROUTES:format(port, port, big), port, function(pool, url)
    for _ = 1, 20 do lu.assertEquals(assert(pool:get(url .. '/hello')).body, 'hello') end
    lu.assertEquals(pool:stats().idle, 1)
    lu.assertEquals(assert(pool:get(url .. '/agent')).body, 'lua-asio|127.0.0.1:' .. port)
    local response = assert(pool:get(url .. '/to'))
    lu.assertEquals(response.body, 'hello')
    lu.assertEquals(response.url, url .. '/hello')
    lu.assertEquals(assert(pool:get(url .. '/private')).status, 401)
    lu.assertEquals(assert(pool:head(url .. '/big', { decompress = false })).length, #big)
    response = assert(pool:get(url .. '/big'))
    if can.has 'zlib' then lu.assertEquals(response.decoded, 'gzip') end
    t.same_bytes(response.body, big)
    response = assert(pool:get(url .. '/big', { decompress = false }))
    lu.assertNil(response.decoded)
    t.same_bytes(response.body, big)
    for _ = 1, 2 do lu.assertEquals(assert(pool:get(url .. '/close')).body, 'hello') end
    local text = ('x'):rep(3000000)
    response = assert(pool:post(url .. '/upload', { body = text }))
    lu.assertEquals(response.body, '3000000')
    response = assert(pool:put(url .. '/upload', { body = text, expect = true }))
    lu.assertEquals(response.body, '3000000')
    lu.assertEquals(assert(pool:post(url .. '/hello', { body = text })).status, 413)
    lu.assertEquals(assert(pool:get(url .. '/hello')).body, 'hello')
  end)
end

function T.test_nginx_over_tls()
  can.need('tls', 'openssl')
  local port = programs.free_port()
  local server = [[server { listen 127.0.0.1:%d ssl;
    ssl_certificate %sserver.pem; ssl_certificate_key %sserver.key;
    location / { return 200 "$scheme $ssl_server_name $ssl_alpn_protocol $connection_requests"; } }]]
  web.with_nginx(server:format(port, certs.dir(), certs.dir()), port, function(pool)
    local url = ('https://localhost:%d/'):format(port)
    local tls = { ca = certs.dir() .. 'ca.pem' }
    for i = 1, 3 do
      lu.assertEquals(assert(pool:get(url, { tls = tls })).body, 'https localhost http/1.1 ' .. i)
    end
    lu.assertEquals(assert(pool:get(url, { tls = { verify = false } })).body, 'https localhost http/1.1 1')
    local response, _, code = pool:get(url)
    lu.assertNil(response)
    lu.assertStrContains(code, 'CERT')
    local plain = assert(pool:get('http://localhost:' .. port .. '/'))
    lu.assertEquals(plain.status, 400)
  end)
end

-- Node ------------------------------------------------------------------------------------------

local NODE = [[
const http = require('http'), zlib = require('zlib');
const text = 'hello '.repeat(10000);
const packed = {
  '/gzip': ['gzip', zlib.gzipSync(text)],
  '/deflate': ['deflate', zlib.deflateSync(text)],
  '/raw': ['deflate', zlib.deflateRawSync(text)],
  '/two': ['gzip', Buffer.concat([zlib.gzipSync(text.slice(0, 7)), zlib.gzipSync(text.slice(7))])],
  '/cut': ['gzip', zlib.gzipSync(text).slice(0, -12)],
  '/damaged': ['gzip', Buffer.from('no gzip at all')],
  '/bomb': ['gzip', zlib.gzipSync(Buffer.alloc(100000000))],
  '/none': ['gzip', Buffer.alloc(0)],
};
const server = http.createServer((req, res) => {
  if (packed[req.url]) {
    res.writeHead(200, { 'Content-Encoding': packed[req.url][0] });
    return res.end(packed[req.url][1]);
  }
  const parts = [];
  req.on('data', (d) => parts.push(d));
  req.on('end', () => {
    const body = Buffer.concat(parts);
    if (req.url == '/echo') return res.end(body);
    res.write(req.method + ' ' + req.url + '\n');
    res.addTrailers({ 'X-Bytes': body.length });
    res.end(JSON.stringify(req.headers));
  });
});
server.keepAliveTimeout = 300;
server.listen(PORT, '127.0.0.1');
]]

local function with_node(fn)
  local port = programs.free_port()
  web.with_program('node', 'node %s', NODE:gsub('PORT', port), port, function(pool, url) fn(url, pool) end)
end

function T.test_node()
  with_node(function(url, pool)
    local body = assert(pool:get(url .. '/a?b', { headers = { ['X-Y'] = 'z' } })).body
    lu.assertStrContains(body, 'GET /a?b\n')
    lu.assertStrContains(body, '"x-y":"z"')
    local text = ('0123456789'):rep(200000)
    t.same_bytes(assert(pool:post(url .. '/echo', { body = text })).body, text)
    local at = 0
    local function source()
      at = at + 1
      return at <= 200 and text:sub(at * 10000 - 9999, at * 10000) or nil
    end
    t.same_bytes(assert(pool:post(url .. '/echo', { body = source })).body, text)
    -- A response is the body of the next request.
    local first = assert(pool:post(url .. '/echo', { body = text, stream = true }))
    t.same_bytes(assert(pool:post(url .. '/echo', { body = first })).body, text)
    lu.assertEquals(pool:stats().idle, 2)
    -- A kept connection that Node closes, which it says nowhere.
    asio.sleep(1.5)
    lu.assertStrContains(assert(pool:post(url .. '/x', { body = 'abc' })).body, 'POST /x')
  end)
end

function T.test_decoding()
  can.need 'zlib'
  with_node(function(url, pool)
    lu.assertEquals(assert(pool:get(url .. '/gzip')).decoded, 'gzip')
    local text = ('hello '):rep(10000)
    for _, target in ipairs { '/gzip', '/deflate', '/raw', '/two' } do
      t.same_bytes(assert(pool:get(url .. target)).body, text)
      local parts = {}
      for piece in assert(pool:get(url .. target, { stream = true })):chunks() do
        lu.assertTrue(#piece <= 32768)
        parts[#parts + 1] = piece
      end
      t.same_bytes(table.concat(parts), text)
    end
    lu.assertEquals(assert(pool:get(url .. '/none')).body, '')
    t.failure('EPROTO', pool:get(url .. '/cut'))
    t.failure('EPROTO', pool:get(url .. '/damaged'))
    t.failure('EMSGSIZE', pool:get(url .. '/bomb'))
    local size = 0
    for piece in assert(pool:get(url .. '/bomb', { stream = true })):chunks() do size = size + #piece end
    lu.assertEquals(size, 100000000)
  end)
end

-- HAProxy ---------------------------------------------------------------------------------------

local HAPROXY = [[
global
  maxconn 50
defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 300ms
  timeout http-keep-alive 200ms
frontend all
  bind 127.0.0.1:PORT
  use_backend gone if { path_beg /gone }
  default_backend node
backend node
  server one 127.0.0.1:NODE
backend gone
  retries 0
  server none 127.0.0.1:1
]]

function T.test_haproxy()
  with_node(function(direct)
    local port = programs.free_port()
    local text = HAPROXY:gsub('PORT', port):gsub('NODE', direct:match '%d+$')
    web.with_program('haproxy', 'haproxy -f %s', text, port, function(pool, url)
      for i = 1, 30 do
        local body = ('x'):rep(i * 1000)
        t.same_bytes(assert(pool:post(url .. '/echo', { body = body })).body, body)
        lu.assertStrContains(assert(pool:get(url .. '/a')).body, 'GET /a')
      end
      lu.assertEquals(pool:stats().idle, 1)
      asio.sleep(0.5) -- it has closed the connection
      lu.assertStrContains(assert(pool:post(url .. '/b', { body = 'abc' })).body, 'POST /b')
      lu.assertEquals(assert(pool:get(url .. '/gone')).status, 503)
      if can.has 'zlib' then
        t.same_bytes(assert(pool:get(url .. '/gzip')).body, ('hello '):rep(10000))
      end
    end)
  end)
end

-- Our own ---------------------------------------------------------------------------------------

function T.test_our_own_server()
  local server = assert(http.server('127.0.0.1', 0, function(req, res)
    if req.path == '/back' then
      for piece in req:chunks() do res:write(piece) end
      return res:finish { ['X-Sum'] = '7' }
    end
    local text = req.method .. ' ' .. (req:query().a or '') .. req:read_all()
    return res:send(200, { ['X-Method'] = req.method }, text)
  end))
  local _, port = server:address()
  local pool, url = http.pool(), 'http://127.0.0.1:' .. port
  lu.assertEquals(assert(pool:get(url, { query = { a = 'ü &' } })).body, 'GET ü &')
  lu.assertEquals(assert(pool:post(url, { body = 'abc' })).body, 'POST abc')
  lu.assertEquals(assert(pool:put(url, { body = 'abc', expect = true })).body, 'PUT abc')
  local head = assert(pool:head(url))
  lu.assertEquals({ head.body, head:header 'x-method' }, { '', 'HEAD' })
  local n = 0
  local response = assert(pool:post(url .. '/back', { stream = true, body = function()
    n = n + 1
    return n <= 100 and ('%03d'):format(n):rep(1000) or nil
  end }))
  local size = 0
  for piece in response:chunks() do size = size + #piece end
  lu.assertEquals(size, 300000)
  lu.assertEquals(response.trailers:get 'x-sum', '7')
  asio.group(function(g)
    for i = 1, 100 do
      g:spawn(function()
        for k = 1, t.count(400) do
          local body = ('%d %d'):format(i, k)
          lu.assertEquals(assert(pool:post(url, { body = body })).body, 'POST ' .. body)
        end
      end)
    end
  end)
  lu.assertEquals(pool:stats().used, 0)
  pool:close()
  server:close()
end

-- Python ----------------------------------------------------------------------------------------

-- HTTP/1.0, and a listing as long as the connection.
function T.test_python()
  local port = programs.free_port()
  local line = ('python3 -m http.server --bind 127.0.0.1 --directory %stest/http %d'):format(
    t.quote(t.root), port)
  web.with_program('python3', line .. ' # %s', '', port, function(pool, url)
    local response = assert(pool:get(url .. '/client_peers_test.lua'))
    lu.assertEquals(response.version, '1.0')
    t.same_bytes(response.body, t.contents(t.root .. 'test/http/client_peers_test.lua'))
    lu.assertStrContains(assert(pool:get(url)).body, 'client_test.lua')
    lu.assertEquals(assert(pool:get(url .. '/none')).status, 404)
    lu.assertEquals(pool:stats().idle, 0)
  end)
end

-- Proxies ---------------------------------------------------------------------------------------

local PROXY = [[
Port %d
Listen 127.0.0.1
Timeout 30
MaxClients 20
BasicAuth user secret
LogLevel Critical
ViaProxyName "between"
]]

local function with_proxy(fn)
  local port = programs.free_port()
  web.with_program('tinyproxy', 'tinyproxy -d -c %s', PROXY:format(port), port, function(pool)
    fn(('http://user:secret@127.0.0.1:%d'):format(port), pool, port)
  end)
end

function T.test_a_proxy_for_http()
  with_proxy(function(proxy, pool, port)
    with_node(function(url)
      local body = assert(pool:get(url .. '/a?b', { proxy = proxy })).body
      lu.assertStrContains(body, 'GET /a?b\n')
      lu.assertStrContains(body:lower(), 'between')
      lu.assertNotStrContains(body:lower(), 'proxy-authorization')
      -- Over a connection of its own: tinyproxy ends them behind a response, and does not say so.
      local posted = assert(http.post(url .. '/echo', { proxy = proxy, body = 'abc', pool = false }))
      t.same_bytes(posted.body, 'abc')
      lu.assertEquals(assert(pool:get(url, { proxy = 'http://127.0.0.1:' .. port })).status, 407)
    end)
  end)
end

function T.test_a_proxy_for_https()
  can.need('tls', 'openssl')
  local port = programs.free_port()
  local server = [[server { listen 127.0.0.1:%d ssl;
    ssl_certificate %sserver.pem; ssl_certificate_key %sserver.key;
    location / { return 200 "$ssl_server_name $connection_requests"; } }]]
  web.with_nginx(server:format(port, certs.dir(), certs.dir()), port, function()
    with_proxy(function(proxy, pool, proxy_port)
      local url = ('https://localhost:%d/'):format(port)
      local tls = { ca = certs.dir() .. 'ca.pem' }
      for i = 1, 2 do
        lu.assertEquals(assert(pool:get(url, { tls = tls, proxy = proxy })).body, 'localhost ' .. i)
      end
      local response, message, code = pool:get(url, { tls = tls, proxy = 'http://127.0.0.1:' .. proxy_port })
      lu.assertNil(response)
      lu.assertStrContains(message, '407')
      lu.assertEquals(code, 'ECONNREFUSED')
      local _, _, failed = pool:get(url, { proxy = proxy }) -- the certificate is not trusted
      lu.assertStrContains(failed, 'CERT')
    end)
  end)
end

-- TLS to the proxy, and in its tunnel TLS to the server.
function T.test_a_proxy_with_tls()
  can.need('tls', 'openssl')
  local dir = certs.dir()
  local identity = { cert = dir .. 'server.pem', key = dir .. 'server.key' }
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    while conn:read_until '\r\n\r\n' do conn:write 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ninside' end
    conn:close()
  end, { tls = identity, on_tls_error = function() end }))
  local proxy = assert(asio.server('127.0.0.1', 0, function(conn)
    local port = conn:read_until '\r\n\r\n':match '^CONNECT localhost:(%d+) HTTP/1%.1\r\n'
    local other = port and assert(asio.connect('127.0.0.1', port))
    if other then
      conn:write 'HTTP/1.1 200 Connection established\r\n\r\n'
      asio.relay(conn, other)
      other:close()
    else
      conn:write 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy'
    end
    conn:close()
  end, { tls = identity, on_tls_error = function() end }))
  local _, port = server:address()
  local _, proxy_port = proxy:address()
  local pool = http.pool()
  local tls = { ca = dir .. 'ca.pem' }
  local opts = { proxy = 'https://localhost:' .. proxy_port, proxy_tls = tls, tls = tls }
  for _ = 1, 2 do
    lu.assertEquals(assert(pool:get(('https://localhost:%d/'):format(port), opts)).body, 'inside')
  end
  lu.assertEquals(pool:stats().idle, 1)
  lu.assertEquals(assert(pool:get('http://localhost:1/', opts)).body, 'proxy')
  opts.proxy_tls = nil
  lu.assertStrContains(select(3, pool:get('http://localhost:1/', opts)), 'CERT')
  lu.assertEquals(pool:stats().used, 0)
  pool:close()
  proxy:close()
  server:close()
end

-- Where requests go, by the environment.
function T.test_proxies_of_the_environment()
  can.need 'shell'
  local requests = {}
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    requests[#requests + 1] = conn:read_line()
    conn:write 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    conn:close()
  end))
  local _, port = server:address()
  local script = t.temporary [[
    local http = require 'asio.http'
    for _, url in ipairs(arg) do assert(http.get(url)) end
  ]]
  local function run(environment, ...)
    requests = {}
    local text, status = programs.run(('env %s %s %s %s'):format(
      environment:gsub('PORT', port), t.quote(t.launcher), script, table.concat({ ... }, ' ')))
    lu.assertEquals(status, 0, text)
    return requests
  end
  local direct = ('http://127.0.0.1:%d/x'):format(port)
  lu.assertEquals(run('http_proxy=127.0.0.1:PORT', 'http://example.org/a'),
    { 'GET http://example.org/a HTTP/1.1' })
  lu.assertEquals(run('HTTP_PROXY=http://127.0.0.1:1', direct), { 'GET /x HTTP/1.1' })
  lu.assertEquals(run('ALL_PROXY=http://127.0.0.1:PORT no_proxy=example.com', 'http://example.org:81/a'),
    { 'GET http://example.org:81/a HTTP/1.1' })
  for _, list in ipairs { '127.0.0.1', 'a,127.0.0.1:PORT', '"*"' } do
    lu.assertEquals(run('http_proxy=http://127.0.0.1:1 NO_PROXY=' .. list, direct), { 'GET /x HTTP/1.1' })
  end
  os.remove(script)
  server:close()
end

return T
