-- An HTTP server of a test's own, and requests to it: as bytes over a connection, and by curl.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local over_tls = require 'over_tls'
local programs = require 'programs'
local t = require 'support'

local M = {}

--- As http.server on a free port, for connections by over_tls.connect.
function M.server(handler, options)
  if over_tls.on and not (options and options.tls) then
    local with_tls = { tls = over_tls.server_options(), on_tls_error = function() end }
    with_tls.tls.server = nil
    for name, value in pairs(options or {}) do with_tls[name] = value end
    options = with_tls
  end
  return require 'asio.http'.server('127.0.0.1', 0, handler, options)
end

--- Runs fn(port) while a server runs the handler.
function M.with(handler, fn, options)
  local server = assert(M.server(handler, options))
  local _, port = server:address()
  local ok, err = xpcall(fn, debug.traceback, port)
  server:shutdown(5)
  if not ok then error(err, 0) end
end

--- A connection to the server.
function M.connect(port)
  return t.connect('127.0.0.1', port)
end

--- A connection to a server of http.server, whose waits end after a while.
function M.client(server)
  local conn = assert(over_tls.connect(server:address()))
  conn:set_timeout(5 * t.patience)
  return conn
end

--- What the server sends until it closes the connection, which the request has to ask for.
function M.send(port, ...)
  local conn = assert(M.connect(port))
  conn:set_timeout(10 * t.patience)
  conn:write(...)
  local text, message = conn:read_all(64 * 1048576)
  conn:close()
  return assert(text, message)
end

--- A request with a list of headers, a body in pieces, each of which the handler gets as one; the response as
--- status, head, body.
function M.request(port, method, target, headers, pieces)
  local list = { ('%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n'):format(method, target) }
  for name, value in pairs(headers or {}) do list[#list + 1] = ('%s: %s\r\n'):format(name, value) end
  if pieces then list[#list + 1] = 'Transfer-Encoding: chunked\r\n' end
  list[#list + 1] = '\r\n'
  for _, piece in ipairs(pieces or {}) do list[#list + 1] = ('%x\r\n%s\r\n'):format(#piece, piece) end
  if pieces then list[#list + 1] = '0\r\n\r\n' end
  local text = M.send(port, table.concat(list))
  local head, body = text:match '^(.-\r\n)\r\n(.*)$'
  lu.assertNotNil(head, text)
  return tonumber(head:match '^HTTP/1.1 (%d+)'), head, body
end

--- The value of a field of a head.
function M.field(head, name)
  for key, value in head:gmatch '([^\r\n:]+): ([^\r\n]*)' do
    if key:lower() == name:lower() then return value end
  end
end

--- As programs.with_file, for a program that serves HTTP: calls fn(pool, its URL).
function M.with_program(name, line, text, port, fn)
  local pool = require 'asio.http'.pool()
  local ok, err = pcall(programs.with_file, name, line, text, port, function()
    fn(pool, 'http://127.0.0.1:' .. port)
    lu.assertEquals(pool:stats().used, 0)
  end)
  pool:close()
  if not ok then error(err, 0) end
end

-- One process; all that it writes goes to files whose names begin with BASE.
local NGINX = [[
daemon off;
master_process off;
pid BASE.pid;
error_log stderr crit;
events { worker_connections 200; }
http {
  access_log off;
  client_body_temp_path BASE.body;
  proxy_temp_path BASE.proxy;
  fastcgi_temp_path BASE.fastcgi;
  uwsgi_temp_path BASE.uwsgi;
  scgi_temp_path BASE.scgi;
  SETTINGS
}
]]

--- Runs nginx with these settings for http; calls fn(pool, its URL) when it listens on the port.
function M.with_nginx(settings, port, fn)
  local base = t.temporary()
  os.remove(base)
  local text = NGINX:gsub('%u%u%u%u+', { BASE = base, SETTINGS = settings })
  local ok, err = pcall(M.with_program, 'nginx', 'nginx -e stderr -c %s', text, port, fn)
  os.execute(('rm -rf %s.*'):format(base))
  if not ok then error(err, 0) end
end

--- What curl prints, and its exit code.
function M.curl(port, path, options)
  can.run 'curl'
  return programs.run(('curl -sS --path-as-is --max-time 20 %s %s'):format(
    (options or '') .. (over_tls.on and ' -k' or ''),
    t.quote((over_tls.on and 'https' or 'http') .. '://127.0.0.1:' .. port .. path)))
end

return M
