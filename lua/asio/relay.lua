-- SPDX-License-Identifier: MIT
-- asio.relay: joins two connections.

local core = ...
local asio = core.asio
local finish_both, c_relay = core.finish_both, core.relay

--- Copies everything from each of two connections to the other, until both have ended: buffered bytes go
--- first, the end of one becomes the half-close of the other. Waits for that. Takes both over: other reads
--- and writes return `EBUSY` meanwhile. Both are closed afterwards. After a failure they are reset, so that
--- the peers do not take a part for the whole.
---@param a table connection
---@param b table connection
---@param options? {timeout?: number} timeout: seconds in which nothing moves either way
---@return integer? a_to_b bytes
---@return integer|string b_to_a bytes, or the message
---@return string? code `ETIMEDOUT` (nothing moved), `ECANCELED` (one of them was closed), `ECONNRESET`,
--- `EPIPE`, ...; after `EBADF` (one is closed) and `EBUSY` (one is being read) nothing was taken
---@return integer? a_to_b after a failure: bytes that were passed on until then
---@return integer? b_to_a
function asio.relay(a, b, options)
    return finish_both(a, b, c_relay(a, b, options))
end
