-- luajit tools/includes.lua: holds src/ to its floors. A folder may include its own headers and those of the
-- folders that its line names, with all that these may include; the name of a static function stands once in
-- the tree. Prints what breaks that, and exits with 1.
--
-- SPDX-License-Identifier: MIT

local floors = {
  base = '',
  plugin = 'base',
  sys = 'base',
  core = 'base sys plugin',
  task = 'core',
  stream = 'core',
  net = 'stream task',
  udp = 'core',
  dns = 'core',
  os = 'stream task',
  cli = '',
  plugins = 'plugin base', -- and of those the own folder alone
  module = 'base plugin sys core task stream net udp dns os',
}

local failures = 0

local function complain(...)
  failures = failures + 1
  print(string.format(...))
end

local function may_include(folder, wanted)
  if folder == wanted then return true end
  for lower in floors[folder]:gmatch '%S+' do
    if may_include(lower, wanted) then return true end
  end
  return false
end

-- 'net/tcp.c' is in net, 'plugins/ares/dns.c' in plugins/ares.
local function folder_of(path)
  return path:match '^(plugins/[^/]*)/' or path:match '^([^/]*)/'
end

local function check_include(path, number, included)
  local folder, wanted = folder_of(path), folder_of(included)
  if not wanted or not floors[wanted:match '^[^/]*'] then
    complain('src/%s:%d: "%s" is written without its folder', path, number, included)
  elseif folder ~= wanted and (wanted:find '/' or not may_include(folder:match '^[^/]*', wanted)) then
    complain('src/%s:%d: %s may not include "%s"', path, number, folder, included)
  end
end

-- Functions begin in the first column, see .clang-format. One system's file may repeat another's.
local statics = {}

local function check_static(path, line)
  local name = line:match '^static [^=(]-([%w_]+)%('
  if not name or path:find '^sys/' then return end
  if statics[name] and statics[name] ~= path then
    complain('static %s: in src/%s and in src/%s', name, statics[name], path)
  end
  statics[name] = path
end

local list = io.popen "cd src && find . -name '*.[ch]' | sort"
for path in list:lines() do
  path = path:gsub('^%./', '')
  local number = 0
  for line in io.lines('src/' .. path) do
    number = number + 1
    local included = line:match '^%s*#%s*include "(.*)"'
    if not folder_of(path) or not floors[folder_of(path):match '^[^/]*'] then
      complain('src/%s: in no folder of the table in tools/includes.lua', path)
      break
    end
    if included then check_include(path, number, included) end
    check_static(path, line)
  end
end
list:close()
os.exit(failures == 0 and 0 or 1)
