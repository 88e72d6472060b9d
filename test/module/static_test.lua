-- The module and all its plugins can be linked into one static program: no symbol twice, all with our prefix.
-- The public header declares what opens them.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local T = {}

local function run(command)
  local pipe = io.popen(command .. ' 2>&1; echo "exit $?"')
  local said = pipe:read '*a'
  pipe:close()
  lu.assertStrContains(said, 'exit 0\n', false, said)
  return said
end

-- nm on each object: what `ld -r` writes hides the names of objects that are optimized when they are linked.
function T.test_names_of_all_objects()
  can.need 'native'
  t.need 'nm'
  local dir = os.getenv 'ASIO_BUILD' .. '/CMakeFiles'
  local said = run(([[find %s '(' -path '*/asio*_core.dir/*' -o -path '*/asio_llhttp.dir/*' ')' -name '*.o' \
    -exec nm -g --defined-only {} +]]):format(t.quote(dir)))
  lu.skipIf(not said:find 'asio_core', 'no objects in the build directory')
  local opens, defined = {}, {}
  for name in said:gmatch ' [TDRBC] (%S+)' do
    if not name:find '^__' then -- a sanitizer's
      lu.assertNil(defined[name], name .. ' is defined twice')
      defined[name] = true
      if name:find '^luaopen_' then opens[#opens + 1] = name else lu.assertStrMatches(name, 'asio_.*') end
    end
  end
  lu.assertTrue(defined.asio_error_arg)
  table.sort(opens)
  lu.assertEquals(opens[1], 'luaopen_asio')
  for i = 2, #opens do lu.assertStrMatches(opens[i], 'luaopen_asio_%l+') end
  local declared = {}
  for line in io.lines(t.root .. 'include/lua-asio.h') do
    declared[line:match '^int (luaopen_[%w_]+)%(struct lua_State %*L%);$' or ''] = true
  end
  for _, name in ipairs(opens) do lu.assertTrue(declared[name], name) end
end

return T
