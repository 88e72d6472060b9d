-- examples/word_count.lua counts files of several pieces.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

-- Runs the example; returns the exit code and what it prints.
local function word_count(...)
  local result = t.child(function(...)
    local path = table.remove(arg, 1)
    assert(loadfile(path))(...)
  end, { args = { t.root .. 'examples/word_count.lua', ... }, code = false })
  return result.code, result.out, result.err
end

T.test_word_count = t.slow(60, function()
  local lines, pieces = {}, 9 * 1024 * 1024
  local size, i = 0, 0
  while size < pieces do -- three pieces, cut within lines
    i = i + 1
    lines[i] = ('One two%s three %s\n'):format(i % 7 == 0 and ' SEVEN' or '', ('x'):rep(i % 1000))
    size = size + #lines[i]
  end
  local path, small = t.temporary(table.concat(lines)), t.temporary "don't don't\n\nthree"
  local code, out, err = word_count(path, small)
  os.remove(path)
  os.remove(small)
  lu.assertEquals(err, '')
  lu.assertEquals(code, 0)
  for word, n in pairs { one = i, two = i, three = i + 1, seven = math.floor(i / 7) } do
    lu.assertStrContains(out, ('%7d  %s\n'):format(n, word))
  end
  local empty = math.floor(i / 1000)
  lu.assertStrContains(out, ('%d words, 1004 different, in 2 files'):format(
    4 * i - empty + math.floor(i / 7) + 3))
end)

function T.test_word_count_of_what_cannot_be_read()
  local path = t.temporary 'a b a'
  local code, out, err = word_count(path, path .. '.missing')
  os.remove(path)
  lu.assertEquals(code, 1)
  lu.assertEquals(out, '      2  a\n      1  b\n3 words, 2 different, in 1 files\n')
  lu.assertStrContains(err, 'missing')
end

return T
