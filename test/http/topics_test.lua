-- What a server takes and refuses, topic by topic: methods, targets, versions, connections. Framing, and the
-- rest of what is refused: smuggling_test.
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local web = require 'web'

local T = {}

-- What the handler got for these requests, and the statuses: '200[GET / / 1.1] close'.
local function ask(text)
  local server = assert(web.server(function(req, res)
    local body = req:read_all() or 'none'
    res:send(200, nil, ('[%s %s %s %s]'):format(req.method, req.target, req.path, req.version) .. body)
  end, { idle_timeout = 0.1 }))
  local conn = web.client(server)
  conn:write(text)
  conn:shutdown()
  local all = conn:read_all() or ''
  conn:close()
  server:close()
  local answers = {}
  for answer in (all:gsub('HTTP/1%.1 ', '\1') .. '\1'):gmatch '(%d%d%d [^\1]*)\1?' do
    local status, seen = answer:match '^%d+', answer:match '%b[]' or ''
    answers[#answers + 1] = status .. seen .. (answer:match '\nConnection: ([%a-]+)' or '')
  end
  return table.concat(answers, ' ')
end

local function line(first, lines)
  return first .. '\r\nHost: x\r\n' .. (lines or '') .. '\r\n'
end

local function answers(expected, format, middle)
  for value, answer in pairs(expected) do
    lu.assertEquals(ask(line(format:format(value), middle)), answer, value)
  end
end

function T.test_methods()
  local methods = [[GET POST PUT DELETE OPTIONS PATCH TRACE CONNECT PROPFIND PROPPATCH MKCOL COPY MOVE LOCK
    UNLOCK SEARCH REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK
    UNLINK BIND REBIND UNBIND ACL SOURCE]]
  for method in methods:gmatch '%S+' do
    lu.assertEquals(ask(line(method .. ' /a HTTP/1.1')), ('200[%s /a /a 1.1]'):format(method))
  end
  lu.assertEquals(ask(line 'HEAD /a HTTP/1.1'), '200')
  for _, method in ipairs { 'BREW', 'get', 'Get', 'GETX', 'GE', 'GE T', 'G\0T', 'ANNOUNCE', 'DESCRIBE' } do
    lu.assertEquals(ask(line(method .. ' /a HTTP/1.1')), '400close', method)
  end
  lu.assertEquals(ask 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', '505close')
end

function T.test_targets()
  answers({
    ['/'] = '200[GET / / 1.1]', ['/a?b#c'] = '200[GET /a?b#c /a 1.1]', ['//a'] = '200[GET //a //a 1.1]',
    ['/a#b?c'] = '200[GET /a#b?c /a 1.1]', ['/%00'] = '200[GET /%00 /%00 1.1]',
    ['/..'] = '200[GET /.. /.. 1.1]',
    ['/%zz'] = '200[GET /%zz /%zz 1.1]', ['http://h/p?q'] = '200[GET http://h/p?q /p 1.1]',
    ['http://h'] = '200[GET http://h / 1.1]', ['HTTP://h/p'] = '200[GET HTTP://h/p /p 1.1]',
    ['foo'] = '400close', [''] = '400close', ['/a b'] = '400close', ['/a\127'] = '400close',
    ['/a\1'] = '400close', ['/\195\164'] = '400close', ['host:443'] = '400close', ['?q'] = '400close',
    ['#f'] = '400close', ['/a\tb'] = '400close',
  }, 'GET %s HTTP/1.1')
  lu.assertEquals(ask(line 'OPTIONS * HTTP/1.1'), '200[OPTIONS * * 1.1]')
  lu.assertEquals(ask(line 'CONNECT h:1 HTTP/1.1'), '200[CONNECT h:1 h:1 1.1]')
end

function T.test_versions()
  answers({
    ['HTTP/1.0'] = '200[GET / / 1.0]close', ['HTTP/1.1'] = '200[GET / / 1.1]', ['HTTP/1'] = '505close',
    ['HTTP/11.1'] = '505close', ['HTTP/ 1.1'] = '505close', ['HTTP/1.1x'] = '505close',
    ['HTTPS/1.1'] = '400close', ['http/1.1'] = '400close', ['ICE/1.0'] = '400close',
    ['RTSP/1.0'] = '400close', [''] = '400close',
  }, 'GET / %s')
end

-- Whether a second request is served.
function T.test_connections()
  local function two(version, value)
    local text = line('GET / HTTP/1.' .. version, 'Connection: ' .. value .. '\r\n')
    return ask(text .. line('GET /2 HTTP/1.' .. version))
  end
  for _, value in ipairs { 'close', 'Close', 'keep-alive, close', 'close, keep-alive', 'foo,close', ' close ',
    'close\r\nConnection: keep-alive', 'keep-alive\r\nConnection: close' } do
    lu.assertEquals(two(1, value), '200[GET / / 1.1]close', value)
  end
  for _, value in ipairs { 'keep-alive', 'foo', '', 'clos', 'closex', 'Upgrade\r\nUpgrade: foo' } do
    lu.assertEquals(two(1, value), '200[GET / / 1.1] 200[GET /2 /2 1.1]', value)
  end
  lu.assertEquals(two(0, 'Keep-Alive'), '200[GET / / 1.0]keep-alive 200[GET /2 /2 1.0]close')
  for _, value in ipairs { 'close', 'foo', 'keep-alive, close' } do
    lu.assertEquals(two(0, value), '200[GET / / 1.0]close', value)
  end
end

function T.test_pipelined()
  local post = line('POST /a HTTP/1.1', 'Content-Length: 2\r\n') .. 'ab'
  local put = line('PUT /b HTTP/1.1', 'Transfer-Encoding: chunked\r\n') .. '1\r\nc\r\n0\r\n\r\n'
  local lines = 'Connection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 1\r\n'
  local upgrade = line('POST /c HTTP/1.1', lines) .. 'd'
  local connect = line('CONNECT h:1 HTTP/1.1', 'Content-Length: 1\r\n') .. 'e'
  lu.assertEquals(ask(post .. put .. upgrade .. connect .. line 'GET /d HTTP/1.1'),
    '200[POST /a /a 1.1] 200[PUT /b /b 1.1] 200[POST /c /c 1.1] 200[CONNECT h:1 h:1 1.1] 200[GET /d /d 1.1]')
end

-- The end of the input in each phase.
function T.test_the_end()
  for _, text in ipairs { 'GET', 'GET / HTTP/1.1\r\nHost: x', 'GET / HTTP/1.1\r\nHost: x\r\n' } do
    local server = assert(web.server(function(_, res) res:send 'no' end))
    local conn = web.client(server)
    conn:write(text)
    conn:shutdown()
    lu.assertEquals(conn:read_all(), '', text)
    conn:close()
    server:close()
  end
end

return T
