-- Every operation that waits, as data: how to begin it and all the ways in which it can end.
--
-- M.operations[name]:
--   ends      a set of the ways in which it can end by itself: done; the_end, its other side has
--             gone; closed, its own object was closed
--   limited   it takes a time-out of its own
--   stream    it reads or writes a connection: what runs over TLS as well (over_tls.lua)
--   network   it needs a network of its own, see support.slow_names
--   slow      ending it takes a second
--   lingers   the state does not close at once, since what was written is to go out
--   reports   texts that an end leaves on standard error, by way
--   prepare   a function that prepares one, to be called where one can wait, and returns
--     wait      begins it
--     <way>     makes it end in this way; does not wait
--     limit     sets its own time-out
--     expect    what `wait` returns then, by way; a code stands for a failure triple, a set of
--               codes for one of several
--     agree     (optional) after `done` met an interrupt: raises unless the object knows as well as
--               the waiter which came first; gets whether `wait` was done
--     spent     (optional) once it was interrupted the next wait is done at once
--     finish    (optional) gives up everything
--     held      what must not be collected
--
-- M.surroundings: what may be around a waiting call, from the outermost on.
--
-- SPDX-License-Identifier: MIT

local asio = require 'asio'
local raw = require 'raw'
local rawunix = require 'rawunix'
local can = require 'can'
local over_tls = require 'over_tls'
local t = require 'support'

local M = { operations = {}, surroundings = {} }

-- Surroundings --------------------------------------------------------------------------------

--- Makes fn run in a scope that ends after so many seconds.
function M.in_scope(seconds, fn)
  return function() return asio.timeout(seconds, fn) end
end
local in_scope = M.in_scope

local function in_coroutine(fn)
  return function() return asio.coroutine.wrap(fn)() end
end

local function surrounding(name, enter)
  table.insert(M.surroundings, { name = name, enter = enter })
end

surrounding('alone', function(fn) return fn end)
surrounding('in a scope', function(fn) return in_scope(60, fn) end)
surrounding('in a coroutine', in_coroutine)
surrounding('in a scope in a coroutine', function(fn) return in_coroutine(in_scope(60, fn)) end)
surrounding('in a coroutine in a scope', function(fn) return in_scope(60, in_coroutine(fn)) end)

-- Helpers -------------------------------------------------------------------------------------

local function set(...)
  local members = {}
  for _, member in ipairs { ... } do members[member] = true end
  return members
end

local function operation(name, about)
  M.operations[name] = about
end

-- For what a system does not have there is no operation, and no case.
local function operation_where(there, name, about)
  if there then operation(name, about) end
end

local has_unix_sockets = can.has 'unix_sockets'

-- More than the kernel takes for a peer that does not read and has small buffers.
local SMALL, TOO_MUCH = 2 ^ 17, ('s'):rep(2 ^ 23)

local GONE = set('EPIPE', 'ECONNRESET')

local function agreed(same)
  if not same then error('done for one side and not for the other', 0) end
end

-- A connection whose queue is full and whose peer does nothing by itself.
local function stuck()
  if over_tls.on then
    local conn, peer = t.raw_peer { linger = 0.05 }
    conn:set_timeout(nil, 0)
    conn:write(TOO_MUCH)
    conn:set_timeout(nil, nil)
    return conn, peer
  end
  local accepted
  local server = assert(asio.server('127.0.0.1', 0, function(conn) accepted = conn end,
    { linger = 0.05 }))
  local peer = raw.connect((select(2, server:address())), { buffers = SMALL })
  while not accepted do asio.sleep(0) end
  server:close()
  accepted:set_timeout(nil, 0)
  accepted:write(TOO_MUCH)
  accepted:set_timeout(nil, nil)
  return accepted, peer
end

local function drain(peer)
  return function()
    asio.spawn(function()
      while peer.fd >= 0 and peer:discard() do asio.sleep(0.001) end
      peer:close()
    end)
  end
end

-- A light thread that ends with one byte and fails at the end of the stream.
local function read_one(conn)
  local data, _, code = conn:read(1)
  if not data then error(code, 0) end
  return 'read'
end

-- One that may fail after the wait for it is over: somebody is there to take that.
local function spawn_goal(conn)
  local goal = asio.spawn(read_one, conn)
  asio.spawn(goal.join, goal)
  return goal
end

-- The error of a child as a value; an interrupt goes on.
local function caught(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then return true end
  if type(err) == 'string' then return false, err end
  error(err, 0)
end

-- Connections ---------------------------------------------------------------------------------

local function reading(method)
  return {
    ends = set('done', 'the_end', 'closed'),
    limited = true,
    stream = true,
    prepare = function()
      local a, b = asio.socketpair()
      local written = false
      return {
        wait = function() return a[method](a, 4) end,
        done = function()
          b:write 'data'
          written = true
        end,
        the_end = function() b:close() end,
        limit = function(seconds) a:set_timeout(seconds) end,
        closed = function() a:close() end,
        agree = function(ended)
          a:set_timeout(5)
          agreed(ended or not written or a:read(4) == 'data')
        end,
        expect = { done = { 'data' }, the_end = 'EOF', closed = 'ECANCELED' },
        held = { a, b },
      }
    end,
  }
end

operation('read', reading 'read')
operation('read_some', reading 'read_some')

local function writing(method)
  return {
    ends = set('done', 'the_end', 'closed'),
    limited = true,
    stream = true,
    prepare = function()
      local conn, peer = stuck()
      return {
        wait = function() return conn[method](conn, method == 'write' and 'more' or nil) end,
        done = drain(peer),
        the_end = function() peer:reset() end,
        limit = function(seconds) conn:set_timeout(nil, seconds) end,
        closed = function() conn:close() end,
        finish = function()
          conn:close()
          peer:reset()
        end,
        expect = { done = { true }, the_end = GONE, closed = 'ECANCELED' },
        held = { conn, peer },
      }
    end,
  }
end

operation('write', writing 'write')
operation('flush', writing 'flush')

operation('connect', {
  ends = set('done', 'the_end'),
  limited = true,
  slow = true,
  prepare = function()
    local listener, fillers = raw.full_listener()
    local options = {}
    local function give_up()
      for _, filler in ipairs(fillers) do filler:reset() end
      listener:close()
    end
    return {
      wait = function()
        local conn, message, code = asio.connect('127.0.0.1', listener:port(), options)
        if not conn then return conn, message, code end
        conn:close()
        return true
      end,
      -- The kernel tries again after a second, and finds room.
      done = function()
        for _, filler in ipairs(fillers) do filler:close() end
        while listener:accept(0) do end -- luacheck: ignore 542
      end,
      -- Or finds that the listener is gone.
      the_end = give_up,
      limit = function(seconds) options.timeout = seconds end,
      finish = give_up,
      expect = { done = { true }, the_end = 'ECONNREFUSED' },
      held = { listener, fillers },
    }
  end,
})

-- One for all: there is only one port for name servers. It answers what it has been told to answer,
-- and keeps all other questions until it is.
local name_server

local function serve_names(server)
  local kept = {}
  while server.users > 0 do
    local name, answer = server.socket:question()
    while name do
      table.insert(kept, { name = name:match '^[^.]*', answer = answer })
      name, answer = server.socket:question()
    end
    local asked = kept
    kept = {}
    for _, question in ipairs(asked) do
      local exists = server.exists[question.name]
      if exists == nil then table.insert(kept, question) else question.answer(exists) end
    end
    asio.sleep(0.001)
  end
  server.socket:close()
  if name_server == server then name_server = nil end
end

operation_where(raw.linux, 'name', {
  ends = set('done', 'the_end'),
  limited = true,
  network = true,
  prepare = function()
    if not name_server then
      name_server = { socket = raw.udp('127.0.0.1', 53), exists = {}, users = 0, names = 0 }
      asio.connect('localhost', 1) -- the first look-up takes its time: it loads who looks up
    end
    local server, listener, options = name_server, raw.listen(), {}
    server.users, server.names = server.users + 1, server.names + 1
    if server.users == 1 then asio.spawn(serve_names, server) end
    local name = 'name' .. server.names
    return {
      wait = function()
        local conn, message, code = asio.connect(name .. '.example', listener:port(), options)
        if not conn then return conn, message, code end
        conn:close()
        return true
      end,
      done = function() server.exists[name] = true end,
      the_end = function() server.exists[name] = false end,
      limit = function(seconds) options.timeout = seconds end,
      finish = function()
        server.exists[name] = false
        server.users = server.users - 1
        listener:close()
      end,
      expect = { done = { true }, the_end = 'EAI_NONAME' },
      held = { listener },
    }
  end,
})

operation('accept', {
  ends = set('done', 'closed'),
  limited = true,
  prepare = function()
    local server = assert(asio.server('127.0.0.1', 0))
    local _, port = server:address()
    local limit, peer
    local function accept(seconds)
      local conn, message, code = server:accept(seconds)
      if not conn then return conn, message, code end
      conn:close()
      return true
    end
    return {
      wait = function() return accept(limit) end,
      done = function() peer = raw.connect(port) end,
      limit = function(seconds) limit = seconds end,
      closed = function() server:close() end,
      agree = function(ended) agreed(ended or accept(5)) end,
      finish = function()
        server:close()
        if peer then peer:close() end
      end,
      expect = { done = { true }, closed = 'ECANCELED' },
      held = { server },
    }
  end,
})

-- Light threads -------------------------------------------------------------------------------

operation('join', {
  ends = set('done', 'the_end', 'closed'),
  limited = true,
  prepare = function()
    local a, b = asio.socketpair()
    local limit
    local goal = spawn_goal(a)
    return {
      wait = function() return goal:join(limit) end,
      done = function() b:write '!' end,
      the_end = function() b:close() end,
      closed = function() a:close() end,
      limit = function(seconds) limit = seconds end,
      finish = function()
        a:close()
        goal:join()
      end,
      expect = {
        done = { true, 'read' }, the_end = { false, 'EOF' }, closed = { false, 'ECANCELED' },
      },
      held = { a, b },
    }
  end,
})

operation('sleep', {
  ends = set 'done',
  prepare = function()
    return {
      wait = function() return asio.sleep(0.03 * t.patience) end,
      done = function() end,
      expect = { done = { true } },
    }
  end,
})

-- Two children: one whose end comes from outside, one that is let go by `done`.
local function grouped(closed_way, make)
  return {
    ends = set('done', 'the_end', 'closed'),
    prepare = function()
      local a, b = asio.socketpair()
      local gate = asio.event()
      local what = {
        done = function()
          b:write '!'
          gate:set()
        end,
        the_end = function() b:close() end,
        closed = function() a:close() end,
        finish = function() a:close() end,
        expect = { done = { true }, the_end = { false, 'EOF' }, closed = closed_way },
        held = { a, b },
      }
      make(what, function(g)
        g:spawn(read_one, a)
        g:spawn(gate.wait, gate)
      end)
      return what
    end,
  }
end

-- Its wait cancels the children when it is interrupted: there is nothing to wait for afterwards.
operation('group_wait', grouped({ true }, function(what, fill)
  local g = asio.group()
  fill(g)
  what.wait = function() return caught(g.wait, g) end
  what.closed = function() g:cancel() end
  what.spent = true
end))

operation('group', grouped({ false, 'ECANCELED' }, function(what, fill)
  what.wait = function() return caught(asio.group, fill) end
end))

-- Channels, locks -----------------------------------------------------------------------------

local function sending(capacity)
  return {
    ends = set('done', 'closed'),
    limited = true,
    prepare = function()
      local channel = asio.channel(capacity)
      for i = 1, capacity do channel:send(i) end
      local limit
      local function received()
        local values = {}
        for value in function() return (channel:recv(0)) end do table.insert(values, value) end
        return values
      end
      local taken
      return {
        wait = function() return channel:send('sent', limit) end,
        done = function() taken = channel:recv(0) end,
        closed = function() channel:close() end,
        limit = function(seconds) limit = seconds end,
        agree = function(ended)
          local values = received()
          table.insert(values, 1, taken)
          agreed((values[capacity + 1] == 'sent') == ended)
        end,
        -- Whoever was interrupted has taken his value back.
        finish = function() assert(#received() <= capacity, 'more than was sent') end,
        expect = { done = { true }, closed = 'EBADF' },
      }
    end,
  }
end

operation('send', sending(0))
operation('send_full', sending(3))

operation('recv', {
  ends = set('done', 'closed'),
  limited = true,
  prepare = function()
    local channel = asio.channel()
    local limit, sent
    return {
      wait = function() return channel:recv(limit) end,
      done = function() sent = channel:send('value', 0) end,
      closed = function() channel:close() end,
      limit = function(seconds) limit = seconds end,
      agree = function(ended) agreed((sent == true) == ended) end,
      expect = { done = { 'value' }, closed = 'EBADF' },
    }
  end,
})

operation('acquire', {
  ends = set 'done',
  limited = true,
  prepare = function()
    local semaphore = asio.semaphore(0)
    local limit
    return {
      wait = function() return semaphore:acquire(limit) end,
      done = function() semaphore:release() end,
      limit = function(seconds) limit = seconds end,
      agree = function(ended) agreed(semaphore:count() == (ended and 0 or 1)) end,
      finish = function() assert(semaphore:count() <= 1, 'more than was released') end,
      expect = { done = { true } },
    }
  end,
})

operation('lock', {
  ends = set('done', 'the_end'),
  limited = true,
  reports = { the_end = 'while it held a mutex' },
  prepare = function()
    local mutex, gate = asio.mutex(), asio.event()
    local limit
    local holder = asio.spawn(function()
      mutex:lock()
      gate:wait()
      mutex:unlock()
    end)
    return {
      wait = function()
        local ok, message, code = mutex:lock(limit)
        if not ok then return ok, message, code end
        mutex:unlock()
        return true
      end,
      done = function() gate:set() end,
      the_end = function() holder:cancel() end,
      limit = function(seconds) limit = seconds end,
      agree = function() assert(mutex:lock(5) and not mutex:unlock()) end,
      finish = function()
        gate:set()
        holder:join()
        assert(mutex:lock(0), 'not free')
        mutex:unlock()
      end,
      expect = { done = { true }, the_end = { true } },
    }
  end,
})

operation('event', {
  ends = set 'done',
  limited = true,
  prepare = function()
    local event = asio.event()
    local limit
    return {
      wait = function() return event:wait(limit) end,
      done = function() event:set() end,
      limit = function(seconds) limit = seconds end,
      expect = { done = { true } },
    }
  end,
})

-- Select --------------------------------------------------------------------------------------

-- One of each kind; `make` says which of them ends the wait, and how.
local function selecting(ends, make)
  return {
    ends = ends,
    limited = true,
    prepare = function()
      local a, b = asio.socketpair()
      local goal = spawn_goal(a)
      local list = { asio.channel(), goal, asio.event(), asio.semaphore(0) }
      local what = {
        wait = function() return asio.select(list) end,
        limit = function(seconds) list.timeout = seconds end,
        finish = function()
          a:close()
          goal:join()
          assert(list[4]:count() <= 1, 'more than was released')
        end,
        held = { a, b },
      }
      make(what, list, a, b)
      return what
    end,
  }
end

operation('select_channel', selecting(set('done', 'closed'), function(what, list)
  local sent
  what.done = function() sent = list[1]:send('value', 0) end
  what.closed = function() list[1]:close() end
  what.agree = function(ended) agreed((sent == true) == ended) end
  what.expect = { done = { 1, 'value' }, closed = { 1, nil, 'closed', 'EBADF' } }
end))

operation('select_thread', selecting(set('done', 'the_end', 'closed'), function(what, _, a, b)
  what.done = function() b:write '!' end
  what.the_end = function() b:close() end
  what.closed = function() a:close() end
  what.expect = {
    done = { 2, true, 'read' }, the_end = { 2, false, 'EOF' }, closed = { 2, false, 'ECANCELED' },
  }
end))

operation('select_event', selecting(set 'done', function(what, list)
  what.done = function() list[3]:set() end
  what.expect = { done = { 3, true } }
end))

operation('select_semaphore', selecting(set 'done', function(what, list)
  what.done = function() list[4]:release() end
  what.agree = function(ended) agreed(list[4]:count() == (ended and 0 or 1)) end
  what.expect = { done = { 4, true } }
end))

-- What comes from the system ------------------------------------------------------------------

operation('signal', {
  ends = set('done', 'closed'),
  limited = true,
  prepare = function()
    local signal = assert(asio.signal(raw.signal_name))
    local limit
    return {
      wait = function() return signal:wait(limit) end,
      -- Everybody who watches gets it.
      done = function() raw.kill(raw.signal) end,
      closed = function() signal:close() end,
      limit = function(seconds) limit = seconds end,
      agree = function(ended) agreed(ended or signal:wait(5)) end,
      finish = function() signal:close() end,
      expect = { done = { true }, closed = 'ECANCELED' },
    }
  end,
})

local function polling(events, make)
  return {
    ends = set('done', 'the_end'),
    limited = true,
    prepare = function()
      local near, far = raw.pair()
      local limit
      local what = {
        wait = function() return asio.wait_fd(near.fd, events, limit) end,
        limit = function(seconds) limit = seconds end,
        -- An event that nobody has taken is still there.
        agree = function() agreed(asio.wait_fd(near.fd, events, 5)) end,
        finish = function()
          near:close()
          far:close()
        end,
        expect = { done = { events }, the_end = { events } },
        held = { near, far },
      }
      make(what, near, far)
      return what
    end,
  }
end

operation('wait_fd_r', polling('r', function(what, _, far)
  what.done = function() far:send 'x' end
  what.the_end = function() far:close() end
end))

operation('wait_fd_w', polling('w', function(what, near, far)
  near:send(TOO_MUCH, 0)
  what.done = drain(far)
  what.the_end = function() far:reset() end
end))

-- Reading up to something ---------------------------------------------------------------------

local function reading_up_to(method, argument, ends, text, expect)
  return {
    ends = ends,
    limited = true,
    stream = true,
    prepare = function()
      local a, b = asio.socketpair()
      local written = false
      local what = {
        wait = function() return a[method](a, argument) end,
        done = function()
          b:write(text)
          written = true
          if method == 'read_all' then b:close() end
        end,
        the_end = function() b:close() end,
        limit = function(seconds) a:set_timeout(seconds) end,
        closed = function() a:close() end,
        agree = function(ended)
          a:set_timeout(5)
          agreed(method ~= 'peek' and ended or not written or a:read(4) == 'data')
        end,
        expect = { done = { 'data' }, the_end = 'EOF', closed = 'ECANCELED' },
        held = { a, b },
      }
      for way, expected in pairs(expect or {}) do what.expect[way] = expected end
      return what
    end,
  }
end

local all_ways = set('done', 'the_end', 'closed')
operation('read_until', reading_up_to('read_until', ':', all_ways, 'data:'))
local long = ('long'):rep(9)
operation('read_until_long', reading_up_to('read_until', long, all_ways, 'data' .. long))
operation('read_line', reading_up_to('read_line', nil, all_ways, 'data\r\n'))
operation('read_all', reading_up_to('read_all', nil, all_ways, 'data', { the_end = { '' } }))
operation('peek', reading_up_to('peek', 4, all_ways, 'data'))

-- Raises what the others return.
operation('lines', {
  ends = set('done', 'the_end'),
  stream = true,
  prepare = function()
    local a, b = asio.socketpair()
    local next_line = a:lines()
    return {
      wait = function() return next_line() or 'no more' end,
      done = function() b:write 'data\n' end,
      the_end = function() b:close() end,
      expect = { done = { 'data' }, the_end = { 'no more' } },
      held = { a, b },
    }
  end,
})

-- Unix sockets, and passing connections over them -----------------------------------------------

local unix_names = 0

local function unix_name()
  unix_names = unix_names + 1
  return ('@asio.waits.%d.%d'):format(raw.pid(), unix_names)
end

operation_where(has_unix_sockets, 'connect_unix', {
  ends = set('done', 'the_end'),
  limited = true,
  prepare = function()
    local name, options = unix_name(), {}
    local listener, fillers = rawunix.full_listener(name)
    local function give_up()
      for _, filler in ipairs(fillers) do filler:close() end
      listener:close()
    end
    return {
      wait = function()
        local conn, message, code = asio.connect('unix:' .. name, options)
        if not conn then return conn, message, code end
        conn:close()
        return true
      end,
      done = function()
        for _, filler in ipairs(fillers) do filler:close() end
        for _ = 1, #fillers do listener:accept(0):close() end
      end,
      the_end = give_up,
      limit = function(seconds) options.timeout = seconds end,
      finish = give_up,
      expect = { done = { true }, the_end = 'ECONNREFUSED' },
      held = { listener, fillers },
    }
  end,
})

-- Two ends, or one and a raw socket.
local function carriers(other_is_raw)
  local name = unix_name()
  local server = assert(asio.server('unix:' .. name, nil, { handles = true, linger = 0.05 }))
  local other = other_is_raw and rawunix.connect(name)
    or assert(asio.connect('unix:' .. name, { handles = true }))
  local conn = assert(server:accept())
  server:close()
  return conn, other
end

operation_where(has_unix_sockets, 'recv_handle', {
  ends = set('done', 'the_end', 'closed'),
  limited = true,
  prepare = function()
    local conn, other = carriers()
    local passed, rest = asio.socketpair()
    local sent
    local function receive()
      local received, message, code = conn:recv_handle()
      if not received then return received, message, code end
      received:close()
      return true
    end
    return {
      wait = receive,
      done = function() sent = assert(other:send_handle(passed)) end,
      the_end = function() other:close() end,
      closed = function() conn:close() end,
      limit = function(seconds) conn:set_timeout(seconds) end,
      agree = function(ended)
        conn:set_timeout(5)
        agreed(ended or not sent or receive())
      end,
      finish = function()
        for _, one in ipairs { conn, other, passed, rest } do one:close() end
      end,
      expect = { done = { true }, the_end = 'EOF', closed = 'ECANCELED' },
      held = { conn, other, passed, rest },
    }
  end,
})

-- While the socket takes no more; while there are bytes to be sent first.
local function sending_handle(fill)
  return {
    ends = set('done', 'the_end', 'closed'),
    limited = true,
    prepare = function()
      local conn, peer = carriers(true)
      local passed, rest = asio.socketpair()
      fill(conn)
      return {
        wait = function() return conn:send_handle(passed) end,
        done = drain(peer),
        the_end = function() peer:close() end,
        closed = function() conn:close() end,
        limit = function(seconds) conn:set_timeout(nil, seconds) end,
        agree = function(ended) agreed(ended == not passed:fd()) end,
        finish = function()
          conn:close()
          passed:close()
          rest:close()
          peer:close()
        end,
        expect = { done = { true }, the_end = GONE, closed = 'ECANCELED' },
        held = { conn, peer, passed, rest },
      }
    end,
  }
end

operation_where(has_unix_sockets, 'send_handle', sending_handle(function(conn) rawunix.fill(conn:fd()) end))

operation_where(has_unix_sockets, 'send_handle_after_bytes', sending_handle(function(conn)
  conn:set_timeout(nil, 0)
  conn:write(TOO_MUCH)
  conn:set_timeout(nil, nil)
end))

operation('shutdown', {
  ends = set('done', 'closed'),
  limited = true,
  prepare = function()
    local started, limit
    local function handler(conn)
      started = true
      conn:read(1)
      conn:close()
    end
    local server = has_unix_sockets and assert(asio.server('unix:' .. unix_name(), handler))
      or assert(asio.server('127.0.0.1', 0, handler))
    local client = assert(asio.connect(server:address()))
    while not started do asio.sleep(0) end
    local what
    what = {
      wait = function()
        local ok, message, code = server:shutdown(limit)
        what.spent = what.spent or code == 'ETIMEDOUT' -- its own: the handlers were cancelled
        return ok, message, code
      end,
      done = function() client:write 'x' end,
      closed = function() server:close() end,
      limit = function(seconds) limit = seconds end,
      finish = function() client:close() end,
      expect = { done = { true }, closed = 'ECANCELED' },
      held = { server, client },
    }
    return what
  end,
})

-- Names -----------------------------------------------------------------------------------------

local ns = require 'ns'
local names = ns.has_ares() and ns.start()
local asked = 0

if names then
  operation('resolve', {
    ends = set('done', 'the_end'),
    limited = true,
    prepare = function()
      asked = asked + 1
      local opts = { type = 'A', servers = names.servers }
      local name = ('q%d.held.ttl0.test'):format(asked)
      return {
        wait = function()
          local list, message, code = asio.resolve(name, opts)
          if not list then return list, message, code end
          return list[1].address
        end,
        done = function() names:go(name) end,
        the_end = function() names:fail(name) end,
        limit = function(seconds) opts.timeout = seconds end,
        expect = { done = { '127.0.0.1' }, the_end = 'EAI_NONAME' },
      }
    end,
  })
end

-- TLS -------------------------------------------------------------------------------------------

local has_tls = can.has 'tls' and can.has 'openssl'
local plain_pair, of_server = over_tls.plain_pair, over_tls.server_options

local function of_client()
  return { verify = false }
end

-- A failure closes the connection: every wait has one of its own.
local function shaking_hands(ours, others)
  return {
    ends = set('done', 'the_end', 'closed'),
    limited = true,
    prepare = function()
      local options, a, b = ours()
      local what
      what = {
        wait = function()
          a, b = plain_pair()
          what.held = { what.held, a, b }
          return a:start_tls(options)
        end,
        done = function() if b then asio.spawn(b.start_tls, b, others()) end end,
        the_end = function() if b then b:close() end end,
        closed = function() if a then a:close() end end,
        limit = function(seconds) options.handshake_timeout = seconds end,
        finish = function() if a then a:close() b:close() end end,
        expect = { done = { true }, the_end = 'EOF', closed = 'ECANCELED' },
      }
      return what
    end,
  }
end

operation_where(has_tls, 'start_tls', shaking_hands(of_client, of_server))
operation_where(has_tls, 'start_tls_server', shaking_hands(of_server, of_client))

-- The script's function, which chooses a certificate, waits.
operation_where(has_tls, 'start_tls_names', {
  ends = set 'done',
  limited = true,
  prepare = function()
    local options, gate, a, b = of_server(), asio.event(), nil, nil
    options.names = function() gate:wait() end
    local what
    what = {
      wait = function()
        a, b = plain_pair()
        what.held = { what.held, a, b }
        asio.spawn(b.start_tls, b, { verify = false, server_name = 'localhost' })
        return a:start_tls(options)
      end,
      done = function() gate:set() end,
      limit = function(seconds) options.handshake_timeout = seconds end,
      finish = function() if a then a:close() b:close() end end,
      expect = { done = { true } },
    }
    return what
  end,
})

operation_where(has_tls, 'connect_tls', {
  ends = set('done', 'the_end'),
  limited = true,
  prepare = function()
    local accepted, go = {}, nil
    local server = assert(asio.server('127.0.0.1', 0, function(conn)
      table.insert(accepted, conn)
      if go then go(conn) end
    end))
    local _, port = server:address()
    local options = { tls = of_client() }
    local function each(fn)
      go = fn
      for _, conn in ipairs(accepted) do fn(conn) end
    end
    return {
      wait = function()
        local conn, message, code = asio.connect('127.0.0.1', port, options)
        if not conn then return conn, message, code end
        conn:close()
        return true
      end,
      done = function()
        each(function(conn) asio.spawn(conn.start_tls, conn, of_server()) end)
      end,
      the_end = function()
        each(function(conn) conn:close() end)
      end,
      limit = function(seconds) options.timeout = seconds end,
      finish = function()
        each(function(conn) conn:close() end)
        server:close()
      end,
      expect = { done = { true }, the_end = 'EOF' },
      held = { server, accepted },
    }
  end,
})

-- A connection that was accepted while its handshake goes on.
operation_where(has_tls, 'read_in_handshake', {
  ends = set('done', 'the_end', 'closed'),
  limited = true,
  prepare = function()
    local options = of_server()
    options.server = nil
    local server = assert(asio.server('127.0.0.1', 0, nil, { tls = options }))
    local client = assert(asio.connect(server:address()))
    local conn = assert(server:accept())
    server:close()
    local written = false
    return {
      wait = function() return conn:read(4) end,
      done = function()
        asio.spawn(function()
          if client:start_tls(of_client()) then client:write 'data' end
        end)
        written = true
      end,
      the_end = function() client:close() end,
      closed = function() conn:close() end,
      limit = function(seconds) conn:set_timeout(seconds) end,
      agree = function(ended)
        conn:set_timeout(5)
        agreed(ended or not written or conn:read(4) == 'data')
      end,
      finish = function()
        conn:close()
        client:close()
      end,
      expect = { done = { 'data' }, the_end = 'ETRUNCATED', closed = 'ECANCELED' },
      held = { conn, client },
    }
  end,
})

-- Datagrams -----------------------------------------------------------------------------------

-- Connected: its peer may turn out not to be there.
operation('udp_recv', {
  ends = set('done', 'the_end', 'closed'),
  limited = true,
  prepare = function()
    local a, b = assert(asio.udp('127.0.0.1', 0)), assert(asio.udp('127.0.0.1', 0))
    assert(a:connect(b:address()) and b:connect(a:address()))
    local sent = false
    local function received()
      local data, message, code = a:recv()
      if data then return data end
      return nil, message, code
    end
    return {
      wait = received,
      done = function()
        b:send 'data'
        sent = true
      end,
      the_end = function()
        b:close()
        a:send 'to nobody'
      end,
      limit = function(seconds) a:set_timeout(seconds) end,
      closed = function() a:close() end,
      agree = function(ended)
        a:set_timeout(5)
        agreed(ended or not sent or received() == 'data')
      end,
      finish = function()
        a:close()
        b:close()
      end,
      expect = { done = { 'data' }, the_end = 'ECONNREFUSED', closed = 'ECANCELED' },
      held = { a, b },
    }
  end,
})

-- One network for all, whose only interface lets hardly anything through: there the kernel's buffer is
-- full, and so is the socket's queue. Networks are slow to make, and slower to go.
local slow_network

--- Makes it; false where the system does not allow that. For who counts open files before and after.
function M.open_network()
  slow_network = slow_network or raw.namespace()
  return slow_network ~= nil
end

local function set_slow(slow)
  if slow_network.slow == slow then return end
  slow_network.slow = slow
  slow_network:run(os.execute, 'PATH=$PATH:/usr/sbin:/sbin tc qdisc ' .. (slow
    and 'add dev lo root tbf rate 8kbit burst 2kb limit 1mb' or 'del dev lo root'))
end

local function stuck_socket()
  assert(M.open_network())
  set_slow(true)
  local s = assert(slow_network:run(asio.udp, '127.0.0.1', 0, { send_buffer = 4096, send_queue = 2000 }))
  local ip, port = s:address()
  s:set_timeout(nil, 0)
  local code
  repeat
    local ok, _, what = s:send(('s'):rep(1000), ip, port)
    assert(ok or what == 'ETIMEDOUT', what)
    code = what
  until code
  s:set_timeout(nil, nil)
  return s, ip, port
end

local function let_through()
  set_slow(false)
end

local function sending_datagrams(method)
  return {
    ends = set('done', 'closed'),
    limited = true,
    prepare = function()
      local s, ip, port = stuck_socket()
      return {
        wait = function()
          if method == 'flush' then return s:flush() end
          return s:send('more', ip, port)
        end,
        done = let_through, -- this one and all others
        limit = function(seconds) s:set_timeout(nil, seconds) end,
        closed = function() s:close() end,
        finish = function()
          s:close()
          let_through()
        end,
        expect = { done = { true }, closed = 'ECANCELED' },
        held = { s },
      }
    end,
  }
end

operation('udp_send', sending_datagrams 'send')
operation('udp_flush', sending_datagrams 'flush')

-- Relaying --------------------------------------------------------------------------------------

-- It closes what it has taken over: every wait has connections of its own.
operation('relay', {
  ends = set('done', 'the_end', 'closed'),
  limited = true,
  stream = true,
  prepare = function()
    local options, a, far_a, b, far_b = {}
    local stock = {}
    for i = 1, over_tls.on and 6 or 0 do stock[i] = { asio.socketpair() } end -- that takes a handshake
    local function open()
      return unpack(table.remove(stock) or { asio.socketpair() })
    end
    local what
    what = {
      wait = function()
        a, far_a = open()
        b, far_b = open()
        what.held = { what.held, a, far_a, b, far_b }
        return asio.relay(a, b, options)
      end,
      done = function()
        far_a:write 'x'
        far_a:close()
        far_b:close()
      end,
      the_end = function()
        far_b:close()
        far_a:close()
      end,
      closed = function() if a then a:close() end end, -- it may have been cancelled before it began
      limit = function(seconds) options.timeout = seconds end,
      finish = function() if a then far_a:close() far_b:close() end end,
      expect = { done = { 1, 0 }, the_end = { 0, 0 }, closed = 'ECANCELED' },
    }
    return what
  end,
})

-- Standard streams ----------------------------------------------------------------------------

-- What asio.stdin is over a descriptor that is taken over; which end of a pipe it is does not matter.
local function as_stdin(fd)
  local process = require 'process'
  local saved = raw.redirect(fd, 0)
  asio.stdin = nil
  local conn = asio.stdin
  asio.stdin = nil
  process.close(raw.redirect(saved, 0), saved, fd)
  return conn
end

local function standard_stream(method, fill)
  return {
    ends = set('done', 'the_end', 'closed'),
    limited = true,
    lingers = fill ~= nil,
    prepare = function()
      local process = require 'process'
      local from, to = process.pipe()
      local conn, other = as_stdin(fill and to or from), fill and from or to
      if fill then
        conn:set_timeout(nil, 0)
        conn:write(fill)
        conn:set_timeout(nil, nil)
      end
      local function close_other()
        if other then process.close(other) end
        other = nil
      end
      return {
        wait = function() return conn[method](conn, method == 'read' and 4 or nil) end,
        done = function()
          if not fill then return process.write(other, 'data') end
          asio.spawn(function()
            while other do
              if not process.poll(other) then asio.sleep(0.001) end
            end
          end)
        end,
        the_end = close_other,
        limit = function(seconds) conn:set_timeout(seconds) end,
        closed = function() conn:close() end,
        finish = function()
          conn:abort()
          close_other()
        end,
        expect = {
          done = { fill and true or 'data' },
          the_end = fill and 'EPIPE' or 'EOF',
          closed = 'ECANCELED',
        },
        held = { conn },
      }
    end,
  }
end

if raw.linux then
  operation('stdio_read', standard_stream 'read')
  operation('stdio_flush', standard_stream('flush', ('s'):rep(2 ^ 18)))
end

-- Connections through a proxy -----------------------------------------------------------------

operation('accept_proxied', {
  ends = set('done', 'closed'),
  prepare = function()
    local server = assert(asio.server('127.0.0.1', 0, nil, { proxy_protocol = { from = '127.0.0.1' } }))
    local client = assert(asio.connect(server:address()))
    client:write 'PROXY TCP4 1.2.3.4'
    return {
      wait = function()
        local conn, message, code = server:accept()
        if not conn then return conn, message, code end
        local ip = conn:peer()
        conn:close()
        return ip
      end,
      done = function() client:write ' 5.6.7.8 1 2\r\n' end,
      closed = function() server:close() end,
      finish = function()
        server:close()
        client:close()
      end,
      expect = { done = { '1.2.3.4' }, closed = 'ECANCELED' },
      held = { server, client },
    }
  end,
})

return M
