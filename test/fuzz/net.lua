-- Operations on servers, datagrams, names, signals, descriptors, and on connections that wild calls share.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local asio = require 'asio'
local numbers = require 'numbers'
local w = require 'fuzz.world'
require 'raw'

local M = {}

local random, pick, chance, call, check = w.random, w.pick, w.chance, w.call, w.check
local moment, moment_or_never, codes = w.moment, w.moment_or_never, w.codes

-- Servers -------------------------------------------------------------------------------------------

local HANDLERS = {
  function(conn) w.keep(conn) end,
  function(conn) conn:close() end,
  function(conn) conn:write(conn:read_some() or 'x') conn:close() end,
  function() error(w.OWN, 0) end,
  function(conn) w.keep(conn) w.act() end,
  function() end,
}

local function some_handler()
  return chance(4) and nil or pick(HANDLERS)
end

-- A certificate with its key, for nothing but this.
local here = debug.getinfo(1, 'S').source:match '^@(.*)net%.lua$'
local identity = io.open(here .. 'identity.pem'):read '*a'

local function server_tls()
  return { cert = identity, handshake_timeout = moment(), verify = chance(4) and 'optional' or false,
    ca = identity, alpn = chance(2) and 'x' or nil,
    names = chance(4) and function()
      if chance(2) then asio.sleep(moment()) end
      if chance(9) then error(w.OWN, 0) end
    end or nil }
end

local function client_tls()
  return { ca = identity, server_name = chance(9) and '127.0.0.2' or 'localhost',
    handshake_timeout = moment(), cert = chance(2) and identity or nil }
end

local OPTIONS = {
  function() return { tls = server_tls(), on_tls_error = chance(2) and w.act or nil } end,
  function() return nil end,
  function() return { max_connections = random(3) } end,
  function() return { backlog = random(3), nodelay = chance(2), keepalive = chance(2) } end,
  function() return { linger = moment(), reuseport = true } end,
  function() return { proxy_protocol = { from = '127.0.0.0/8, ::1, unix', timeout = moment() + 1e-3 } } end,
}

local SERVER = codes('EADDRINUSE', 'EADDRNOTAVAIL', 'EAFNOSUPPORT', 'ENOENT', 'ENOTSUP')

function M.server()
  local choice = random(4)
  local server, message, code
  if choice == 1 then
    server, message, code = call('asio.server', asio.server, 'unix:@', some_handler(),
      chance(3) and { handles = true } or pick(OPTIONS)())
  else
    server, message, code = call('asio.server', asio.server, choice == 2 and '::1' or '127.0.0.1', 0,
      some_handler(), pick(OPTIONS)())
  end
  if not server then return w.check_failure('asio.server', SERVER, message, code) end
  w.keep(server)
end

-- Without a certificate, which a function might have.
local function no_certificate() end

function M.tls_server()
  local opts = { tls = { names = no_certificate, handshake_timeout = moment() } }
  local server, message, code = call('asio.server', asio.server, '127.0.0.1', 0, some_handler(), opts)
  if not server then return w.check_failure('asio.server', SERVER, message, code) end
  w.keep(server)
  local ok
  ok, message, code = call('server.set_tls', server.set_tls, server, opts.tls)
  if not ok then w.check_failure('server.set_tls', codes 'ENOTSUP', message, code) end
end

local CONNECT = codes('ECONNREFUSED', 'ETIMEDOUT', 'ECONNRESET', 'EADDRNOTAVAIL', 'ECANCELED', 'EAGAIN',
  'ENOENT',
  'EPIPE', 'EAFNOSUPPORT', 'ENETUNREACH', 'ECONNABORTED', 'EPROTO', 'EOF', 'ENOTSUP')

function M.connect()
  local server = w.any 'server'
  if not server then return M.server() end
  local host, port, code = call('server.address', server.address, server)
  if not host then return w.check_failure('server.address', codes 'EBADF', port, code) end
  local opts = chance(2) and { timeout = moment(), linger = moment() } or nil
  if chance(3) then opts = { timeout = moment(), tls = client_tls() } end
  local conn, message
  if port then
    if chance(6) and host == '127.0.0.1' then host = 'localhost' end
    conn, message, code = call('asio.connect', asio.connect, host, port, opts)
  else
    conn, message, code = call('asio.connect', asio.connect, host, opts)
  end
  if not conn then return w.check_failure('asio.connect', CONNECT, message, code) end
  w.keep(conn)
  if chance(4) then conn:write 'PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n' end
end

local ACCEPT = codes('ETIMEDOUT', 'ECANCELED', 'EBADF')

function M.accept()
  local server = w.any 'server'
  if not server then return M.server() end
  local ok, conn, message, code = w.try('server.accept', server.accept, server, moment_or_never())
  if not ok then
    if w.is_interrupt(conn) then error(conn, 0) end
    return
  end
  if not conn then return w.check_failure('server.accept', ACCEPT, message, code) end
  w.keep(conn)
end

local SHUTDOWN = codes('ETIMEDOUT', 'ECANCELED')

function M.server_end()
  local server = w.any 'server'
  if not server then return end
  local choice = random(5)
  if choice == 1 then
    call('server.close', server.close, server)
  elseif choice == 2 then
    call('asio.destory_server', asio.destory_server, server)
  else
    local done, message, code = call('server.shutdown', server.shutdown, server, moment_or_never())
    if not done then w.check_failure('server.shutdown', SHUTDOWN, message, code) end
  end
end

-- Connections that anything may happen to -----------------------------------------------------------

function M.conn()
  local a, b, code = call('asio.socketpair', asio.socketpair)
  if not a then return w.check_failure('asio.socketpair', {}, b, code) end
  w.keep(a)
  w.keep(b)
end

local CONN_CALLS = {
  function(c) return 'read', c.read, c, random(2000) end,
  function(c) return 'read_some', c.read_some, c end,
  function(c) return 'read_line', c.read_line, c, math.huge end,
  function(c) return 'read_until', c.read_until, c, 'xy' end,
  function(c) return 'read_all', c.read_all, c end,
  function(c) return 'peek', c.peek, c, random(100) end,
  function(c) return 'write', c.write, c, ('xyz\n'):rep(random(20000)) end,
  function(c) return 'write', c.write, c, 'x', 1, { 'y', { 2 } } end,
  function(c) return 'flush', c.flush, c end,
  function(c) return 'shutdown', c.shutdown, c end,
  function(c) return 'set_timeout', c.set_timeout, c, moment_or_never() end,
  function(c) return 'recv_handle', c.recv_handle, c end,
  function(c) return 'send_handle', c.send_handle, c, w.any 'conn' end,
  function(c) return 'start_tls', c.start_tls, c, { verify = false, handshake_timeout = moment() } end,
}
local CONN = codes('EOF', 'ETIMEDOUT', 'EBADF', 'ECANCELED', 'EBUSY', 'ECONNRESET', 'EPIPE', 'EMSGSIZE',
  'ENOBUFS',
  'ENOTSUP', 'ENOTCONN', 'EMFILE', 'EPROTO', 'ETRUNCATED')

function M.conn_call()
  local conn = w.any 'conn'
  if not conn then return M.conn() end
  local which = pick(CONN_CALLS)
  local function go(name, fn, ...)
    name = 'conn.' .. name
    local ok, result, message, code = w.try(name, fn, ...)
    if not ok then
      if w.is_interrupt(result) then error(result, 0) end
    elseif result == nil then
      w.check_failure(name, CONN, message, code)
    end
  end
  go(which(conn))
end

local function start_tls(conn, tls)
  local ok, result, message, code = w.try('conn.start_tls', conn.start_tls, conn, tls)
  if not ok then
    if w.is_interrupt(result) then error(result, 0) end
  elseif not result and code ~= 'IP_ADDRESS_MISMATCH' then
    w.check_failure('conn.start_tls', CONN, message, code)
  end
end

-- Both ends begin it, while other light threads use them.
function M.start_tls()
  local a, b, code = call('asio.socketpair', asio.socketpair)
  if not a then return w.check_failure('asio.socketpair', {}, b, code) end
  w.keep(a)
  w.keep(b)
  local tls = server_tls()
  tls.server = true
  w.keep(call('asio.spawn', asio.spawn, start_tls, b, tls))
  start_tls(a, client_tls())
  w.try('conn.tls', a.tls, a)
end

function M.set_tls()
  local server = w.any 'server'
  if not server then return M.server() end
  local ok, done, message, code = w.try('server.set_tls', server.set_tls, server, server_tls())
  if ok and not done then w.check_failure('server.set_tls', codes 'ENOTSUP', message, code) end
end

function M.conn_end()
  local conn = w.any 'conn'
  if not conn then return end
  if chance(2) then
    call('conn.abort', conn.abort, conn)
  else
    call('conn.close', conn.close, conn)
  end
end

function M.relay()
  local a, b = w.any 'conn', w.any 'conn'
  if not a or a == b or not chance(2) then return end
  local n, m, code = call('asio.relay', asio.relay, a, b, { timeout = moment() })
  if not n then w.check_failure('asio.relay', nil, m, code) end
end

-- Datagrams -----------------------------------------------------------------------------------------

function M.udp()
  local opts = chance(3) and { recv_queue = random(2000), send_queue = random(2000) } or nil
  local sock, message, code
  if chance(4) then
    sock, message, code = call('asio.udp', asio.udp, opts)
  else
    sock, message, code = call('asio.udp', asio.udp, chance(4) and '::1' or '127.0.0.1', 0, opts)
  end
  if not sock then return w.check_failure('asio.udp', codes('EADDRNOTAVAIL', 'EAFNOSUPPORT'), message,
    code) end
  w.keep(sock)
end

local SEND = codes('EMSGSIZE', 'EDESTADDRREQ', 'EISCONN', 'EAFNOSUPPORT', 'ENETUNREACH', 'EACCES', 'EBADF',
  'ECONNREFUSED', 'ETIMEDOUT', 'ECANCELED', 'EINVAL', 'EPERM', 'EADDRNOTAVAIL', 'ENODEV', 'ENOTCONN')

function M.send_datagram()
  local from, to = w.any 'udp', w.any 'udp'
  if not from or chance(10) then return M.udp() end
  local data = 'dgram:' .. ('d'):rep(random(0, chance(10) and 70000 or 1500))
  local host, port = to:address()
  local ok, message, code
  if from:peer() then
    ok, message, code = call('udp.send', from.send, from, data)
  elseif host and type(port) == 'number' then
    ok, message, code = call('udp.send', from.send, from, data, chance(10) and 'localhost' or host, port)
  else
    return
  end
  if not ok then w.check_failure('udp.send', SEND, message, code) end
end

local RECV = codes('ETIMEDOUT', 'EMSGSIZE', 'EBADF', 'ECANCELED', 'EBUSY', 'ECONNREFUSED', 'EINVAL',
  'ENETUNREACH',
  'EHOSTUNREACH')

function M.recv_datagram()
  local sock = w.any 'udp'
  if not sock then return M.udp() end
  local data, ip, port = call('udp.recv', sock.recv, sock, chance(3) and random(2000) or nil,
    moment_or_never())
  if not data then return w.check_failure('udp.recv', RECV, ip, port) end
  check(type(ip) == 'string' and type(port) == 'number', 'recv: from %s, %s', tostring(ip), tostring(port))
  if data:find '^dgram:' then check(not data:find('[^d]', 7), 'recv: other bytes') end
end

function M.udp_facts()
  local sock, other = w.any 'udp', w.any 'udp'
  if not sock then return M.udp() end
  local choice = random(9)
  if choice == 1 then
    local ok, message, code = call('udp.flush', sock.flush, sock)
    if not ok then w.check_failure('udp.flush', SEND, message, code) end
  elseif choice == 2 then
    local host, port = other:address()
    if type(port) ~= 'number' then return end
    local ok, message, code = call('udp.connect', sock.connect, sock, host, port)
    if not ok then w.check_failure('udp.connect', SEND, message, code) end
  elseif choice == 3 then
    call('udp.set_timeout', sock.set_timeout, sock, moment_or_never(), moment_or_never())
  elseif choice == 4 then
    call('udp.join', sock.join, sock, '224.0.0.251', '127.0.0.1')
    call('udp.leave', sock.leave, sock, '224.0.0.251', '127.0.0.1')
  elseif choice == 5 then
    call('udp.set_multicast_ttl', sock.set_multicast_ttl, sock, random(0, 255))
    call('udp.set_multicast_loop', sock.set_multicast_loop, sock, chance(2))
    call('udp.set_multicast_interface', sock.set_multicast_interface, sock, pick { '127.0.0.1', 'lo' })
  elseif choice == 6 then
    call('udp.set_broadcast', sock.set_broadcast, sock, chance(2))
    call('udp.set_ttl', sock.set_ttl, sock, random(255))
  elseif choice == 7 and chance(2) then
    call('udp.close', sock.close, sock)
  else
    local name = pick { 'address', 'peer', 'fd', 'pending' }
    local a, b, code = call('udp.' .. name, sock[name], sock)
    if a == nil then w.check_failure('udp.' .. name, codes('EBADF', 'ENOTCONN', 'EINVAL'), b, code) end
  end
end

-- Names ---------------------------------------------------------------------------------------------

function M.resolve()
  if not chance(3) then return end
  local host = pick { '127.0.0.1', '::1', 'localhost', 'localhost' }
  local list, message, code = call('asio.resolve', asio.resolve, host, { timeout = moment() * 10 })
  if not list then
    w.check_failure('asio.resolve', codes('ETIMEDOUT', 'EAI_NONAME', 'EAI_NODATA', 'EAI_AGAIN',
      'ECANCELED', 'EAI_FAIL',
      'ENOTSUP'), message, code)
  else
    check(#list > 0, 'no address')
  end
  if chance(4) then call('asio.resolve_cache_clear', asio.resolve_cache_clear) end
end

function M.original_dst()
  local address = '\2\0\0\80\127\0\0\1' .. ('\0'):rep(120)
  check(call('asio.addr_to_str', asio.addr_to_str, address):find('127.0.0.1', 1, true), 'addr_to_str')
end

-- The process ---------------------------------------------------------------------------------------

function M.signal()
  local signal = w.any 'signal'
  if not signal or chance(10) then
    local made, message, code = call('asio.signal', asio.signal, pick { 'SIGWINCH', 'SIGCHLD', 'SIGUSR1' })
    if not made then return w.check_failure('asio.signal', {}, message, code) end
    return w.keep(made)
  end
  local choice = random(6)
  if choice <= 2 then
    ffi.C.kill(ffi.C.getpid(), numbers.SIGWINCH)
  elseif choice == 3 then
    call('signal.close', signal.close, signal)
  elseif choice == 4 then
    call('signal.iter', call('signal.iter', signal.iter, signal))
  else
    local ok, message, code = call('signal.wait', signal.wait, signal, moment_or_never())
    if not ok then w.check_failure('signal.wait', codes('ETIMEDOUT', 'EBADF', 'ECANCELED'), message, code) end
  end
end

local ends, byte = ffi.new 'int[2]', ffi.new 'char[64]'

function M.wait_fd()
  if ends[0] == 0 then
    if ffi.C.pipe(ends) ~= 0 then
      ends[0] = 0
      return
    end
    ffi.C.fcntl(ends[0], 4, ffi.cast('int', numbers.O_NONBLOCK)) -- F_SETFL
    ffi.C.fcntl(ends[1], 4, ffi.cast('int', numbers.O_NONBLOCK))
  end
  if chance(2) then
    ffi.C.write(ends[1], byte, 1)
  else
    local r, message, code = call('asio.wait_fd', asio.wait_fd, ends[random(0, 1)], pick { 'r', 'w', 'rw' },
      moment_or_never())
    if not r then
      w.check_failure('asio.wait_fd', codes('ETIMEDOUT', 'EBUSY', 'EEXIST', 'ECANCELED'), message, code)
    end
    ffi.C.read(ends[0], byte, 64)
  end
end

function M.close_pipe()
  if ends[0] == 0 then return end
  ffi.C.close(ends[0])
  ffi.C.close(ends[1])
  ends[0] = 0
end

M.weights = {
  server = 1, tls_server = 1, connect = 3, accept = 3, server_end = 1, conn = 1, conn_call = 6,
  conn_end = 1, relay = 2, udp = 1, start_tls = 2, set_tls = 1,
  send_datagram = 4, recv_datagram = 4, udp_facts = 3, resolve = 1, original_dst = 1, signal = 2, wait_fd = 2,
}

return M
