-- The certificates of the tests (certs.sh makes them and tells what each is for):
--
--     local certs = require 'certs'
--     local dir = certs.dir() -- skips the case where the command openssl is missing
--     dir .. 'server.pem', dir .. 'server.key', dir .. 'ca.pem'
--
-- Made once a day and for each version of certs.sh, below the build directory: a set has the day and the
-- script's checksum in its name, and is never changed. Processes that make the same set at the same time
-- do so in directories of their own; the first one that is ready gives its directory the name.
--
-- SPDX-License-Identifier: MIT

local t = require 'support'
local can = require 'can'

local M = {}

local script = t.root .. 'test/support/certs.sh'

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function output_of(command)
  local pipe = io.popen(command)
  local text = pipe:read '*a'
  pipe:close()
  return text
end

-- Sets of more than two days ago go: no test still uses them.
local function make(base, dir)
  os.execute(('mkdir -p %s; find %s/* -prune -mtime +1 -exec rm -rf {} + 2>/dev/null'):format(
    t.quote(base), t.quote(base)))
  local new = assert(output_of(('mktemp -d %s/new.XXXXXX'):format(t.quote(base))):match '^[^\n]+', base)
  local log = output_of(('sh %s %s 2>&1 </dev/null || echo FAILED'):format(t.quote(script), t.quote(new)))
  local failed = log:find 'FAILED\n$'
  if failed or not os.rename(new, dir) then os.execute('rm -rf ' .. t.quote(new)) end
  if failed or not exists(dir .. '/ca.pem') then error(script .. ' failed:\n' .. log:sub(-2000), 0) end
end

local found

--- The directory of the certificates, with a slash at its end.
function M.dir()
  can.need 'tls'
  can.run 'openssl'
  if not found then
    local base = os.getenv 'ASIO_BUILD' .. '/certs'
    local sum = assert(output_of('cksum <' .. t.quote(script)):match '^%d+')
    local dir = ('%s/%s-%s'):format(base, os.date '!%Y%m%d', sum)
    if not exists(dir .. '/ca.pem') then make(base, dir) end
    found = dir .. '/'
  end
  return found
end

--- Calls fn with a directory, without a slash at its end, that has what examples/certs.sh makes for
--- localhost; in its directory `example` is the same for example.org and *.example.org, by another authority.
--- It goes afterwards.
function M.with_examples(fn)
  can.need 'openssl'
  local base = assert(output_of 'mktemp -d':match '^[^\n]+')
  local example = ('sh %s %%s %%s'):format(t.quote(t.root .. 'examples/certs.sh'))
  local own = example:format(t.quote(base), 'localhost')
  local others = example:format(t.quote(base .. '/example'), "example.org '*.example.org'")
  local ok, err = os.execute(own .. ' && ' .. others) == 0, 'examples/certs.sh has failed'
  if ok then ok, err = pcall(fn, base) end
  os.execute('rm -rf ' .. t.quote(base))
  if not ok then error(err, 0) end
end

return M
