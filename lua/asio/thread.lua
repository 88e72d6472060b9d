-- SPDX-License-Identifier: MIT
-- The waiting functions of light threads.

local core = ...
local asio, thread = core.asio, core.thread
local finish, outcome = core.finish, core.outcome
local c_join, c_sleep, c_yield = core.join, core.sleep, core.yield

asio.spawn_light_thread = asio.spawn

--- Waits for the light thread to end.
---@param timeout? number seconds
---@return boolean? ok true, results... | false, error | nil, message, "ETIMEDOUT"
---@return any ...
function thread.join(self, timeout)
    local ended, message, code = finish(self, c_join(self, timeout))
    if ended then return outcome(self) end
    return nil, message, code
end

--- Waits. 0 lets the others run.
---@param seconds number
---@return true
function asio.sleep(seconds)
    return finish(nil, c_sleep(seconds))
end

--- Lets the other light threads run.
---@return true
function asio.yield()
    return finish(nil, c_yield())
end
