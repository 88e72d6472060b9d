-- A fuzzer of the public API: seeded operations at random, valid and invalid, of many light threads at a
-- time, under changing modes of the collector, the compiler, hooks and finalizers. Each seed runs in a
-- process
-- of its own, under a time limit; a crash, a hang, a descriptor or a light thread left behind, or an error
-- of an unexpected kind is reported with its seed.
--
--     test/luajit test/fuzz/api.lua [--seconds S] [--first N] [--seeds COUNT] [--ops M]
--         [--confirm N] [WORD=VALUE ...]
--     test/luajit test/fuzz/api.lua --seed N [--ops M] [--trace FILE] [WORD=VALUE ...]
--
-- The first form goes through seeds; the second runs one in this process, to replay and shrink it: fewer
-- operations, or switches of modes.lua fixed (gc=stress jit=off finalizers=none hook=none place=main ...).
--
-- SPDX-License-Identifier: MIT

local here = arg[0]:match '^(.*/)' or './'
package.path = here .. '../?.lua;' .. package.path

local options, forced = { ops = 20000, first = 1 }, {}
do
  local i = 1
  while arg[i] do
    local name, word, value = arg[i]:match '^%-%-(%w+)$', arg[i]:match '^(%w+)=(.*)$'
    if name then
      options[name] = tonumber(arg[i + 1]) or arg[i + 1]
      i = i + 1
    elseif word then
      forced[word] = value
    else
      error('what is ' .. arg[i] .. '?')
    end
    i = i + 1
  end
end

if options.seed then
  options.forced = forced
  options.result = options.result or '/dev/stderr'
  return require('fuzz.child').run(options)
end
require('fuzz.parent').run(options, forced, here)
