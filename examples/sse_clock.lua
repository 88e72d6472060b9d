-- A clock in the browser: the server sends the time every second, as server-sent events, and the page shows
-- it, and how many look at it.
--     luajit sse_clock.lua [ADDRESS [PORT [SECONDS]]]    127.0.0.1 8080 1; port 0: any that is free
-- Open http://127.0.0.1:8080/ in a browser, or `curl -N http://127.0.0.1:8080/events`. Stop the server and
-- start it again: the browser reconnects by itself, and tells which event it had last. Ctrl-C ends it.
local asio = require 'asio'
local http = require 'asio.http'

local address, port, seconds = arg[1] or '127.0.0.1', tonumber(arg[2] or 8080), tonumber(arg[3] or 1)

local PAGE = [[
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Clock</title>
<style>
    body { font: 20vmin monospace; text-align: center; margin-top: 20vh }
    p { font-size: 4vmin }
    .lost { color: #aaa }
</style>
<time id="time" class="lost">--:--:--</time>
<p><span id="viewers">0</span> looking, <span id="events">0</span> events</p>
<script>
    const time = document.getElementById('time')
    const viewers = document.getElementById('viewers')
    const events = document.getElementById('events')
    const source = new EventSource('/events')
    source.onopen = () => time.className = ''
    source.onerror = () => time.className = 'lost'
    source.addEventListener('tick', event => {
        time.textContent = event.data
        events.textContent = Number(events.textContent) + 1
    })
    source.addEventListener('viewers', event => viewers.textContent = event.data)
</script>
</html>
]]

local streams, count = {}, 0

-- A client that does not read misses events: a send to it waits, and the next one is not begun.
local function tell(stream, event)
    if stream.busy then return end
    stream.busy = true
    asio.spawn(function()
        if not stream.sse:send(event) then stream.gone:set() end
        stream.busy = false
    end)
end

local function tell_all(event)
    for stream in pairs(streams) do tell(stream, event) end
end

local function events(_, res)
    local sse = res:sse()
    if not sse then return end
    local stream = { sse = sse, gone = asio.event() }
    sse:send { retry = 1000 } -- milliseconds until the browser tries again
    streams[stream], count = true, count + 1
    tell_all { event = 'viewers', data = count }
    local ok, err = pcall(stream.gone.wait, stream.gone)
    streams[stream], count = nil, count - 1
    tell_all { event = 'viewers', data = count }
    if not ok then error(err, 0) end -- the server stops
end

local router = http.router()
router:get('/', function(_, res)
    return res:send({ ['Content-Type'] = 'text/html; charset=utf-8', ['Cache-Control'] = 'no-cache' }, PAGE)
end)
router:get('/events', events)

local server, message = http.server(address, port, router)
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local ticks = 0
local ticker = asio.every(seconds, function()
    ticks = ticks + 1
    tell_all { event = 'tick', id = ticks, data = os.date '%H:%M:%S' }
end)

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    ticker:stop()
    server:shutdown(0) -- streams of events have no end of their own
end)
