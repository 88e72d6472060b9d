-- SPDX-License-Identifier: MIT Workers: what a new Lua state runs, and how the state that has started it
-- sees it. What states tell each other comes in here, in `receive`.

local core, c = ...
local asio = core.asio
local asio_current, asio_event, asio_on_error, asio_run = asio.current, asio.event, asio.on_error, asio.run
local asio_spawn, asio_stop, asio_yield, cancelled = asio.spawn, asio.stop, asio.yield, asio.cancelled
local error, pcall, require, select = error, pcall, require, select
local tostring, type, unpack = tostring, type, unpack
local getmetatable, rawget, setmetatable, xpcall = getmetatable, rawget, setmetatable, xpcall
local traceback = debug and debug.traceback
local package, jit = package, jit

local function pack(...)
    return { n = select('#', ...), ... }
end

-- With one value more behind the others.
local function append(last, ...)
    local values = pack(...)
    values[values.n + 1] = last
    return unpack(values, 1, values.n + 1)
end

-- What other states tell -------------------------------------------------------------------------

local worker = {} -- methods
local worker_mt = {
    __index = worker,
    __tostring = function(self) return ('%s (%s)'):format(self.label, worker.status(self)) end,
}
local workers = {} -- that this state has started and whose end it has not seen, by id
c.worker_methods = worker

local function check(self, fname)
    if type(self) ~= 'table' or getmetatable(self) ~= worker_mt then
        c.misuse(("calling '%s' on something that is not a worker"):format(fname))
    end
end

-- What the starter tells this state, and what a worker tells its starter: functions by name. They are
-- called by the loop, and must not wait.
c.orders, c.news = {}, {}
local orders, news = c.orders, c.news

c.on_receive(function(id, what, ...)
    if id then
        local w = workers[id]
        local told = w and (w.news[what] or news[what])
        if told then return told(w, ...) end
    elseif orders[what] then
        return orders[what](...)
    end
end)

-- The starter ------------------------------------------------------------------------------------

local started = 0 -- workers, ever

local function settings()
    return {
        path = package and package.path, cpath = package and package.cpath,
        jit = jit and jit.status(), watchdog = core.watchdog_seconds,
    }
end

-- options: `name`, `what` (names the values in errors; without it they are arguments of fname), `quiet`
-- (its errors are not reported here), `counted = false` (it does not keep asio.run going), `news`
-- (functions by name, for what it reports), `passive` (its waiting is no deadlock), `init` (a function or
-- module that runs first), `body` (of c.bodies: is called with fn and its arguments). Returns the worker; or
-- nil, message, code. Does not wait.
function c.spawn_worker(fname, options, fn, ...)
    started = started + 1
    local name = options.name or ('worker #%d'):format(started)
    local carried = settings()
    carried.name, carried.passive, carried.init = name, options.passive, options.init
    carried.body = options.body
    local self = setmetatable({ label = name, done = asio_event(), news = options.news or {} }, worker_mt)
    self.quiet = options.quiet
    local counted = options.counted ~= false
    local handle, id, code = c.start(fname, options.what, name, counted, append(carried, fn, ...))
    if not handle then return nil, id, code end
    self.handle = handle
    workers[id] = self
    self.id = id
    return self
end

local function report_unless_joined(self)
    asio_yield() -- a light thread that joins in this turn takes the error
    if self.taken then return end
    local err, trace = self.outcome[2], self.outcome[3]
    core.report(('%s failed: %s%s'):format(self.label, tostring(err), trace and '\n' .. trace or ''))
end

-- `outcome`: its results, or why there are none.
local function ended(self, outcome)
    workers[self.id] = nil
    self.outcome = outcome
    if outcome.cancelled then outcome[2], outcome.n = cancelled, 2 end
    self.done:set()
    if self.on_ended then self.on_ended(self) end
    local failed = not outcome[1] and not outcome.cancelled
    if failed and not self.quiet then asio_spawn(report_unless_joined, self) end
end

function news.ended(self, ok, was_cancelled, ...)
    local outcome = pack(ok, ...)
    outcome.cancelled = was_cancelled
    ended(self, outcome)
end

local no_memory = { n = 2, false, 'not enough memory' }

-- Of something that its own Lua could not tell of. Without a message this allocates nothing.
function news.died(self, message)
    ended(self, message and { n = 2, false, message } or no_memory)
end

-- An error of a light thread that nothing there joins.
function news.report(self, text)
    core.report(self.label .. ': ' .. text)
end

--- Waits for the worker to end.
---@param timeout? number seconds
---@return boolean? ok true, results... (copies) | false, error, traceback | nil, message, "ETIMEDOUT"
---@return any ...
function worker.join(self, timeout)
    check(self, 'join')
    local over, message, code = true, nil, nil
    if not self.outcome then over, message, code = self.done:wait(timeout) end
    if not over then return nil, message, code end
    self.taken = true
    return unpack(self.outcome, 1, self.outcome.n)
end

--- Cancels its main light thread: the waits in it raise `asio.cancelled`. A worker whose function has
--- returned, and that goes on for what it has left running, stops. Does not wait.
---@return boolean alive false: it has ended
function worker.cancel(self)
    check(self, 'cancel')
    return not self.outcome and c.tell(self.handle, 'cancel') == true
end

---@return "running"|"done"|"failed"
function worker.status(self)
    check(self, 'status')
    if not self.outcome then return 'running' end
    return self.outcome[1] and 'done' or 'failed'
end

---@return string
function worker.name(self)
    check(self, 'name')
    return self.label
end

--- Starts a Lua state on a system thread of its own, with a loop of its own, and runs a function in it, in
--- a light thread. It keeps `asio.run` going until it ends. The function is carried over with its upvalues;
--- see docs/all-cores.md.
---@param fn function|string or a module's name: it is required there, and called if it is a function
---@param ... any arguments: copies of them
---@return table? worker
---@return string? message
---@return string? code `EAGAIN`, `ENOMEM`, `EMFILE`: no thread, memory, descriptors
function c.worker(fn, ...)
    if type(fn) ~= 'function' and type(fn) ~= 'string' then
        c.bad(1, 'worker', ('function or name of a module expected, got %s'):format(type(fn)))
    end
    return c.spawn_worker('worker', {}, fn, ...)
end

-- The new state ----------------------------------------------------------------------------------

local main -- its main light thread

function orders.cancel()
    if not (main and main:cancel()) then asio_stop() end
end

-- A function, or what a module that is required now returns.
local function run(fn, ...)
    if type(fn) == 'string' then
        fn = require(fn)
        if type(fn) ~= 'function' then return end
    end
    return fn(...)
end
c.run_function = run
c.bodies = {} -- what a worker runs that is not of a script, by name

-- Files beside this one that few states need: loaded when something in them is asked for.
local parts = {
    offload = 'offload', offload_pool = 'offload', server = 'server', server_thread = 'server_thread',
}
local in_parts = {}
function in_parts.__index(t, name)
    local part = parts[name]
    if not part then return nil end
    c.load(part, core, c)
    return rawget(t, name)
end
setmetatable(c, in_parts)
setmetatable(c.bodies, in_parts)

local function with_traceback(err)
    if err == cancelled then return { err } end
    return { err, traceback and traceback('', 2):sub(2) }
end

local function apply(options)
    if package then package.path, package.cpath = options.path, options.cpath end
    if jit and options.jit == false then jit.off() end
    if options.watchdog then asio.watchdog(options.watchdog) end
    if options.passive then c.set_passive() end
end

-- Results and errors that cannot be carried are errors that can.
local function finish(id, ok, was_cancelled, ...)
    local ran, carried, message = pcall(c.finish, id, ok, was_cancelled, ...)
    if carried == true then return end
    if not ran then message = carried end
    if not ok then message = tostring((...)) end
    c.finish(id, false, nil, message, ok and nil or (select(2, ...)))
end

local function call(options, fn, ...)
    if options.watchdog then asio_yield() end -- which knows the name then
    if options.init then run(options.init) end
    if options.body then return c.bodies[options.body](fn, ...) end
    return run(fn, ...)
end

-- A module that it refers to may be missing here. Without memory it is as if the state had not opened.
local function take_start(id)
    local start = pack(pcall(c.take_start, id))
    if start[1] then return start end
    local message = tostring(start[2])
    if message:find('not enough memory', 1, true) then error(message, 0) end
    finish(id, false, nil, message)
end

-- The state's whole life.
function c.bootstrap(id)
    c.id = id
    function asio.stop() -- before the function comes: it may have this one as an upvalue
        local stop = rawget(c, 'stop') or asio_stop
        stop()
    end
    local start = take_start(id)
    if not start then return end
    local options = start[start.n]
    local results
    apply(options)
    asio_on_error(function(err, trace)
        c.report(id, 'report', tostring(err) .. (trace and '\n' .. trace or ''))
    end)
    local ran, message = pcall(asio_run, function(...)
        main = asio_current()
        main:name(options.name)
        results = pack(xpcall(call, with_traceback, options, ...))
        if not results[1] then asio_stop() end
    end, unpack(start, 2, start.n - 1))
    if not ran then return finish(id, false, nil, message) end
    if not results then return finish(id, true) end -- asio.stop came first
    if results[1] then return finish(id, true, nil, unpack(results, 2, results.n)) end
    local failure = results[2]
    if type(failure) ~= 'table' then failure = { failure } end -- without memory the handler is not called
    local err, trace = failure[1], failure[2]
    if err == cancelled then return finish(id, false, true) end
    finish(id, false, nil, err, trace)
end
