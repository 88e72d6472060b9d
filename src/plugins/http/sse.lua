-- SPDX-License-Identifier: MIT
-- Server-sent events (HTML, 9.2): an endless response of type text/event-stream.

local core, c, _http = ... -- luacheck: ignore _http
local asio = core.asio
local every = asio.every
local find, gsub, concat = string.find, string.gsub, table.concat
local setmetatable, tostring, type = setmetatable, tostring, type

local sse = {}
local meta = { __index = sse, __name = 'asio.http.sse' }

-- A field may not have a line break; data becomes one field a line.
local function line(list, name, value)
    value = tostring(value)
    if find(value, '[\r\n%z]') then c.misuse(("send: '%s' has a line break"):format(name)) end
    list[#list + 1] = name .. ': ' .. value .. '\n'
end

local function data_lines(list, data)
    data = gsub(gsub(tostring(data), '\r\n', '\n'), '\r', '\n')
    list[#list + 1] = 'data: ' .. gsub(data, '\n', '\ndata: ') .. '\n'
end

--- Sends an event. Waits only while more than 64 KB are queued.
---@param event table|string { event =, data =, id =, retry = milliseconds }; or the data
---@return true? ok
---@return string? message
---@return string? code the client has gone: `EPIPE`, `ECONNRESET`
function sse.send(self, event)
    if type(event) ~= 'table' then event = { data = event } end
    local list = {}
    if event.event ~= nil then line(list, 'event', event.event) end
    if event.id ~= nil then line(list, 'id', event.id) end
    if event.retry ~= nil then
        if type(event.retry) ~= 'number' or event.retry < 0 then
            c.bad(1, 'send', "'retry': milliseconds expected")
        end
        line(list, 'retry', ('%d'):format(event.retry))
    end
    if event.data ~= nil then data_lines(list, event.data) end
    list[#list + 1] = '\n'
    return self.res:write(concat(list))
end

--- Sends a comment, which clients ignore: it shows whether they are there.
---@param text? string
function sse.comment(self, text)
    return self.res:write((': ' .. gsub(text or '', '[\r\n]', ' ') .. '\n\n'))
end

--- Ends the response.
function sse.close(self) return self.res:finish() end

-- A timer keeps the loop going, so it stops as soon as the response is over, however that comes.
local function stop_heartbeat(res)
    local ticker = res.heartbeat
    res.heartbeat = nil
    if ticker then ticker:stop() end
end
c.stop_heartbeat = stop_heartbeat

local function start_heartbeat(self, seconds)
    local res = self.res
    res.heartbeat = every(seconds, function()
        if res.over or not self:comment() then stop_heartbeat(res) end
    end)
    local finish = res.finish
    function res.finish(...)
        stop_heartbeat(res)
        return finish(...)
    end
end

--- Begins a stream of events.
---@param opts? {heartbeat?: number} seconds between comments (15); false: none
---@return table? sse `send`, `comment`, `close`
---@return string? message
---@return string? code
function c.response.sse(self, opts)
    local heartbeat = opts and opts.heartbeat
    if heartbeat == nil then heartbeat = 15 end
    if heartbeat and not (type(heartbeat) == 'number' and heartbeat > 0) then
        c.bad(1, 'sse', "option 'heartbeat': seconds or false expected")
    end
    local headers = self.headers
    headers['Content-Type'] = headers['Content-Type'] or 'text/event-stream'
    headers['Cache-Control'] = headers['Cache-Control'] or 'no-store'
    local ok, message, code = self:write ''
    if not ok then return nil, message, code end
    self.link.conn:flush()
    local stream = setmetatable({ res = self }, meta)
    if heartbeat then start_heartbeat(stream, heartbeat) end
    return stream
end
