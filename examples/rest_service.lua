-- A REST service: notes that are created, read, changed and deleted, as JSON. They are lost when it ends.
--     luajit rest_service.lua [ADDRESS [PORT]]      127.0.0.1 8080; port 0: any that is free
-- Needs lua-cjson. Try it:
--     curl -d '{"text":"buy milk"}' http://127.0.0.1:8080/notes
--     curl http://127.0.0.1:8080/notes/1
--     curl -X PUT -d '{"text":"buy bread"}' http://127.0.0.1:8080/notes/1
--     curl -X DELETE http://127.0.0.1:8080/notes/1
-- It prints a line for each request. Ctrl-C ends it; requests that are being served are answered first.
local asio = require 'asio'
local http = require 'asio.http'

local address, port = arg[1] or '127.0.0.1', tonumber(arg[2] or 8080)
local found, cjson = pcall(require, 'cjson.safe')
if not found then
    io.stderr:write 'rest_service.lua: lua-cjson is not installed\n'
    os.exit(1, true)
end

local notes, last_id = {}, 0

local function fail(res, status, message)
    return res:json({ error = message }, status)
end

-- The note that the body describes; nil: it has been refused.
local function note_of(req, res)
    local value, message, code = req:json(10000) -- bytes at most
    if value == nil then return nil, fail(res, code == 'EMSGSIZE' and 413 or 400, message) end
    if type(value) ~= 'table' or type(value.text) ~= 'string' or value.text == '' then
        return nil, fail(res, 422, 'an object with a text expected')
    end
    return { text = value.text, done = value.done == true }
end

-- An empty table is an object for lua-cjson, hence the brackets by hand.
local function list(req, res)
    local wanted = req:query().done -- ?done=true or false
    local all = {}
    for id = 1, last_id do
        local note = notes[id]
        if note and (not wanted or tostring(note.done) == wanted) then all[#all + 1] = cjson.encode(note) end
    end
    return res:send({ ['Content-Type'] = 'application/json' }, '[' .. table.concat(all, ',') .. ']')
end

local function create(req, res)
    local note = note_of(req, res)
    if not note then return end
    last_id = last_id + 1
    note.id, notes[last_id] = last_id, note
    res.headers.Location = '/notes/' .. last_id
    return res:json(note, 201)
end

-- Middleware of one note: finds it.
local function find(req, res, next)
    local note = req.params.id:find '^%d+$' and notes[tonumber(req.params.id)]
    if not note then return fail(res, 404, 'no such note') end
    req.state.note = note
    return next()
end

local function show(req, res)
    return res:json(req.state.note)
end

local function change(req, res)
    local note = note_of(req, res)
    if not note then return end
    note.id = req.state.note.id
    notes[note.id] = note
    return res:json(note)
end

local function remove(req, res)
    notes[req.state.note.id] = nil
    return res:send(204)
end

local router = http.router { not_found = function(_, res) return fail(res, 404, 'no such place') end }
router:get('/notes', list)
router:post('/notes', create)
router:get('/notes/:id', find, show)
router:put('/notes/:id', find, change)
router:delete('/notes/:id', find, remove)

local server, message = http.server(address, port, router, { on_request_end = http.access_log(io.stdout) })
if not server then
    io.stderr:write(('cannot listen on %s: %s\n'):format(address, message))
    os.exit(1, true)
end

local interrupt = assert(asio.signal 'SIGINT') -- Ctrl-C

asio.run(function()
    print('listening', server:address())
    io.flush()
    interrupt:wait()
    server:shutdown(5)
end)
