-- The manual: every program in docs/*.md that a block of text follows prints just that, standard
-- error included; every other block of Lua compiles. In the text "..." stands for anything: what
-- differs from one run, or one machine, to the next.
--
-- test: 40 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'
local raw = require 'raw'
local can = require 'can'
local certs = require 'certs'

local T = {}

-- Reading -----------------------------------------------------------------------------------------

local function chapters()
  local names = {}
  for _, file in ipairs(raw.list(t.root .. 'docs')) do names[#names + 1] = file:match '^(.*)%.md$' end
  return names
end

-- The fenced blocks of a chapter: {language, text, line, follows}; follows: nothing but blank lines
-- lies between it and the block before.
local function blocks_of(name)
  local blocks, block, between, number = {}, nil, false, 0
  for line in io.lines(t.root .. 'docs/' .. name .. '.md') do
    number = number + 1
    local fence = line:match '^```(.*)$'
    if fence and block then
      block.text = table.concat(block, '\n') .. '\n'
      blocks[#blocks + 1], block, between = block, nil, false
    elseif fence then
      block = { language = fence, line = number, follows = #blocks > 0 and not between }
    elseif block then
      block[#block + 1] = line
    else
      between = between or line:find '%S' ~= nil
    end
  end
  lu.assertNil(block, name .. ': a block that does not end')
  return blocks
end

-- Checking ----------------------------------------------------------------------------------------

-- Whether a text is what was expected, where "..." is anything.
local function matches(text, expected)
  local pieces = {}
  for piece in (expected .. '...'):gmatch '(.-)%.%.%.' do pieces[#pieces + 1] = piece end
  local first, last = pieces[1], pieces[#pieces]
  if #pieces == 1 then return text == first end
  if text:sub(1, #first) ~= first then return false end
  local at = #first + 1
  for i = 2, #pieces - 1 do
    local _, stop = text:find(pieces[i], at, true)
    if not stop then return false end
    at = stop + 1
  end
  return #text - #last + 1 >= at and text:sub(#text - #last + 1) == last
end

-- What only Unix has, or its shell.
local function is_of_unix(program)
  for _, word in ipairs { 'credentials', 'handles = true', 'SIGUSR', 'os.execute', 'io.popen', 'C.pipe' } do
    if program:find(word, 1, true) then return true end
  end
end

local function run(program, expected, dir)
  lu.skipIf(raw.windows and is_of_unix(program), 'this program of the manual is of Unix')
  if program:find '[{,] threads = ' then can.need 'threaded_servers' end -- the option
  local result = t.child(function(source, where)
    if where then
      local ffi = require 'ffi'
      ffi.cdef 'int chdir(const char *path);'
      assert(ffi.C.chdir(where) == 0)
    end
    io.stdout:setvbuf 'no' -- in the order in which a terminal shows it
    assert(loadstring(source, '@program.lua'))()
  end, { args = { program, dir }, merged = true, wrap = [[sh -c 'exec "$@" 2>&1' sh]] })
  if not matches(result.out, expected) then
    lu.fail(('it prints\n%s\nand not\n%s'):format(result.out, expected))
  end
end

local function compile(program, where)
  local chunk, err = loadstring(program, '=' .. where)
  -- A block may also be an expression.
  if not chunk then chunk = loadstring('return ' .. program) end
  lu.assertNotNil(chunk, err)
end

function T.test_what_the_dots_stand_for()
  local cases = {
    { 'a\n', 'a\n', true }, { 'a\n', 'b\n', false }, { 'a 1 b', 'a ... b', true },
    { 'a 1 b', 'a ...', true }, { 'a 1 b', '... b', true }, { 'a 1 b', 'a ... c', false },
    { 'ab', 'ab...b', false }, { 'a 1 b 2 c', 'a...b...c', true }, { 'a 1 c', 'a...b...c', false },
  }
  for _, case in ipairs(cases) do
    lu.assertEquals(matches(case[1], case[2]), case[3], case[1] .. ' and ' .. case[2])
  end
end

local function check(name, block, output)
  if output and block.text:find('server.pem', 1, true) then
    can.need 'tls'
    certs.with_examples(function(dir) run(block.text, output, dir) end)
  elseif output then
    run(block.text, output)
  else
    compile(block.text, ('%s.md:%d'):format(name, block.line))
  end
end

-- All that is left out where HTTP was not built counts once.
local function needs_http()
  can.need 'http'
end

-- One case for each block, so that a failure names its line.
for _, name in ipairs(chapters()) do
  local blocks = blocks_of(name)
  for i, block in ipairs(blocks) do
    local following = blocks[i + 1]
    local output = following and following.follows and following.language == 'text' and following.text
    if block.language == 'lua' then
      if block.text:find('asio.http', 1, true) and not can.has 'http' then
        T.test_programs_of_http = needs_http
      else
        T[('test_%s_line_%04d'):format(name, block.line)] = function() check(name, block, output) end
      end
    end
  end
end

return T
