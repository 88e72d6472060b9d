-- docs/architecture.md names every file of src, and no other. The links of all pages lead somewhere, and
-- pages, examples and Lua files name their subjects.
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local t = require 'support'

local T = {}

local function lines_of(command)
  local lines = {}
  local pipe = io.popen(('cd %s && %s'):format(t.quote(t.root), command))
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  return lines
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

function T.test_the_map_names_every_file_of_src()
  local files, named = {}, {}
  for _, path in ipairs(lines_of 'find src -name "*.[ch]"') do
    files[path:match '^src/(.*)%.[ch]$'] = true
  end
  for line in io.lines(t.root .. 'docs/architecture.md') do
    local name = line:match '^| `([%w_/]+)` | [^|]+ |$'
    if name and name:find '/' then named[name] = true end
  end
  local wrong = {}
  for name in pairs(files) do
    if not named[name] then wrong[name .. ' is not in docs/architecture.md'] = true end
  end
  for name in pairs(named) do
    if not files[name] then wrong[name .. ' is in docs/architecture.md and does not exist'] = true end
  end
  lu.assertEquals(sorted(wrong), {})
end

-- The table of folders says the same as the one that lint checks.
function T.test_the_map_says_what_each_folder_may_include()
  local checked, written = {}, {}
  for line in io.lines(t.root .. 'tools/includes.lua') do
    local folder, lower = line:match "^  (%w+) = '([%w ]*)',"
    if folder and folder ~= 'module' then checked[folder] = lower end
  end
  for line in io.lines(t.root .. 'docs/architecture.md') do
    local folder, lower = line:match '^| `src/(%w+)` | [^|]+ | ([^|]+) |$'
    if folder and folder ~= 'module' then
      written[folder] = lower == '-' and '' or lower:gsub(',', '')
    end
  end
  for folder, lower in pairs(written) do lu.assertEquals(lower, checked[folder], folder) end
  lu.assertEquals(written.base, '')
end

-- The anchor that GitHub makes of a heading.
local function anchor(heading)
  return (heading:lower():gsub('[^%w%s_-]', ''):gsub('%s', '-'))
end

local function anchors_of(path)
  local anchors, inside = {}, false
  for line in io.lines(t.root .. path) do
    if line:find '^```' then inside = not inside end
    local heading = not inside and line:match '^#+ (.*)$'
    if heading then anchors[anchor(heading)] = true end
  end
  return anchors
end

local function exists(path)
  local file = io.open(t.root .. path)
  if file then file:close() end
  return file ~= nil
end

-- Whether a link of a page leads somewhere; links to the network are not followed.
local function leads(page, link)
  if link:find '^https?:' then return true end
  local path, fragment = link:match '^([^#]*)#?(.*)$'
  path = path == '' and page or page:match '^(.-)[^/]*$' .. path
  while path:find '[^/]+/%.%./' do path = path:gsub('[^/]+/%.%./', '', 1) end
  if not exists(path) then return false end
  return fragment == '' or anchors_of(path)[fragment] == true
end

function T.test_links_lead_somewhere()
  local broken = {}
  for _, page in ipairs(lines_of 'find . -name "*.md" -not -path "./build/*" -not -path "./.git/*"') do
    page = page:gsub('^%./', '')
    local file = io.open(t.root .. page)
    local text = file:read '*a':gsub('\n```.-\n```', '')
    file:close()
    for link in text:gmatch '%]%(([^)%s]+)%)' do
      if not leads(page, link) then broken[#broken + 1] = page .. ': ' .. link end
    end
  end
  lu.assertEquals(broken, {})
end

-- Words that hide the subject, which is a reader, the caller, the peer, the kernel, ...
local VAGUE = { 'whoever', 'whomever', 'somebody', 'nobody', 'anybody', 'everybody', 'someone' }

function T.test_pages_name_their_subjects()
  local found = {}
  local pages = 'find *.md */README.md docs/*.md examples lua include packaging platform -type f 2>/dev/null'
  for _, path in ipairs(lines_of(pages)) do
    local number = 0
    for line in io.lines(t.root .. path) do
      number = number + 1
      for _, word in ipairs(VAGUE) do
        if line:lower():find('%f[%w]' .. word .. '%f[%W]') then
          found[#found + 1] = ('%s:%d: %s'):format(path, number, word)
        end
      end
    end
  end
  lu.assertEquals(found, {})
end

return T
