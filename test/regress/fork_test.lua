-- A process that forks without exec (by another library): the child shares the parent's epoll and sockets.
-- Its end, or a collection of garbage in it, ended the connections of the parent.
--
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 431/asio (child processes require their own)

local lu = require 'luaunit'
local t = require 'support'

local T = {}

function T.test_the_end_of_a_fork_by_a_light_thread()
  t.child(function()
    local asio, forks = require 'asio', require 'forks'
    asio.run(function()
      local world = forks.world()
      world:queue()
      for _, close in ipairs { true, false } do
        forks.fork(function() end, close)
        world:check()
      end
      world:close()
    end)
  end)
end

function T.test_the_end_of_a_fork_by_the_main_chunk()
  t.child(function()
    local asio, forks = require 'asio', require 'forks'
    local world = forks.world()
    world:queue()
    for _, close in ipairs { true, false } do
      forks.fork(function() end, close)
      world:check()
    end
    world:close()
    asio.run()
  end)
end

function T.test_garbage_in_a_fork()
  t.child(function()
    local asio, forks = require 'asio', require 'forks'
    asio.run(function()
      local world = forks.world()
      world:queue()
      forks.fork(function()
        for key in pairs(world) do world[key] = nil end
        collectgarbage()
        collectgarbage()
      end, true)
      world:check()
      world:close()
    end)
  end)
end

function T.test_methods_in_a_fork()
  t.child(function()
    local asio, forks = require 'asio', require 'forks'
    asio.run(function()
      local world = forks.world()
      world:queue()
      for _, first in ipairs { 'a', 'b', 'server', 'unix', 'udp' } do
        forks.fork(function()
          for _, name in ipairs { first, 'a', 'b', 'server', 'unix', 'udp' } do world[name]:close() end
          assert(select(3, world.b:write 'x') == 'EBADF')
          assert(select(3, world.a:read(1)) == 'EBADF')
          assert(world.parked:cancel() or true)
        end, true)
        world:check()
      end
      world:close()
    end)
  end)
end

function T.test_what_a_fork_is_refused()
  local result = t.child(function()
    local asio, forks = require 'asio', require 'forks'
    local world = forks.world()
    asio.watchdog(10)
    asio.resolve('localhost')
    for name, call in pairs {
      run = function() asio.run() end,
      run_once = function() asio.run_once() end,
      sleep = function() asio.sleep(0.01) end,
      join = function() world.parked:join() end,
      spawn = function() asio.spawn(print) end,
      server = function() asio.server('127.0.0.1', 0, print) end,
      connect = function() asio.connect('127.0.0.1', world.port) end,
      udp = function() asio.udp() end,
      socketpair = function() asio.socketpair() end,
      after = function() asio.after(1, print) end,
      group = function() asio.group():spawn(print) end,
      timeout = function() asio.timeout(1, print) end,
      signal = function() asio.signal 'SIGUSR1' end,
      watchdog = function() asio.watchdog(1) end,
    } do
      forks.fork(function()
        local ok, err = pcall(call)
        assert(not ok and tostring(err):find('is a fork', 1, true), name .. ': ' .. tostring(err))
      end, true)
      world:check()
    end
    asio.watchdog(nil)
    world:queue()
    world:close()
    asio.run()
  end, { seconds = 30 })
  lu.assertNotStrContains(result.err, 'asio: ')
end

-- The fork does not end where it was made: it goes back into the loop that it shares with the parent.
function T.test_a_fork_that_goes_on()
  t.child(function()
    local asio, ffi, forks = require 'asio', require 'ffi', require 'forks'
    local fork
    local ok, err = pcall(asio.run, function()
      local world = forks.world()
      world:queue()
      asio.sleep(0.01) -- runs out of a callback of libuv's
      fork = ffi.C.fork()
      if fork == 0 then return end
      world:check()
      forks.wait(fork)
      world:check()
      world:close()
    end)
    if fork == 0 then
      assert(not ok and err:find('is a fork', 1, true), err)
      assert(not pcall(asio.run))
    else
      assert(ok, err)
    end
  end)
end

-- The same for a fork that wants to wait.
function T.test_a_fork_that_waits()
  t.child(function()
    local asio, ffi, forks = require 'asio', require 'ffi', require 'forks'
    local fork, waited, message
    local ok, err = pcall(asio.run, function()
      local world = forks.world()
      world:queue()
      fork = ffi.C.fork()
      if fork == 0 then
        waited, message = pcall(asio.sleep, 0)
        error(message, 0)
      end
      forks.wait(fork)
      world:check()
      world:close()
    end)
    if fork == 0 then
      assert(not ok and not waited and message:find('is a fork', 1, true), err)
    else
      assert(ok, err)
    end
  end)
end

-- A child may open a Lua state of its own.
function T.test_a_new_state_in_a_fork()
  t.child(function()
    local asio, forks, ffi = require 'asio', require 'forks', require 'ffi'
    ffi.cdef [[
      void *luaL_newstate(void);
      void luaL_openlibs(void *);
      int luaL_loadstring(void *, const char *);
      int lua_pcall(void *, int, int, int);
      void lua_close(void *);
    ]]
    asio.run(function()
      local world = forks.world()
      world:queue()
      forks.fork(function()
        local C, L = ffi.C, ffi.C.luaL_newstate()
        C.luaL_openlibs(L)
        assert(C.luaL_loadstring(L, [[
          local asio = require 'asio'
          local a, b = asio.socketpair()
          asio.run(function()
            asio.spawn(function() asio.sleep(0.001) b:write 'new' end)
            assert(a:read(3) == 'new')
          end)]]) == 0)
        assert(C.lua_pcall(L, 0, 0, 0) == 0)
        C.lua_close(L)
      end, true)
      world:check()
      world:close()
    end)
  end)
end

return T
