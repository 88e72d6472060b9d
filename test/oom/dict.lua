-- What test/oom runs in states that are short of memory: a dict that they share loses nothing.
local asio = require 'asio'

local d = assert(asio.shared.dict())
local long = ('long'):rep(1000)
for i = 1, 20 do
  assert(d:set(i, i))
  assert(d:set('text' .. i, ('text'):rep(i)))
  assert(d:set('table' .. i, { i, { 'item' } }, 100))
  assert(d:set('long' .. i, long))
end
for i = 1, 20 do
  assert(d:get(i) == i)
  assert(d:get('text' .. i) == ('text'):rep(i))
  assert(d:get('table' .. i)[2][1] == 'item')
  assert(d:get('long' .. i) == long)
end
assert(#d:keys() == 80)
for key, value in d:iter() do assert(key and value) end
for i = 1, 10 do d:rpush('list', { ('item %d'):format(i) }) end
for i = 1, 10 do
  local length = d:llen 'list'
  local ok, item = pcall(d.lpop, d, 'list')
  if ok then
    assert(item[1] == ('item %d'):format(i))
  else
    assert(d:llen 'list' == length, 'an item was lost')
    error(item, 0)
  end
end
assert(d:update('n', function(n) return (n or 0) + 1 end) == 1)
d:clear()
assert(d:bytes() == 0)
