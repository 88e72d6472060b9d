-- SPDX-License-Identifier: MIT
-- Bodies of requests that do not go out with the head: long strings, and sources (body.lua). A light thread
-- of their own sends them while the response is read. It belongs to the lease, and ends before the request:
-- it has sent all, has failed, or was stopped.

local core, c = ...
local asio = core.asio
local finish, trace = core.finish, core.trace
local new_group, group_wait = core.new_group, core.group_wait
local current, now, timeout = asio.current, asio.now, asio.timeout
local error, max, pcall, sub, type, xpcall = error, math.max, pcall, string.sub, type, xpcall

local PIECE = 65536 -- bytes of a string that are sent under one time-out; strings over it are uploads

-- What a connection fails with that has ended, here or at the peer. Of other failures the peer knows nothing.
local CUT = {
    EOF = true, ECONNRESET = true, EPIPE = true, ECONNABORTED = true, ECANCELED = true, EBADF = true,
}

function c.is_upload(job) return job.source or (job.body and #job.body > PIECE) end

local function pieces_of(text)
    local at = 1
    return function()
        if at > #text then return nil end
        at = at + PIECE
        return sub(text, at - PIECE, at - 1)
    end
end

-- In its light thread -----------------------------------------------------------------------------

local function send_piece(upload, piece)
    if type(piece) ~= 'string' then
        upload.misuse = 'body: the function returned something that is no string'
        return nil, upload.misuse, 'EINVAL'
    end
    if piece == '' then return true end
    if not upload.length then return c.send_chunk(upload.conn, piece) end
    upload.sent = upload.sent + #piece
    if upload.sent > upload.length then return nil, 'the body is longer than its length', 'EINVAL' end
    return upload.conn:write(piece)
end

local function send_end(upload)
    if not upload.length then
        local ok, message, code = c.send_chunk(upload.conn, '')
        if not ok then return nil, message, code end
    elseif upload.sent < upload.length then
        return nil, 'the body is shorter than its length', 'EINVAL', true
    end
    return upload.conn:flush()
end

-- True, or nil, message, code, and whether the fault is on this side.
local function send_all(upload)
    local source, lease = upload.source, upload.lease
    while true do
        local piece, message, code = source()
        if piece == nil and code then return nil, message, code, true end
        if piece == nil then return send_end(upload) end
        local ok
        ok, message, code = send_piece(upload, piece)
        if not ok then return nil, message, code end
        if lease.lost and lease.lost[1] then return nil, 'the response was dropped', 'ECANCELED', true end
    end
end

-- Also for the time of the whole request, which goes on when the script does not read the response.
local function send_in_time(upload)
    local deadline = upload.deadline
    if not deadline then return send_all(upload) end
    local ok, message, code, mine = timeout(max(deadline - now(), 0), send_all, upload)
    return ok, message, code, mine or now() >= deadline
end

-- A failure of this side, or a peer that takes nothing and says nothing, ends the other way too: that wakes
-- the reader. An error of the source is the group's, which keeps its traceback.
local function run(upload)
    local ok, sent, message, code, mine = xpcall(send_in_time, trace, upload)
    upload.ended = now()
    if ok and sent then
        upload.complete = true
    elseif not upload.stopped then
        if not ok then message, code = 'canceled', 'ECANCELED' end
        mine = mine or not ok or not (CUT[code] or code == 'ETIMEDOUT')
        upload.raised, upload.message, upload.code, upload.mine = not ok, message, code, mine
        if upload.mine or (code == 'ETIMEDOUT' and not upload.answered) then upload.conn:abort() end
    end
    if not ok then error(sent, 0) end
end

-- For the reader -----------------------------------------------------------------------------------

function c.start_upload(job, lease)
    local upload = {
        lease = lease, conn = lease.entry.conn, source = job.source or pieces_of(job.body), sent = 0,
        length = job.length or job.body and #job.body, deadline = job.deadline, group = new_group(),
        stopped = false, answered = false, complete = false, closes = false,
    }
    lease.upload = upload
    upload.thread = upload.group:spawn(run, upload)
end

function c.is_uploading(lease) return lease.upload and not lease.upload.ended end

-- Whether the whole request has gone out.
function c.is_uploaded(lease) return not lease.upload or lease.upload.complete end

-- What ended the upload, if the read failed for its sake: message, code. Raises what its source has raised.
function c.upload_failure(lease, message, code)
    local upload = lease.upload
    if not upload then return message, code end
    if upload.raised then upload.group:wait() end
    if upload.misuse then c.misuse(upload.misuse) end
    if upload.code and (upload.mine or CUT[code]) then return upload.message, upload.code end
    return message, code
end

-- Ends it, without a wait.
function c.stop_upload(lease)
    local upload = lease.upload
    if not upload or upload.ended then return end
    upload.stopped = true
    upload.group:cancel()
end

local function until_ended(group)
    local done
    repeat done = finish(group, group_wait(group, true, true)) until done ~= false
end

-- The same, and waits until its source runs no more: interrupts come after that. Where no wait is possible (a
-- finalizer), and in the source itself, it ends a little later.
function c.end_upload(lease)
    if not c.is_uploading(lease) then return end
    c.stop_upload(lease)
    if current() ~= lease.upload.thread then pcall(until_ended, lease.upload.group) end
end

-- The response is complete: waits until the request is. True, also if the peer took no more of it; nil,
-- message, code: it has failed on this side. RFC 9112, 9.6: a server that said so closes now.
function c.await_upload(lease)
    local upload = lease.upload
    if not upload then return true end
    if upload.closes then c.end_upload(lease) end
    if not upload.ended then
        local ok, message, code = upload.group:wait()
        if not ok then return nil, message, code end
    end
    local message, code = c.upload_failure(lease)
    if upload.mine then return nil, message, code end
    return true
end

-- A read has timed out: the seconds that are left for it. Its time begins when the request has been sent.
function c.time_left(lease, seconds)
    local upload = lease.upload
    if not upload or seconds <= 0 then return nil end
    if not upload.ended then return seconds end
    local left = upload.ended + seconds - now()
    return left > 0 and left or nil
end
