-- http.router: which route answers, with which parameters, and what answers where none does.
-- test: needs http
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local http = require 'asio.http'
local asio = require 'asio'
local can = require 'can'
local t = require 'support'
local web = require 'web'

if can.has 'threaded_servers' then asio.shared.channel() end -- what the first one opens stays: a descriptor

local T = {}

-- What a router does with a request: status, headers, body; the request.
local function ask(router, method, target)
  local found = {}
  local req = { method = method, target = target, path = target:match '^[^?]*' }
  local res = {}
  function res.send(_, status, headers, body)
    found.status, found.headers, found.body = status, headers or {}, body
    return true
  end
  router(req, res)
  return found, req
end

local function says(text)
  return function(_, res) return res:send(200, nil, text) end
end

local function body(router, method, target)
  local found = ask(router, method, target)
  return found.status == 200 and found.body or found.status
end

function T.test_methods()
  local r = http.router()
  for _, name in ipairs { 'get', 'post', 'put', 'delete', 'patch', 'head', 'options' } do
    r[name](r, '/x', says(name))
  end
  for _, name in ipairs { 'get', 'post', 'put', 'delete', 'patch', 'head', 'options' } do
    lu.assertEquals(body(r, name:upper(), '/x'), name)
  end
  r:any('/any', says 'any'):route({ 'PROPFIND', 'LOCK' }, '/dav', says 'dav'):get('/any', says 'get')
  lu.assertEquals(body(r, 'BREW', '/any'), 'any')
  lu.assertEquals(body(r, 'OPTIONS', '/any'), 'any')
  lu.assertEquals(body(r, 'GET', '/any'), 'get')
  lu.assertEquals(body(r, 'LOCK', '/dav'), 'dav')
end

function T.test_text_before_parameters_before_the_rest()
  local r = http.router()
  r:get('/a/*rest', says 'rest'):get('/a/:id', says 'id'):get('/a/new', says 'new')
  r:get('/a/new/:more', says 'more'):get('/:x/y/z', says 'xyz')
  lu.assertEquals(body(r, 'GET', '/a/new'), 'new')
  lu.assertEquals(body(r, 'GET', '/a/n%65w'), 'new') -- an escape of what needs none
  lu.assertEquals(body(r, 'GET', '/a/7'), 'id')
  lu.assertEquals(body(r, 'GET', '/a/7/8'), 'rest')
  lu.assertEquals(body(r, 'GET', '/a/new/8'), 'more')
  lu.assertEquals(body(r, 'GET', '/a/new/8/9'), 'rest') -- back from a branch that led nowhere
  lu.assertEquals(body(r, 'GET', '/a/'), 'rest')
  lu.assertEquals(body(r, 'GET', '/a'), 404)
  lu.assertEquals(body(r, 'GET', '/b/y/z'), 'xyz')
end

function T.test_parameters_are_decoded()
  local r = http.router()
  r:get('/u/:name/f/*path', says '')
  local function params(target) return select(2, ask(r, 'GET', target)).params end
  lu.assertEquals(params '/u/J%C3%BCrg%2F%20+/f/a/b%20c/', { name = 'J\195\188rg/ +', path = 'a/b c/' })
  lu.assertEquals(params '/u/x/f/?a=b', { name = 'x', path = '' })
  lu.assertEquals(params '/u//f/', {}) -- a parameter is not empty
  for _, bad in ipairs { '/u/%', '/u/%4', '/u/%4g/f/x', '/u/%00/f/x', '/u/%zz' } do
    lu.assertEquals(ask(r, 'GET', bad).status, 400, bad)
  end
end

-- What a branch without an end had found does not stay behind.
function T.test_parameters_of_a_branch_that_led_nowhere()
  local r = http.router()
  r:get('/:a/x/:b/end', says ''):get('/:c/:d/*e', says '')
  local _, req = ask(r, 'GET', '/1/x/2/3')
  lu.assertEquals(req.params, { c = '1', d = 'x', e = '2/3' })
  lu.assertEquals(req.route, '/:c/:d/*e')
end

function T.test_head_is_answered_by_get()
  local r = http.router()
  r:get('/x', says 'get'):get('/y', says 'get'):head('/y', says 'head')
  lu.assertEquals(body(r, 'HEAD', '/x'), 'get')
  lu.assertEquals(body(r, 'HEAD', '/y'), 'head')
end

function T.test_405_and_options()
  local r = http.router()
  r:get('/x', says 'x'):post('/x', says 'x'):put('/:id', says 'id')
  local found = ask(r, 'DELETE', '/x')
  lu.assertEquals(found.status, 405)
  lu.assertEquals(found.headers.Allow, 'GET, HEAD, OPTIONS, POST, PUT')
  lu.assertEquals(body(r, 'PUT', '/x'), 'id') -- a route that lacks the method gives way
  found = ask(r, 'OPTIONS', '/7')
  lu.assertEquals(found.status, 204)
  lu.assertEquals(found.headers.Allow, 'OPTIONS, PUT')
  lu.assertEquals(ask(r, 'OPTIONS', '*').headers.Allow, 'GET, HEAD, OPTIONS, POST, PUT')
  lu.assertEquals(ask(r, 'OPTIONS', '/7/8').status, 404)
  lu.assertEquals(ask(r, 'CONNECT', 'example.org:443').status, 404)
end

function T.test_slashes_at_the_end()
  local function routes(r) return r:get('/a', says 'a'):get('/b/', says 'b'):get('/c/:id/', says 'c') end
  local strict = routes(http.router())
  lu.assertEquals(body(strict, 'GET', '/a/'), 404)
  lu.assertEquals(body(strict, 'GET', '/b'), 404)
  local redirect = routes(http.router { slash = 'redirect' })
  lu.assertEquals(body(redirect, 'GET', '/a'), 'a')
  local found = ask(redirect, 'GET', '/a/?q=1')
  lu.assertEquals({ found.status, found.headers.Location }, { 308, '/a?q=1' })
  lu.assertEquals(ask(redirect, 'GET', '/c/%20').headers.Location, '/c/%20/')
  lu.assertEquals(body(redirect, 'GET', '/d/'), 404)
  local ignore = routes(http.router { slash = 'ignore' })
  for _, path in ipairs { '/a', '/a/', '/b', '/b/', '/c/1', '/c/1/' } do
    lu.assertEquals(body(ignore, 'GET', path), path:sub(2, 2))
  end
end

-- A path that begins with two slashes is another host's name, where a client follows it.
function T.test_no_redirect_to_another_host()
  local r = http.router { slash = 'redirect' }
  r:get('/:x/:y/', says ''):get('//:host/', says ''):get('/:x/', says '')
  for _, path in ipairs { '//evil.example', '/\\evil.example' } do
    lu.assertEquals(ask(r, 'GET', path).status, 404, path)
  end
end

function T.test_mounted_routers()
  local top, api, deep = http.router(), http.router(), http.router()
  deep:get('/', says 'deep'):get('/:b', says 'deep b')
  api:mount('/deep/:a', deep):get('/x', says 'api x')
  top:mount('/api/:v/', api):get('/api/1/own', says 'own'):get('/*all', says 'all')
  lu.assertEquals(body(top, 'GET', '/api/1/x'), 'api x')
  lu.assertEquals(body(top, 'GET', '/api/1/own'), 'own')
  lu.assertEquals(body(top, 'GET', '/api/1/deep/2'), 'deep')
  lu.assertEquals(body(top, 'GET', '/api/1/deep/2/'), 'deep')
  lu.assertEquals(body(top, 'GET', '/api/1/none'), 'all')
  local _, req = ask(top, 'GET', '/api/1/deep/2/3')
  lu.assertEquals(req.params, { v = '1', a = '2', b = '3' })
  deep:post('/late', says 'late') -- a route that comes after the mount
  lu.assertEquals(body(top, 'POST', '/api/1/deep/2/late'), 'late')
  lu.assertEquals(ask(top, 'PUT', '/api/1/deep/2/late').headers.Allow, 'GET, HEAD, OPTIONS, POST')
  lu.assertEquals(body(deep, 'GET', '/9'), 'deep b') -- alone it works as before
end

local function tracer(trace, name)
  return function(_, _, continue)
    trace[#trace + 1] = name
    local result = continue()
    trace[#trace + 1] = '/' .. name
    return result
  end
end

function T.test_middleware()
  local trace = {}
  local top, api = http.router(), http.router()
  api:get('/x', tracer(trace, 'route'), says 'x')
  top:use(tracer(trace, 'top'))
  api:use(tracer(trace, 'api'))
  top:mount('/api', api):get('/plain', says 'plain')
  lu.assertEquals(body(top, 'GET', '/api/x'), 'x')
  lu.assertEquals(table.concat(trace, ' '), 'top api route /route /api /top')
  for i = #trace, 1, -1 do trace[i] = nil end
  lu.assertEquals(body(top, 'GET', '/plain'), 'plain')
  lu.assertEquals(body(top, 'GET', '/api/none'), 404)
  lu.assertEquals(table.concat(trace, ' '), 'top /top top /top')
  top:use(tracer(trace, 'late')) -- is in front of routes that were there before, too
  body(top, 'GET', '/plain')
  lu.assertEquals(trace[6], 'late')
end

function T.test_middleware_that_answers_or_goes_on_twice()
  local r, ran = http.router(), 0
  r:use(function(req, res, continue)
    if req.path == '/no' then return res:send(401, nil, 'no') end
    continue()
    if req.path == '/twice' then continue() end
  end)
  r:any('/*x', function() ran = ran + 1 end)
  lu.assertEquals(ask(r, 'GET', '/no').status, 401)
  lu.assertEquals(ran, 0)
  t.raises("calling 'next' a second time", ask, r, 'GET', '/twice')
  lu.assertEquals(ran, 1)
end

function T.test_not_found()
  local r = http.router { not_found = function(req, res) return res:send(404, nil, 'no ' .. req.path) end }
  lu.assertEquals(ask(r, 'GET', '/x').body, 'no /x')
end

function T.test_conflicts_raise()
  local r = http.router()
  r:get('/a/:id', says '')
  t.raises("there is a route for GET already: '/a/:id'", r.get, r, '/a/:name', says '')
  r:post('/a/:name', says ''):any('/a/:x', says ''):get('/a/*id', says '')
  t.raises('there is a route for any method already', r.any, r, '/a/:y', says '')
  t.raises("two parameters 'x'", r.get, r, '/:x/:x', says '')
  t.raises("nothing can follow '*x'", r.get, r, '/*x/y', says '')
  t.raises('a parameter without a name', r.get, r, '/:', says '')
  t.raises('a parameter is a whole segment', r.get, r, '/:id.json', says '')
  t.raises('a path expected', r.get, r, 'a', says '')
  t.raises('function expected, got nil', r.get, r, '/n', nil)
  t.raises('function expected, got no value', r.get, r, '/n')
  t.raises('a method, or a list of them', r.route, r, 'GE T', '/n', says '')
  t.raises("'slash'", http.router, { slash = 'maybe' })
  t.raises("unknown option 'slashes'; did you mean 'slash'?", http.router, { slashes = true })
  t.raises("calling 'get' on something", r.get, {}, '/', says '')
  local ignore = http.router { slash = 'ignore' }
  ignore:get('/a', says '')
  t.raises('already', ignore.get, ignore, '/a/', says '')
end

function T.test_mounts_that_raise()
  local a, b, d = http.router(), http.router(), http.router()
  a:mount('/b', b)
  t.raises('mounted already', d.mount, d, '/b', b)
  t.raises('a router is mounted there', a.mount, a, '/b/', d)
  t.raises('within itself', b.mount, b, '/a', a)
  t.raises('within itself', a.mount, a, '/a', a)
  t.raises('nothing can follow', a.mount, a, '/x/*y', d)
  t.raises('router expected, got table', a.mount, a, '/x', {})
end

-- In other Lua states, to which a router goes by value: its middleware, mounts and files work there.
function T.test_in_a_server_with_threads()
  can.need('threaded_servers', 'shell')
  local path = t.temporary 'text of a file'
  local dir, name = path:match '^(.*)/([^/]*)$'
  local r, mounted = http.router(), http.router()
  r:use(http.gzip()):mount('/m/:x', mounted)
  mounted:get('/files/*path', http.files(dir)):get('/:y', function(req, res)
    return res:send(200, nil, req.params.x .. req.params.y)
  end)
  web.with(r, function(port)
    for _ = 1, 4 do
      lu.assertEquals(select(3, web.request(port, 'GET', '/m/a%20/b')), 'a b')
      lu.assertEquals(select(3, web.request(port, 'GET', '/m/a/files/' .. name)), 'text of a file')
      lu.assertEquals((web.request(port, 'GET', '/none')), 404)
    end
  end, { threads = 2 })
  os.remove(path)
end

function T.test_other_tables_do_not_go_to_threads()
  local handler = setmetatable({}, { __call = function(_, _, res) return res:send 'x' end })
  lu.assertErrorMsgContains('a function or a router expected',
    http.server, '127.0.0.1', 0, handler, { threads = 2 })
end

-- A path with an escape is always looked up by the whole walk: the shorter ways lead to the same.
function T.test_all_ways_lead_to_the_same_route()
  math.randomseed(7)
  local words = { 'a', 'b', ':p', '' }
  for round = 1, 20 do
    local top, mounted = http.router(), http.router()
    for i = 1, 12 do
      local path = ''
      for depth = 1, math.random(4) do
        local word = words[math.random(#words)]
        path = path .. '/' .. (word == ':p' and ':p' .. depth or word)
      end
      if math.random(8) == 1 then path = path .. '/*rest' end
      pcall(math.random(3) == 1 and mounted.get or top.get, i % 2 == 0 and top or mounted, path, says(path))
    end
    top:mount('/a', mounted)
    for _ = 1, 60 do
      local path = ''
      for _ = 1, math.random(5) do path = path .. '/' .. ({ 'a', 'b', 'c', '' })[math.random(4)] end
      local escaped = path:gsub('%w', function(letter) return ('%%%02x'):format(letter:byte()) end)
      local found, req = ask(top, 'GET', path)
      local other, other_req = ask(top, 'GET', escaped)
      lu.assertEquals({ found.body, req.params }, { other.body, other_req.params }, round .. ' ' .. path)
    end
  end
end

-- A path that could be taken in many ways at each step, and leads nowhere: each node is visited once.
function T.test_a_walk_is_short()
  local r = http.router()
  local function routes(path, depth)
    if depth == 0 then return r:get(path .. '/end', says '') end
    routes(path .. '/a', depth - 1)
    routes(path .. '/:p' .. depth, depth - 1)
  end
  routes('', 5)
  local looks = 0
  local target = ('/a'):rep(5) .. '/none'
  debug.sethook(function() looks = looks + 1 end, 'c')
  local found = ask(r, 'GET', target)
  debug.sethook()
  lu.assertEquals(found.status, 404)
  lu.assertTrue(looks < 1000, looks) -- 63 nodes
  lu.assertEquals(ask(r, 'GET', ('/a'):rep(4000)).status, 404)
end

return T
