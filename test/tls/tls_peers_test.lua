-- TLS with the command openssl at the other end, in both roles; STARTTLS. More peers: tls_programs_test.lua.
-- test: 15 s
-- test: needs tls
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local certs = require 'certs'
local ends = require 'tls_ends'
local programs = require 'programs'
local t = require 'support'

local T = {}

local VERSIONS = { ['TLSv1.2'] = '-tls1_2', ['TLSv1.3'] = '-tls1_3' }

local function file(name) return certs.dir() .. name end

-- A server, and OpenSSL's client at it: fn(program, conn, port).
local function with_client(tls, options, fn)
  local conns = {}
  ends.with(ends.identity(tls.name or 'server', tls.options), function(port)
    local line = ('openssl s_client -connect 127.0.0.1:%d -CAfile %s -verify_return_error %s'):format(
      port, file 'ca.pem', options)
    programs.talk(line, function(program)
      local conn = t.wait_until(function() return conns[1] end, 'the handshake', 15)
      fn(program, conn, port)
    end)
    for _, conn in ipairs(conns) do conn:close() end
  end, function(conn) conns[#conns + 1] = conn end)
end

-- OpenSSL's server, to connect to: fn(port, program).
local function with_server(options, fn)
  certs.dir()
  local port = programs.free_port()
  local line = ('openssl s_server -accept 127.0.0.1:%d -cert %s -key %s %s'):format(
    port, file 'server.pem', file 'server.key', options)
  programs.talk(line, function(program)
    program:expect 'ACCEPT'
    fn(port, program)
  end)
end

-- openssl s_client ------------------------------------------------------------------------------

function T.test_s_client()
  for version, option in pairs(VERSIONS) do
    with_client({}, option .. ' -servername localhost -verify_hostname localhost', function(program, conn)
      program:expect 'Verify return code: 0 %(ok%)'
      lu.assertEquals(conn:tls().version, version)
      lu.assertEquals(conn:tls().server_name, 'localhost')
      program:say 'a line\n'
      lu.assertEquals(conn:read_line(), 'a line')
      conn:write 'an answer\n'
      program:expect 'an answer'
      program:eof()
      t.failure('EOF', conn:read(1))
      conn:close()
      lu.assertEquals(select(2, program:wait()), 0)
    end)
  end
end

-- An end in order is told from a peer that has gone.
function T.test_a_client_that_is_killed()
  for _, option in pairs(VERSIONS) do
    with_client({}, option, function(program, conn)
      program:say 'half\n'
      lu.assertEquals(conn:read_line(), 'half')
      program:kill 'KILL'
      t.failure('ETRUNCATED', conn:read_all())
    end)
  end
end

function T.test_a_server_that_closes_or_aborts()
  for _, how in ipairs { 'close', 'abort' } do
    with_client({}, '-tls1_3', function(program, conn)
      program:expect 'Verify return code: 0'
      conn:write 'last words\n'
      conn:flush()
      program:expect 'last words'
      conn[how](conn)
      local text, code = program:wait()
      lu.assertEquals(code == 0, how == 'close', text)
    end)
  end
end

function T.test_names_and_protocols()
  local names = { ['example.org'] = ends.identity 'example' }
  local tls = { options = { alpn = { 'h2', 'http/1.1' }, names = names } }
  local text
  with_client(tls, '-servername example.org -alpn http/1.1,h2', function(program, conn)
    text = program:expect 'Verify return code: 0'
    lu.assertEquals({ conn:tls().alpn, conn:tls().server_name }, { 'h2', 'example.org' })
  end)
  lu.assertStrMatches(text, '.*subject=CN = example\n.*')
  lu.assertStrContains(text, 'ALPN protocol: h2')
  with_client(tls, '-noservername', function(program, conn)
    text = program:expect 'Verify return code: 0'
    lu.assertStrContains(text, 'No ALPN negotiated')
    lu.assertNil(conn:tls().server_name)
  end)
  lu.assertStrMatches(text, '.*subject=CN = server\n.*')
end

function T.test_client_certificates()
  for _, option in pairs(VERSIONS) do
    local tls = { options = { verify = 'require', ca = file 'ca.pem' } }
    local options = ('%s -cert %s -key %s'):format(option, file 'client.pem', file 'client.key')
    with_client(tls, options, function(program, conn)
      lu.assertEquals(conn:tls().peer.subject, 'CN=client')
      local text = program:expect 'Verify return code: 0'
      lu.assertStrContains(text, 'Acceptable client certificate CA names\nCN = ca\n')
    end)
  end
end

function T.test_stapled_responses()
  for name, status in pairs { ocsp = 'good', ocsp_revoked = 'revoked' } do
    local tls = { name = name == 'ocsp' and 'server' or 'revoked', options = { ocsp = file(name .. '.der') } }
    with_client(tls, '-status', function(program)
      local text = program:expect 'Verify return code: 0'
      lu.assertStrContains(text, 'OCSP Response Status: successful')
      lu.assertStrContains(text, 'Cert Status: ' .. status)
    end)
  end
  with_client({}, '-status', function(program) program:expect 'OCSP response: no response sent' end)
end

function T.test_resumption()
  local resumed = {}
  local path = t.temporary()
  ends.with(ends.identity 'server', function(port)
    local client = ('openssl s_client -connect 127.0.0.1:%d -CAfile %s '):format(port, file 'ca.pem')
    local text, code = programs.run(client .. '-tls1_2 -reconnect')
    lu.assertEquals({ code, t.occurrences(text, '\nReused, ') }, { 0, 5 }, text)
    for _, option in pairs(VERSIONS) do
      resumed = {}
      for i = 1, 3 do
        local earlier = i > 1 and '-sess_in ' .. path or ''
        programs.talk(('%s %s -sess_out %s %s'):format(client, option, path, earlier), function(program)
          program:say 'x\n'
          program:expect '\nback' -- by then it has the tickets
          program:eof()
          program:wait()
        end)
      end
      lu.assertEquals(resumed, { false, true, true })
    end
  end, function(conn)
    local info = conn:tls()
    if conn:read_line() then
      resumed[#resumed + 1] = info.resumed
      conn:write 'back\n'
      conn:read_all()
    end
    conn:close()
  end)
  os.remove(path)
end

function T.test_key_updates_of_a_client()
  with_client({}, '-tls1_3', function(program, conn)
    program:expect 'Verify return code: 0'
    for i, letter in ipairs { 'K', 'k', 'K' } do
      program:say(letter .. '\n')
      t.wait_until(function() return t.occurrences(program:text(), 'KEYUPDATE') == i end, 'key update')
      program:say(i .. '\n')
      lu.assertEquals(conn:read_line(), tostring(i))
      conn:write('reply ', i, '\n')
      program:expect('reply ' .. i)
    end
  end)
end

-- Without a byte for the script in between they have an end.
function T.test_key_updates_without_end()
  with_client({}, '-tls1_3', function(program, conn)
    program:expect 'Verify return code: 0'
    local reader = asio.spawn(conn.read, conn, 1)
    for i = 1, 80 do
      program:say 'K\n'
      t.wait_until(function()
        return t.occurrences(program:text(), 'KEYUPDATE') == i or reader:status() == 'done'
      end, 'key update')
      if reader:status() == 'done' then break end
    end
    lu.assertEquals({ reader:join() }, { true, nil, 'protocol error', 'EPROTO' })
  end)
end

function T.test_renegotiation_is_refused()
  with_client({}, '-tls1_2', function(program, conn)
    program:expect 'Verify return code: 0'
    program:say 'R\n'
    local text = program:expect 'no renegotiation'
    lu.assertStrContains(text, 'RENEGOTIATING')
    lu.assertNil((conn:read(1)))
  end)
end

-- openssl s_server ------------------------------------------------------------------------------

function T.test_s_server()
  for version, option in pairs(VERSIONS) do
    with_server(option .. ' -rev -alpn h2', function(port)
      local client = ends.trust { alpn = { 'h2' } }
      for i = 1, 3 do
        local conn = assert(ends.connect(port, client, 'localhost'))
        conn:write 'desrever\n'
        lu.assertEquals(conn:read_line(), 'reversed')
        local info = conn:tls()
        lu.assertEquals({ info.version, info.alpn, info.resumed }, { version, 'h2', i > 1 })
        conn:close()
      end
    end)
  end
end

function T.test_s_server_demands_a_certificate()
  for _, option in pairs(VERSIONS) do
    with_server(option .. ' -rev -Verify 1 -verify_return_error -CAfile ' .. file 'ca.pem', function(port)
      local conn = assert(ends.connect(port, ends.identity('client', ends.trust())))
      conn:write 'x\n'
      lu.assertEquals(conn:read_line(), 'x')
      conn:close()
      for _, options in ipairs { ends.trust(), ends.identity('client2', ends.trust()) } do
        local other, message, code = ends.connect(port, options)
        if other then -- TLS 1.3: a client is done before the server has looked at its certificate
          _, message, code = other:read(1)
          other:close()
        end
        lu.assertEquals(code, 'EPROTO', message)
      end
    end)
  end
end

function T.test_the_ends_of_s_server()
  for _, option in pairs(VERSIONS) do
    with_server(option .. ' -rev', function(port)
      local conn = assert(ends.connect(port, ends.trust()))
      conn:write 'CLOSE\n'
      t.failure('EOF', conn:read(1))
      conn:close()
    end)
    with_server(option, function(port, program)
      local conn = assert(ends.connect(port, ends.trust()))
      conn:write 'to the server\n'
      program:expect 'to the server'
      program:say 'from the server\n'
      lu.assertEquals(conn:read_line(), 'from the server')
      program:kill 'KILL'
      t.failure('ETRUNCATED', conn:read(1))
      conn:close()
    end)
  end
end

-- Half-closed: what the peer still has to say arrives, and its end.
function T.test_a_half_close()
  for _, option in pairs(VERSIONS) do
    with_server(option .. ' -rev', function(port)
      local conn = assert(ends.connect(port, ends.trust()))
      conn:write 'abc\n'
      lu.assertTrue((conn:shutdown()))
      lu.assertEquals(conn:read_line(), 'cba')
      t.failure('EOF', conn:read(1))
      t.failure('EPIPE', conn:write 'x')
      conn:close()
    end)
  end
end

function T.test_key_updates_of_a_server()
  with_server('-tls1_3', function(port, program)
    local conn = assert(ends.connect(port, ends.trust()))
    for i, letter in ipairs { 'K', 'k', 'K' } do
      program:say(letter .. '\n')
      conn:write('to ', i, '\n')
      program:expect('to ' .. i)
      program:say(('from %d\n'):format(i))
      lu.assertEquals(conn:read_line(), 'from ' .. i)
    end
    conn:close()
  end)
end

function T.test_renegotiation_of_a_server_is_refused()
  with_server('-tls1_2', function(port, program)
    local conn = assert(ends.connect(port, ends.trust()))
    conn:write 'x\n'
    program:expect 'x\n'
    program:say 'r\n'
    local data = conn:read(1)
    lu.assertNil(data)
    conn:close()
  end)
end

-- STARTTLS --------------------------------------------------------------------------------------

-- As much of SMTP as a client needs that goes over to TLS and says QUIT. Returns what start_tls has returned.
local function speak_smtp(conn)
  conn:write '220 localhost ESMTP\r\n'
  while true do
    local line, _, code = conn:read_line()
    if not line then return nil, 'the client has gone', code end
    local verb = line:match '^%S*'
    if verb == 'EHLO' then
      conn:write('250-localhost\r\n250 ', conn:tls() and 'HELP' or 'STARTTLS', '\r\n')
    elseif verb == 'STARTTLS' then
      conn:write '220 go ahead\r\n'
      local ok, message, its_code = conn:start_tls(ends.identity('server', { server = true }))
      if not ok then return nil, message, its_code end
    elseif verb == 'QUIT' then
      conn:write '221 bye\r\n'
      conn:close()
      return true
    else
      conn:write '502 what\r\n'
    end
  end
end

local function with_smtp(fn)
  local result
  local server = assert(asio.server('127.0.0.1', 0, function(conn) result = { speak_smtp(conn) } end))
  local _, port = server:address()
  fn(port, function() return t.wait_until(function() return result end) end)
  server:close()
end

function T.test_starttls()
  for _, option in pairs(VERSIONS) do
    with_smtp(function(port, result)
      local line = ('openssl s_client -starttls smtp -connect 127.0.0.1:%d -CAfile %s -crlf %s'):format(
        port, file 'ca.pem', option)
      programs.talk(line, function(program)
        program:expect 'Verify return code: 0'
        program:say 'EHLO again\n'
        program:expect '250 HELP'
        program:say 'NOOP\n'
        program:expect '502'
        program:eof()
        program:wait()
      end)
      lu.assertEquals(result()[3], 'EOF')
    end)
  end
end

-- One port for clients with and without TLS: the first byte tells.
function T.test_a_peeked_hello()
  certs.dir()
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    local first = conn:peek(1)
    local tls = ends.identity('server', { server = true, peeked = true })
    if first == '\22' then assert(conn:start_tls(tls)) end
    conn:write(conn:tls() and 'safe ' or 'open ', conn:read_line() or '', '\n')
    conn:close()
  end))
  local _, port = server:address()
  local open = assert(asio.connect('127.0.0.1', port))
  open:write 'hello\n'
  lu.assertEquals(open:read_line(), 'open hello')
  open:close()
  for _, option in pairs(VERSIONS) do
    local line = ('openssl s_client -connect 127.0.0.1:%d -CAfile %s -verify_return_error %s'):format(
      port, file 'ca.pem', option)
    programs.talk(line, function(program)
      program:say 'hello\n'
      program:expect 'safe hello'
    end)
  end
  server:close()
end

-- What was sent in clear behind the command must not count as sent under TLS (CVE-2011-0411).
function T.test_commands_in_clear_are_not_taken_over()
  with_smtp(function(port, result)
    local conn = assert(asio.connect('127.0.0.1', port))
    conn:write 'EHLO x\r\nSTARTTLS\r\nNOOP\r\n'
    t.failure('EPROTO', unpack(result(), 1, 3))
    conn:read_all()
    conn:close()
  end)
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:read_line()
    conn:write '220 go ahead\r\n250 injected\r\n'
    conn:read_all()
    conn:close()
  end))
  local conn = assert(asio.connect(server:address()))
  conn:write 'STARTTLS\r\n'
  conn:read_line()
  t.failure('EPROTO', conn:start_tls(ends.trust { server_name = 'localhost' }))
  t.failure('EBADF', conn:write 'x')
  server:close()
end

return T
