-- SPDX-License-Identifier: MIT
-- HTTP/1.1: what the other files share. Each is called with the table that the parts of asio share, the C
-- functions of this plugin, to which the files add what they share, and the table of the module.

local core, c = ...
local OK, finish = core.OK, core.finish
local getmetatable, type = getmetatable, type
local c_request_head = c.request_head
local c_read_head, c_read_body, c_respond, c_chunk = c.read_head, c.read_body, c.respond, c.chunk

c.OK, c.finish = OK, finish

-- Numbers of src/plugins/http/output.c.
c.CLOSE, c.NO_BODY, c.CHUNKED, c.NO_LENGTH, c.KEEP_ALIVE = 1, 2, 4, 8, 16
c.LOOK = 32 -- of server.lua alone

-- Raises unless it is an object with this metatable.
function c.check_self(self, meta, fname, what)
    if type(self) ~= 'table' or getmetatable(self) ~= meta then
        c.misuse(("calling '%s' on something that is not a %s"):format(fname, what))
    end
end

-- Waits for the head of the next message: head, method, target, minor, keep_alive, length (requests); head,
-- status, reason, minor, keep_alive, length (responses). Or nil, message, code; see c.refusal.
function c.next_head(conn, input, no_body)
    local token, head, method, target, minor, keep, length = c_read_head(conn, input, no_body)
    if token == OK then return head, method, target, minor, keep, length end
    return finish(conn, token, head, method, target, minor, keep, length)
end

-- Waits for the next piece of the body; nil: it is over; nil, message, code.
function c.next_piece(conn, input)
    local token, piece, message, code = c_read_body(conn, input)
    if token == OK then return piece end
    return finish(conn, token, piece, message, code)
end

-- The same; behind a piece, whether it was the last; at the end nil, true, trailers or nil.
function c.next_part(conn, input)
    local token, piece, over, code = c_read_body(conn, input)
    if token == OK then return piece, over or piece == nil, code end
    return finish(conn, token, piece, over, code)
end

-- The head of a request and a body that is known; see output.c. Waits only while too much is queued.
function c.send_request(conn, method, target, lines, headers, body, flags)
    local token, ok, message, code = c_request_head(conn, method, target, lines, headers, body, flags)
    if token == OK then return true end
    return finish(conn, token, ok, message, code)
end

-- A head, and a body that is known. Waits only while too much is queued.
function c.send(conn, status, headers, body, flags, input)
    local token, ok, message, code = c_respond(conn, status, headers, body, flags, input)
    if token == OK then return true end
    return finish(conn, token, ok, message, code)
end

-- A chunk of a body; '' ends it.
function c.send_chunk(conn, data)
    local token, ok, message, code = c_chunk(conn, data)
    if token == OK then return true end
    return finish(conn, token, ok, message, code)
end
