-- luajit tools/words.lua BUILD > cmake/words.txt: words that make the embedded Lua text small, see
-- cmake/embed.cmake. BUILD/embedded_lua.c.txt is that text. Takes a minute or two.
--
-- SPDX-License-Identifier: MIT

local LONGEST = 64 -- cmake/embed.cmake allows no more
local TRIED = 4 -- of the words that promise most, each time

local file = assert(io.open(arg[1] .. '/embedded_lua.c.txt'))
local text = file:read('*a'):gsub('\1', '\0') -- behind each part; no word has it
file:close()

local codes = {} -- the bytes that can stand for words
for c = 1, 255 do
  if not text:find(string.char(c), 1, true) then codes[#codes + 1] = string.char(c) end
end

local function longer(a, b)
  if #a ~= #b then return #a > #b end
  return a < b
end

local function replace(s, word, code)
  local first, last = s:find(word, 1, true)
  local parts, from = {}, 1
  while first do
    parts[#parts + 1] = s:sub(from, first - 1)
    from = last + 1
    first, last = s:find(word, from, true)
  end
  parts[#parts + 1] = s:sub(from)
  return table.concat(parts, code)
end

-- What cmake/embed.cmake writes: the words and the text, with words as bytes. The longest word goes first.
local function written(words)
  table.sort(words, longer)
  local dictionary, rest = '', text
  for k, word in ipairs(words) do
    dictionary = replace(dictionary, word, codes[k]) .. word .. '\0'
    rest = replace(rest, word, codes[k])
  end
  return dictionary .. rest
end

-- All that stands more than once in s and saves something as a word, as { word, bytes saved }. A long one is
-- only counted where its start stands twice.
local function repeated(s)
  local found = {}
  local often = { [''] = 2 }
  for n = 1, LONGEST do
    local count, behind = {}, {}
    for i = 1, #s - n + 1 do
      if (often[s:sub(i, i + n - 2)] or 0) > 1 then
        local word = s:sub(i, i + n - 1)
        if i >= (behind[word] or 0) and not word:find('[%z\\]') then -- not over its own last place
          count[word], behind[word] = (count[word] or 0) + 1, i + n
        end
      end
    end
    for word, times in pairs(count) do
      local saved = times * (n - 1) - n - 1
      if n > 1 and saved > 0 then found[#found + 1] = { word, saved } end
    end
    often = count
  end
  table.sort(found, function(a, b)
    if a[2] ~= b[2] then return a[2] > b[2] end
    return a[1] < b[1]
  end)
  return found
end

local function without(words, word)
  local others = {}
  for _, other in ipairs(words) do
    if other ~= word then others[#others + 1] = other end
  end
  return others
end

-- `words` and the one more that saves most, if any does; and the size with these.
local function one_more(words)
  local now = written(words)
  local best, least = words, #now
  local meaning = {}
  for k, word in ipairs(words) do meaning[codes[k]] = word end
  local tried = 0
  for _, entry in ipairs(repeated(now)) do
    local word = entry[1]:gsub('.', meaning)
    if #word <= LONGEST then
      local more = without(words, word)
      more[#more + 1] = word
      local size = #written(more)
      if size < least then best, least = more, size end
      tried = tried + 1
      if tried == TRIED then break end
    end
  end
  return best, least
end

local words, size = {}, #text
while #words < #codes do
  local more, less = one_more(words)
  if less == size then break end
  words, size = more, less
end

-- A word chosen early may have lost its use to later ones: try another in the place of each.
repeat
  local before = size
  for _, word in ipairs(without(words)) do
    local others, less = one_more(without(words, word))
    if less < size then words, size = others, less end
  end
  io.stderr:write(size, ' bytes\n')
until size == before

written(words)
for _, word in ipairs(words) do print('"' .. word:gsub('\n', '\\n') .. '"') end
