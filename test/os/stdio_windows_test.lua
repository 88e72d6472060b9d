-- asio.stdin, stdout and stderr on Windows: pipes and files behind them. stdio_test.lua has what Unix has.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'

local T = {}

local windows = ffi.os == 'Windows'
local start = windows and require 'start_windows'

local temporary, contents = t.temporary, t.contents

-- fn(start): starts a script with these options.
local function case(fn)
  return function()
    lu.skipIf(not windows, 'this system has other standard streams')
    local paths = {}
    local function run(script, options)
      local path = temporary(string.dump(script))
      paths[#paths + 1] = path
      return start.start({ start.interpreter(), path }, options)
    end
    local ok, err = pcall(fn, run)
    for _, path in ipairs(paths) do os.remove(path) end
    if not ok then error(err, 0) end
  end
end

local function ended(child)
  return t.wait_until(function()
    asio.sleep(0.01)
    return child:wait(0)
  end)
end

local function echo()
  local asio = require 'asio' -- luacheck: ignore 431
  asio.run(function()
    asio.stdout:write 'ready\n'
    for line in asio.stdin:lines() do asio.stdout:write('got ', line, '\n') end
    asio.stdout:write 'end\n'
    asio.stdout:flush()
    asio.stderr:write 'to error\n'
  end)
end

T.test_pipes = case(function(run)
  local child = run(echo, { input = true })
  lu.assertEquals(child:line(), 'ready')
  child:write 'hello\n'
  lu.assertEquals(child:line(), 'got hello')
  child:write 'in ' -- a line in two parts
  child:write 'parts\nlast'
  lu.assertEquals(child:line(), 'got in parts')
  child:write(nil)
  lu.assertEquals(child:all(), 'got last\nend\nto error\n')
  lu.assertEquals(ended(child), 0)
end)

T.test_files = case(function(run)
  local input, out, err = temporary 'first\nsecond', os.tmpname(), os.tmpname()
  local child = run(echo, { input = input, out = out, err = err })
  lu.assertEquals(ended(child), 0)
  lu.assertEquals(contents(out), 'ready\ngot first\ngot second\nend\n')
  lu.assertEquals(contents(err), 'to error\n')
  for _, path in ipairs { input, out, err } do os.remove(path) end
end)

-- Standard input is NUL.
T.test_nothing = case(function(run)
  local child = run(echo, {})
  lu.assertEquals(child:all(), 'ready\nend\nto error\n')
  lu.assertEquals(ended(child), 0)
end)

-- A pipe that is full does not hold up the other light threads; all of it comes.
T.test_much_to_a_slow_reader = case(function(run)
  local flag = os.tmpname()
  os.remove(flag)
  local child = run(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      asio.spawn(function() asio.stdout:write(('x'):rep(1000000), '\n') end)
      for _ = 1, 5 do asio.sleep(0.01) end
      assert(io.open(os.getenv 'ASIO_TEST_FLAG', 'w')):close()
    end)
  end, { env = 'ASIO_TEST_FLAG=' .. flag })
  t.wait_until(function()
    asio.sleep(0.01)
    local file = io.open(flag)
    if file then file:close() end
    return file
  end)
  lu.assertEquals(#child:all(), 1000001)
  lu.assertEquals(ended(child), 0)
  os.remove(flag)
end)

-- While one light thread waits for input the others go on.
T.test_waiting_for_input = case(function(run)
  local child = run(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      local reader = asio.spawn(function() return asio.stdin:read_line() end)
      local ok, _, code = asio.timeout(0.02, reader.join, reader)
      asio.stdout:write(tostring(ok), ' ', tostring(code), '\n')
      local _, line = reader:join()
      asio.stdout:write('then ', line, '\n')
    end)
  end, { input = true })
  lu.assertEquals(child:line(), 'nil ETIMEDOUT')
  child:write 'input\n'
  lu.assertEquals(child:line(), 'then input')
  child:write(nil)
  lu.assertEquals(ended(child), 0)
end)

T.test_methods = case(function(run)
  local child = run(function()
    local asio = require 'asio' -- luacheck: ignore 431
    asio.run(function()
      local function code(...) return tostring((select(3, ...))) end
      asio.stdout:write(code(asio.stdout:peer()), ' ', code(asio.stdout:address()), ' ')
      asio.stdout:write(code(asio.stdout:get_original_dst()), ' ', code(asio.stdin:read(1)), '\n')
      asio.stdout:flush()
      asio.stdout:close()
      asio.stderr:write(code(asio.stdout:write 'x'), '\n')
    end)
  end, {})
  lu.assertEquals(child:all(), 'ENOTSOCK ENOTSOCK ENOTSUP EOF\nEBADF\n')
  lu.assertEquals(ended(child), 0)
end)

return T
