-- Forms at random: ./test/luajit test/fuzz/http.lua [SECONDS [SEED]]
--
-- A multipart body, good or mangled, goes to a server in pieces of random sizes, and once more in others;
-- both times it has to be the same form, or refused by the same status. http_fuzz.c tries more, without a
-- server.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local http = require 'asio.http'

local seconds, seed = tonumber(arg[1]) or 5, tonumber(arg[2]) or os.time()
math.randomseed(seed)
local random = math.random

local function pick(list) return list[random(#list)] end

local function mangle(text, tokens)
  for _ = 1, random(0, 4) do
    local at = random(#text + 1)
    local kind = random(4)
    if kind == 1 then
      text = text:sub(1, at - 1) .. string.char(random(0, 255)) .. text:sub(at + 1)
    elseif kind == 2 then
      text = text:sub(1, at - 1) .. pick(tokens) .. text:sub(at)
    elseif kind == 3 then
      text = text:sub(1, at - 1) .. text:sub(at + random(8))
    else
      local from = random(#text + 1)
      text = text:sub(1, at - 1) .. text:sub(from, from + random(12)) .. text:sub(at)
    end
  end
  return text
end

-- Forms -------------------------------------------------------------------------------------------

local FORMS = {
  '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--b--\r\n',
  '--b\r\nContent-Disposition: form-data; name="f"; filename="x.txt"\r\nContent-Type: text/plain\r\n\r\n' ..
    'line\r\n-line\r\n--line\r\n--b\r\ncontent-disposition:form-data;name=c\r\n\r\n\r\n--b--',
  'in front\r\n--b \r\nContent-Disposition: form-data; name="a\\"b"\r\n\r\n\r\n--b-\r\n--b--\r\nbehind',
  '--b--\r\n',
}
local FORM_TOKENS = {
  '\r\n', '\r', '\n', '--b', '--b--', '\r\n--b\r\n', '"', ';', '\\', '\r\n\r\n', 'name=', '\0', ': ',
}

-- The form as text: parts, and the status that the server would give.
local function read_form(req)
  local parts, message, code = req:parts()
  if not parts then return tostring(message) .. code end
  local said = {}
  while true do
    local part
    part, message, code = parts:next()
    if not part then
      said[#said + 1] = tostring(message)
      break
    end
    said[#said + 1] = ('%q %q %d'):format(part.name, tostring(part.filename), part.headers:count())
    local data
    data, message, code = part:read_all()
    said[#said + 1] = ('%q'):format(data or tostring(message))
    if not data then break end
  end
  said[#said + 1] = code or 'whole'
  return table.concat(said, '\n')
end

local speak = http.handler(function(req, res)
  local text = read_form(req)
  res:send(req.refused or 200, nil, text)
end, { max_drain = 100000 })

-- The answer to a form whose body goes in chunks of up to `most` bytes.
local function send(form, most)
  local a, b = asio.socketpair()
  local thread = asio.spawn(speak, b)
  a:write('POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n' ..
    'Content-Type: multipart/form-data; boundary=b\r\n\r\n')
  local at = 1
  while at <= #form do
    local piece = form:sub(at, at + random(most) - 1)
    a:write(('%x\r\n%s\r\n'):format(#piece, piece))
    if random(4) == 1 then asio.yield() end
    at = at + #piece
  end
  a:write '0\r\n\r\n'
  local answer = a:read_all()
  a:close()
  assert(thread:join())
  return assert(answer)
end

local function without_date(answer) return (answer:gsub('\r\nDate: [^\r]*', '')) end

local function form_round()
  local form = mangle(pick(FORMS), FORM_TOKENS)
  local first = without_date(send(form, #form + 1))
  local status = first:match '^HTTP/1%.1 (%d+)'
  assert(status == '200' or status == '400' or status == '413', first)
  for _, most in ipairs { 1, 7 } do
    local other = without_date(send(form, most))
    if other ~= first then error(('%q\n%s\n%s'):format(form, first, other)) end
  end
end

-- Running -----------------------------------------------------------------------------------------

local rounds = 0

asio.run(function()
  local finish = asio.now() + seconds
  while asio.now() < finish do
    form_round()
    rounds = rounds + 1
  end
end)
print(('%d rounds'):format(rounds))
