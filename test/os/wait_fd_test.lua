-- asio.wait_fd: descriptors that belong to somebody else.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio 431/ffi 431/raw (child processes require their own)

local lu = require 'luaunit'
local asio = require 'asio'
local ffi = require 'ffi'
local raw = require 'raw'
local t = require 'support'

ffi.cdef 'int socketpair(int, int, int, int *);'

local C = ffi.C
local can = require 'can'
local numbers = require 'numbers'
local AF_UNIX, SOCK_STREAM, F_GETFL, O_NONBLOCK = 1, numbers.SOCK_STREAM, 3, numbers.O_NONBLOCK
local T = {}

local sockets_of = {} -- Windows: by their numbers

local function raw_pair()
  local a, b = raw.pair()
  sockets_of[a.fd], sockets_of[b.fd] = a:set_buffers(8192), b:set_buffers(8192)
  return a.fd, b.fd
end

local function pipe()
  if raw.windows then return raw_pair() end
  local ends = ffi.new 'int[2]'
  assert(C.pipe(ends) == 0)
  return ends[0], ends[1]
end

local function sockets()
  if raw.windows then return raw_pair() end
  local ends = ffi.new 'int[2]'
  assert(C.socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0)
  return ends[0], ends[1]
end

local function put(fd, text)
  if sockets_of[fd] then return sockets_of[fd]:send(text, 5) end
  assert(C.write(fd, text, #text) == #text)
end

local function get(fd, n)
  if sockets_of[fd] then return sockets_of[fd]:recv(n, 5) end
  local buffer = ffi.new('char[?]', n)
  return ffi.string(buffer, assert(C.read(fd, buffer, n)))
end

local function close(...)
  for _, fd in ipairs { ... } do
    if sockets_of[fd] then
      sockets_of[fd]:close()
      sockets_of[fd] = nil
    else
      raw.close(fd)
    end
  end
end

-- So much that the next write would block.
local function fill(fd)
  local chunk = ('x'):rep(65536)
  if sockets_of[fd] then
    repeat until sockets_of[fd]:send(chunk, 0.05) < #chunk
    return
  end
  local flags = C.fcntl(fd, F_GETFL)
  C.fcntl(fd, 4, ffi.cast('int', bit.bor(flags, O_NONBLOCK)))
  while C.write(fd, chunk, #chunk) > 0 do end
  while C.write(fd, 'x', 1) > 0 do end
  C.fcntl(fd, 4, ffi.cast('int', flags))
end

-- Once broken -----------------------------------------------------------------------------------

-- One that libuv has not registered at that moment was taken, and the connection's own reads and
-- writes then came to nothing, or to an assertion in libuv that ends the process.
function T.test_a_connection_of_ours_that_idles_is_refused()
  local a, b = t.pair()
  t.failure('EEXIST', asio.wait_fd(a:fd(), 'r', 0.01))
  local reader = asio.spawn(function() return a:read(4) end)
  t.failure('EEXIST', asio.wait_fd(a:fd(), 'r', 0.01))
  b:write 'data'
  lu.assertEquals({ reader:join(5) }, { true, 'data' })
end

function T.test_a_connection_of_ours_does_not_crash()
  local out = t.quiet_child(function()
    local asio = require 'asio'
    asio.run(function()
      local a, b = asio.socketpair()
      asio.spawn(function() return asio.wait_fd(a:fd(), 'r', 0.2) end)
      a:set_timeout(1, 1)
      b:set_timeout(1, 1)
      a:write(('x'):rep(2 ^ 20))
      local reader = asio.spawn(function() return #(b:read(2 ^ 20) or '') end)
      a:flush()
      io.write(tostring(select(2, reader:join())))
      a:close()
      b:close()
    end)
  end)
  lu.assertEquals(out, tostring(2 ^ 20))
end

-- Ready -----------------------------------------------------------------------------------------

function T.test_a_pipe()
  local r, w = pipe()
  lu.assertEquals(asio.wait_fd(w, 'w'), 'w')
  t.failure('ETIMEDOUT', asio.wait_fd(r, 'r', 0))
  t.failure('ETIMEDOUT', asio.wait_fd(r, 'r', 0.002))
  put(w, 'x')
  lu.assertEquals(asio.wait_fd(r, 'r', 0), 'r')
  lu.assertEquals(asio.wait_fd(r, 'r'), 'r') -- as long as nobody reads
  get(r, 1)
  t.failure('ETIMEDOUT', asio.wait_fd(r, 'r', 0))
  local waiter = asio.spawn(asio.wait_fd, r, 'r')
  lu.assertEquals(waiter:status(), 'waiting')
  put(w, 'y')
  lu.assertEquals({ waiter:join(5) }, { true, 'r' })
  fill(w)
  t.failure('ETIMEDOUT', asio.wait_fd(w, 'w', 0.002))
  waiter = asio.spawn(asio.wait_fd, w, 'w')
  while waiter:status() == 'waiting' and asio.wait_fd(r, 'r', 1) do get(r, 65536) end
  lu.assertEquals({ waiter:join(5) }, { true, 'w' })
  close(r, w)
end

function T.test_a_socket_pair_in_both_directions()
  local a, b = sockets()
  lu.assertEquals(asio.wait_fd(a, 'rw'), 'w')
  put(b, 'x')
  lu.assertEquals(asio.wait_fd(a, 'rw'), 'rw')
  lu.assertEquals(asio.wait_fd(a, 'r'), 'r')
  lu.assertEquals(asio.wait_fd(a, 'w'), 'w')
  fill(a)
  lu.assertEquals(asio.wait_fd(a, 'rw'), 'r')
  get(a, 1)
  t.failure('ETIMEDOUT', asio.wait_fd(a, 'rw', 0.002))
  close(a, b)
end

function T.test_the_other_end_closed_is_something_to_read()
  local r, w = pipe()
  local waiter = asio.spawn(asio.wait_fd, r, 'r')
  close(w)
  lu.assertEquals({ waiter:join(5) }, { true, 'r' })
  lu.assertEquals(get(r, 1), '')
  close(r)
  local a, b = sockets()
  waiter = asio.spawn(asio.wait_fd, a, 'rw')
  close(b)
  lu.assertTrue((waiter:join(5)))
  close(a)
  r, w = pipe()
  fill(w)
  waiter = asio.spawn(asio.wait_fd, w, 'w')
  close(r) -- an error is something to write for
  lu.assertEquals({ waiter:join(5) }, { true, 'w' })
  close(w)
end

function T.test_several_who_wait_for_the_same()
  local a, b = sockets()
  fill(a)
  local readers, writer = {}, asio.spawn(asio.wait_fd, a, 'w')
  for i = 1, 3 do readers[i] = asio.spawn(asio.wait_fd, a, 'r') end
  local both, impatient = asio.spawn(asio.wait_fd, a, 'rw'), asio.spawn(asio.wait_fd, a, 'r', 0.001)
  t.failure('ETIMEDOUT', select(2, impatient:join()))
  lu.assertEquals(writer:status(), 'waiting')
  put(b, 'x')
  for i = 1, 3 do lu.assertEquals({ readers[i]:join(5) }, { true, 'r' }) end
  lu.assertEquals({ both:join(5) }, { true, 'r' })
  lu.assertEquals(writer:status(), 'waiting')
  while writer:status() == 'waiting' and asio.wait_fd(b, 'r', 1) do get(b, 2 ^ 20) end
  lu.assertEquals({ writer:join(5) }, { true, 'w' })
  close(a, b)
end

function T.test_who_waits_again_at_once_is_no_busy_loop()
  local r, w = pipe()
  put(w, 'x')
  local rounds, other = 0, 0
  local spinner = asio.spawn(function()
    while rounds < 1000 do
      assert(asio.wait_fd(r, 'r'))
      rounds = rounds + 1
    end
  end)
  for _ = 1, 100 do
    asio.sleep(0.0001)
    other = other + 1
  end
  lu.assertTrue(spinner:join())
  lu.assertEquals({ rounds, other }, { 1000, 100 })
  close(r, w)
end

function T.test_many_descriptors_at_once()
  local ends, waiters = {}, {}
  for i = 1, 200 do
    local r, w = pipe()
    ends[i] = { r, w }
    waiters[i] = asio.spawn(asio.wait_fd, r, 'r')
  end
  for i = 200, 1, -1 do put(ends[i][2], 'x') end
  for i = 1, 200 do
    lu.assertEquals({ waiters[i]:join(5) }, { true, 'r' })
    close(ends[i][1], ends[i][2])
  end
end

function T.test_a_server_out_of_raw_sockets()
  local listener = raw.listen()
  local accepted
  local waiter = asio.spawn(function()
    assert(asio.wait_fd(listener.fd, 'r'))
    accepted = listener:accept(0)
  end)
  local peer = raw.connect(listener:port())
  lu.assertTrue(waiter:join(5))
  peer:send('x', 0)
  lu.assertEquals(asio.wait_fd(accepted.fd, 'r', 5), 'r')
  lu.assertEquals(accepted:recv(1, 0), 'x')
  accepted:close()
  peer:close()
  listener:close()
end

-- The descriptor stays its owner's --------------------------------------------------------------

function T.test_its_flags_are_left_alone()
  can.need 'descriptors'
  local r, w = pipe()
  local a, b = sockets()
  for _, fd in ipairs { r, a } do
    local before = C.fcntl(fd, F_GETFL)
    lu.assertEquals(bit.band(before, O_NONBLOCK), 0)
    local waiter = asio.spawn(asio.wait_fd, fd, 'r')
    asio.yield()
    lu.assertEquals(C.fcntl(fd, F_GETFL), before, 'while somebody waits')
    put(fd == r and w or b, 'x')
    waiter:join(5)
    asio.yield()
    lu.assertEquals(C.fcntl(fd, F_GETFL), before)
    get(fd, 1)
    t.failure('ETIMEDOUT', asio.wait_fd(fd, 'r', 0))
    lu.assertEquals(C.fcntl(fd, F_GETFL), before)
    C.fcntl(fd, 4, ffi.cast('int', bit.bor(before, O_NONBLOCK)))
    t.failure('ETIMEDOUT', asio.wait_fd(fd, 'r', 0))
    lu.assertEquals(bit.band(C.fcntl(fd, F_GETFL), O_NONBLOCK), O_NONBLOCK)
  end
  close(r, w, a, b)
end

function T.test_the_number_is_free_as_soon_as_nobody_waits()
  can.need 'descriptors'
  -- Closed by its owner after the wait, given to another pipe: nothing remembers the old one.
  for _ = 1, 50 do
    local r, w = pipe()
    put(w, 'x')
    lu.assertEquals(asio.wait_fd(r, 'r'), 'r')
    close(r, w)
    local r2, w2 = pipe()
    lu.assertEquals({ r2, w2 }, { r, w })
    t.failure('ETIMEDOUT', asio.wait_fd(r2, 'r', 0))
    lu.assertEquals(asio.wait_fd(w2, 'w'), 'w')
    close(r2, w2)
  end
end

function T.test_a_number_used_again_by_a_connection()
  local r, w = pipe()
  local waiter = asio.spawn(asio.wait_fd, r, 'r')
  waiter:cancel()
  waiter:join()
  close(r, w)
  local a, b = t.pair()
  b:write 'data'
  lu.assertEquals(a:read(4), 'data')
  t.failure('ETIMEDOUT', asio.timeout(0.001, a.read, a, 1))
end

-- Refused ---------------------------------------------------------------------------------------

function T.test_what_cannot_be_polled()
  can.need 'descriptors'
  local path = os.tmpname()
  local file = raw.file(path)
  t.failure('EPERM', asio.wait_fd(file, 'r'))
  t.failure('EPERM', asio.wait_fd(file, 'w', 0))
  close(file)
  t.failure('EBADF', asio.wait_fd(file, 'r'))
  t.failure('EBADF', asio.wait_fd(1000000, 'r'))
  t.failure('EBADF', asio.wait_fd(2 ^ 31 - 1, 'r'))
  os.remove(path)
end

function T.test_every_descriptor_there_is()
  -- Those of the loop among them: refused or waited for, nothing breaks.
  for fd = 0, 40 do
    for _, events in ipairs { 'r', 'w', 'rw' } do
      local ready, message = asio.wait_fd(fd, events, 0)
      lu.assertIsString(ready or message)
    end
  end
  local a, b = t.tcp()
  b:write 'x'
  lu.assertEquals(a:read(1), 'x')
  local server = assert(asio.server('127.0.0.1', 0))
  lu.assertNotNil(asio.connect('localhost', (select(2, server:address()))))
  server:close()
end

function T.test_bad_arguments()
  for _, wrong in ipairs { -1, 0.5, 0 / 0, math.huge, 2 ^ 31, 'x', {}, io.stdin } do
    t.bad_argument(1, 'wait_fd', function() asio.wait_fd(wrong, 'r') end)
  end
  t.bad_argument(1, 'wait_fd', function() asio.wait_fd() end)
  for _, wrong in ipairs { '', 'x', 'wr', 'rr', 1, {}, true } do
    t.bad_argument(2, 'wait_fd', function() asio.wait_fd(0, wrong) end)
  end
  t.bad_argument(2, 'wait_fd', function() asio.wait_fd(0) end)
  for _, wrong in ipairs { -1, 0 / 0, 'soon', {} } do
    t.bad_argument(3, 'wait_fd', function() asio.wait_fd(0, 'r', wrong) end)
  end
end

function T.test_where_nothing_can_wait()
  local r, w = pipe()
  put(w, 'x')
  t.raises('cannot wait here', table.sort, { 2, 1 }, function() asio.wait_fd(r, 'r') end)
  local ok, err = coroutine.resume(coroutine.create(function() asio.wait_fd(r, 'r') end))
  lu.assertFalse(ok)
  lu.assertStrContains(err, 'asio.coroutine.install()')
  lu.assertEquals(asio.wait_fd(r, 'r', 0), 'r')
  close(r, w)
end

-- The rest --------------------------------------------------------------------------------------

T.test_in_the_main_chunk = t.main(function()
  local r, w = pipe()
  asio.spawn(function()
    asio.yield()
    put(w, 'x')
  end)
  lu.assertEquals(asio.wait_fd(r, 'r'), 'r')
  get(r, 1)
  t.failure('ETIMEDOUT', asio.wait_fd(r, 'r', 0))
  t.failure('ETIMEDOUT', asio.timeout(0.001, asio.wait_fd, r, 'r'))
  local waiter = asio.spawn(asio.wait_fd, r, 'r')
  asio.after(0.001, function() put(w, 'y') end)
  lu.assertEquals(asio.wait_fd(r, 'r'), 'r') -- both
  lu.assertEquals({ waiter:join() }, { true, 'r' })
  get(r, 1)
  asio.spawn(asio.wait_fd, r, 'r', 0.005) -- keeps run going
  asio.run()
  close(r, w)
end)

function T.test_cancels_and_deadlines_in_a_frenzy()
  local r, w = pipe()
  local served = 0
  asio.group(function(g)
    for i = 1, 10 do
      g:spawn(function()
        for k = 1, 50 do
          if asio.timeout((i + k) % 4 * 0.0002, asio.wait_fd, r, i % 2 == 0 and 'r' or 'rw') then
            served = served + 1
          else
            asio.yield()
          end
        end
      end)
    end
    for _ = 1, 50 do
      put(w, 'x')
      asio.sleep(0.0003)
      get(r, 1)
      asio.sleep(0.0002)
    end
  end)
  lu.assertTrue(served > 0)
  close(r, w)
end

function T.test_the_state_closes_while_somebody_waits()
  t.quiet_child(function()
    local asio, raw = require 'asio', require 'raw'
    _G.held = {} -- until the state closes
    for i = 1, 5 do
      local a, b = raw.pair()
      _G.held[i] = { a, b:send(('x'):rep(2 ^ 24), 0) and b }
      asio.spawn(asio.wait_fd, b.fd, 'r')
      asio.spawn(asio.wait_fd, b.fd, 'r', 60)
      if i % 2 == 0 then asio.run_once(0) end
    end
  end)
end

return T
