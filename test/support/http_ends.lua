-- Servers for the tests of the HTTP client: each case says byte for byte what they send.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local http = require 'asio.http'
local over_tls = require 'over_tls'

local M = {}

--- The options of a request, with TLS if the switch is on.
function M.options(given)
  if not over_tls.on then return given end
  local opts = { tls = M.tls }
  for name, value in pairs(given or {}) do opts[name] = value end
  return opts
end

M.tls = { verify = false }

-- A pool whose requests have TLS if the switch is on.
local function new_pool(pool_options)
  local pool = http.pool(pool_options)
  if not over_tls.on then return pool end
  for _, name in ipairs { 'get', 'post', 'put', 'head' } do
    local method = pool[name]
    rawset(pool, name, function(self, url, opts) return method(self, url, M.options(opts)) end)
  end
  local request = pool.request
  rawset(pool, 'request', function(self, method, url, opts)
    return request(self, method, url, M.options(opts))
  end)
  return pool
end

-- A body in chunks, decoded.
local function read_chunks(conn)
  local parts = {}
  while true do
    local line = conn:read_line()
    if not line then return nil end
    local n = tonumber(line, 16)
    if n > 0 then parts[#parts + 1] = assert(conn:read(n)) end
    assert(conn:read_line() == '')
    if n == 0 then return table.concat(parts) end
  end
end

--- The head of the next request: method, target, fields by name in lower case, `lines`; nil: no more.
function M.read_head(conn)
  local first = conn:read_line()
  if not first then return nil end
  local request = { fields = {}, lines = { first } }
  request.method, request.target = first:match '^(%S+) (%S+) HTTP/1%.1$'
  assert(request.method, first)
  for line in function() return conn:read_line() end do
    if line == '' then return request end
    request.lines[#request.lines + 1] = line
    local name, value = line:match '^([^:]+): (.*)$'
    request.fields[name:lower()] = value
  end
end

--- The body behind a head; nil: it is cut.
function M.read_body(conn, request)
  if request.fields['transfer-encoding'] == 'chunked' then return read_chunks(conn) end
  return conn:read(tonumber(request.fields['content-length'] or 0))
end

--- The next request with its body.
function M.read_request(conn)
  local request = M.read_head(conn)
  if not request then return nil end
  request.body = M.read_body(conn, request)
  return request.body and request
end

--- An answer with a length.
function M.answer(body, fields, status)
  return ('HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s'):format(
    status or '200 OK', fields or '', #body, body)
end

--- fn(url, pool, server) with a server that runs handler(conn, n) for its connection n. Afterwards nothing
--- of the pool is in use.
function M.raw(handler, fn, pool_options, server_options)
  local n = 0
  local server = assert(over_tls.server('127.0.0.1', 0, function(conn)
    n = n + 1
    handler(conn, n)
    conn:close()
  end, server_options))
  local pool = new_pool(pool_options)
  local _, port = server:address()
  local ok, err = xpcall(fn, function(e)
    return type(e) == 'string' and not e:find('LuaUnit test ', 1, true) and debug.traceback(e, 2) or e
  end, ('%s://127.0.0.1:%d'):format(over_tls.on and 'https' or 'http', port), pool, server)
  local used = pool:stats().used
  pool:close()
  server:close()
  if not ok then error(err, 0) end
  lu.assertEquals(used, 0, 'connections in use')
end

--- The same with a function of each request that returns what is sent; nil: the connection is closed.
function M.scripted(answer, fn, pool_options)
  return M.raw(function(conn, number)
    for request in function() return M.read_request(conn) end do
      local text = answer(request, conn, number)
      if not text or not conn:write(text) then return end
    end
  end, fn, pool_options)
end

return M
