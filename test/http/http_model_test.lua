-- A model of the server: connections with random requests, good and bad, pipelined, cut at random places;
-- handlers that read, answer, raise, wait, upgrade at random, and use what earlier requests have left. Each
-- answer is the one that the model expects, or the connection ends where it may.
--
-- ASIO_HTTP_SECONDS: how long it goes on (3; with ASIO_LONG=1 300). ASIO_HTTP_SEED: of the first round; each
-- round has the next one.
--
-- test: 10 s
-- test: needs http
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local answers = require 'http_answers'
local over_tls = require 'over_tls'
local web = require 'web'

local T = {}

local SECONDS = tonumber(os.getenv 'ASIO_HTTP_SECONDS') or (t.long and 300 or 3)
local SEED = tonumber(os.getenv 'ASIO_HTTP_SEED') or (t.long and os.time() or 1)
local CONNECTIONS, MAX_DRAIN, MAX_HEADER = 6, 2000, 4096
local LARGE = 65000 -- the longest head that can be allowed
local random = math.random

local function pick(list) return list[random(#list)] end
local function chance(n) return random(n) == 1 end

-- Requests ----------------------------------------------------------------------------------------

-- A body: at most a few pieces of a read, now and then more than is queued.
local function random_body()
  local size = pick { 0, 1, 2, random(50), random(1000), random(5000), random(5000),
    chance(4) and 150000 or 9 }
  local text = ('%d:'):format(random(1e6)):rep(math.ceil(size / 3) + 1)
  return text:sub(1, size)
end

local function chunked(body, plan)
  local list, at = {}, 1
  while at <= #body do
    local n = random(math.max(1, pick { 5, 500, #body }))
    local piece = body:sub(at, at + n - 1)
    list[#list + 1] = (chance(2) and '%x' or '%04X'):format(#piece)
    list[#list + 1] = chance(4) and ';name=value' or ''
    list[#list + 1] = '\r\n' .. piece .. '\r\n'
    at = at + n
  end
  plan.has_trailers = chance(3)
  list[#list + 1] = '0\r\n' .. (plan.has_trailers and 'X-Trailer: a\r\nX-Other: b\r\n' or '') .. '\r\n'
  return table.concat(list)
end

-- What is wrong with a head, and the status that it gets.
local BAD = {
  { '%1', 400, host = '' },                                      -- no Host
  { '%1Host: y\r\n', 400 },
  { '%1X: a\r\n b\r\n', 400 },
  { '%1X: a\nY: b\r\n', 400 },
  { '%1X : a\r\n', 400 },
  { '%1Content-Length: 3\r\nContent-Length: 3\r\n', 400 },
  { '%1Content-Length: 3\r\nTransfer-Encoding: chunked\r\n', 400 },
  { '%1Transfer-Encoding: gzip\r\n', 501 },
  { '%1Expect: more\r\n', 417 },
  { '%1X: ' .. ('x'):rep(LARGE) .. '\r\n', 431 },
  { '%1' .. ('X: a\r\n'):rep(60), 431 },
  { '%1X: \0\r\n', 400 },
}

local function bad_request(plan)
  local bad = pick(BAD)
  local host = bad.host or 'Host: x\r\n'
  plan.refused, plan.closes = bad[2], true
  plan.text = ('GET /%d HTTP/1.1\r\n'):format(plan.id) .. bad[1]:gsub('%%1', host) .. '\r\n'
end

local METHODS = { 'GET', 'GET', 'POST', 'POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'PATCH' }

local function framing(plan, list)
  plan.framed = pick { 'none', 'none', 'length', 'length', 'chunks', 'chunks' }
  if plan.version == '1.0' and plan.framed == 'chunks' then plan.framed = 'length' end
  plan.body = plan.framed == 'none' and '' or random_body()
  if plan.framed == 'length' then
    list[#list + 1] = 'Content-Length: ' .. #plan.body
    return plan.body
  elseif plan.framed == 'none' then
    return ''
  end
  list[#list + 1] = 'Transfer-Encoding: chunked'
  local text = chunked(plan.body, plan)
  if not chance(12) then return text end
  plan.broken = true -- not at its end: the next request is not reached
  return pick { 'zz\r\n', '3\r\nabcd\r\n', '1;\n', '-1\r\n\r\n', '2\r\na\nxx\r\n' } .. text
end

local function keeping(plan, list)
  local said = pick { false, false, false, false, false, 'close', 'keep-alive' }
  if said then list[#list + 1] = 'Connection: ' .. said end
  plan.keep = said ~= 'close' and (plan.version == '1.1' or said == 'keep-alive')
end

-- Of these lengths in all.
local function padding(list, length)
  local now = 0
  for _, line in ipairs(list) do now = now + #line + 2 end
  local room = length - now - 2
  if room > 8 then list[#list + 1] = 'X: ' .. ('x'):rep(room - 5) end
end

local function good_request(plan)
  plan.method, plan.version = pick(METHODS), chance(6) and '1.0' or '1.1'
  local list = { ('%s /%d?x=%d HTTP/%s'):format(plan.method, plan.id, plan.id, plan.version), 'Host: x' }
  for i = 1, random(0, 5) do list[#list + 1] = ('X-%d:%s%d'):format(i, (' '):rep(random(0, 2)), plan.id) end
  plan.fields = #list - 2
  keeping(plan, list)
  local body = framing(plan, list)
  if plan.framed ~= 'none' and chance(5) and plan.version == '1.1' then
    plan.expects = true
    list[#list + 1] = 'Expect: 100-continue'
  end
  if chance(8) then padding(list, plan.max_header - random(0, 1)) end
  local front = chance(8) and '\r\n' or ''
  plan.text = front .. table.concat(list, '\r\n') .. '\r\n\r\n' .. body
  -- An empty line in front counts as well.
  if #front + #table.concat(list, '\r\n') + 4 > plan.max_header then plan.text = plan.text:sub(3) end
end

-- Handlers ----------------------------------------------------------------------------------------

local plans, failures, kept = {}, {}, {}
local stopped -- the server has been shut down in the middle: anything may be missing

local function expect(ok, plan, what, ...)
  if ok or stopped then return end
  local list = {}
  for name, value in pairs(plan) do
    list[#list + 1] = name .. ' ' .. (#tostring(value) < 30 and tostring(value) or '#' .. #value)
  end
  failures[#failures + 1] = what:format(...) .. '; ' .. table.concat(list, ', ')
end

-- What a request has once it is over: nothing of it may reach the connection.
local function misuse(plan)
  local old = #kept > 0 and pick(kept)
  if not old or not old.plan.over then return end
  local req, res = old.req, old.res
  local calls = {
    function() return res:send(200, 'misuse') end, function() return res:write 'misuse' end,
    function() return res:finish() end, function() return res:upgrade() end,
    function() return res:informational(103) end, function() return res:redirect '/misuse' end,
    function() return req:read() end, function() return req:read_all() end,
    function() return req:header 'host', req:query(), req:cookies() end,
    function() return req:form() end, function() return req:peer() end, function() return res:sse() end,
  }
  local n = random(#calls)
  local ok, result, message, code = pcall(calls[n])
  expect(ok, plan, 'misuse %d of %d: %s', n, old.plan.id, tostring(result))
  if n <= 6 then expect(result == nil and code == 'EALREADY', plan, 'misuse %d: %s', n, tostring(message)) end
end

local function keep(plan, req, res)
  if #kept < 50 then
    kept[#kept + 1] = { plan = plan, req = req, res = res }
  else
    local old = kept[random(#kept)]
    old.plan, old.req, old.res = plan, req, res
  end
end

local function disturb()
  if chance(10) then asio.sleep(random() / 500) end
  if chance(10) then asio.yield() end
  if chance(30) then collectgarbage() elseif chance(4) then collectgarbage('step', random(100)) end
  if chance(10) then
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function()
      local old = kept[1]
      if not (old and old.plan.over) then return end
      pcall(old.res.send, old.res, 'from a finalizer') -- an error here may be the end of LuaJIT
      pcall(old.req.header, old.req, 'host')
    end
  end
end

-- Returns whether the body is read to its end, or nil if it cannot be.
local function read_body(plan, req)
  local how = plan.reads
  if how == 'none' then return false end
  if how == 'all' then
    local text, _, code = req:read_all()
    if not text then return nil, code end
    expect(text == plan.body, plan, 'read_all: %d of %d bytes', #text, #plan.body)
    return true
  end
  local size = 0
  for _ = 1, how == 'part' and random(3) or math.huge do
    local max = pick { 1, 7, 100, 10000 }
    local piece, message, code = req:read(chance(2) and max or nil)
    if not piece and code then return nil, code end
    if not piece then
      expect(size == #plan.body, plan, 'read: %d of %d bytes (%s)', size, #plan.body, tostring(message))
      return true
    end
    local same = plan.broken or piece == plan.body:sub(size + 1, size + #piece)
    expect(same, plan, 'read: other bytes')
    size = size + #piece
    if chance(20) then disturb() end
  end
  return false
end

-- Under a time-out of nearly nothing, again and again: no byte is lost.
local function read_impatiently(plan, req)
  local size = 0
  while true do
    local piece, _, code = asio.timeout(random() / 1000, req.read, req)
    if not piece then
      if code == nil then break end
      if code ~= 'ETIMEDOUT' or req.refused then return nil, code end
    else
      local same = plan.broken or piece == plan.body:sub(size + 1, size + #piece)
      expect(same, plan, 'impatient: other bytes')
      size = size + #piece
    end
  end
  expect(size == #plan.body, plan, 'impatient: %d of %d bytes', size, #plan.body)
  return true
end

local function check_head(plan, req)
  expect(req.method == plan.method, plan, 'method %s', req.method)
  expect(req.version == plan.version, plan, 'version %s', req.version)
  expect(req.path == '/' .. plan.id and req:query().x == tostring(plan.id), plan, 'path %s', req.path)
  for i = 1, plan.fields do
    local value = req:header('x-' .. i)
    expect(value == tostring(plan.id), plan, 'header %d: %s', i, tostring(value))
  end
  expect(req:header 'x-none' == nil, plan, 'a header that is not there')
  local length = plan.framed == 'length' and #plan.body > 0 and #plan.body or nil
  if plan.framed == 'chunks' then length = -1 end
  expect(req.length == length, plan, 'length %s', tostring(req.length))
end

local function answer(plan, res)
  local how, id = plan.answers, tostring(plan.id)
  if how == 'send' then
    return res:send(plan.status, { ['X-Id'] = id, ['X-Number'] = chance(2) and 5 or nil }, plan.answer)
  elseif how == 'plain' then -- what has a short cut
    res.status = plan.status
    return res:send({ ['X-Id'] = id }, plan.answer)
  elseif how == 'nothing' then
    res.headers['X-Id'] = id
    return
  elseif how == 'closing' then
    return res:send(200, { ['X-Id'] = id, Connection = 'close' }, plan.answer)
  end
  res.headers['X-Id'], res.status = id, plan.status
  if how == 'length' then res.headers['Content-Length'] = #plan.answer end
  local at = 1
  repeat
    local n = random(math.max(1, #plan.answer))
    res:write(plan.answer:sub(at, at + n - 1))
    at = at + n
    if chance(4) then disturb() end
  until at > #plan.answer
  if chance(2) then res:finish(chance(2) and { ['X-Trailer'] = 'a' } or nil) end
end

local function upgrade(plan, req, res)
  local conn = res:upgrade { Upgrade = 'echo', ['X-Id'] = tostring(plan.id) }
  if not conn then return end
  conn:write(plan.answer)
  conn:close()
end

local function handler(req, res)
  local plan = plans[tonumber(req.path:match '^/(%d+)$')]
  if not plan or plan.served then
    failures[#failures + 1] = ('%s %s: not a request of the model'):format(req.method, req.target)
    return
  end
  plan.served = true
  check_head(plan, req)
  if chance(2) then keep(plan, req, res) end
  disturb()
  misuse(plan)
  if plan.answers == 'raise' then error('model: raises', 0) end
  if plan.answers == 'leave' then res.headers.X = 'model: \n' return end
  if plan.hints and chance(2) then res:informational(103, { Link = '</a>' }) end
  if plan.reads == 'impatient' then read_impatiently(plan, req) end
  local whole, code = true, nil
  if plan.reads ~= 'impatient' then whole, code = read_body(plan, req) end
  if whole == nil then
    expect(plan.abrupt or plan.broken and code == 'EPROTO', plan, 'a body that fails: %s', code)
  end
  if plan.answers == 'upgrade' then return upgrade(plan, req, res) end
  if plan.answers == 'cancel' then
    asio.current():cancel()
    asio.sleep(5)
  end
  if plan.answers == 'cut' then
    res:write(plan.answer .. 'x')
    asio.sleep(0)
    error('model: cuts', 0)
  end
  if plan.elsewhere then return asio.spawn(answer, plan, res):join() end
  return answer(plan, res)
end

-- Which answer there has to be ----------------------------------------------------------------------

local function random_handler(plan)
  plan.reads = pick { 'none', 'all', 'all', 'part', 'pieces', 'impatient' }
  plan.answers = pick { 'send', 'send', 'plain', 'plain', 'write', 'write', 'length', 'nothing', 'closing',
    'raise', 'leave', chance(4) and 'cut' or 'plain', chance(4) and 'cancel' or 'plain', 'upgrade' }
  plan.status = pick { 200, 200, 200, 201, 404, 204, 304, 503 }
  plan.answer = random_body()
  plan.elsewhere, plan.hints = chance(5), chance(5)
  if plan.answers == 'upgrade' then
    plan.method, plan.framed = 'GET', 'none'
  end
end

local function expected_status(plan)
  local how = plan.answers
  if how == 'raise' or how == 'leave' then return 500 end
  if how == 'nothing' or how == 'closing' then return 200 end
  if how == 'upgrade' then return 101 end
  return plan.status
end

-- closes: true, false or 'perhaps'.
local function foresee(plan)
  plan.want, plan.want_body = expected_status(plan), plan.answer
  local how = plan.answers
  if how == 'raise' or how == 'leave' then plan.no_id, plan.want_body = true, 'Internal Server Error\n' end
  if how == 'nothing' then plan.want_body = '' end
  local bodiless = plan.method == 'HEAD' and how ~= 'upgrade'
  if bodiless or plan.want == 204 or plan.want == 304 then plan.want_body = '' end
  plan.cut = how == 'cut' or how == 'cancel'
  local streams = how == 'write' and plan.version == '1.0' and plan.want ~= 204 and plan.want ~= 304
  plan.closes = plan.cut or not plan.keep or streams or how == 'closing' or how == 'upgrade'
  local reads = plan.reads == 'none' and 'none' or plan.reads == 'part' and 'part' or 'whole'
  if how == 'raise' or how == 'leave' then reads = 'none' end
  if plan.framed == 'none' or plan.closes then return end
  if plan.broken then
    plan.closes = true
  elseif reads == 'none' and plan.expects and plan.framed ~= 'none' and plan.body ~= '' then
    plan.closes = true
  elseif reads ~= 'whole' and (plan.expects or #plan.body > MAX_DRAIN) then
    plan.closes = reads == 'none' and #plan.body > MAX_DRAIN or 'perhaps'
  end
end

local last_id = 0

local function new_plan(max_header)
  last_id = last_id + 1
  local plan = { id = last_id, max_header = max_header }
  plans[last_id] = plan
  if chance(25) then
    bad_request(plan)
    return plan
  end
  random_handler(plan)
  good_request(plan)
  if plan.answers == 'upgrade' and (plan.framed ~= 'none' or plan.version == '1.0') then
    plan.answers = 'plain'
  end
  foresee(plan)
  return plan
end

-- Clients -----------------------------------------------------------------------------------------

local function send_cut(conn, text, calm)
  local at = 1
  while at <= #text do
    local n = calm and #text or random(pick { 1, 10, 100, 1000, 10000, #text })
    if not conn:write(text:sub(at, at + n - 1)) then return end
    at = at + n
    if chance(3) then conn:flush() end
    if chance(100) then asio.sleep(random() / 100) elseif chance(5) then asio.yield() end
  end
  conn:flush()
end

local function check_answer(conn, plan)
  local got, why = answers.read(conn, plan.method)
  if not got then return nil, why end
  if plan.refused then
    expect(got.status == plan.refused, plan, 'status %d, not %d', got.status, plan.refused)
    return got
  end
  if plan.broken and got.status == 400 then return got end
  expect(got.status == plan.want, plan, 'status %d, not %d', got.status, plan.want)
  if not plan.no_id then
    expect(got.headers['x-id'] == tostring(plan.id), plan, 'the answer of %s', tostring(got.headers['x-id']))
  end
  if got.status == 101 then got.body = conn:read_all(1e6) end
  expect(got.body == plan.want_body, plan, 'a body of %d bytes, not %d', #(got.body or ''), #plan.want_body)
  return got
end

-- A cut resets the connection: answers in front of it may be lost.
local function check_answers(conn, list)
  local lost = false
  for _, plan in ipairs(list) do lost = lost or plan.cut end
  for i, plan in ipairs(list) do
    if plan.cut then
      local rest = conn:read_all(1e6)
      return expect(not rest or rest == '' or true, plan, 'an answer that is cut')
    end
    local got, why = check_answer(conn, plan)
    if not got then return expect(lost, plan, 'no answer: %s', why) end
    if plan.closes == true or (plan.closes == 'perhaps' and got.closes) then
      local rest, message = conn:read_all(1e6)
      return expect(rest == '', plan, 'behind the last answer: %s', rest or message)
    end
    if plan.closes == 'perhaps' and i < #list and not conn:peek(1) then return end
    expect(not got.closes, plan, 'the connection ends')
  end
  return true
end

local function visit(port, max_header, abrupt)
  local conn, message = over_tls.connect('127.0.0.1', port)
  if not conn and stopped then return end
  assert(conn, message)
  conn:set_timeout(20 * t.patience)
  local list, texts = {}, {}
  for i = 1, random(8) do
    list[i] = new_plan(max_header)
    list[i].abrupt = abrupt
    texts[i] = list[i].text
    if list[i].closes == true and chance(2) then break end
  end
  local writer = asio.spawn(send_cut, conn, table.concat(texts), chance(4))
  if abrupt then
    asio.sleep(random() / 100)
    conn:abort()
  elseif check_answers(conn, list) and chance(2) then
    conn:shutdown()
    local rest = conn:read_all(1000)
    expect(rest == '' or list[#list].closes == 'perhaps', list[#list], 'behind all: %s', tostring(rest))
  end
  conn:close()
  writer:join()
end

-- Rounds ------------------------------------------------------------------------------------------

local function request_end(req)
  local plan = plans[tonumber(req.path:match '^/(%d+)$')]
  misuse(plan)
  plan.over = true
end

local function round(seed)
  math.randomseed(seed)
  plans, kept, stopped = {}, {}, false
  local max_header = chance(4) and LARGE or MAX_HEADER
  local server = assert(web.server(handler, {
    max_drain = MAX_DRAIN, max_header = max_header, max_headers = 50, max_target = 200,
    on_request_end = chance(2) and request_end or nil,
  }))
  local _, port = server:address()
  local group = asio.group()
  for _ = 1, CONNECTIONS do
    group:spawn(function()
      for _ = 1, 5 do visit(port, max_header, chance(6)) end
    end)
  end
  if chance(5) then
    asio.sleep(random() / 20)
    stopped = true
    server:shutdown(random() / 20)
  end
  group:wait()
  local ok, message = server:shutdown(5 * t.patience)
  assert(ok or stopped, message)
  lu.assertEquals(server:metrics().active, 0)
  if failures[1] then error(('seed %d: %s'):format(seed, table.concat(failures, '\n'))) end
end

local function model()
  local ends, seed = asio.now() + SECONDS, SEED
  failures = {}
  repeat
    round(seed)
    seed = seed + 1
  until asio.now() > ends
  local unknown = t.stderr():gsub('asio: %u+ /%d+ failed: model: [^\n]*\n', '')
    :gsub("asio: %u+ /%d+ failed: header 'X': [^\n]*\n", '')
    :gsub('stack traceback:\n', ''):gsub('\t[^\n]*\n', '')
  lu.assertEquals(unknown, '')
  if os.getenv 'ASIO_HTTP_SECONDS' then print(('%d rounds'):format(seed - SEED)) end
end

T.test_model = t.slow(SECONDS + 60, model)

T.test_model_without_compiler = t.slow(SECONDS + 60, t.interpreted(model))

return T
