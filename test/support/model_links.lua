-- Connections of the model: each direction is a queue of strings.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local m = require 'model'
local t = require 'support'

local M = {}

local check, pick, attempt = m.check, m.pick, m.attempt
local moment_or_never, failed_with, check_timed_out = m.moment_or_never, m.failed_with, m.check_timed_out
local steps, random = m.steps, math.random

local SIZES = { 1, 10, 300, 5000, 70000 }
local ENOUGH = 400000 -- bytes under way
local GONE = t.codes('EPIPE', 'ECONNRESET')
local CLOSED = t.codes('EBADF', 'ECANCELED', 'EPIPE', 'ECONNRESET')

local filler = {}
for _, size in ipairs(SIZES) do filler[size] = ('.'):rep(size) end

local function new_way(from, to, link)
  return {
    from = from, to = to, link = link, first = 1, last = 0, at = 0, bytes = 0, readers = 0, writers = 0,
  }
end

function M.new_link()
  local a, b = t.pair()
  local link = { write_limit = moment_or_never() }
  a:set_timeout(nil, link.write_limit)
  b:set_timeout(nil, link.write_limit)
  link[1], link[2] = new_way(a, b, link), new_way(b, a, link)
  return link
end

-- Takes what was read off the front of what was written.
local function compare(way, data)
  local from = 1
  while from <= #data do
    local expected = check(way[way.first], 'read more than was written')
    local n = math.min(#data - from + 1, #expected - way.at)
    check(data:sub(from, from + n - 1) == expected:sub(way.at + 1, way.at + n), 'other bytes')
    from, way.at = from + n, way.at + n
    if way.at == #expected then
      way[way.first], way.first, way.at = nil, way.first + 1, 0
    end
  end
  way.bytes = way.bytes - #data
end

-- Queued before it waits: whatever ends that wait, but for a connection that is closed.
function steps.write(me)
  local link = pick(m.world.links)
  local way = link[random(2)]
  if way.bytes > ENOUGH then return end
  m.world.written = m.world.written + 1
  local data = ('%d:%s'):format(m.world.written, filler[pick(SIZES)])
  way.last = way.last + 1
  way[way.last] = data
  way.bytes = way.bytes + #data
  local ok, sent, _, code = attempt(me, way, 'writers', way.from.write, way.from, data)
  if not ok then error(sent, 0) end
  if sent then return end
  if code == 'ETIMEDOUT' then return check_timed_out(link.write_limit, code) end
  check(link.closed and CLOSED[code], 'cannot write: %s', tostring(code))
  failed_with(code)
end

function steps.flush(me)
  local link = pick(m.world.links)
  local way = link[random(2)]
  local ok, sent, _, code = attempt(me, way, 'writers', way.from.flush, way.from)
  if not ok then error(sent, 0) end
  if sent then return end
  if code == 'ETIMEDOUT' then return check_timed_out(link.write_limit, code) end
  check(link.closed and CLOSED[code], 'cannot flush: %s', tostring(code))
end

function steps.read(me)
  local link = pick(m.world.links)
  local way = link[random(2)]
  if way.readers > 0 then return end
  local timeout, size, method = moment_or_never(), pick(SIZES), pick { 'read', 'read_some' }
  way.to:set_timeout(timeout, link.write_limit)
  local ok, data, _, code = attempt(me, way, 'readers', way.to[method], way.to, size)
  if not ok then error(data, 0) end
  if data then
    check(#data == size or method == 'read_some' and #data >= 1 and #data < size, 'another size')
    return compare(way, data)
  end
  if code == 'ETIMEDOUT' then return check_timed_out(timeout, code) end
  check(link.closed and (code == 'EOF' or CLOSED[code]), 'cannot read: %s', tostring(code))
  failed_with(code)
end

-- One side is closed: all that was written there arrives at the other, then the end. Whoever waits at
-- either side is told. Writes at the closed side that came too late are not in the queue.
function M.close_link(link)
  local way = link[random(2)]
  link.closed = true
  way.sealed = way.last
  way.from:close()
  return function(me)
    me.kept = true
    while way.readers > 0 or way.writers > 0 do asio.yield() end
    way.to:set_timeout(5 * t.patience, nil)
    local data, _, code
    repeat
      data, _, code = way.to:read_some()
      if data then compare(way, data) end
    until not data
    check(code == 'EOF' or GONE[code], 'no end: %s', tostring(code))
    check(way.first > way.sealed, '%d of %d writes arrived', way.first - 1, way.sealed)
    way.to:close()
    m.world.closing = m.world.closing - 1
  end
end

return M
