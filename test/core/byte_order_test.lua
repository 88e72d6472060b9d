-- What puts bytes together, on vectors in which every byte of a number differs: a processor of the other
-- byte order, or a number of another size, would give other values.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'
local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'

local T = {}

-- What getsockopt(SO_ORIGINAL_DST) returns: the family in the processor's order, all else in the network's.
local function raw_address(family, rest)
  local head = ffi.abi 'le' and string.char(family, 0) or string.char(0, family)
  return head .. rest .. ('\0'):rep(126 - #rest)
end

function T.test_raw_addresses()
  can.need 'numbers'
  lu.assertEquals(asio.addr_to_str(raw_address(2, '\18\52\1\2\3\4')), '1.2.3.4:4660')
  lu.assertEquals(asio.addr_to_str(raw_address(10, '\18\52\0\0\0\0' ..
    '\32\1\13\184\1\2\3\4\5\6\7\8\9\10\11\12')), '[2001:db8:102:304:506:708:90a:b0c]:4660')
end

-- The header of the PROXY protocol, version 2; the names that the connection has then.
local function names_of(header)
  local found
  local server = assert(asio.server('127.0.0.1', 0, function(conn)
    local ip, port = conn:peer()
    local own, own_port = conn:address()
    found = ('%s %d %s %d'):format(ip, port, own, own_port)
    conn:close()
  end, { proxy_protocol = { from = '127.0.0.0/8' } }))
  local conn = assert(asio.connect(server:address()))
  conn:write('\r\n\r\n\0\r\nQUIT\n', header)
  conn:flush()
  conn:set_timeout(5 * t.patience)
  conn:read(1)
  conn:close()
  server:close()
  return found
end

function T.test_the_proxy_protocol()
  lu.assertEquals(names_of('\33\17\0\12' .. '\1\2\3\4\5\6\7\8' .. '\18\52\86\120'),
    '1.2.3.4 4660 5.6.7.8 22136')
  lu.assertEquals(names_of('\33\33\0\36' .. '\32\1\13\184\1\2\3\4\5\6\7\8\9\10\11\12' ..
    '\32\1\13\184\12\11\10\9\8\7\6\5\4\3\2\1' .. '\18\52\86\120'),
    '2001:db8:102:304:506:708:90a:b0c 4660 2001:db8:c0b:a09:807:605:403:201 22136')
  -- A length of two bytes: 259 bytes, of which 12 are addresses.
  lu.assertEquals(names_of('\33\17\1\3' .. '\1\2\3\4\5\6\7\8' .. '\18\52\86\120' .. ('\0'):rep(247)),
    '1.2.3.4 4660 5.6.7.8 22136')
end

-- The answer to a question for `name`, whose only record has this type and data and the ttl 0x00010203.
local function resolve(name, kind, type, data)
  local server = assert(asio.udp('127.0.0.1', 0))
  local answering = asio.spawn(function()
    local query, ip, port = server:recv()
    local asked = query:sub(13, query:find('\0', 13, true) + 4)
    local length = string.char(math.floor(#data / 256), #data % 256)
    server:send(query:sub(1, 2) .. '\129\128\0\1\0\1\0\0\0\0' .. asked ..
      '\192\12\0' .. string.char(type) .. '\0\1\0\1\2\3' .. length .. data, ip, port)
  end)
  local _, port = server:address()
  local list = asio.resolve(name,
    { type = kind, servers = { '127.0.0.1:' .. port }, timeout = 5 * t.patience })
  answering:cancel()
  server:close()
  return assert(list)[1]
end

function T.test_answers_of_name_servers()
  can.need 'ares'
  lu.assertEquals(resolve('a.vector.test', 'A', 1, '\1\2\3\4'),
    { address = '1.2.3.4', family = 'inet', ttl = 66051 })
  lu.assertEquals(resolve('aaaa.vector.test', 'AAAA', 28, '\32\1\13\184\1\2\3\4\5\6\7\8\9\10\11\12'),
    { address = '2001:db8:102:304:506:708:90a:b0c', family = 'inet6', ttl = 66051 })
  lu.assertEquals(resolve('srv.vector.test', 'SRV', 33, '\1\2\3\4\18\52\1h\0'),
    { target = 'h', priority = 258, weight = 772, port = 4660, ttl = 66051 })
  lu.assertEquals(resolve('mx.vector.test', 'MX', 15, '\1\2\1h\0'),
    { exchange = 'h', priority = 258, ttl = 66051 })
  local text = string.char(255) .. ('x'):rep(255) .. string.char(45) .. ('y'):rep(45) -- 302 bytes
  lu.assertEquals(resolve('txt.vector.test', 'TXT', 16, text).text, ('x'):rep(255) .. ('y'):rep(45))
end

function T.test_addresses_of_datagrams()
  local server, client = assert(asio.udp('127.0.0.1', 0)), assert(asio.udp('127.0.0.1', 0))
  local _, port = server:address()
  client:send('x', '127.0.0.1', port)
  local _, ip, from = server:recv(nil, 5)
  local _, own = client:address()
  lu.assertEquals({ ip, from }, { '127.0.0.1', own })
  server:close()
  client:close()
end

return T
