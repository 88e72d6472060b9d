-- asio.stdin, stdout, stderr: whatever is behind them, and that nobody else notices.
--
-- test: 40 s
-- test: needs fork
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local raw = require 'raw'
local t = require 'support'
local can = require 'can'
local process = require 'process'

local T = {}

local NULL = assert(raw.file '/dev/null')

local function case(fn)
  return function()
    can.need('fork', 'terminals')
    return fn()
  end
end

-- Says that it is there, then gives back every line.
local function echo()
  local asio = require 'asio' -- luacheck: ignore 431
  asio.run(function()
    asio.stdout:write 'ready\n'
    for line in asio.stdin:lines() do asio.stdout:write('got ', line, '\n') end
    asio.stdout:write 'end\n'
  end)
end

local temporary, contents = t.temporary, t.contents

-- Runs a shell command that ends by itself; `fn` is the script %s in it. Returns what it prints, and its
-- code.
local function shell(command, fn)
  local path = os.tmpname()
  local file = assert(io.open(path, 'w'))
  file:write(fn and string.dump(fn) or '')
  file:close()
  local script = ("%s %s"):format(t.launcher, path)
  local pipe = io.popen(('timeout -k 2 %d bash -c %s 2>&1; echo "code $?"'):format(20 * t.patience,
    t.quote((command:gsub('%%s', function() return script end)))))
  local out = pipe:read '*a'
  pipe:close()
  os.remove(path)
  local text, code = out:match '^(.*)code (%d+)\n$'
  return text, tonumber(code)
end

-- Everything that can be behind them ----------------------------------------------------------

T.test_a_terminal = case(function()
  local master, slave = process.terminal()
  local child = process.spawn(echo, { slave, slave, slave })
  process.expect(master, 'ready')
  process.write(master, 'hello\n')
  process.expect(master, 'got hello')
  lu.assertFalse(process.is_nonblocking(slave))
  process.write(master, '\4')
  process.expect(master, 'end')
  lu.assertEquals(child:wait(), 0)
  lu.assertFalse(process.is_nonblocking(slave))
  process.close(master, slave)
end)

T.test_pipes = case(function()
  local from, to = process.pipe()
  local out, into = process.pipe()
  local child = process.spawn(echo, { from, into, 2 })
  process.expect(out, 'ready')
  process.write(to, 'hello\n')
  process.expect(out, 'got hello')
  lu.assertFalse(process.is_nonblocking(from))
  lu.assertFalse(process.is_nonblocking(into))
  process.close(to)
  process.expect(out, 'end')
  lu.assertEquals(child:wait(), 0)
  lu.assertFalse(process.is_nonblocking(into))
  process.close(from, out, into)
end)

-- By which way it is used is decided by whether it can be opened again.
T.test_pipes_of_somebody_else = case(function()
  local wrap = process.stranger()
  local from, to = process.pipe()
  local out, into = process.pipe()
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      local line = asio.stdin:read_line()
      asio.stdout:write(line, ('x'):rep(300000), 'end\n')
    end)
  end, { from, into, 2 }, {}, wrap)
  asio.sleep(0.1) -- nothing is to happen
  lu.assertFalse(process.is_nonblocking(from))
  process.write(to, 'hello\n')
  lu.assertEquals(asio.wait_fd(out, 'r', 10 * t.patience), 'r') -- it has more than the pipe takes
  lu.assertFalse(process.is_nonblocking(into))
  t.same_bytes(process.expect(out, 'end\n'), 'hello' .. ('x'):rep(300000) .. 'end\n')
  lu.assertEquals(child:wait(), 0)
  process.close(from, to, out, into)
end)

-- A pipe that is full does not hold up the other light threads.
T.test_a_slow_reader_holds_up_nobody = case(function()
  for _, wrap in ipairs { '', os.execute 'test -x /usr/bin/setpriv' == 0 and process.stranger() or nil } do
    local out, into = process.pipe()
    local report, tell = process.pipe()
    local child = process.spawn(function()
      local asio = require 'asio' -- luacheck: ignore 431
      asio.run(function()
        asio.spawn(function() asio.stdout:write(('x'):rep(1000000)) end)
        for _ = 1, 5 do asio.sleep(0.01) end
        asio.stderr:write 'alive'
      end)
    end, { NULL, into, tell }, {}, wrap)
    process.close(into, tell)
    process.expect(report, 'alive')
    lu.assertEquals(#process.expect(out), 1000000)
    lu.assertEquals(child:wait(), 0)
    process.close(out, report)
  end
end)

T.test_the_master_of_a_terminal = case(function()
  local master, slave = process.terminal()
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      local line = asio.stdin:read_line()
      asio.stdout:write('said ', line, '\n')
    end)
  end, { master, master, 2 })
  process.write(slave, 'hello\n')
  process.expect(slave, 'said hello')
  lu.assertFalse(process.is_nonblocking(master))
  lu.assertEquals(child:wait(), 0)
  process.close(master, slave)
end)

-- As inetd does it: one socket for all.
T.test_a_socket = case(function()
  local listener = raw.listen()
  local client = asio.connect('127.0.0.1', listener:port())
  local accepted = t.wait_until(function() return listener:accept(0) end)
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      local conn = asio.stdin
      conn:write('peer ', (conn:peer()), '\n')
      for line in conn:lines() do conn:write('got ', line, ' ', ('x'):rep(300000), '\n') end
      conn:write 'end\n'
      conn:flush()
    end)
  end, { accepted.fd, accepted.fd, 2 })
  lu.assertEquals(client:read_line(), 'peer 127.0.0.1')
  lu.assertFalse(process.is_nonblocking(accepted.fd))
  client:write 'hello\n'
  asio.sleep(0.05)
  lu.assertFalse(process.is_nonblocking(accepted.fd))
  lu.assertEquals(client:read_line(), 'got hello ' .. ('x'):rep(300000))
  client:shutdown()
  lu.assertEquals(client:read_line(), 'end')
  lu.assertEquals(child:wait(), 0)
  lu.assertFalse(process.is_nonblocking(accepted.fd))
  client:close()
  accepted:close()
  listener:close()
end)

T.test_shutdown_of_a_socket = case(function()
  for _, name in ipairs { 'stdin', 'stdout' } do
    local a, b = raw.pair()
    local child = process.spawn(function(which)
      local asio = require 'asio' -- luacheck: ignore 431
      local conn = asio[which]
      asio.run(function()
        conn:write 'all'
        assert(conn:shutdown())
        assert(conn:read(3) == 'yes')
        conn:close()
      end)
    end, { b.fd, b.fd, 2 }, { name })
    b:close()
    lu.assertEquals(t.recv(a), 'all')
    local started = asio.now()
    a:send 'yes'
    lu.assertEquals(child:wait(), 0)
    lu.assertTrue(asio.now() - started < 1.5 * t.patience)
    a:close()
  end
end)

T.test_shutdown_and_close_at_once = case(function()
  local a, b = raw.pair()
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      asio.stdin:write(('x'):rep(1000000))
      asio.stdin:shutdown()
      asio.stdin:close()
    end)
  end, { b.fd, b.fd, 2 })
  b:close()
  asio.sleep(0.1)
  lu.assertEquals(#t.recv(a), 1000000)
  lu.assertEquals(child:wait(), 0)
  a:close()
end)

T.test_files = case(function()
  local from, to = temporary 'one\ntwo\n', temporary()
  local text, code = shell(('%%s <%s >%s'):format(from, to), echo)
  lu.assertEquals({ text, code, contents(to) }, { '', 0, 'ready\ngot one\ngot two\nend\n' })
  os.remove(from)
  os.remove(to)
end)

T.test_a_large_file = case(function()
  local from, to = temporary(('0123456789abcde\n'):rep(200000)), temporary()
  local text, code = shell(('%%s <%s >%s; cmp %s %s'):format(from, to, from, to), function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      for data in function() return asio.stdin:read_some() end do asio.stdout:write(data) end
    end)
  end)
  lu.assertEquals({ text, code }, { '', 0 })
  os.remove(from)
  os.remove(to)
end)

-- The offset is that of the description, which all share; or the end, where it is opened so.
T.test_files_shared_with_others = case(function()
  local to = temporary()
  local expected = 'first\none\nbetween\none\nlast\n'
  local function write_one() require 'asio'.run(function() require 'asio'.stdout:write 'one\n' end) end
  shell(('{ echo first; %%s; echo between; %%s; echo last; } >%s'):format(to), write_one)
  lu.assertEquals(contents(to), expected)
  shell(('>%s; { echo first; %%s; echo between >>%s; %%s; echo last; } >>%s'):format(to, to, to), write_one)
  lu.assertEquals(contents(to), expected)
  os.remove(to)
end)

T.test_nothing_at_all = case(function()
  local text, code = shell('%s </dev/null >/dev/null', echo)
  lu.assertEquals({ text, code }, { '', 0 })
end)

T.test_closed_ones = case(function()
  local function look()
    local asio = require 'asio' -- luacheck: ignore 431
    local found = {}
    asio.run(function()
      local _, _, code = asio.stdin:read(1)
      found[1] = code
      local _, _, code2 = asio.stdout:write 'x'
      found[2] = code2
      asio.sleep(0)
      local server = assert(asio.server('127.0.0.1', 0, print)) -- gets no such number
      server:close()
    end)
    io.stderr:write(tostring(found[1]), ' ', tostring(found[2]), '\n')
  end
  lu.assertEquals({ shell('%s <&- >&-', look) }, { 'EBADF EBADF\n', 0 })
  lu.assertEquals({ shell('%s </dev/null >&-', look) }, { 'EOF EBADF\n', 0 })
  local _, code = shell('%s <&- >&- 2>&-', look)
  lu.assertEquals(code, 0)
end)

-- A FIFO whose writer has gone before anybody looks: the description opened later does not know that.
T.test_a_fifo_whose_writer_has_gone = case(function()
  local path = os.tmpname()
  os.remove(path)
  local text, code = shell(('mkfifo %s; { echo hello >%s & }; { sleep 0.2; %%s; } <%s; rm %s')
    :format(path, path, path, path), echo)
  lu.assertEquals({ text, code }, { 'ready\ngot hello\nend\n', 0 })
end)

-- Nobody else notices -------------------------------------------------------------------------

-- What a process that is killed cannot take back must never have been.
T.test_a_process_that_is_killed = case(function()
  local master, slave = process.terminal()
  local child = process.spawn(echo, { slave, slave, slave })
  process.expect(master, 'ready')
  child:kill(9)
  lu.assertEquals(child:wait(), -9)
  lu.assertFalse(process.is_nonblocking(slave))
  process.close(master, slave)
  local a, b = raw.pair()
  child = process.spawn(echo, { b.fd, b.fd, b.fd })
  lu.assertEquals(t.recv(a, 6), 'ready\n')
  child:kill(9)
  lu.assertEquals(child:wait(), -9)
  lu.assertFalse(process.is_nonblocking(b.fd))
  a:close()
  b:close()
end)

-- The check above has holes: the system calls tell whether there was a moment.
T.test_the_modes_are_never_touched = case(function()
  local trace = temporary()
  for _, redirect in ipairs { '</dev/null | cat', '<%s | cat', '<&5 5>&- >&6 6>&-' } do
    local wrap = t.strace('-qq -e trace=fcntl,ioctl,dup,dup2,dup3 -o ' .. trace)
    local from, to = raw.pair()
    local command = ('exec 5<&%d 6<&%d; %s %%s %s'):format(from.fd, from.fd, wrap,
      (redirect:gsub('%%s', '/etc/passwd')))
    from:send ''
    to:send 'line\n'
    to:shutdown()
    shell('set -e; ' .. command, echo)
    from:close()
    to:close()
    for line in io.lines(trace) do
      local fd = tonumber(line:match 'ioctl%((%d+), FIONBIO' or line:match 'fcntl%((%d+), F_SETFL')
      lu.assertTrue(not fd or fd > 2, line)
      lu.assertNil(line:match 'F_SETFL', line)
    end
  end
  os.remove(trace)
end)

-- One epoll descriptor is the loop's; each stream that can be polled has one more.
T.test_files_are_not_polled = case(function()
  local trace, file = temporary(), temporary 'line\n'
  local wrap = t.strace('-qq -e trace=epoll_create1 -o ' .. trace)
  for redirect, count in pairs { ['<%s >>%s'] = 1, ['<%s | cat'] = 2, ['</dev/null | cat'] = 3 } do
    shell(('%s %%s %s'):format(wrap, (redirect:gsub('%%s', file))), echo)
    local _, found = contents(trace):gsub('epoll_create1', '')
    lu.assertEquals(found, count, redirect) -- /dev/null is found out by asking
  end
  os.remove(trace)
  os.remove(file)
end)

-- Nobody in the script waits for input: the terminal's next line is for whoever reads there.
T.test_another_process_reads_the_same_terminal = case(function()
  local master, slave = process.terminal()
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      asio.stdout:write 'ready\n'
      print('read', asio.stdin:read_line())
      io.stdout:flush()
      asio.sleep(0.3) -- the loop runs
      os.execute 'read line; echo "shell has $line"'
      print('read', asio.stdin:read_line())
    end)
  end, { slave, slave, slave })
  process.expect(master, 'ready')
  process.write(master, 'one\n')
  process.expect(master, 'read\tone')
  process.write(master, 'two\n')
  process.expect(master, 'shell has two')
  process.write(master, 'three\n')
  process.expect(master, 'read\tthree')
  lu.assertEquals(child:wait(), 0)
  process.close(master, slave)
end)

T.test_another_process_writes_meanwhile = case(function()
  local master, slave = process.terminal()
  local child = process.spawn(echo, { slave, slave, slave })
  process.expect(master, 'ready')
  process.write(slave, 'from elsewhere\n')
  process.expect(master, 'from elsewhere')
  process.write(master, 'hello\n')
  process.expect(master, 'got hello')
  process.write(slave, ('x'):rep(1000) .. '\n')
  process.expect(master, ('x'):rep(1000))
  process.write(master, '\4')
  lu.assertEquals(child:wait(), 0)
  process.close(master, slave)
end)

T.test_a_script_that_does_not_use_them_opens_nothing = case(function()
  local out = t.quiet_child(function()
    local function count()
      local n, list = 0, io.popen 'ls /proc/$PPID/fd'
      for _ in list:lines() do n = n + 1 end
      list:close()
      return n
    end
    local asio = require 'asio' -- luacheck: ignore 431
    local before = count()
    asio.run(function() asio.sleep(0) end)
    assert(rawget(asio, 'stdin') == nil and count() <= before)
    assert(asio.stdin == asio.stdin and rawget(asio, 'stdin'))
    assert(asio.no_such_thing == nil)
    print 'fine'
  end)
  lu.assertEquals(out, 'fine\n')
end)

-- The end -------------------------------------------------------------------------------------

T.test_what_was_written_goes_out_at_the_end = case(function()
  local function main_chunk() require 'asio'.stdout:write(('x'):rep(1000000)) end
  local function light_thread()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      for _ = 1, 100 do asio.spawn(function() asio.stdout:write(('x'):rep(10000)) end) end
    end)
  end
  local function not_run()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.spawn(function() asio.stdout:write(('x'):rep(1000000)) end)
  end
  local function closed()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      asio.stdout:write(('x'):rep(1000000))
      asio.stdout:close()
    end)
  end
  for _, fn in ipairs { main_chunk, light_thread, not_run, closed } do
    lu.assertEquals(shell('set -o pipefail; %s | { sleep 0.2; wc -c; }', fn), '1000000\n')
    lu.assertEquals(shell('f=$(mktemp); %s >$f; wc -c <$f; rm $f', fn), '1000000\n')
  end
end)

-- A pipe that nobody reads, while somebody could: as long as a connection's close would go on.
T.test_a_full_pipe_ends_the_waiting_at_the_end = t.slow(60, case(function()
  local here = os.getenv 'CI' and t.patience == 1 -- of CI's runs the first alone: other files run beside it
  lu.skipIf(not (t.long or here), 'takes 30 seconds')
  local out, into = process.pipe()
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.spawn(function() asio.stdout:write(('x'):rep(1000000)) end)
  end, { NULL, into, 2 })
  local started = asio.now()
  asio.sleep(29)
  lu.assertNil(child:ended())
  lu.assertEquals(child:wait(), 0)
  lu.assertTrue(asio.now() - started < 40 * t.patience)
  process.close(out, into)
end))

-- A file is written by a thread: what that is at must be neither lost nor written twice.
T.test_the_state_closes_while_a_file_is_written = case(function()
  local text = shell('f=$(mktemp); %s >$f; uniq -c <$f; rm $f', function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      for _ = 1, 2000 do asio.stdout:write(('x'):rep(99), '\n') end
      asio.stop()
    end)
  end)
  lu.assertEquals(text:match '%d+', '2000')
end)

T.test_a_reader_that_goes = case(function()
  local text = shell('seq 1000000 | { %s; echo "code $?" >&2; } | head -1', function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      for line in asio.stdin:lines() do
        local ok, _, code = asio.stdout:write(line, '\n')
        if not ok then
          io.stderr:write(code, '\n')
          break
        end
      end
    end)
  end)
  lu.assertStrContains(text, '1\n')
  lu.assertStrContains(text, 'EPIPE\n')
  lu.assertStrContains(text, 'code 0\n')
end)

T.test_print_and_write = case(function()
  local function mixed()
    local asio = require 'asio' -- luacheck: ignore 431
    print 'one'
    asio.stdout:write 'two\n'
    print 'three'
    asio.run(function()
      print 'four'
      asio.stdout:write 'five\n'
      asio.stdout:flush()
      print 'six'
    end)
  end
  local expected = 'one\ntwo\nthree\nfour\nfive\nsix\n'
  lu.assertEquals(shell('%s | cat', mixed), expected)
  lu.assertEquals(shell('f=$(mktemp); %s >$f; cat $f; rm $f', mixed), expected)
end)

-- The number stays taken, so that nothing that is opened later gets what is printed.
T.test_close = case(function()
  local out, into = process.pipe()
  local from, to = process.pipe()
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      print 'first'
      asio.stdout:write 'second\n'
      asio.stdout:close()
      assert(select(3, asio.stdout:write 'x') == 'EBADF')
      print 'lost'
      io.stdout:flush()
      assert(asio.stdin:read_line() == 'go')
      asio.stdin:close()
      assert(io.read() == nil)
    end)
  end, { from, into, 2 })
  process.close(into)
  lu.assertEquals(process.expect(out), 'first\nsecond\n') -- while it runs
  process.write(to, 'go\n')
  lu.assertEquals(child:wait(), 0)
  process.close(out, from, to)
end)

T.test_shutdown_is_the_end_for_a_pipe = case(function()
  local out, into = process.pipe()
  local from, to = process.pipe()
  local child = process.spawn(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      asio.stdout:write(('x'):rep(200000))
      assert(asio.stdout:shutdown())
      assert(select(3, asio.stdout:write 'x') == 'EPIPE')
      assert(asio.stdin:read_line() == 'go')
      asio.stdout:close()
    end)
  end, { from, into, 2 })
  process.close(into)
  lu.assertEquals(#process.expect(out), 200000)
  local started = asio.now()
  process.write(to, 'go\n')
  lu.assertEquals(child:wait(), 0)
  lu.assertTrue(asio.now() - started < 1.5 * t.patience) -- there is nobody whose end to wait for
  process.close(out, from, to)
end)

-- Who waits, and who does not -----------------------------------------------------------------

T.test_run_goes_on_while_somebody_reads = case(function()
  local text = shell('{ sleep 0.2; echo late; } | %s', function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.spawn(function() print(asio.stdin:read_line()) end)
    asio.run()
    print 'over'
  end)
  lu.assertEquals(text, 'late\nover\n')
end)

T.test_run_ends_when_nobody_reads = case(function()
  local out = shell('sleep 5 | { %s; kill %%1 2>/dev/null; echo over; } & wait $!', function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      asio.stdin:set_timeout(0.05)
      print(select(3, asio.stdin:read(1)))
    end)
    os.execute 'pkill -P $PPID sleep >/dev/null 2>&1 || true'
  end)
  lu.assertStrContains(out, 'ETIMEDOUT\nover')
end)

T.test_the_main_chunk_reads = case(function()
  lu.assertEquals(shell('echo hello | %s', function()
    print(require 'asio'.stdin:read_line())
    print(select(3, require 'asio'.stdin:read_line()))
  end), 'hello\nEOF\n')
end)

T.test_the_state_closes_while_somebody_reads = case(function()
  local from, to = process.pipe()
  local path = temporary()
  local file = raw.file(path)
  local content = assert(io.open(path, 'w'))
  content:write 'line\n'
  content:close()
  for _, input in ipairs { from, NULL, file } do
    local child = process.spawn(function()
      local asio = require 'asio' -- luacheck: ignore 431
      asio.spawn(function() asio.stdin:read(1000000000) end)
      asio.run_once(0)
    end, { input, NULL, 2 })
    lu.assertEquals(child:wait(), 0)
  end
  process.close(from, to, file)
end)

T.test_the_names_and_numbers = case(function()
  lu.assertEquals(t.quiet_child(function()
    local asio = require 'asio' -- luacheck: ignore 431
    assert(asio.stdin:fd() == 0 and asio.stdout:fd() == 1 and asio.stderr:fd() == 2)
    assert(tostring(asio.stdin) == 'connection (stdio)')
    assert(select(3, asio.stdin:peer()) == 'ENOTSOCK')
    print(asio.stdin:read_all())
  end), '\n')
end)

return T
