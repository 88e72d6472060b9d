-- Both ends of TLS connections, for the tests of TLS.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local certs = require 'certs'
local t = require 'support'

local M = {}

--- The option `tls` of a server that has this certificate of the zoo; further options go in.
function M.identity(name, options)
  local dir = certs.dir()
  options = options or {}
  options.cert, options.key = dir .. name .. '.pem', options.key or dir .. name .. '.key'
  return options
end

--- The option `tls` of a client that trusts the zoo's authority `ca`; further options go in.
function M.trust(options)
  options = options or {}
  if options.ca == nil then options.ca = certs.dir() .. 'ca.pem' end
  return options
end

local function echo(conn)
  local data = conn:read_some()
  while data do
    conn:write(data)
    data = conn:read_some()
  end
  conn:close()
end

--- Runs fn(port, errors, server) with a server of the option `tls`, whose handler echoes if none is given.
--- errors: what on_tls_error gets, { info, message, code } each. More options of the server: `options`.
function M.with(tls, fn, handler, options)
  local errors = {}
  options = options or {}
  local ip = options.ip or '127.0.0.1'
  options.ip, options.tls = nil, tls
  options.on_tls_error = function(info, message, code) errors[#errors + 1] = { info, message, code } end
  local server = assert(asio.server(ip, 0, handler or echo, options))
  local _, port = server:address()
  local ok, err = xpcall(fn, function(e)
    return type(e) == 'string' and not e:find('LuaUnit test ', 1, true) and debug.traceback(e, 2) or e
  end, port, errors, server)
  server:close()
  if not ok then error(err, 0) end
end

--- Connects, and returns what connect does.
function M.connect(port, tls, host)
  return asio.connect(host or '127.0.0.1', port, { tls = tls })
end

--- One line there and back; the peer's TLS.
function M.echoed(conn)
  conn:write 'hello\n'
  lu.assertEquals(conn:read_line(), 'hello')
  return assert(conn:tls())
end

--- Connects, says something, and closes; returns what `tls` has told.
function M.visit(port, tls, host)
  local conn, message, code = M.connect(port, tls, host)
  lu.assertNotNil(conn, ('%s: %s'):format(code, message))
  local info = M.echoed(conn)
  conn:close()
  return info
end

--- Connects, and is refused, at the latest when it reads: in TLS 1.3 a client is done
--- before the server has looked at its certificate. Returns the reason in words.
function M.refused(port, tls)
  local conn, message, code = M.connect(port, tls)
  lu.assertEquals(code, not conn and 'EPROTO' or nil)
  if not conn then return message end
  conn:write 'x'
  lu.assertNil((conn:read(1)))
  local failure = conn:tls().failure
  conn:close()
  return failure
end

--- How many light threads wait for a handshake.
function M.handshakes()
  local count = 0
  for _, thread in ipairs(asio.threads()) do
    if thread.wait == 'handshake' then count = count + 1 end
  end
  return count
end

--- Waits until one does.
function M.in_handshake()
  t.wait_until(function() return M.handshakes() > 0 end, 'a handshake')
end

--- Waits until the server has told of an error; returns its message, code, info, and takes it away.
function M.error_of(errors)
  t.wait_until(function() return errors[1] end, 'on_tls_error')
  local info, message, code = unpack(table.remove(errors, 1))
  return message, code, info
end

return M
