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

function T.test_linked_into_one_object()
  can.need 'native'
  t.need('ld', 'nm')
  local dir = os.getenv 'ASIO_BUILD' .. '/CMakeFiles'
  local objects = ('find %s -path "*/asio*_core.dir/*" -name "*.o"'):format(t.quote(dir))
  local list = io.popen(objects):read '*a'
  lu.skipIf(not list:find 'asio_core', 'no objects in the build directory')
  local out = os.tmpname()
  run(('ld -r -o %s $(%s)'):format(out, objects))
  local opens = {}
  for name in run('nm -g --defined-only ' .. out):gmatch ' [TDRBC] (%S+)' do
    if name:find '^luaopen_' then opens[#opens + 1] = name
    elseif not name:find '^__' then lu.assertStrMatches(name, 'asio_.*') end -- __: a sanitizer's
  end
  table.sort(opens)
  lu.assertEquals(opens[1], 'luaopen_asio')
  for i = 2, #opens do lu.assertStrMatches(opens[i], 'luaopen_asio_%l+') end
  os.remove(out)
  local declared = {}
  for line in io.lines(t.root .. 'include/lua-asio.h') do
    declared[line:match '^int (luaopen_[%w_]+)%(struct lua_State %*L%);$' or ''] = true
  end
  for _, name in ipairs(opens) do lu.assertTrue(declared[name], name) end
end

return T
