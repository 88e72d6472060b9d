-- Server-sent events: the bytes, and the timer of the comments, which ends with the response.
-- test: needs http
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local t = require 'support'
local web = require 'web'

local T = {}

function T.test_events()
  web.with(function(_, res)
    local sse = res:sse { heartbeat = false }
    sse:send 'one\r\ntwo\rthree'
    sse:send { event = 'e', id = 7, retry = 100, data = '' }
    sse:comment 'a\nb'
    lu.assertErrorMsgContains("'event' has a line break", sse.send, sse, { event = 'a\nb' })
    sse:close()
    t.failure('EALREADY', sse:send 'late')
  end, function(port)
    local status, head, body = web.request(port, 'GET', '/')
    lu.assertEquals({ status, web.field(head, 'content-type'), web.field(head, 'cache-control') },
      { 200, 'text/event-stream', 'no-store' })
    lu.assertStrContains(body, 'data: one\ndata: two\ndata: three\n\n')
    lu.assertStrContains(body, 'event: e\nid: 7\nretry: 100\ndata: \n\n')
    lu.assertStrContains(body, ': a b\n\n')
  end)
end

function T.test_comments_come_by_themselves()
  web.with(function(_, res)
    local sse = res:sse { heartbeat = 0.01 }
    asio.sleep(0.1)
    sse:close()
  end, function(port)
    lu.assertStrContains(select(3, web.request(port, 'GET', '/')), ': \n\n')
  end)
end

-- With a timer left the loop would go on for an hour.
function T.test_the_timer_ends_with_the_response()
  for _, way in ipairs { 'return', 'close', 'finish', 'raise', 'cancel', 'gone' } do
    local out = t.child(function(how)
      local asio_of_child, http = require 'asio', require 'asio.http'
      local server = assert(http.server('127.0.0.1', 0, function(req, res)
        local sse = res:sse { heartbeat = 3600 }
        sse:send 'x'
        if how == 'close' then sse:close() end
        if how == 'finish' then res:finish() end
        if how == 'raise' then error 'on purpose' end
        if how == 'cancel' then asio_of_child.sleep(3600) end
        if how == 'gone' then req.conn:abort() end
      end))
      asio_of_child.run(function()
        local _, port = server:address()
        local response = http.get('http://127.0.0.1:' .. port .. '/', { stream = true, proxy = false })
        if response then
          response:read()
          response:close()
        end
        server:shutdown(0.1)
      end)
      print 'over'
    end, { args = { way }, seconds = 20, merged = true, wrap = [[sh -c 'exec "$@" 2>&1' sh]] }).out
    lu.assertStrContains(out, 'over\n', false, way)
  end
end

return T
