-- SPDX-License-Identifier: MIT
-- Pools of Lua states that run functions for light threads of this one. The queue is in offload.c.

local core, c = ...
local asio, finish, trace = core.asio, core.finish, core.trace
local asio_current, asio_semaphore, asio_stop = asio.current, asio.semaphore, asio.stop
local error, next, pcall, setmetatable = error, next, pcall, setmetatable
local tostring, type, xpcall = tostring, type, xpcall
local traceback = debug and debug.traceback
local submit, answer_of, pool_load, fail_jobs = c.submit, c.answer_of, c.pool_load, c.fail_jobs
local take_job, await_job, begin_job, answer_job = c.take_job, c.await_job, c.begin_job, c.answer_job
local pool = core.offload_pool

-- A state of a pool ------------------------------------------------------------------------------

local ending = false

local function run_job(fn, ...)
    return fn(...)
end

local function begin(self)
    return run_job(begin_job(self))
end

-- Without the frames of the state's own: this file's xpcall, and further down that of worker.lua.
local own_frames = '^(.*)\n\t%[C%]: in function \'xpcall\'\n.*\n\t%[C%]: in function \'xpcall\'\n'

local function with_traceback(err)
    local text = type(err) == 'string' and traceback and traceback('', 2):sub(2)
    return { err, text and (text:match(own_frames) or text) }
end

-- What the handler has made of an error. For want of memory, or of stack, it is not called.
local function failure_of(caught)
    if type(caught) == 'table' then return caught end
    return { caught }
end

local function answer(self, ok, ...)
    if ok then return answer_job(self, true, ...) end
    local failure = failure_of(...)
    return answer_job(self, false, failure[1], failure[2])
end

-- Answers also if an error or a result cannot be carried.
local function answer_anyhow(self, ok, ...)
    local carried, sent, message = pcall(answer, self, ok, ...)
    if carried and sent then return end
    if not ok then message = tostring(failure_of(...)[1]) elseif not carried then message = sent end
    answer_job(self, false, message)
end

-- What a state of a pool runs.
function c.bodies.offload(self)
    local thread = asio_current()
    function c.orders.cancel()
        ending = true
        thread:cancel()
    end
    repeat
        local begins = take_job(self)
        if begins then
            answer_anyhow(self, xpcall(begin, with_traceback, self))
        elseif begins == false then
            finish(self, await_job(self))
        end
    until begins == nil or ending
    asio_stop() -- what jobs have left behind ends
end

-- The owner --------------------------------------------------------------------------------------

-- What belongs to a pool, by its handle; does not refer to the handle.
-- `size`: states at most; `states`: that are there or start; `started`: ever.
local pools = setmetatable({}, { __mode = 'k' })

local on_ended

local function start_state(self, p)
    p.started = p.started + 1
    local options = {
        name = ('%s #%d'):format(p.name, p.started), init = p.init, body = 'offload',
        quiet = true, counted = false, passive = true,
    }
    local worker, message, code = c.spawn_worker('offload_pool', options, self)
    if not worker then return nil, message, code end
    p.states = p.states + 1
    local weak = setmetatable({ self }, { __mode = 'v' })
    function worker.on_ended(w) return on_ended(w, weak[1]) end
    return true
end

-- Every state that dies takes a job with it: one that cannot start is not started for ever.
function on_ended(worker, self)
    local p = self and pools[self]
    if not p then return end
    p.states = p.states - 1
    local reason = worker.outcome[2]
    local text = ('the Lua state of the pool has ended (%s)'):format(worker.outcome[1] and 'asio.stop' or
        tostring(reason))
    if fail_jobs(self, 'lost', false, text) == 0 and not worker.outcome[1] then
        fail_jobs(self, 'next', false, text)
    end
    local running, queued = pool_load(self, 'offload')
    if queued + running <= p.states then return end
    local ok, message = start_state(self, p)
    if not ok and p.states == 0 then fail_jobs(self, 'all', false, message) end
end

local function raise_unless(ok, ...)
    if ok then return ... end
    if ok == nil then return nil, ... end
    local err, where = ...
    if type(err) == 'string' and where then err = err .. '\n' .. where end
    error(err, 0)
end

local function answered(box, message, code)
    if not box then return nil, message, code end
    return raise_unless(answer_of(box))
end

local function offload(self, p, fn, ...)
    local running, queued, closed = pool_load(self, 'offload')
    if closed then return nil, 'closed', 'EBADF' end
    if p.states < p.size and running + queued >= p.states then
        local ok, message, code = start_state(self, p)
        if not ok and p.states == 0 then return nil, message, code end
    end
    return answered(finish(self, submit(self, fn, ...)))
end

local function leave(room, ok, ...)
    room:release()
    if ok then return ... end
    error((...), 0)
end

local function offload_in(self, fn, ...)
    if type(fn) ~= 'function' then
        c.bad(1, 'offload', ('function expected, got %s'):format(type(fn)))
    end
    local p = pools[self]
    if not p then pool_load(self, 'offload') end -- raises
    local room = p.room
    if not room then return offload(self, p, fn, ...) end
    local entered, message, code = room:acquire(p.timeout)
    if not entered then return nil, message, code end
    return leave(room, xpcall(offload, trace, self, p, fn, ...))
end

--- Runs a function in a Lua state of the pool, on another system thread. Waits for it to end. The function
--- and its upvalues, arguments and results are copied; see docs/all-cores.md.
---@param fn function
---@param ... any arguments of fn
---@return any ... results of fn; its error is raised here. Or nil, message, code: `EBADF` (the pool is
---closed), `ECANCELED` (it was closed before the function began), `ETIMEDOUT` (option `timeout`), `EBUSY`
---(a connection in use), `EAGAIN`, `ENOMEM`, `EMFILE` (no state could be started)
function pool.offload(self, fn, ...)
    return offload_in(self, fn, ...)
end

--- Functions that run go on to their end; those that have not begun will not. The states end when they are
--- idle. Does not wait.
pool.close = c.close_pool

---@return table stats `size` (states at most), `states` (now), `running`, `waiting`: functions
function pool.stats(self)
    local running, waiting = pool_load(self, 'stats')
    local p = pools[self]
    return { size = p.size, states = p.states, running = running, waiting = waiting }
end

local function bad_option(name, wanted)
    c.bad(2, 'offload_pool', ('option \'%s\': %s expected'):format(name, wanted))
end

local checks = {
    queue = function(value)
        if type(value) ~= 'number' or value ~= value or value < 0 or value % 1 ~= 0 and value < 2^53 then
            bad_option('queue', 'a whole number')
        end
    end,
    timeout = function(value)
        if type(value) ~= 'number' or value ~= value or value < 0 then bad_option('timeout', 'seconds') end
    end,
    init = function(value)
        if type(value) ~= 'function' and type(value) ~= 'string' then
            bad_option('init', 'function or name of a module')
        end
    end,
    name = function(value)
        if type(value) ~= 'string' then bad_option('name', 'string') end
    end,
}

local function check_options(options)
    if type(options) ~= 'table' then
        c.bad(2, 'offload_pool', ('table expected, got %s'):format(type(options)))
    end
    for name, value in next, options do
        local check = checks[name]
        if not check then c.bad(2, 'offload_pool', ('unknown option \'%s\''):format(tostring(name))) end
        check(value)
    end
end

local QUEUE = 1000

--- Makes a pool of at most `size` Lua states. They are started when there is something to run and none of
--- them is idle.
---@param size? integer processors if nil
---@param options? { queue?: integer, timeout?: number, init?: function|string, name?: string }
---@return table pool
function c.offload_pool(size, options)
    if size == nil then size = c.parallelism() end
    if type(size) ~= 'number' or not (size >= 1 and size <= 1024) or size % 1 ~= 0 then
        c.bad(1, 'offload_pool', 'a whole number from 1 to 1024 expected')
    end
    if type(options) == 'nil' then options = {} end -- a null pointer of ffi is equal to nil, and no table
    check_options(options)
    local self = c.new_pool()
    local queue = options.queue or QUEUE
    pools[self] = {
        size = size, states = 0, started = 0, timeout = options.timeout, init = options.init,
        name = options.name or 'offload', room = queue < 2^53 and asio_semaphore(size + queue) or nil,
    }
    return self
end

local own -- the pool of asio.offload

--- Runs a function in a pool of Lua states, as many as there are processors.
---@param fn function
---@param ... any arguments of fn
---@return any ... see pool.offload
function c.offload(fn, ...)
    if not own then own = c.offload_pool() end
    return offload_in(own, fn, ...)
end
