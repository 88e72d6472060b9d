-- Eight Lua states that send each other messages over several channels at random, close channels, cancel
-- light threads and die: every message that `send` reports as sent is received exactly once, and none that it
-- does not.
--
-- ASIO_STRESS_SECONDS: how long it goes on (10; with ASIO_LONG=1 60). ASIO_STRESS_SEED: of the first round;
-- each round has the next one.
--
-- test: alone
-- test: 15 s
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

asio.shared.channel() -- the first one opens what this state keeps: a descriptor

local T = {}

local SECONDS = tonumber(os.getenv 'ASIO_STRESS_SECONDS') or (t.long and 60 or 10)
local SEED = tonumber(os.getenv 'ASIO_STRESS_SEED') or os.time() % 1e6
local STATES, CHANNELS, ROUND = 8, 5, 0.4 -- seconds

-- Each state's life: light threads that send and receive at random until `deadline`. Tells `ledger` what was
-- sent and what was received: strings of numbers, whose ends are those of a light thread.
local function live(id, seed, channels, ledger, deadline)
  local state = seed
  local function random(n)
    state = (state * 1103515245 + 12345) % 2 ^ 31
    return math.floor(state / 2 ^ 16) % n + 1
  end
  local function timeout()
    local which = random(4)
    if which == 1 then return nil end
    return which == 2 and 0 or random(50) / 10000
  end
  local sent, got, serial = {}, {}, 0

  local function message()
    serial = serial + 1
    local name = id * 1e7 + serial
    local which = random(4)
    if which == 1 then return name, { name, channels[random(#channels)] } end
    if which == 2 then return name, { name, ('x'):rep(random(5000)) } end
    return name, name
  end

  local function send()
    local name, value = message()
    local ok = channels[random(#channels)]:send(value, timeout())
    if ok then sent[#sent + 1] = name end
  end

  local function take(value)
    if value then got[#got + 1] = type(value) == 'table' and value[1] or value end
  end

  local function receive()
    if random(3) > 1 then return take((channels[random(#channels)]:recv(timeout()))) end
    local a, b, limit = channels[random(#channels)], channels[random(#channels)], timeout()
    local index, value = asio.select { a, b, timeout = limit }
    if index then take(value) end
  end

  local function busy()
    while asio.now() < deadline do
      if random(2) == 1 then send() else receive() end
      if random(20) == 1 then asio.yield() end
    end
  end

  -- Ends in the midst of a wait: by a cancel. What it was about to send has not been sent.
  local over = false
  local function impatient()
    while not over and asio.now() < deadline do
      local name
      local child = asio.spawn(function()
        local value
        name, value = message()
        if channels[random(#channels)]:send(value) then sent[#sent + 1] = name end
      end)
      local other = asio.spawn(receive)
      asio.sleep(random(20) / 10000)
      child:cancel()
      other:cancel()
      child:join()
      other:join()
    end
  end

  local threads = { asio.spawn(busy), asio.spawn(busy), asio.spawn(busy), asio.spawn(impatient) }
  local dies = random(4) == 1
  if dies then asio.sleep(random(200) / 1000) else asio.sleep(math.max(0, deadline - asio.now())) end
  over = true
  for i = 1, 3 do threads[i]:cancel() end
  for i = 1, #threads do threads[i]:join() end
  ledger:send { sent = sent, got = got }
  if dies and random(2) == 1 then error('expected', 0) end
end

local function add(all, list)
  for _, name in ipairs(list) do all[name] = (all[name] or 0) + 1 end
end

local function check(sent, got, seed)
  for name, times in pairs(got) do
    if times ~= 1 or not sent[name] then
      local often = sent[name] or 0
      lu.fail(('seed %d: message %d received %d times, sent %d times'):format(seed, name, times, often))
    end
  end
  for name in pairs(sent) do
    if not got[name] then lu.fail(('seed %d: message %d was sent and not received'):format(seed, name)) end
  end
end

-- All channels live for one round; some are closed in it. Returns how many messages arrived.
local function round(seed)
  math.randomseed(seed)
  local channels, ledger, workers = {}, asio.shared.channel(math.huge), {}
  for i = 1, CHANNELS do channels[i] = asio.shared.channel(({ 0, 1, 3, 100, math.huge })[i]) end
  local deadline = asio.now() + ROUND
  for i = 1, STATES do
    local w = assert(asio.worker(live, i, math.random(2 ^ 30), channels, ledger, deadline))
    workers[i] = asio.spawn(w.join, w, ROUND + 30 * t.patience)
  end
  if math.random(2) == 1 then
    asio.sleep(ROUND * math.random())
    channels[math.random(CHANNELS)]:close()
  end
  local sent, got, arrived = {}, {}, 0
  for i = 1, STATES do
    local _, ok, err = workers[i]:join()
    lu.assertNotNil(ok, ('seed %d: worker %d does not end'):format(seed, i))
    lu.assertTrue(ok or err == 'expected', tostring(err))
    local account = ledger:recv()
    add(sent, account.sent)
    add(got, account.got)
  end
  for i = 1, CHANNELS do
    for value in function() return (channels[i]:recv(0)) end do
      add(got, { type(value) == 'table' and value[1] or value })
    end
  end
  for _ in pairs(got) do arrived = arrived + 1 end
  check(sent, got, seed)
  return arrived
end

T.test_each_message_arrives_once = t.slow(SECONDS + 60, function()
  local over, seed, arrived = asio.now() + SECONDS, SEED, 0
  print('stress: the first seed is ' .. SEED)
  repeat
    arrived = arrived + round(seed)
    seed = seed + 1
  until asio.now() > over
  print(('stress: %d rounds, %d messages'):format(seed - SEED, arrived))
  lu.assertTrue(arrived > 0)
end)

return T
