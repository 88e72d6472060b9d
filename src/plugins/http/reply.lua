-- SPDX-License-Identifier: MIT
-- The response as the script has it: its body is read as a whole, or piece by
-- piece with the methods of a request. Whatever ends it, the lease of its connection ends once.

local core, c = ...
local asio = core.asio
local now, timeout, trace = asio.now, asio.timeout, core.trace
local concat, error, huge, max = table.concat, error, math.huge, math.max
local lower, match, sub, xpcall = string.lower, string.match, string.sub, xpcall

local Reply = {}
Reply.__index = Reply
Reply.__name = 'asio.http.response'
c.Reply = Reply

-- The state of a body that is being read: the response's field `_from`; nil: it has been read.
local function leave(reply)
    local from = reply._from
    reply._from = nil
    if from.guard then c.unwatch(from.lease) end
    return from.lease
end

-- Ends both ways. May be called twice.
local function give_up(reply)
    if not reply._from then return end
    local lease = leave(reply)
    c.discard(lease)
    c.end_upload(lease)
end

local function fail(reply, message, code)
    give_up(reply)
    reply._failed = { message, code }
    return nil, message, code
end

-- The response is there to its end, the request may still be on its way. nil; or nil, message, code.
local function finish(reply, clean)
    local ok, message, code = c.await_upload(reply._from.lease)
    if not ok then return fail(reply, message, code) end
    if not reply._from then return nil end -- closed meanwhile
    local from = reply._from
    c.give_back(from.lease, clean and from.keep and c.is_uploaded(from.lease))
    leave(reply) -- not before: out of memory, its lease is still to be ended
    return nil
end

-- As c.next_part. Its time begins when the request has been sent.
local function next_part(from)
    local entry, seconds = from.entry, from.idle
    c.set_idle_timeout(entry, seconds)
    while true do
        local piece, over, code = c.next_part(entry.conn, entry.input)
        local left = code == 'ETIMEDOUT' and c.time_left(from.lease, seconds)
        if not left then return piece, over, code end
        c.set_idle_timeout(entry, left)
    end
end

-- The next bytes as they came; nil at the end; nil, message, code.
local function next_raw(reply)
    local from = reply._from
    if not from then return nil end
    local piece, over, code = next_part(from)
    if piece then
        if over and not c.is_uploading(from.lease) then finish(reply, true) end
        return piece
    end
    if over == true then
        reply.trailers = code
        return finish(reply, true)
    end
    if code == 'EOF' and c.state(from.entry.input) == 'over' then -- it lasts as long as the connection
        return finish(reply, false)
    end
    if code == 'EOF' then over = 'the connection ended before the body did' end
    if code == 'EPROTO' then over = 'the body is malformed' end
    return fail(reply, c.upload_failure(from.lease, over, code))
end

-- The same, decoded: at most 32 KB at a time, so that a small piece cannot fill the memory.
local function next_decoded(reply)
    local decoder = reply._decoder
    while true do
        while reply._packed do
            local bytes, at, code = c.inflate(decoder, reply._packed, reply._at)
            if not bytes then return fail(reply, at, code) end
            reply._at = at
            if not at then reply._packed = nil end
            if bytes ~= '' then return bytes end
        end
        local piece, message, code = next_raw(reply)
        if code then return nil, message, code end
        if not piece then
            if c.inflated(decoder) then return nil end
            return fail(reply, 'the compressed body is cut short', 'EPROTO')
        end
        reply._packed, reply._at = piece, 1
    end
end

local function next_piece(reply)
    local failed = reply._failed
    if failed then return nil, failed[1], failed[2] end
    if reply._decoder then return next_decoded(reply) end
    return next_raw(reply)
end

-- Up to `most` bytes. What is over them is an error, also where the length tells before a byte is read.
local function whole(reply, most)
    local from = reply._from
    if from and (from.length or 0) > most then return fail(reply, 'the body is too large', 'EMSGSIZE') end
    local first, message, code = next_piece(reply)
    if code then return nil, message, code end
    if not first then return '' end
    local size, parts = #first, { first }
    while size <= most do
        local piece
        piece, message, code = next_piece(reply)
        if code then return nil, message, code end
        if not piece then return parts[2] and concat(parts) or first end
        size, parts[#parts + 1] = size + #piece, piece
    end
    return fail(reply, 'the body is too large', 'EMSGSIZE')
end
c.whole_body = whole

-- For scripts ------------------------------------------------------------------------------------

local function settle(reply, ok, ...)
    if ok then
        local first, message, code = ...
        if first == nil and code == 'ETIMEDOUT' and not reply._failed then
            return fail(reply, message, code)
        end
        return ...
    end
    fail(reply, 'canceled', 'ECANCELED')
    error((...), 0)
end

-- Runs a reading function under what is left of the time; an interrupt ends the response.
local function guarded(reply, fn, ...)
    if reply._deadline then
        return settle(reply, xpcall(timeout, trace, max(reply._deadline - now(), 0), fn, reply, ...))
    end
    return settle(reply, xpcall(fn, trace, reply, ...))
end

local function next_of_body(reply)
    local rest = reply._rest
    if rest then
        reply._rest = nil
        return rest
    end
    return next_piece(reply)
end

--- The next bytes of the body, as they come, at most `most`. Nil: the body is over. Waits.
---@param most? integer
---@return string? data
---@return string? message
---@return string? code
function Reply:read(most)
    if most ~= nil and (type(most) ~= 'number' or most ~= most or most < 1) then
        c.bad(1, 'read', 'a number of bytes, at least 1, expected')
    end
    if self.body then -- read as a whole: what is left of it
        self._rest, self.body = self.body ~= '' and self.body or nil, nil
    end
    local piece, message, code = guarded(self, next_of_body)
    if not piece or not most or #piece <= most then return piece, message, code end
    self._rest = sub(piece, most + 1)
    return sub(piece, 1, most)
end

local function rest_of_body(reply, most)
    local rest = reply._rest or ''
    reply._rest = nil
    if #rest > most then return fail(reply, 'the body is too large', 'EMSGSIZE') end
    local body, message, code = whole(reply, most - #rest)
    if not body then return nil, message, code end
    return rest .. body
end

--- What is left of the body, at most max bytes (16 MiB); more is EMSGSIZE. Waits.
function Reply:read_all(most)
    if self.body then return self.body end
    return guarded(self, rest_of_body, most or c.MAX_BODY)
end

--- For loops: the pieces of the body; a failure raises.
function Reply:chunks()
    return function()
        local piece, message, code = self:read()
        if code then error(('%s (%s)'):format(message, code), 2) end
        return piece
    end
end

--- Ends the response, and a request that is still being sent: waits until its source has ended. A connection
--- whose body has not been read is closed.
function Reply:close()
    give_up(self)
    self._failed = self._failed or { 'closed', 'EBADF' }
end

--- The value of the first field of this name.
function Reply:header(name)
    c.check_self(self, Reply, 'header', 'response')
    return self.headers:get(name)
end

--- The body as JSON, by lua-cjson. Nil, message, code: it is none.
function Reply:json()
    c.check_self(self, Reply, 'json', 'response')
    local body, message, code = self:read_all()
    if not body then return nil, message, code end
    local ok, cjson = pcall(require, 'cjson')
    if not ok then return nil, 'lua-cjson is not installed', 'ENOTSUP' end
    local done, value = pcall(cjson.decode, body)
    if not done then return nil, 'JSON: ' .. tostring(value), 'EINVAL' end
    return value
end

-- Making one -------------------------------------------------------------------------------------

local GZIP = { gzip = true, ['x-gzip'] = true, deflate = false }

-- A decoder for what the request has asked for.
local function decode(reply, job)
    if not job.decompress then return end
    local coding = reply.headers:get 'content-encoding'
    local gzip = coding and GZIP[lower(match(coding, '^%s*(.-)%s*$'))]
    if gzip == nil then return end
    reply._decoder, reply.decoded, reply.length = c.inflater(gzip), coding, nil
end

-- A body of no length has been read, unless the request is still being sent.
function c.new_reply(job, lease, head, status, reason, minor, keep, length)
    local reply = setmetatable({
        status = status, reason = reason, headers = head, version = '1.' .. minor, url = c.url_text(job.url),
        length = length ~= -1 and length or nil, _deadline = job.deadline,
    }, Reply)
    if status == 101 then -- the connection speaks something else from here on, and is the script's
        reply.conn, reply.body = c.detach(lease), ''
        reply.conn:set_timeout(nil, nil)
        return reply
    end
    reply._from = { lease = lease, entry = lease.entry, keep = keep, idle = job.idle_timeout }
    if length == nil then
        if job.no_body then reply.length = tonumber(head:get 'content-length') end
        if not c.is_uploading(lease) then finish(reply, true) end
    else
        decode(reply, job)
        reply._from.length = reply.length
    end
    return reply
end

-- It goes to the script with its body unread.
function c.hand_over(reply)
    local from = reply._from
    if from then from.guard = c.watch(from.lease) end
end

-- The rest of a response that is not wanted, if it is short: its connection can be kept then.
function c.skip(reply)
    local size = 0
    reply._decoder = nil
    if reply._from then c.end_upload(reply._from.lease) end
    while reply._from and size < 65536 do
        local piece = next_raw(reply)
        size = size + (piece and #piece or huge)
    end
    reply:close()
end
