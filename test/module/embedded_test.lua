-- The Lua parts in the module (cmake/embed.cmake) are the functions of lua/asio/*.lua, line by line; old
-- words do no harm.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local can = require 'can'
local t = require 'support'

local T = {}

local function content(path)
  local file = assert(io.open(path, 'rb'))
  local text = file:read '*a'
  file:close()
  return text
end

-- The parts in the file that embed.cmake has written, with words written out.
local function parts_in(path)
  local strings, string = {}, {}
  for byte in content(path):match('{(.*)}'):gmatch '%w+' do
    if tonumber(byte) ~= 0 then
      string[#string + 1] = tonumber(byte)
    else
      strings[#strings + 1], string = string, {}
    end
  end
  local function write(bytes, out)
    for _, byte in ipairs(bytes) do
      local word = strings[byte + 1]
      if #word == 0 then out[#out + 1] = ('').char(byte) else write(word, out) end
    end
    return out
  end
  local parts = {}
  for k = 257, #strings do parts[#parts + 1] = table.concat(write(strings[k], {})) end
  lu.assertEquals(table.remove(parts), '')
  return parts
end

local function list()
  return os.getenv 'ASIO_BUILD' .. '/embedded_lua.list'
end

local function embedded()
  return os.getenv 'ASIO_BUILD' .. '/embedded_lua.c'
end

function T.test_the_parts_are_the_files()
  local parts, n = parts_in(embedded()), 0
  for path in io.lines(list()) do
    local text = content(path)
    if not text:find '^%-%-%-@meta' then
      n = n + 1
      local less = #text:gsub('[^\n]', '') - #parts[n]:gsub('[^\n]', '') -- lines at the end
      local file = assert(loadstring(text, '=part'))
      local part = assert(loadstring(parts[n] .. ('\n'):rep(less), '=part'))
      lu.assertTrue(string.dump(file) == string.dump(part), path)
    end
  end
  lu.assertEquals(#parts, n)
end

function T.test_old_words_do_no_harm()
  can.need 'native'
  t.need 'cmake'
  local expected = parts_in(embedded())
  local words = {
    '',
    '"no such words, @ and ? and \\1"\n"xx7"\n"7x"\n',
    '"lo"\n"local "\n"cal core"\n"al"\n"\\n\\n"\n"\\n\\n\\n"\n',
  }
  for _, text in ipairs(words) do
    local path = os.tmpname()
    local file = assert(io.open(path, 'wb'))
    file:write(text)
    file:close()
    local status = os.execute(('cmake -DLIST=%s -DOUTPUT=%s.c -DHEADER=x -DWORDS=%s -P %s'):format(
      t.quote(list()), path, path, t.quote(t.root .. 'cmake/embed.cmake')))
    local ok, parts = pcall(parts_in, path .. '.c')
    for _, ending in ipairs { '', '.c', '.c.txt' } do os.remove(path .. ending) end
    lu.assertEquals(status, 0)
    lu.assertTrue(ok, parts)
    lu.assertEquals(parts, expected)
  end
end

return T
