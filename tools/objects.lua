-- luajit tools/objects.lua BUILD: what the objects of src/ define and use (nm). Files that need one another
-- in a circle are a fault; so is a header that declares what is not in the file of its name (a header
-- without such a file may), or an object without tables for unwinding (`leaf` in CMakeLists.txt) that calls
-- Lua. Prints what it finds, and exits with 1.
--
-- SPDX-License-Identifier: MIT

local build = arg[1]
local failures = 0

local function complain(...)
  failures = failures + 1
  print(string.format(...))
end

local function lines_of(command)
  local pipe = io.popen(command)
  local text = pipe:read '*a'
  pipe:close()
  return text:gmatch '[^\n]+'
end

local owner, uses, files = {}, {}, {} -- symbol: its file; file: set of symbols; sorted
local objects = build .. '/CMakeFiles/asio_core.dir/src'
for line in lines_of(("cd '%s' && find . -name '*.o' -exec nm -A {} +"):format(objects)) do
  local file, kind, symbol = line:match '^%./(.*)%.c%.o[bj]*:[%x ]* (%a) (%S+)$'
  if file and not uses[file] then uses[file], files[#files + 1] = {}, file end
  if kind == 'U' then
    uses[file][symbol] = true
  elseif kind and kind:find '[TDBRCVW]' then
    owner[symbol] = file
  end
end
assert(#files > 0, 'no objects below ' .. build)
table.sort(files)

local needs = {}
for _, file in ipairs(files) do
  local set = {}
  for symbol in pairs(uses[file]) do
    if owner[symbol] and owner[symbol] ~= file then set[owner[symbol]] = true end
  end
  needs[file] = {}
  for name in pairs(set) do table.insert(needs[file], name) end
  table.sort(needs[file])
end

-- Depth first: what leads back into the path that is being walked closes a circle.
local path, place, finished = {}, {}, {}
local function walk(file)
  path[#path + 1], place[file] = file, #path + 1
  for _, other in ipairs(needs[file]) do
    if place[other] then
      complain('a circle: %s -> %s', table.concat(path, ' -> ', place[other]), other)
    elseif not finished[other] then
      walk(other)
    end
  end
  path[#path], place[file], finished[file] = nil, nil, true
end
for _, file in ipairs(files) do
  if not finished[file] then walk(file) end
end

local function check_header(name)
  for line in io.lines('src/' .. name .. '.h') do
    local declared = line:match '^%l[%w_ *]-[ *](asio_[%w_]+)%(' or line:match '^extern .-(asio_[%w_]+)[%[;]'
    if declared and not line:find '^static' and not line:find '^typedef' and owner[declared]
      and owner[declared] ~= name then
      complain('src/%s.h declares %s of src/%s.c', name, declared, owner[declared])
    end
  end
end
for _, file in ipairs(files) do
  local header = io.open('src/' .. file .. '.h')
  if header then
    header:close()
    check_header(file)
  end
end

-- What has no tables for unwinding calls only its like, and what is known to raise nothing: no Lua.
local raises_nothing = {
  '^asio_poll_sending_', '^asio_rt_deadline$', '^asio_rt_scratch$', '^asio_uvstream_',
  '^asio_stream_teardown$', '^asio_stream_init$', '^asio_stream_free$',
  '^asio_stream_received$', '^asio_stream_ended$', '^asio_stream_sent$' -- from libuv's callbacks
}
local function is_known(symbol)
  for _, pattern in ipairs(raises_nothing) do
    if symbol:find(pattern) then return true end
  end
  return false
end
local bare = {}
for line in lines_of(("cd '%s' && grep -rL --include='*.o' eh_frame ."):format(objects)) do
  bare[line:match '^%./(.*)%.c%.o$' or ''] = true
end
for _, file in ipairs(files) do
  for symbol in pairs(bare[file] and uses[file] or {}) do
    local like = bare[owner[symbol] or ''] or is_known(symbol)
    if not like and (owner[symbol] or symbol:find '^luaL?_') then
      complain('src/%s.c has no tables for unwinding, and uses %s', file, symbol)
    end
  end
end
os.exit(failures == 0 and 0 or 1)
