-- Processes that fork without exec while there are several Lua states: the child is refused, and the parent
-- notices nothing.
--
-- test: needs fork
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local T = {}

-- Runs fn in a process of its own, which has threads that a fork of it does not have.
local function forking(fn, args)
  return t.quiet_child(fn, { args = args, env = t.ignore_leaks })
end

function T.test_offloading_is_refused()
  forking(function()
    local asio, forks = require 'asio', require 'forks'
    asio.run(function()
      local pool = asio.offload_pool(1)
      assert(asio.offload(function() return 1 end) == 1 and pool:offload(function() return 2 end) == 2)
      for name, call in pairs {
        offload = function() asio.offload(function() end) end,
        offload_in_a_pool = function() pool:offload(function() end) end,
        offload_pool = function() asio.offload_pool(1) end,
        stats = function() pool:stats() end,
        close = function() pool:close() end,
        tostring = function() tostring(pool) end,
      } do
        forks.fork(function()
          local ok, err = pcall(call)
          assert(not ok and tostring(err):find('is a fork', 1, true), name .. ': ' .. tostring(err))
          call, pool = nil, nil
          collectgarbage()
        end, true)
      end
      assert(asio.offload(function() return 3 end) == 3 and pool:offload(function() return 4 end) == 4)
      pool:close()
    end)
  end)
end

function T.test_servers_with_threads_are_refused()
  can.need 'threaded_servers'
  forking(function()
    local asio, forks = require 'asio', require 'forks'
    local function handler(conn)
      conn:write 'x'
      conn:close()
    end
    asio.run(function()
      local tcp = assert(asio.server('127.0.0.1', 0, handler, { threads = 2 }))
      local path = os.tmpname()
      os.remove(path)
      local unix = assert(asio.server('unix:' .. path, handler, { threads = 2 }))
      local function check()
        for _, server in ipairs { tcp, unix } do
          local conn = assert(asio.connect(server:address()))
          assert(conn:read(1) == 'x')
          conn:close()
        end
      end
      for _, server in ipairs { tcp, unix } do
        for name, call in pairs {
          stats = function() server:stats() end,
          shutdown = function() server:shutdown() end,
          shutdown_soon = function() server:shutdown(0) end,
          another = function() asio.server('127.0.0.1', 0, handler, { threads = 2 }) end,
        } do
          forks.fork(function()
            local ok, err = pcall(call)
            assert(not ok and tostring(err):find('is a fork', 1, true), name .. ': ' .. tostring(err))
            local address, message, code = server:address() -- as of other servers
            assert(address == nil and message == 'closed' and code == 'EBADF')
            assert(tostring(server) == 'server (closed)')
            call, server, tcp, unix = nil, nil, nil, nil
            collectgarbage()
          end, true)
          check()
        end
        forks.fork(function() server:close() end, true)
        check()
      end
      tcp:close()
      unix:close()
    end)
  end)
end

-- What needs nothing but this state answers.
function T.test_dump_is_refused_and_a_worker_describes_itself()
  forking(function()
    local asio, forks = require 'asio', require 'forks'
    asio.run(function()
      local go = asio.shared.channel()
      local w = asio.worker(function(from) return from:recv() end, go)
      forks.fork(function()
        local ok, err = pcall(asio.dump)
        assert(not ok and tostring(err):find('is a fork', 1, true), tostring(err))
        assert(w:status() == 'running' and w:name() == 'worker #1' and tostring(w) == 'worker #1 (running)')
      end, true)
      go:send 'x'
      assert(select(2, w:join()) == 'x')
    end)
  end)
end

-- The child has the worker's thread alone.
local function fork_inside(how)
  return forking(function(what)
    local asio, ffi = require 'asio', require 'ffi'
    local ch = asio.shared.channel(1)
    asio.run(function()
      local w = asio.worker(function()
        ffi.cdef [[ int fork(void); int waitpid(int, int *, int); int close(int); ]]
        asio.sleep(0.001)
        local pid = ffi.C.fork()
        if pid == 0 then
          ffi.C.close(2)
          if what == 'returns' then return 'by the child' end
          if what == 'raises' then error 'by the child' end
          if what == 'waits' then asio.sleep(1000) end
          for _, call in ipairs {
            function() ch:send 'by the child' end,
            function() asio.worker(function() end) end,
            function() asio.offload(function() end) end,
            function() asio.dump() end,
          } do
            local ok, err = pcall(call)
            if ok or not tostring(err):find('is a fork', 1, true) then os.exit(8) end
          end
          os.exit(7, what == 'closes')
        end
        local status = ffi.new 'int[1]'
        assert(ffi.C.waitpid(pid, status, 0) == pid)
        asio.sleep(0.001)
        ch:send 'by the parent'
        return status[0] / 256
      end)
      local ok, status = w:join()
      assert(ok, status)
      assert(ch:recv() == 'by the parent')
      print(status)
    end)
  end, { how })
end

function T.test_a_fork_inside_a_worker()
  for _, how in ipairs { 'exits', 'closes' } do lu.assertEquals(fork_inside(how), '7\n', how) end
  for _, how in ipairs { 'returns', 'raises', 'waits' } do lu.assertEquals(fork_inside(how), '1\n', how) end
end

-- The child has neither the owner of the pool nor the state that has made the server, which counts the
-- connections that the child closes.
function T.test_a_fork_in_an_offloaded_function_and_in_a_handler()
  can.need 'threaded_servers'
  local out = forking(function()
    local asio, ffi = require 'asio', require 'ffi'
    local function forked(end_child)
      ffi.cdef [[ int fork(void); int waitpid(int, int *, int); int close(int); ]]
      local pid = ffi.C.fork()
      if pid == 0 then
        ffi.C.close(2)
        return end_child()
      end
      local status = ffi.new 'int[1]'
      assert(ffi.C.waitpid(pid, status, 0) == pid)
      return status[0] / 256
    end
    local statuses = {} -- printed at the end: the children have what was not written
    local function fail() error 'by the child' end
    local function close() os.exit(7, true) end
    asio.run(function()
      for _, how in ipairs { fail, close, fail } do statuses[#statuses + 1] = asio.offload(forked, how) end
      local path = os.tmpname()
      os.remove(path)
      local server = assert(asio.server('unix:' .. path, function(conn)
        conn:write(forked(conn:read(1) == 'f' and fail or close))
        conn:close()
      end, { threads = 2, max_connections = 1 }))
      for how in ('fcffccf'):gmatch '.' do
        local conn = assert(asio.connect('unix:' .. path))
        conn:write(how)
        statuses[#statuses + 1] = conn:read_all()
        conn:close()
      end
      assert(server:shutdown())
    end)
    print(table.concat(statuses))
  end)
  lu.assertEquals(out, '1711711771\n')
end

return T
