-- Errors that nobody joins: reported once, with a traceback, and everybody else goes on.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

-- The report comes at the end of the turn in which the light thread died.
local function fail_deep_inside()
  error 'the reason'
end

function T.test_once_with_traceback()
  asio.spawn(function()
    asio.yield()
    fail_deep_inside()
    return 'no tail call'
  end)
  t.next_turn()
  t.next_turn()
  local text = t.stderr()
  -- LuaJIT's traceback does not repeat the message.
  lu.assertEquals(t.occurrences(text, 'the reason'), 1)
  lu.assertStrContains(text, 'report_test.lua')
  lu.assertStrContains(text, 'stack traceback')
  lu.assertStrContains(text, 'fail_deep_inside')
end

function T.test_before_the_first_wait_too()
  asio.spawn(function()
    fail_deep_inside()
    return 'no tail call'
  end)
  lu.assertEquals(t.stderr(), '', 'a join could still come')
  t.next_turn()
  local text = t.stderr()
  lu.assertEquals(t.occurrences(text, 'the reason'), 1)
  lu.assertStrContains(text, 'fail_deep_inside')
end

function T.test_names_the_thread()
  asio.spawn(function()
    asio.current():name 'the unlucky one'
    error 'x'
  end)
  t.next_turn()
  lu.assertStrContains(t.stderr(), 'the unlucky one')
end

function T.test_error_values_of_every_kind()
  local values = {
    { setmetatable({}, { __tostring = function() return 'from tostring' end }), 'from tostring' },
    { {}, 'table' },
    { 17, '17' },
    { false, 'boolean' },
    { print, 'function' },
    { asio.current(), 'thread' },
  }
  for _, pair in ipairs(values) do
    asio.spawn(error, pair[1])
    t.next_turn()
    lu.assertStrContains(t.stderr(), pair[2])
  end
end

function T.test_a_nil_error()
  asio.spawn(function() error() end)
  t.next_turn()
  lu.assertStrContains(t.stderr(), 'nil')
end

function T.test_an_error_value_whose_tostring_fails()
  local nasty = setmetatable({}, { __tostring = function() error 'no name' end })
  local nastier = setmetatable({}, { __tostring = function() return 17 end })
  asio.spawn(error, nasty)
  asio.spawn(error, nastier)
  t.next_turn()
  lu.assertNotEquals(t.stderr(), '')
end

function T.test_an_error_value_whose_tostring_waits()
  asio.spawn(error, setmetatable({}, { __tostring = function()
    asio.sleep(0.01)
    return 'slept'
  end }))
  t.next_turn()
  lu.assertNotEquals(t.stderr(), '')
end

function T.test_a_very_long_message_and_one_with_zeros()
  asio.spawn(error, ('long '):rep(20000))
  asio.spawn(error, 'before\0after')
  t.next_turn()
  local text = t.stderr()
  lu.assertTrue(#text > 1000)
  lu.assertStrContains(text, 'before')
end

function T.test_not_when_joined_in_time()
  local thread = asio.spawn(error, 'for the joiner')
  lu.assertFalse((thread:join()))
  local waited_for = asio.spawn(function()
    asio.sleep(0.001)
    error 'for the joiner'
  end)
  lu.assertFalse((waited_for:join()))
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

function T.test_a_later_join_still_gets_it()
  local thread = asio.spawn(error, 'kept', 0)
  t.next_turn()
  lu.assertEquals(t.occurrences(t.stderr(), 'kept'), 1)
  lu.assertEquals({ thread:join() }, { false, 'kept' })
  t.next_turn()
  lu.assertEquals(t.stderr(), '')
end

function T.test_a_joiner_that_gave_up_does_not_count()
  local event = asio.event()
  local thread = asio.spawn(function()
    event:wait()
    error 'nobody listens'
  end)
  t.failure('ETIMEDOUT', thread:join(0.001))
  event:set()
  t.next_turn()
  lu.assertEquals(t.occurrences(t.stderr(), 'nobody listens'), 1)
end

function T.test_everybody_else_goes_on()
  local a, b = t.pair()
  local reader = asio.spawn(function() return a:read(5) end)
  local sleeper = asio.spawn(function()
    asio.sleep(0.005)
    return 'slept'
  end)
  asio.spawn(error, 'one')
  asio.spawn(function()
    asio.yield()
    error 'two'
  end)
  asio.yield()
  b:write 'hello'
  lu.assertEquals({ reader:join() }, { true, 'hello' })
  lu.assertEquals({ sleeper:join() }, { true, 'slept' })
  local text = t.stderr()
  lu.assertStrContains(text, 'one')
  lu.assertStrContains(text, 'two')
end

function T.test_an_error_in_a_handler_resets_its_connection_alone()
  local first = true
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    if first then
      first = false
      conn:read(1) -- the connection has been made
      error 'the handler failed'
    end
    conn:write(conn:read(2))
  end))
  local _, port = server:address()
  local unlucky = assert(asio.connect('127.0.0.1', port))
  unlucky:write '!'
  t.failure('ECONNRESET', unlucky:read(1))
  local lucky = assert(asio.connect('127.0.0.1', port))
  lucky:write 'hi'
  lu.assertEquals(lucky:read(2), 'hi')
  server:close()
  local text = t.stderr()
  lu.assertEquals(t.occurrences(text, 'the handler failed'), 1)
  lu.assertStrContains(text, 'stack traceback')
end

function T.test_errors_of_every_kind_in_a_handler_that_has_waited()
  local value
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    conn:write 'before'
    conn:read(1)
    error(value)
  end))
  local _, port = server:address()
  for _, kind in ipairs { 'table', 'boolean', 'nil' } do
    value = ({ table = { code = 42 }, boolean = false })[kind]
    local conn = assert(asio.connect('127.0.0.1', port))
    lu.assertEquals(conn:read(6), 'before')
    conn:write '!'
    t.failure('ECONNRESET', conn:read(1))
    lu.assertStrContains(t.stderr(), kind)
  end
  server:close()
end

T.test_the_function_of_run_counts_as_joined = t.main(function()
  t.raises('out of run', asio.run, function() error 'out of run' end)
  lu.assertEquals(t.stderr(), '')
end)

T.test_a_spawned_thread_does_not_end_run = t.main(function()
  local result = asio.run(function()
    asio.spawn(error, 'not of run')
    asio.sleep(0.002)
    return 'fine'
  end)
  lu.assertEquals(result, 'fine')
  lu.assertEquals(t.occurrences(t.stderr(), 'not of run'), 1)
end)

function T.test_reported_even_when_the_script_ends_at_once()
  local result = t.child(function()
    local asio = require 'asio'
    asio.spawn(error, 'nobody ever turned the loop')
    asio.run()
  end)
  lu.assertEquals(t.occurrences(result.err, 'nobody ever turned the loop'), 1)
end

return T
