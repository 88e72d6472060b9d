-- TLS with curl, GnuTLS, stunnel and HAProxy at the other end, in both roles, with bulk both ways.
-- test: 12 s
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local certs = require 'certs'
local ends = require 'tls_ends'
local programs = require 'programs'
local t = require 'support'

local T = {}

local BULK = ('0123456789abcdef'):rep(65536)

local function file(name) return certs.dir() .. name end

-- A mebibyte each way at the same time, to what sends all back.
local function exchange(conn)
  local writer = asio.spawn(function()
    assert(conn:write(BULK))
    assert(conn:flush())
  end)
  t.same_bytes(conn:read(#BULK), BULK)
  assert(writer:join())
end

local function echo(conn)
  local data = conn:read_some()
  while data and conn:write(data) do data = conn:read_some() end
  conn:close()
end

local function plain_server(handler, options)
  local server = assert(asio.server('127.0.0.1', 0, handler, options))
  return server, select(2, server:address())
end

-- curl ------------------------------------------------------------------------------------------

-- As much of HTTP as curl needs: sends back what was posted, else `hello`.
local function serve_http(conn)
  local head = conn:read_until('\r\n\r\n')
  if not head then return conn:close() end
  local length = tonumber(head:match '[Cc]ontent%-[Ll]ength: (%d+)')
  local body = length and conn:read(length) or 'hello'
  conn:write('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ', #body, '\r\n\r\n', body)
  conn:close()
end

local function curl(port, options, host)
  can.run 'curl'
  local text, code = programs.run(('curl -sS --max-time 20 %s https://%s:%d/'):format(
    options, host or 'localhost', port))
  return code, text
end

function T.test_curl()
  ends.with(ends.identity('server', { alpn = { 'http/1.1' } }), function(port, errors)
    local trusted = '--cacert ' .. file 'ca.pem '
    for _, host in ipairs { 'localhost', '127.0.0.1' } do
      for _, version in ipairs { '--tls-max 1.2', '--tlsv1.3' } do
        lu.assertEquals({ curl(port, trusted .. version, host) }, { 0, 'hello' })
      end
    end
    lu.assertEquals({ curl(port, '-k') }, { 0, 'hello' })
    lu.assertEquals((curl(port, trusted .. '--tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0')), 35)
    ends.error_of(errors)
    for _, options in ipairs { '', '--cacert ' .. file 'other_ca.pem' } do
      local code = curl(port, options)
      lu.assertTrue(code == 60 or options == '' and code == 77, code) -- 77: the system trusts no authority
      if code == 60 then lu.assertStrContains(ends.error_of(errors), 'the peer refuses: ') end
    end
    local bulk, got = t.temporary(BULK), t.temporary()
    local posted = ('-H Expect: --data-binary @%s -o %s'):format(bulk, got)
    lu.assertEquals({ curl(port, trusted .. posted) }, { 0, '' })
    t.same_bytes(t.contents(got), BULK)
    os.remove(bulk)
    os.remove(got)
  end, serve_http)
end

function T.test_curl_with_a_certificate()
  ends.with(ends.identity('server', { verify = 'require', ca = file 'ca.pem' }), function(port, errors)
    local options = '--cacert ' .. file 'ca.pem'
    lu.assertNotEquals((curl(port, options)), 0)
    ends.error_of(errors)
    options = ('%s --cert %s --key %s'):format(options, file 'client.pem', file 'encrypted.key')
    lu.assertEquals({ curl(port, options .. ' --pass secret') }, { 0, 'CN=client' })
  end, function(conn)
    conn:read_until '\r\n\r\n'
    local body = conn:tls().peer.subject
    conn:write('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ', #body, '\r\n\r\n', body)
    conn:close()
  end)
end

-- A body without a length ends with the connection: curl knows whether that was in order.
function T.test_curl_sees_the_end()
  for _, how in ipairs { 'close', 'abort' } do
    ends.with(ends.identity 'server', function(port)
      local code = curl(port, '--cacert ' .. file 'ca.pem')
      lu.assertEquals(code == 0, how == 'close', code)
    end, function(conn)
      conn:read_until '\r\n\r\n'
      conn:write 'HTTP/1.0 200 OK\r\n\r\nhalf'
      conn:flush()
      if how == 'abort' then asio.sleep(0.05) end
      conn[how](conn)
    end)
  end
end

-- GnuTLS ----------------------------------------------------------------------------------------

local PRIORITIES = {
  ['TLSv1.2'] = 'NORMAL:-VERS-ALL:+VERS-TLS1.2', ['TLSv1.3'] = 'NORMAL:-VERS-ALL:+VERS-TLS1.3',
}

local function gnutls_client(port, options)
  local name = '--sni-hostname localhost --verify-hostname localhost'
  return ('gnutls-cli --x509cafile %s --port %d %s %s 127.0.0.1'):format(file 'ca.pem', port, name, options)
end

function T.test_gnutls_cli()
  can.run 'gnutls-cli'
  for version, priority in pairs(PRIORITIES) do
    local told, ended
    ends.with(ends.identity('server', { alpn = { 'h2' } }), function(port)
      local options = ('--priority %s --alpn h2'):format(priority)
      programs.talk(gnutls_client(port, options), function(program)
        local text = program:expect 'Simple Client Mode'
        lu.assertStrContains(text, 'The certificate is trusted')
        lu.assertStrContains(text, 'Application protocol: h2')
        program:say 'to and fro\n'
        program:expect '\nto and fro'
        lu.assertEquals({ told.version, told.alpn, told.server_name }, { version, 'h2', 'localhost' })
        program:eof()
        lu.assertEquals(select(2, program:wait()), 0)
      end)
      t.wait_until(function() return ended end)
      lu.assertEquals(ended, 'EOF')
    end, function(conn)
      told = conn:tls()
      conn:write(conn:read_line() or '', '\n')
      ended = select(3, conn:read(1))
      conn:close()
    end)
  end
end

function T.test_gnutls_cli_resumes()
  can.run 'gnutls-cli'
  for _, priority in pairs(PRIORITIES) do
    local resumed = {}
    ends.with(ends.identity 'server', function(port)
      local options = '--resume --waitresumption --priority ' .. priority
      programs.talk(gnutls_client(port, options), function(program)
        program:expect 'Resume.*Simple Client Mode'
        lu.assertStrContains(program:text(), 'This is a resumed session')
        program:eof()
        program:wait()
      end)
      lu.assertEquals({ resumed[1], resumed[#resumed] }, { false, true })
    end, function(conn)
      resumed[#resumed + 1] = conn:tls().resumed
      echo(conn)
    end)
  end
end

-- Its commands within lines: new keys in TLS 1.3, a new handshake in TLS 1.2, which is refused.
function T.test_gnutls_cli_and_new_keys()
  can.run 'gnutls-cli'
  ends.with(ends.identity 'server', function(port)
    local options = '--inline-commands --priority ' .. PRIORITIES['TLSv1.3']
    programs.talk(gnutls_client(port, options), function(program)
      program:expect 'Simple Client Mode'
      for i = 1, 3 do
        program:say '^rekey^\n'
        program:say(('line %d\n'):format(i))
        program:expect(('\nline %d'):format(i))
      end
    end)
  end)
end

-- It asks again and again: that has an end.
function T.test_gnutls_cli_gets_no_new_handshake()
  can.run 'gnutls-cli'
  local ended
  ends.with(ends.identity 'server', function(port)
    local options = '--inline-commands --priority ' .. PRIORITIES['TLSv1.2']
    programs.talk(gnutls_client(port, options), function(program)
      program:expect 'Simple Client Mode'
      program:say '^renegotiate^\n'
      program:expect 'No renegotiation is allowed'
      t.wait_until(function() return ended end)
      lu.assertEquals(ended, 'EPROTO')
      lu.assertTrue(t.occurrences(program:text(), 'No renegotiation is allowed') < 20)
    end)
  end, function(conn)
    ended = select(3, conn:read(1))
    conn:close()
  end)
end

function T.test_gnutls_serv()
  can.run 'gnutls-serv'
  for version, priority in pairs(PRIORITIES) do
    local port = programs.free_port()
    local line = ('gnutls-serv --echo --port %d --x509certfile %s --x509keyfile %s --x509cafile %s '
      .. '--require-client-cert --priority %s'):format(
      port, file 'server.pem', file 'server.key', file 'ca.pem', priority)
    programs.talk(line, function(program)
      program:expect 'listening on[^\n]*done'
      for i = 1, 2 do
        local conn = assert(ends.connect(port, ends.identity('client', ends.trust()), 'localhost'))
        for k = 1, 100 do
          local line_k = ('%d '):format(k):rep(250)
          conn:write(line_k, '\n')
          lu.assertEquals(conn:read_line(), line_k)
        end
        lu.assertEquals({ conn:tls().version, conn:tls().resumed }, { version, i > 1 })
        conn:close()
      end
    end)
  end
end

-- stunnel ---------------------------------------------------------------------------------------

local function with_stunnel(service, fn)
  can.run 'stunnel'
  local port = programs.free_port()
  local head = 'foreground = yes\npid =\nsyslog = no\n[service]\naccept = 127.0.0.1:%d\n'
  local path = t.temporary(head:format(port) .. service)
  local ok, err = pcall(programs.talk, 'stunnel ' .. path, function(program)
    program:expect 'Configuration successful'
    fn(port, program)
  end)
  os.remove(path)
  if not ok then error(err, 0) end
end

function T.test_behind_stunnel()
  local server, behind = plain_server(echo)
  local service = ('connect = 127.0.0.1:%d\ncert = %s\nkey = %s\n'):format(
    behind, file 'server.pem', file 'server.key')
  for version in pairs(PRIORITIES) do
    with_stunnel(service .. 'sslVersion = ' .. version, function(port)
      for i = 1, 2 do
        local conn = assert(ends.connect(port, ends.trust(), 'localhost'))
        exchange(conn)
        lu.assertEquals({ conn:tls().version, conn:tls().resumed }, { version, i > 1 })
        conn:close()
      end
    end)
  end
  server:close()
end

function T.test_before_stunnel()
  local told, ended
  ends.with(ends.identity('server', { verify = 'require', ca = file 'ca.pem' }), function(behind)
    local service = ('client = yes\nconnect = 127.0.0.1:%d\nCAfile = %s\nverifyChain = yes\n'
      .. 'checkHost = localhost\nsni = localhost\ncert = %s\nkey = %s\n'):format(
      behind, file 'ca.pem', file 'client.pem', file 'client.key')
    for version in pairs(PRIORITIES) do
      with_stunnel(service .. 'sslVersion = ' .. version, function(port)
        local conn = assert(asio.connect('127.0.0.1', port))
        exchange(conn)
        lu.assertEquals({ told.version, told.server_name }, { version, 'localhost' })
        lu.assertEquals(told.peer.subject, 'CN=client')
        ended = nil
        conn:close()
        t.wait_until(function() return ended end)
        lu.assertEquals(ended, 'EOF')
      end)
    end
  end, function(conn)
    told = conn:tls()
    conn:write(conn:read(#BULK) or '')
    ended = select(3, conn:read(1))
    conn:close()
  end)
end

-- HAProxy ---------------------------------------------------------------------------------------

local HAPROXY = [[
global
  maxconn 100
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 20s
  timeout server 20s
listen one
  bind 127.0.0.1:%d %s
  server s 127.0.0.1:%d %s
]]

local function with_haproxy(before, behind, after, fn)
  local port = programs.free_port()
  local text = HAPROXY:format(port, before, behind, after)
  programs.with_file('haproxy', 'haproxy -db -f %s', text, port, function(program) fn(port, program) end)
end

function T.test_behind_haproxy()
  local server, behind = plain_server(echo)
  local before = ('ssl crt %s alpn h2,http/1.1'):format(file 'combined.pem')
  for version in pairs(PRIORITIES) do
    local only = (' ssl-min-ver %s ssl-max-ver %s'):format(version, version)
    with_haproxy(before .. only, behind, '', function(port)
      for i = 1, 2 do
        local conn = assert(ends.connect(port, ends.trust { alpn = { 'http/1.1' } }, 'localhost'))
        exchange(conn)
        local info = conn:tls()
        lu.assertEquals({ info.version, info.alpn, info.resumed }, { version, 'http/1.1', i > 1 })
        conn:close()
      end
    end)
  end
  server:close()
end

-- With and without the header that tells of the client, which comes before the handshake.
function T.test_before_haproxy()
  for _, header in ipairs { '', 'send-proxy', 'send-proxy-v2' } do
    local told, peer
    local options = { proxy_protocol = header ~= '' and { from = '127.0.0.1' } or nil }
    local tls = ends.identity('server', { verify = 'require', ca = file 'ca.pem' })
    ends.with(tls, function(behind)
      local client = t.temporary(t.contents(file 'client.pem') .. t.contents(file 'client.key'))
      local after = 'ssl verify required ca-file %s verifyhost localhost sni str(localhost) crt %s %s'
      after = after:format(file 'ca.pem', client, header)
      with_haproxy('', behind, after, function(port)
        for i = 1, 2 do
          told = nil
          local conn = assert(asio.connect('127.0.0.1', port))
          exchange(conn)
          lu.assertEquals({ told.server_name, told.peer.subject }, { 'localhost', 'CN=client' })
          if i > 1 then lu.assertTrue(told.resumed) end
          local address, own = conn:address()
          if header ~= '' then lu.assertEquals(peer, { address, own }) end
          conn:close()
        end
      end)
      os.remove(client)
    end, function(conn)
      -- Else it is that of programs.listening.
      if conn:peek(1) then told, peer = conn:tls(), { conn:peer() } end
      echo(conn)
    end, options)
  end
end

-- The names of a server behind HAProxy that only looks at the name, and passes bytes on.
function T.test_haproxy_routes_by_name()
  local names = { ['example.org'] = ends.identity 'example' }
  ends.with(ends.identity('server', { names = names }), function(behind)
    with_haproxy('', behind, '', function(port)
      local conn = assert(ends.connect(port, ends.trust { server_name = 'example.org' }))
      exchange(conn)
      lu.assertEquals(conn:tls().peer.subject, 'CN=example')
      conn:close()
    end)
  end)
end

return T
