-- SPDX-License-Identifier: MIT
-- Two connections joined to one.

local core = ...
local asio = core.asio
local finish, c_relay = core.finish, core.relay

--- Copies everything from each of two connections to the other, until both have ended: what is buffered
--- goes first, the end of one becomes the half-close of the other. Waits for that. Takes both over: nobody
--- else may read or write meanwhile (`EBUSY`). Both are closed afterwards; after a failure they are reset,
--- so that their peers do not take what they have for whole.
---@param a table connection
---@param b table connection
---@param options? {timeout?: number} timeout: seconds in which nothing moves either way
---@return integer? a_to_b bytes
---@return integer|string b_to_a bytes, or the message
---@return string? code `ETIMEDOUT` (nothing moved), `ECANCELED` (somebody closed one of them), `ECONNRESET`,
--- `EPIPE`, ...; `EBADF` (one is closed), `EBUSY` (somebody reads from one): then nothing was taken over
---@return integer? a_to_b after a failure: bytes that were passed on until then
---@return integer? b_to_a
function asio.relay(a, b, options)
    return finish(nil, c_relay(a, b, options))
end
