-- Reads responses of HTTP/1.1 as strictly as RFC 9112 has them: with none of the library's own code.
--
-- SPDX-License-Identifier: MIT

local M = {}

local function read_head(conn)
  local text, message = conn:read_until('\r\n\r\n', 100000)
  if not text then return nil, message end
  local status, rest = (text .. '\r\n'):match '^HTTP/1%.1 (%d%d%d) [^\r\n]*\r\n(.*)$'
  if not status then return nil, 'no status line: ' .. text end
  local headers = {}
  for line in rest:gmatch '(.-)\r\n' do
    local name, value = line:match '^([%w-]+): ([^\r\n]*)$'
    if not name then return nil, 'no header: ' .. line end
    if headers[name:lower()] then return nil, 'twice: ' .. name end
    headers[name:lower()] = value
  end
  return { status = tonumber(status), headers = headers }
end

local function read_chunks(conn)
  local list = {}
  while true do
    local line, message = conn:read_until('\r\n', 1000)
    if not line then return nil, message end
    local size = tonumber(line:match '^%x+$', 16)
    if not size then return nil, 'no size of a chunk: ' .. line end
    if size == 0 then break end
    list[#list + 1], message = conn:read(size)
    if not list[#list] then return nil, message end
    if conn:read(2) ~= '\r\n' then return nil, 'a chunk without its end' end
  end
  repeat
    local line, message = conn:read_until('\r\n', 1000)
    if not line then return nil, message end
  until line == ''
  return table.concat(list)
end

local NO_BODY = { [101] = true, [204] = true, [304] = true }

local function read_body(conn, answer, method)
  local headers = answer.headers
  local length, coding = headers['content-length'], headers['transfer-encoding']
  if length and coding then return nil, 'two lengths' end
  if length and not length:find '^%d+$' then return nil, 'length ' .. length end
  if method == 'HEAD' or NO_BODY[answer.status] then return '' end
  if coding then return read_chunks(conn) end
  if length then
    if length == '0' then return '' end
    return conn:read(tonumber(length))
  end
  if not answer.closes then return nil, 'a body without an end' end
  return conn:read_all(1e7)
end

--- The next response, behind those of 1xx: status, headers (names in lower case), body, and whether it says
--- that the connection ends; or nil and why not.
function M.read(conn, method)
  local answer, message
  repeat
    answer, message = read_head(conn)
    if not answer then return nil, message end
  until answer.status >= 200 or answer.status == 101
  answer.closes = answer.headers.connection == 'close'
  answer.body, message = read_body(conn, answer, method)
  if not answer.body then return nil, message end
  return answer
end

return M
