-- Two targets of test/fuzz/http_fuzz.c: what src/plugins/http has in Lua for forms and URLs, without a
-- connection. Called with the root of the sources and number(n), which gives a random number below n; returns
-- the targets by their names: functions that take an input and raise an error if something does not hold.
--
-- SPDX-License-Identifier: MIT

local root, number = ...
local concat = table.concat

local function misuse(...) error('misuse: ' .. concat({ ... }, ' '), 2) end

local c = { bad = misuse, misuse = misuse } -- what the files share
for _, name in ipairs { 'escape', 'url', 'multipart', 'form' } do
  assert(loadfile(root .. 'src/plugins/http/' .. name .. '.lua'))({}, c, {})
end

local function check(holds, what, ...)
  if holds then return end
  local said = {}
  for i = 1, select('#', ...) do said[i] = ('%q'):format(tostring((select(i, ...)))):sub(1, 400) end
  error(what .. '\n' .. concat(said, '\n'), 2)
end

local M = {}

-- Forms -------------------------------------------------------------------------------------------

local HEAD_OF_A_PART = 8192 -- as multipart.lua has it

-- A request whose body comes in pieces of up to `most` bytes; 0: at once.
local function new_request(kind, body, most)
  local at = 1
  local req = setmetatable({}, { __index = c.request })
  function req.header(_, name) return name == 'content-type' and kind or nil end
  function req.read()
    if at > #body then return nil end
    local piece = body:sub(at, most == 0 and #body or at + number(most))
    at = at + #piece
    return piece
  end
  return req
end

-- A reader keeps no more than the head of a part, or what may be a delimiter, and the last piece.
local function check_buffer(parts, body, most)
  local kept, piece = #parts.buffer - parts.at + 1, most == 0 and #body or most
  check(kept <= HEAD_OF_A_PART + #parts.delimiter + 8 + piece, 'a reader keeps too much', kept)
end

local function describe(part)
  local said = { part.name, part.filename or false }
  for i = 1, part.headers:count() do
    local name, value = part.headers:field(i)
    check(not (name .. value):find '[\r\n%z]', 'a line end in a field', name, value)
    check(part.headers:get(name) == part.headers:all(name)[1], 'two values of one field', name)
    said[#said + 1] = name .. ': ' .. value
  end
  for i = 1, #said do said[i] = ('%q'):format(tostring(said[i])) end
  return concat(said, ' ')
end

-- The bytes of a part, read n at a time; nil, message, code.
local function read_part(part, n)
  local list = {}
  while true do
    local data, message, code = part:read(n and 1 + number(n))
    if code then return nil, message, code end
    if not data then break end
    check(data ~= '', 'an empty piece')
    list[#list + 1] = data
  end
  check(part:read() == nil, 'bytes behind the end of a part')
  return concat(list)
end

-- What the parts are, and what is in them ({}: they are skipped); how it has ended.
local function read_parts(kind, body, most, read)
  local req = new_request(kind, body, most)
  local heads, bodies = {}, {}
  local parts, message, code = req:parts()
  while parts do
    local part, data
    part, message, code = parts:next()
    check_buffer(parts, body, most)
    if not part then break end
    heads[#heads + 1] = describe(part)
    if read then data, message, code = read_part(part, read.n) end
    check_buffer(parts, body, most)
    if code then break end
    check(not data or body:find(data, 1, true), 'a part that is not in the body', data)
    bodies[#bodies + 1] = data
  end
  if parts then check(select(3, parts:next()) == code, 'after its end it goes on') end
  check((req.refused ~= nil) == (code ~= nil), 'refused, or not', req.refused, code)
  return concat(heads, '\n'), bodies, ('%s %s'):format(tostring(message), tostring(code)), code
end

-- A form as text, by the names of its fields.
local function form_text(all)
  local lines = {}
  for name, values in pairs(all) do
    for i, value in ipairs(values) do
      if type(value) == 'table' then
        value = ('%s; %s; %s'):format(tostring(value.filename), tostring(value.type), value.data)
      end
      lines[#lines + 1] = ('%q %d %q'):format(name, i, value)
    end
  end
  table.sort(lines)
  return concat(lines, '\n')
end

local function read_form(kind, body, most)
  local fields, all, code = new_request(kind, body, most):form()
  if not fields then return ('%s %s'):format(all, code), nil, code end
  for name, values in pairs(all) do check(fields[name] == values[#values], 'not the last value', name) end
  return form_text(all), all
end

-- What a form in a query has, it has when it is written once more.
local function check_written(kind, all)
  if not (all and c.parameters(kind) == 'application/x-www-form-urlencoded') then return end
  local text = c.encode_form(all)
  local _, again = assert(c.parse_urlencoded(text, 1000))
  check(form_text(again) == form_text(all), 'written, a form is another one', text)
end

-- An input is the content-type, a line end, and the body.
function M.multipart(input)
  local kind, body = input:match '^([^\n]*)\n?(.*)$'
  local heads, bodies, ended, failed = read_parts(kind, body, 0, { n = nil })
  local form, all, refused = read_form(kind, body, 0)
  if c.parameters(kind) == 'multipart/form-data' then
    check(failed == refused, 'parts or a form', ended, form)
  end
  check_written(kind, all)
  for _, most in ipairs(#body < 1000 and { 1, 29 } or { 150 }) do
    local other_heads, other_bodies, other_end = read_parts(kind, body, most, { n = most > 1 and 7 or nil })
    check(other_heads == heads, 'in pieces there are other parts', heads, other_heads)
    check(concat(other_bodies, '\0') == concat(bodies, '\0'), 'in pieces a part is another one', most)
    check(other_end == ended, 'in pieces it ends otherwise', ended, other_end)
    other_heads, _, other_end = read_parts(kind, body, most)
    check(other_heads == heads and other_end == ended, 'skipped, there are other parts', ended, other_end)
  end
  local other = read_form(kind, body, 50)
  check(other == form, 'in pieces a form is another one', form, other)
end

-- URLs --------------------------------------------------------------------------------------------

local MEMBERS = { 'scheme', 'host', 'name', 'port', 'unix', 'authority', 'target', 'origin' }

local function parse(text)
  local url, message, code = c.parse_url(text)
  check(url or (code == 'EINVAL' and message:find '^URL: '), 'an error that is none', message, code)
  return url
end

local function check_same(url, other, text)
  for _, name in ipairs(MEMBERS) do
    check(url[name] == other[name], name .. ' changes', text, url[name], other[name])
  end
end

-- It goes into the head of a request.
local function check_url(url, text)
  local target, authority = url.target, url.authority
  check(target:find '^/[!-~]*$' and not target:find('#', 1, true), 'a target that is none', target)
  check(authority:find '^[!-~]+$' and not authority:find '[/?#@\\]', 'an authority that is none', authority)
  check(url.unix or (url.port >= 1 and url.port <= 65535), 'a port that is none', text)
  check(not url.unix or not url.unix:find '%z', 'a path with a NUL', text)
end

-- A reference without a place of its own leads to the same one.
local function check_reference(url, reference)
  local text = c.resolve_url(url, reference)
  local other = parse(text)
  reference = reference:gsub('#.*', '')
  if reference:find '^%a[%w+.-]*:' or reference:find '^//' then return end
  check(other or reference:find '[%z\1-\31\127]', 'a reference that leads nowhere', text)
  if not other then return end
  check(other.origin == url.origin, 'a reference that leads elsewhere', text, url.origin, other.origin)
  local path = other.target:match '^[^?]*'
  if reference:find '^[^?]' then check(not (path .. '/'):find '/%.%.?/', 'dots that stay', text) end
end

-- An input is a URL, a line end, and a reference.
function M.url(input)
  local first, reference = input:match '^([^\n]*)\n?(.*)$'
  check(c.unescape(c.escape(input)) == input, 'escaped, it is another text')
  check(c.unescape(c.escape(input, true)) == input, 'escaped but for slashes, it is another text')
  local url = parse(first)
  if not url then return end
  check_url(url, first)
  local text = c.url_text(url)
  local again = parse(text)
  check(again, 'written, it is no URL', first, text)
  check_same(url, again, text)
  check(c.url_text(again) == text, 'written twice, it is another URL', text)
  check(c.resolve_url(url, text) == text, 'resolved, it is another URL', text)
  check_reference(url, reference)
end

return M
