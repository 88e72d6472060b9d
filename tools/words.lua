-- luajit tools/words.lua BUILD > cmake/words.txt: the words that save most in the embedded Lua text, see
-- cmake/embed.cmake. BUILD/embedded_lua.c.txt is that text.
--
-- SPDX-License-Identifier: MIT

local MOST, LONGEST = 128, 32 -- cmake/embed.cmake allows no more

local file = assert(io.open(arg[1] .. '/embedded_lua.c.txt'))
local text = file:read '*a'
file:close()

-- What a word of n bytes in `count` places saves, less its own bytes and its entry in the table.
local function saving(n, count)
  return count * (n - 1) - n - 2
end

-- The word that saves most in pieces of text. A long one is only counted where its start stands twice.
local function best_word(pieces)
  local best, most = nil, 0
  local often = { [''] = 2 }
  for n = 1, LONGEST do
    local count, last = {}, {}
    for k, piece in ipairs(pieces) do
      for i = 1, #piece - n + 1 do
        local word = piece:sub(i, i + n - 1)
        if (often[word:sub(1, -2)] or 0) > 1 and not word:find('\\', 1, true) then
          local at = last[word]
          if not at or at[1] ~= k or at[2] + n <= i then -- not over its own last place
            count[word], last[word] = (count[word] or 0) + 1, { k, i }
          end
        end
      end
    end
    for word, times in pairs(count) do
      local saved = saving(n, times)
      if n > 1 and (saved > most or saved == most and best and word < best) then best, most = word, saved end
    end
    often = count
  end
  return best
end

local function split(pieces, word)
  local parts = {}
  for _, piece in ipairs(pieces) do
    local from = 1
    repeat
      local first, last = piece:find(word, from, true)
      local part = piece:sub(from, (first or 0) - 1)
      if #part > 1 then parts[#parts + 1] = part end
      from = (last or 0) + 1
    until not first
  end
  return parts
end

local pieces = { text }
for _ = 1, MOST do
  local word = best_word(pieces)
  if not word then break end
  print('"' .. word:gsub('\n', '\\n') .. '"')
  pieces = split(pieces, word)
end
