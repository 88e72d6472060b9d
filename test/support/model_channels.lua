-- Channels of the model. Items carry tickets in the order in which they were offered: nobody overtakes.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local m = require 'model'

local M = {}

local check, pick, chance, attempt = m.check, m.pick, m.chance, m.attempt
local moment_or_never, failed_with, check_timed_out = m.moment_or_never, m.failed_with, m.check_timed_out
local steps = m.steps

-- A channel where at most one waits to receive shows the order of all items, not only of those that
-- one light thread gets.
function M.new_channel()
  local capacity = pick { 0, 0, 1, 2, 7, 50, math.huge }
  return {
    it = asio.channel(capacity), capacity = capacity, single = chance(2), closed = false,
    ticket = 0, last = 0, sent = 0, received = 0, senders = 0, receivers = 0,
  }
end

local function offer(channel)
  channel.ticket = channel.ticket + 1
  return { channel = channel, ticket = channel.ticket, state = 'offered' }
end

-- Whoever gets an item may run before its sender knows.
function M.receive(me, channel, item)
  check(type(item) == 'table' and item.channel == channel, 'of another channel: %s', tostring(item))
  check(item.state == 'offered' or item.state == 'sent', 'received, and %s before', item.state)
  check(item.ticket > (me.last[channel] or 0), 'overtaken')
  check(not channel.single or item.ticket > channel.last, 'overtaken')
  item.state = 'received'
  me.last[channel], channel.last = item.ticket, item.ticket
  channel.received = channel.received + 1
end
local receive = M.receive

local function withdraw(item)
  check(item.state == 'offered', '%s, although it was not sent', item.state)
  item.state = 'withdrawn'
end

function M.check_no_item(channel, timeout, code)
  if code ~= 'EBADF' then return check_timed_out(timeout, code) end
  check(channel.closed, 'not closed')
  failed_with(code)
end
local check_no_item = M.check_no_item

local function send(me, channel, timeout)
  local item = offer(channel)
  local ok, sent, _, code = attempt(me, channel, 'senders', channel.it.send, channel.it, item, timeout)
  if ok and sent then
    channel.sent = channel.sent + 1
    if item.state == 'offered' then item.state = 'sent' end
    return true
  end
  withdraw(item)
  if not ok then error(sent, 0) end
  check_no_item(channel, timeout, code)
  return false
end

function steps.send(me)
  send(me, pick(m.world.channels), moment_or_never())
end

-- As many as there is room for, now and then, so that buffers grow and shrink.
function steps.flood(me)
  local channel = pick(m.world.channels)
  if channel.sent - channel.received > 20 then return end
  for _ = 1, 40 do
    if not send(me, channel, 0) then return end
  end
end

function M.may_receive(channel)
  return not channel.single or channel.receivers == 0
end
local may_receive = M.may_receive

function steps.receive(me)
  local channel, timeout = pick(m.world.channels), moment_or_never()
  if not may_receive(channel) then return end
  local ok, item, _, code = attempt(me, channel, 'receivers', channel.it.recv, channel.it, timeout)
  if not ok then error(item, 0) end
  if item then return receive(me, channel, item) end
  check_no_item(channel, timeout, code)
end

function steps.iterate(me)
  local channel = pick(m.world.channels)
  local following = channel.it:iter()
  for _ = 1, 3 do
    if not may_receive(channel) then return end
    local ok, item = attempt(me, channel, 'receivers', following)
    if not ok then error(item, 0) end
    if not item then return check(channel.closed, 'not closed') end
    receive(me, channel, item)
  end
end

function M.check_channel(channel)
  local buffered, capacity = channel.sent - channel.received, channel.capacity
  local text = ('%d buffered of %g, %d send, %d receive'):format(
    buffered, capacity, channel.senders, channel.receivers)
  check(buffered >= 0 and buffered <= capacity, text)
  check(tonumber(tostring(channel.it):match '(%d+) buffered') == buffered, text)
  check(channel.receivers == 0 or (buffered == 0 and channel.senders == 0), text)
  check(channel.senders == 0 or buffered == capacity, text)
  check(not channel.closed or (channel.senders == 0 and channel.receivers == 0), 'closed, but %s', text)
end

function M.empty_channel(channel)
  check(channel.senders == 0 and channel.receivers == 0, 'somebody is left at a channel')
  local item, _, code = channel.it:recv(0)
  while item do
    receive(m.world.me, channel, item)
    item, _, code = channel.it:recv(0)
  end
  check(code == (channel.closed and 'EBADF' or 'ETIMEDOUT'))
  check(channel.sent == channel.received, '%d sent, %d received', channel.sent, channel.received)
end

return M
