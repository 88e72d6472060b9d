-- Forms: urlencoded, multipart as a table and part by part, and what is refused.
-- test: needs http
-- test: over TLS
-- test: 5 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local web = require 'web'

local T = {}

local URLENCODED = { ['Content-Type'] = 'application/x-www-form-urlencoded; charset=utf-8' }
local MULTIPART = { ['Content-Type'] = 'Multipart/Form-Data; boundary="=_B 1"' }

-- What a handler returns for each of a list of bodies, each a list of pieces.
local function each(headers, bodies, handler)
  local results, current = {}, nil
  web.with(function(req, res)
    current = {}
    current = { handler(req, res) }
    if not res.sent and not req.refused then return res:send 'ok' end
  end, function(port)
    for i, pieces in ipairs(bodies) do
      local status = web.request(port, 'POST', '/', headers, pieces)
      current.status = status
      results[i] = current
    end
  end)
  return results
end

local function form(headers, pieces, options)
  local result = each(headers, { pieces }, function(req) return req:form(options) end)[1]
  return result[1], result[2], result[3], result.status
end

-- Urlencoded ------------------------------------------------------------------------------------

function T.test_urlencoded()
  local fields, all = form(URLENCODED, { 'a=1&b=x+y%2', '0z%26&a=2&c&=e&&%61=3&d==' })
  lu.assertEquals(fields, { a = '3', b = 'x y z&', c = '', [''] = 'e', d = '=' })
  lu.assertEquals(all.a, { '1', '2', '3' })
  lu.assertEquals({ form(URLENCODED, {}) }, { {}, {}, nil, 200 })
end

function T.test_urlencoded_that_is_refused()
  for _, body in ipairs { 'a=%', 'a=%4', 'a=%4x', '%zz=1' } do
    local _, message, code, status = form(URLENCODED, { body })
    lu.assertEquals({ code, status }, { 'EPROTO', 400 }, body)
    lu.assertStrContains(message, 'percent')
  end
  local _, _, code, status = form(URLENCODED, { ('a&'):rep(11) }, { max_fields = 10 })
  lu.assertEquals({ code, status }, { 'EMSGSIZE', 413 })
  lu.assertNotNil(form(URLENCODED, { ('a&'):rep(10) }, { max_fields = 10 }))
  _, _, code = form(URLENCODED, { 'a=12345', '6' }, { max = 7 })
  lu.assertEquals(code, 'EMSGSIZE')
  lu.assertNotNil(form(URLENCODED, { 'a=12345' }, { max = 7 }))
end

function T.test_what_is_no_form()
  for _, headers in ipairs { {}, { ['Content-Type'] = 'application/json' } } do
    local _, _, code, status = form(headers, { 'a=1' })
    lu.assertEquals({ code, status }, { 'ENOTSUP', 415 })
  end
end

function T.test_a_second_call_returns_the_same()
  local results = each(URLENCODED, { { 'a=1' } }, function(req) return req:form(), (req:form()) end)
  lu.assertIs(results[1][1], results[1][2])
end

function T.test_options_that_raise()
  each(URLENCODED, { { 'a=1' } }, function(req)
    t.raises("unknown option 'maximum'", req.form, req, { maximum = 1 })
    t.raises("option 'max'", req.form, req, { max = -1 })
    t.raises('table expected', req.form, req, 7)
  end)
end

-- Multipart -------------------------------------------------------------------------------------

local BODY = table.concat({
  'preamble', '--=_B 1',
  'Content-Disposition: form-data; name="a"', '', 'value', '--=_B 1',
  'content-disposition: Form-Data; name=f; filename="x \\"y\\" c:\\z.txt"', 'Content-Type: text/plain',
  'X-Note:  spaces  ', '', '\r\n--=_B\r\n-', '--=_B 1 \t',
  'Content-Disposition: form-data; name="empty"', '', '', '--=_B 1',
  'Content-Disposition: form-data; name="bodiless"', '', '--=_B 1--', 'epilogue', '--=_B 1', '',
}, '\r\n')

local EXPECTED = {
  a = 'value', empty = '', bodiless = '',
  f = { filename = 'x "y" c:\\z.txt', type = 'text/plain', data = '\r\n--=_B\r\n-' },
}

-- Wherever the body is cut in two, and in pieces of each size.
function T.test_multipart_in_pieces()
  local bodies = {}
  for at = 1, #BODY - 1 do bodies[#bodies + 1] = { BODY:sub(1, at), BODY:sub(at + 1) } end
  for size = 1, 40 do
    local pieces = {}
    for at = 1, #BODY, size do pieces[#pieces + 1] = BODY:sub(at, at + size - 1) end
    bodies[#bodies + 1] = pieces
  end
  local results = each(MULTIPART, bodies, function(req) return req:form() end)
  lu.assertEquals(#results, #bodies)
  for i, result in ipairs(results) do lu.assertEquals(result[1], EXPECTED, i) end
end

function T.test_parts_one_after_the_other()
  local seen = {}
  each(MULTIPART, { { BODY } }, function(req)
    local first
    for part in req:parts() do
      seen[#seen + 1] = part.name
      if part.name == 'a' then first = part end
      if part.name == 'f' then
        lu.assertEquals(part.filename, EXPECTED.f.filename)
        lu.assertEquals(part.headers:get 'X-NOTE', 'spaces')
        lu.assertEquals({ part.headers['X-Note'], part.headers.none }, { 'spaces' })
        lu.assertEquals(part.headers:all 'x-note', { 'spaces' })
        lu.assertEquals({ part.headers:field(2) }, { 'Content-Type', 'text/plain' })
        lu.assertEquals(part.headers:count(), 3)
        lu.assertEquals({ part:read(3), part:read(1), (part:read(100)) }, { '\r\n-', '-', '=_B\r\n-' })
        lu.assertNil(part:read(), nil)
        lu.assertNil(first:read()) -- which was skipped
      end
    end
    lu.assertNil(req:read())
  end)
  lu.assertEquals(seen, { 'a', 'f', 'empty', 'bodiless' })
end

-- A part that is larger than what is kept of it.
function T.test_a_large_part_in_pieces()
  local piece, count = ('\r\n--=_B '):rep(8000), 60
  local pieces = { '--=_B 1\r\nContent-Disposition: form-data; name=big; filename=x\r\n\r\n' }
  for _ = 1, count do pieces[#pieces + 1] = piece end
  pieces[#pieces + 1] = '\r\n--=_B 1--\r\n'
  local size = 0
  each(MULTIPART, { pieces }, function(req)
    for part in req:parts() do
      for data in part:chunks() do size = size + #data end
    end
  end)
  lu.assertEquals(size, #piece * count)
  local _, _, code, status = form(MULTIPART, pieces)
  lu.assertEquals({ code, status }, { 'EMSGSIZE', 413 })
end

-- Each beginning of a body is damaged, and told as such, not taken for the whole.
function T.test_a_body_that_ends_too_soon()
  local last = BODY:find('--\r\nepilogue', 1, true) + 1
  local bodies = {}
  for at = 1, last - 1 do bodies[at] = { BODY:sub(1, at) } end
  for i, result in ipairs(each(MULTIPART, bodies, function(req) return req:form() end)) do
    lu.assertEquals({ result[3], result.status }, { 'EPROTO', 400 }, i)
  end
  lu.assertNotNil(form(MULTIPART, { BODY:sub(1, last) }))
end

local function part_with(head, rest)
  return { '--=_B 1\r\n' .. head .. '\r\n\r\nvalue' .. (rest or '\r\n--=_B 1--') }
end

function T.test_damaged_parts()
  local good = 'Content-Disposition: form-data; name=a'
  lu.assertEquals(form(MULTIPART, part_with(good)), { a = 'value' })
  local bodies = {
    part_with 'Content-Type: text/plain', part_with 'Content-Disposition: form-data',
    part_with 'Content-Disposition: attachment; name=a', part_with(good .. '; name=b'),
    part_with(good .. '\r\n folded: x'), part_with(good .. '\r\nno field'), part_with(good .. '\r\nX : y'),
    part_with(good .. '\r\nX: a\0b'), part_with(good .. '; filename="x'),
    part_with(good, '\r\n--=_B 1x\r\n'), part_with(good, '\r\n--=_B 1-\r\n'), part_with(good, '\n--=_B 1--'),
    { ('x'):rep(5000) .. '\r\n--=_B 1--' }, { '' }, { 'a=1' },
  }
  for i, result in ipairs(each(MULTIPART, bodies, function(req) return req:form() end)) do
    lu.assertEquals({ result[3], result.status }, { 'EPROTO', 400 }, i)
  end
  bodies = { part_with(good .. '\r\nX: ' .. ('y'):rep(9000)), part_with(good .. ('\r\nX: y'):rep(20)) }
  for i, result in ipairs(each(MULTIPART, bodies, function(req) return req:form() end)) do
    lu.assertEquals(result[3], 'EMSGSIZE', i)
  end
end

-- What is just short enough, and what is a byte too long, are so however the body comes.
function T.test_limits_in_pieces()
  local disposition = 'Content-Disposition: form-data; name=a'
  local pieces, codes, expected = {}, {}, {}
  local function add(code, body)
    local bytes = {}
    for at = 1, #body do bytes[at] = body:sub(at, at) end
    pieces[#pieces + 1], pieces[#pieces + 2] = { body }, bytes
    expected[#expected + 1], expected[#expected + 2] = code, code
  end
  for _, blanks in ipairs { 100, 101 } do
    add(blanks > 100 and 'EPROTO' or 'whole',
      ('--=_B 1%s\r\n%s\r\n\r\nx\r\n--=_B 1--'):format((' '):rep(blanks), disposition))
  end
  local room = 8190 - #disposition - #'\r\nX: '
  for _, size in ipairs { room, room + 1 } do
    add(size > room and 'EMSGSIZE' or 'whole',
      ('--=_B 1\r\n%s\r\nX: %s\r\n\r\nx\r\n--=_B 1--'):format(disposition, ('y'):rep(size)))
  end
  for i, result in ipairs(each(MULTIPART, pieces, function(req) return req:form() end)) do
    codes[i] = result[1] and 'whole' or result[3]
  end
  lu.assertEquals(codes, expected)
end

-- Bodies that are changed at random: whole or byte by byte they mean the same, or are refused alike.
function T.test_mutated_bodies()
  local pieces, alphabet = {}, { '\r', '\n', '-', '=_B 1', '--=_B 1', '\r\n', ':', ';', '"', '\0', 'x' }
  local seed = os.time()
  math.randomseed(seed)
  for _ = 1, t.count(4000) do
    local body = BODY
    for _ = 1, math.random(3) do
      local at, what = math.random(#body), alphabet[math.random(#alphabet)]
      body = body:sub(1, at - 1) .. what .. body:sub(at + math.random(0, 3))
    end
    local bytes = {}
    for at = 1, #body do bytes[at] = body:sub(at, at) end
    pieces[#pieces + 1], pieces[#pieces + 2] = { body }, bytes
  end
  local results = each(MULTIPART, pieces, function(req) return req:form() end)
  for i = 1, #pieces, 2 do
    local whole, cut = results[i], results[i + 1]
    local which = seed .. ': ' .. pieces[i][1]
    lu.assertEquals(cut[1], whole[1], which)
    lu.assertEquals({ cut[3], cut.status }, { whole[3], whole.status }, which)
    lu.assertTrue(whole[1] ~= nil or whole[3] == 'EPROTO', which)
  end
end

function T.test_boundaries()
  local function answer(kind)
    local _, _, code, status = form({ ['Content-Type'] = kind }, { '--x\r\n' })
    return { code, status }
  end
  for _, boundary in ipairs { '', ('x'):rep(71), '"x "', '"a;b"' } do
    local rest = '; boundary=' .. boundary
    lu.assertEquals(answer('multipart/form-data' .. rest), { 'EPROTO', 400 }, rest)
  end
  lu.assertEquals(answer 'multipart/mixed; boundary=x', { 'ENOTSUP', 415 })
end

-- In a for loop the end of the parts and a failure would look the same.
function T.test_a_loop_raises()
  local result = each(MULTIPART, { { BODY:sub(1, 100) } }, function(req)
    local ok, err = pcall(function()
      for part in req:parts() do part:read_all() end
    end)
    return ok, err
  end)[1]
  lu.assertEquals({ result[1], result.status }, { false, 400 })
  lu.assertStrContains(result[2], '(EPROTO)')
  lu.assertStrContains(result[2], 'form_test.lua')
  -- A handler that does not catch it has its client to blame: nothing is reported.
  result = each(MULTIPART, { { BODY:sub(1, 100) } }, function(req)
    for part in req:parts() do part:read_all() end
  end)[1]
  lu.assertEquals((result or {}).status, 400)
end

function T.test_curl()
  local path = t.temporary(('0123456789'):rep(100000))
  local found
  web.with(function(req, res)
    found = {}
    for part in req:parts() do
      local size = 0
      for data in part:chunks() do size = size + #data end
      found[part.name] = { part.filename or false, size }
    end
    return res:send 'ok'
  end, function(port)
    local text, code = web.curl(port, '/', ('-F "a=hello world" -F "file=@%s;filename=x.bin"'):format(path))
    lu.assertEquals({ text, code }, { 'ok', 0 })
  end)
  os.remove(path)
  lu.assertEquals(found, { a = { false, 11 }, file = { 'x.bin', 1000000 } })
end

return T
