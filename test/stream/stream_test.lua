-- Long streams: against a plain model with a seed, ten megabytes at once, many at a time.
--
-- test: over TLS
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local over_tls = require 'over_tls'
local t = require 'support'

local T = {}

-- Bytes without a short period: a chunk that is lost, doubled or swapped shows.
local function noise(n, random)
  local parts = {}
  for i = 1, math.ceil(n / 8) do
    parts[i] = ('%08x'):format(random(0, 2 ^ 31 - 1))
  end
  return table.concat(parts):sub(1, n)
end

-- A generator of its own: math.random belongs to whoever runs beside us.
local function generator(seed)
  local state = seed % 2147483647
  if state == 0 then state = 1 end
  return function(low, high)
    state = state * 16807 % 2147483647
    return low + state % (high - low + 1)
  end
end

local function write_in_chunks(conn, data, random)
  local at = 1
  while at <= #data do
    local parts = {}
    for i = 1, random(1, 4) do
      local size = random(1, 10) == 1 and random(1, 40000) or random(0, 200)
      parts[i] = data:sub(at, at + size - 1)
      at = at + #parts[i]
    end
    local way = random(1, 3)
    if way == 1 then
      assert(conn:write(unpack(parts)))
    elseif way == 2 then
      assert(conn:write(parts))
    else
      for _, part in ipairs(parts) do assert(conn:write(part)) end
    end
    local rest = random(1, 8)
    if rest == 1 then asio.yield() elseif rest == 2 then asio.sleep(0.0003) end
    if rest == 3 then assert(conn:flush()) end
  end
  conn:close()
end

-- The model of a stream is a string and a position in it.
local function read_in_chunks(conn, data, random)
  local at = 1
  while at <= #data do
    local left = #data - at + 1
    local way = random(1, 5)
    local got
    if way <= 2 then
      local n = math.min(left, random(1, 20) == 1 and random(1, 90000) or random(0, 300))
      got = assert(conn:read(n))
      assert(#got == n, 'read gave another length')
    elseif way == 3 then
      local max = random(1, 500)
      got = assert(conn:read_some(max))
      assert(#got >= 1 and #got <= max, 'read_some gave another length')
    elseif way == 4 then
      got = assert(conn:read_some())
      assert(#got >= 1)
    else
      conn:set_timeout(0.0002)
      local part, _, code = conn:read(random(1, 400))
      conn:set_timeout(nil)
      assert(part or code == 'ETIMEDOUT' or code == 'EOF', code)
      got = part or ''
    end
    t.same_bytes(got, data:sub(at, at + #got - 1))
    at = at + #got
    if random(1, 10) == 1 then asio.sleep(0.0003) end
  end
  t.failure('EOF', conn:read_some())
end

local function run_model(seed, a, b, size)
  local random = generator(seed)
  local data = noise(size, random)
  local writer = asio.spawn(write_in_chunks, a, data, generator(seed + 1))
  local reader = asio.spawn(read_in_chunks, b, data, generator(seed + 2))
  for _, thread in ipairs { reader, writer } do
    local ok, err = thread:join(15 * t.patience)
    if not ok then lu.fail(('seed %d: %s'):format(seed, tostring(err))) end
  end
end

local function seeds(n)
  local first = tonumber(os.getenv 'ASIO_SEED') or os.time() % 100000
  local i = 0
  return function()
    i = i + 1
    if i <= n then return first + i * 1000 end
  end
end

T.test_model_over_a_socket_pair = t.slow(60, function()
  for seed in seeds(t.stress and 1 or 6) do
    local a, b = t.pair()
    run_model(seed, a, b, t.stress and 100000 or 600000)
  end
end)

T.test_model_over_tcp = t.slow(60, function()
  for seed in seeds(t.stress and 1 or 6) do
    local a, b = t.tcp()
    run_model(seed, a, b, t.stress and 100000 or 600000)
  end
end)

T.test_model_both_ways_at_once = t.slow(60, function()
  for seed in seeds(t.stress and 1 or 3) do
    local a, b = t.tcp()
    local size = t.stress and 50000 or 300000
    local random = generator(seed)
    local there, back = noise(size, random), noise(size, random)
    -- The ends are closed by the writers; each side reads to the end before it lets go.
    local function both(conn, out, incoming, own_seed)
      local finished = asio.spawn(function()
        local at = 1
        local pick = generator(own_seed)
        while at <= #out do
          local n = pick(1, 5000)
          assert(conn:write(out:sub(at, at + n - 1)))
          at = at + n
          if pick(1, 4) == 1 then asio.yield() end
        end
        assert(conn:flush())
      end)
      t.same_bytes(assert(conn:read(#incoming)), incoming)
      assert(finished:join())
      return true
    end
    local one = asio.spawn(both, a, there, back, seed + 1)
    local two = asio.spawn(both, b, back, there, seed + 2)
    for _, thread in ipairs { one, two } do
      local ok, err = thread:join(15 * t.patience)
      if not ok then lu.fail(('seed %d: %s'):format(seed, tostring(err))) end
    end
  end
end)

function T.test_ten_megabytes_in_one_read()
  local a, b = t.tcp()
  local data = noise((t.stress and 1 or 10) * 2 ^ 20, generator(7))
  local writer = asio.spawn(function()
    assert(a:write(data))
    assert(a:flush())
  end)
  t.same_bytes(b:read(#data), data)
  lu.assertEquals({ writer:join() }, { true })
end

function T.test_ten_megabytes_in_small_pieces()
  local a, b = t.pair()
  local piece, n = noise(1024, generator(8)), t.stress and 500 or 10240
  local writer = asio.spawn(function()
    for _ = 1, n do assert(a:write(piece)) end
  end)
  for i = 1, n do
    local got = b:read(1024)
    if got ~= piece then lu.fail('piece ' .. i) end
  end
  lu.assertTrue(writer:join())
end

function T.test_a_large_read_takes_no_more_memory_than_its_data()
  lu.skipIf(t.sanitized or t.stress, 'measures memory')
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    local size = 64 * 2 ^ 20
    asio.run(function()
      local a, b = asio.socketpair()
      local piece = ('x'):rep(2 ^ 16)
      asio.spawn(function()
        for _ = 1, size / #piece do assert(a:write(piece)) end
      end)
      local before = raw.status 'VmRSS'
      local data = assert(b:read(size))
      assert(#data == size)
      -- The data twice, while it becomes a string, and half as much again for growing.
      local peak = raw.status 'VmHWM' - before
      assert(peak < size / 1024 * 3.6, peak .. ' KiB')
    end)
  end)
end

function T.test_many_ping_pongs()
  -- Enough turns for the compiler to have its say.
  local a, b = t.tcp()
  local n = t.stress and 500 or 20000
  local echo = asio.spawn(function()
    for _ = 1, n do b:write(b:read(8)) end
  end)
  for i = 1, n do
    local message = ('%08d'):format(i)
    a:write(message)
    local answer = a:read(8)
    if answer ~= message then lu.assertEquals(answer, message) end
  end
  lu.assertTrue(echo:join())
end

function T.test_a_thousand_clients_at_once()
  -- The first version dropped events when a queue was full.
  if over_tls.on then can.need 'processor' end
  local n = t.stress and 50 or 1000
  local server = assert(t.server('127.0.0.1', 0, function(conn)
    local name = conn:read(8)
    asio.sleep(0.001)
    conn:write('hello ', name)
    conn:close()
  end, { backlog = 2000 }))
  local _, port = server:address()
  local clients = {}
  for i = 1, n do
    clients[i] = asio.spawn(function()
      local conn = assert(t.connect('127.0.0.1', port))
      local name = ('%08d'):format(i)
      conn:write(name)
      assert(conn:read(14) == 'hello ' .. name)
      t.failure('EOF', conn:read(1))
      conn:close()
      return i
    end)
  end
  for i = 1, n do lu.assertEquals({ clients[i]:join() }, { true, i }) end
  server:close()
end

function T.test_many_streams_do_not_mix()
  local n = t.stress and 10 or 100
  local threads = {}
  for i = 1, n do
    local a, b = t.pair()
    local letter = string.char(33 + i % 90)
    threads[#threads + 1] = asio.spawn(function()
      for _ = 1, 50 do
        assert(a:write(letter:rep(997)))
        asio.yield()
      end
      a:close()
    end)
    threads[#threads + 1] = asio.spawn(function()
      local size = 0
      while true do
        local data = b:read_some()
        if not data then break end
        assert(data == letter:rep(#data), 'bytes of somebody else')
        size = size + #data
      end
      assert(size == 50 * 997)
    end)
  end
  for _, thread in ipairs(threads) do lu.assertEquals({ thread:join() }, { true }) end
end

function T.test_a_peer_that_sends_byte_by_byte()
  local conn, peer = t.raw_peer()
  local reader = asio.spawn(function() return conn:read(40), conn:read(2) end)
  for i = 1, 42 do
    peer:send(string.char(47 + i), 1)
    asio.yield()
  end
  local ok, first, rest = reader:join()
  lu.assertTrue(ok)
  lu.assertEquals(#first .. rest, '40XY')
  conn:close()
  peer:close()
end

return T
