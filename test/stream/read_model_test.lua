-- Reads of every kind, at random, of a stream that arrives in pieces of random sizes, against a model
-- that has all of it as one string: what is returned, what is taken, and how it ends.
--
-- test: over TLS
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local random = math.random

local function random_text(n, alphabet)
  local parts = {}
  for i = 1, n do
    local at = random(#alphabet)
    parts[i] = alphabet:sub(at, at)
  end
  return table.concat(parts)
end

-- The model: each operation says what it returns for the text that is left, and how much of that it
-- takes. A failure is { nil, code }.

local function too_much()
  return { nil, 'EMSGSIZE' }, 0
end

local function at_end()
  return { nil, 'EOF' }, 0
end

local function exactly(rest, n, taken)
  if #rest < n then return at_end() end
  return { rest:sub(1, n) }, taken
end

-- Where a delimiter may begin that the end has cut off.
local function unfinished(rest, delim)
  for n = math.min(#delim - 1, #rest), 1, -1 do
    if rest:sub(-n) == delim:sub(1, n) then return #rest - n end
  end
  return #rest
end

local function model_until(rest, delim, max)
  local first, last = rest:find(delim, 1, true)
  if not first then
    if unfinished(rest, delim) > max then return too_much() end
    return at_end()
  end
  if first - 1 > max then return too_much() end
  return { rest:sub(1, first - 1) }, last
end

local function model_line(rest, max)
  local line = rest:match '^(.-)\n'
  local taken = line and #line + 1 or #rest
  line = line and line:gsub('\r$', '') or rest
  if #line > max then return too_much() end
  if taken == 0 then return at_end() end
  return { line }, taken
end

local delimiters = {
  '\n', '\r\n', ':', 'a', 'aa', 'ab', 'aab', 'aaab', '\r\n\r\n', 'abababab', 'ababababab', 'aaaaaaaaaaaab',
}

local function random_max()
  return ({ random(5), random(40), random(5000), math.huge })[random(4)]
end

-- Each returns the operation, its arguments, and what the model says.
local operations = {
  function(rest)
    local n = random(0, 30)
    return 'read', { n }, exactly(rest, n, n)
  end,
  function(rest)
    local n = random(0, 30)
    return 'peek', { n }, exactly(rest, n, 0)
  end,
  function(rest)
    local delim, max = delimiters[random(#delimiters)], random_max()
    return 'read_until', { delim, max }, model_until(rest, delim, max)
  end,
  function(rest)
    local max = random_max()
    return 'read_line', { max }, model_line(rest, max)
  end,
  function(rest)
    local max = random(10)
    if #rest > max then return 'read_all', { max }, too_much() end
    return 'read_all', { max }, { rest }, #rest
  end,
}

-- As many bytes as there are: only their number is not known beforehand.
local function some(conn, rest)
  local max = random(20)
  local data, _, code = conn:read_some(max)
  if not data then
    lu.assertEquals({ code, rest }, { 'EOF', '' })
    return 0
  end
  lu.assertTrue(#data > 0 and #data <= max)
  lu.assertEquals(data, rest:sub(1, #data))
  return #data
end

local function some_lines(conn, rest)
  local taken = 0
  for line in conn:lines(math.huge) do
    local expected, n = model_line(rest:sub(taken + 1), math.huge)
    lu.assertEquals(line, expected[1])
    taken = taken + n
    if random(3) == 1 then return taken end
  end
  lu.assertEquals(taken, #rest)
  return taken
end

-- Now and then with a time-out, after which nothing must be missing.
local function patient(conn, name, arguments)
  if random(4) == 1 then
    conn:set_timeout(random(2) == 1 and 0 or 0.0002)
    local data, message, code = conn[name](conn, unpack(arguments))
    conn:set_timeout()
    if code ~= 'ETIMEDOUT' then return data, message, code end
  end
  return conn[name](conn, unpack(arguments))
end

local function check_one(conn, rest)
  local kind = random(#operations + 2)
  if kind == #operations + 1 then return some(conn, rest) end
  if kind == #operations + 2 then return some_lines(conn, rest) end
  local name, arguments, expected, taken = operations[kind](rest)
  local data, _, code = patient(conn, name, arguments)
  lu.assertEquals({ data, code }, expected, name)
  return taken
end

local function send_in_pieces(conn, text)
  local at = 1
  while at <= #text do
    local n = random(random(3) == 1 and 1 or 60)
    conn:write(text:sub(at, at + n - 1))
    at = at + n
    if random(3) == 1 then
      conn:flush()
      asio.yield()
    end
  end
  conn:close()
end

local function round(alphabet)
  local text = random_text(random(0, 2000), alphabet)
  local a, b = t.pair()
  local writer = asio.spawn(send_in_pieces, b, text)
  local at, stuck = 1, 0
  -- Whatever is asked at the end fails or is empty, in every way.
  while at <= #text or stuck < 20 do
    local taken = check_one(a, text:sub(at))
    at = at + taken
    stuck = taken > 0 and 0 or stuck + 1
    if at <= #text then stuck = 0 end
  end
  a:close()
  assert(writer:join())
end

local alphabets = { 'ab', 'aaaaab', 'ab\r\n', '\r\n', 'abc:\n', 'aaaaaaaaaa:\r\n' }

T.test_any_reads_of_any_pieces = t.slow(200, function()
  local seed = os.time()
  for i = 1, t.count(4000) do
    math.randomseed(seed + i)
    local ok, err = pcall(round, alphabets[random(#alphabets)])
    if not ok then error(('seed %d: %s'):format(seed + i, tostring(err)), 0) end
  end
end)

return T
