-- SPDX-License-Identifier: MIT
-- Signals of the process.

local core = ...
local asio = core.asio
local signal = core.signal
local finish, c_wait = core.finish, core.wait_signal

--- Watches for a signal of the process, which then does not have its default effect (Ctrl-C does not end
--- `run` any more). The object alone does not keep `run` going.
---@param name string `SIGTERM`, `SIGINT`, `SIGHUP`, `SIGUSR1`, ...
---@return table? signal
---@return string? message
---@return string? code `ENOTSUP`: this system does not have it
function asio.signal(name)
    return core.new_signal(name, 'signal')
end

--- Waits for the signal; one that came before counts.
---@param timeout? number seconds
---@return true? ok
---@return string? message
---@return string? code `ETIMEDOUT`, `EBADF` (closed), `ECANCELED` (closed meanwhile)
function signal.wait(self, timeout)
    return finish(self, c_wait(self, timeout))
end
local wait = signal.wait

--- For loops: `for _ in signal:iter() do`, until it is closed. Waits.
---@return fun(): true?
function signal.iter(self)
    return function() return (wait(self)) end
end
