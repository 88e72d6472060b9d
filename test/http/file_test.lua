-- Files as responses: types, ranges, conditional requests, the way out of the root, and bytes that are whole
-- or a fault.
-- test: needs http
-- test: over TLS
-- test: 5 s
--
-- SPDX-License-Identifier: MIT

local lu = require 'luaunit'
local asio = require 'asio'
local can = require 'can'
local http = require 'asio.http'
local t = require 'support'
local web = require 'web'

local T = {}

local function shown(headers)
  local list = {}
  for name, value in pairs(headers) do list[#list + 1] = name .. ': ' .. value end
  return table.concat(list, ', ')
end

local TEXT = '0123456789abcdefghijklmnopqrstuvwxyz'
local CHANGED = 1577934245 -- 2020-01-02 03:04:05 UTC

-- A server of the files; fn(get, port, dir): get(target, headers, method) -> status, field(name), body.
local function serve(files, fn, opts, server_opts)
  t.with_files(files, function(dir)
    web.with(http.files(dir, opts), function(port)
      fn(function(target, headers, method)
        local status, head, body = web.request(port, method or 'GET', target, headers)
        return status, function(name) return web.field(head, name) end, body
      end, port, dir)
    end, server_opts)
  end)
end

-- Whole files -----------------------------------------------------------------------------------

function T.test_types_and_headers()
  local files = {
    ['a.txt'] = TEXT, ['b.HTML'] = '<p>', ['c'] = '', ['d.tar.gz'] = 'x', ['sub/e.json'] = '{}',
  }
  local types = { ['a.txt'] = 'text/plain; charset=utf-8', ['b.HTML'] = 'text/html; charset=utf-8',
    c = 'application/octet-stream', ['d.tar.gz'] = 'application/gzip', ['sub/e.json'] = 'application/json' }
  serve(files, function(get, _, dir)
    for name, text in pairs(files) do
      t.touch(dir .. '/' .. name, CHANGED) -- else the tag is weak for a second
      local status, field, body = get('/' .. name)
      lu.assertEquals({ status, body }, { 200, text })
      lu.assertEquals(field 'Content-Type', types[name])
      lu.assertEquals(field 'Content-Length', tostring(#text))
      lu.assertEquals(field 'Accept-Ranges', 'bytes')
      lu.assertEquals(field 'Cache-Control', 'max-age=60')
      lu.assertStrMatches(field 'Last-Modified', '%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT')
      lu.assertNotNil(field 'ETag')
      local head_status, head_field, nothing = get('/' .. name, nil, 'HEAD')
      lu.assertEquals({ head_status, nothing }, { 200, '' })
      lu.assertEquals(head_field 'Content-Length', tostring(#text))
      lu.assertEquals(head_field 'ETag', field 'ETag')
    end
    local status, field = get('/a.txt', nil, 'POST')
    lu.assertEquals({ status, field 'Allow' }, { 405, 'GET, HEAD' })
  end, { max_age = 60 })
end

function T.test_large_files()
  local big = (TEXT .. '\n'):rep(100000)
  serve({ big = big, small = big:sub(1, 65536), more = big:sub(1, 65537) }, function(get, port)
    for _, name in ipairs { 'big', 'small', 'more' } do
      local status, field, body = get('/' .. name)
      lu.assertEquals({ status, field 'Content-Length' }, { 200, tostring(#body) })
      t.same_bytes(body, name == 'big' and big or big:sub(1, name == 'small' and 65536 or 65537))
      status, field, body = get('/' .. name, nil, 'HEAD')
      lu.assertEquals({ status, body }, { 200, '' })
      lu.assertTrue(tonumber(field 'Content-Length') >= 65536)
    end
    -- One after the other on one connection: the length was right.
    local text = web.send(port, 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n',
      'HEAD /big HTTP/1.1\r\nHost: x\r\n\r\n', 'GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
    t.same_bytes(text:sub(-65536), big:sub(1, 65536))
    lu.assertEquals(#text > #big + 65536, true)
    lu.assertEquals(t.occurrences(text, 'HTTP/1.1 200 OK'), 3)
  end)
end

-- A client that takes its time: the server waits for room, and sends all.
function T.test_a_slow_client()
  local big = (TEXT .. '\n'):rep(400000)
  serve({ big = big }, function(_, port)
    local conn = assert(web.connect(port))
    conn:write 'GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    local head = conn:read_until '\r\n\r\n'
    lu.assertStrContains(head, 'Content-Length: ' .. #big)
    local list = {}
    for _ = 1, 20 do
      list[#list + 1] = assert(conn:read(16384))
      asio.sleep(0.002)
    end
    list[#list + 1] = assert(conn:read_all(1e9))
    t.same_bytes(table.concat(list), big)
    conn:close()
  end)
end

-- The same with copies: over TLS no file goes to the system as it is.
function T.test_over_tls()
  can.need 'tls'
  local certs = require 'certs'
  local dir = certs.dir()
  local big = (TEXT .. '\n'):rep(100000)
  serve({ big = big }, function(_, port)
    local conn = assert(asio.connect('127.0.0.1', port, { tls = { verify = false } }))
    conn:write 'GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    conn:read_until '\r\n\r\n'
    t.same_bytes(conn:read_all(1e9), big)
    conn:close()
  end, nil, { tls = { cert = dir .. 'server.pem', key = dir .. 'server.key' } })
end

-- Ranges ----------------------------------------------------------------------------------------

function T.test_one_range()
  serve({ ['a.txt'] = TEXT }, function(get)
    for range, expected in pairs {
      ['bytes=0-0'] = { '0', '0-0' }, ['bytes=2-5'] = { '2345', '2-5' },
      ['bytes=30-'] = { 'uvwxyz', '30-35' }, ['bytes=-3'] = { 'xyz', '33-35' },
      ['bytes=-100'] = { TEXT, '0-35' }, ['bytes=35-99'] = { 'z', '35-35' },
      ['Bytes= 1-2 , 99-'] = { '12', '1-2' }, ['bytes=,4-4,'] = { '4', '4-4' },
    } do
      local status, field, body = get('/a.txt', { Range = range })
      lu.assertEquals({ status, body }, { 206, expected[1] }, range)
      lu.assertEquals(field 'Content-Range', ('bytes %s/36'):format(expected[2]))
      lu.assertEquals(field 'Content-Length', tostring(#body))
      lu.assertEquals(field 'Content-Type', 'text/plain; charset=utf-8')
    end
  end)
end

-- What is no range, or no sensible one, gets the whole (RFC 9110, 14.2).
function T.test_ranges_that_are_ignored()
  serve({ ['a.txt'] = TEXT }, function(get)
    for _, range in ipairs { 'bytes=', 'bytes=-', 'bytes=5-2', 'bytes=a-b', 'lines=1-2', 'bytes=1-2;3-4',
      '1-2', 'bytes=0-,0-', 'bytes=0-35,0-0', 'bytes=' .. ('0-0,'):rep(17), 'bytes=1 -2', 'bytes=+1-2',
      'bytes=0x1-2' } do
      local status, _, body = get('/a.txt', { Range = range })
      lu.assertEquals({ status, body }, { 200, TEXT }, range)
    end
    local status, field, body = get('/a.txt', { Range = 'bytes=2-5' }, 'HEAD')
    lu.assertEquals({ status, field 'Content-Length', body }, { 200, '36', '' })
  end)
end

function T.test_ranges_that_are_not_there()
  serve({ ['a.txt'] = TEXT, empty = '' }, function(get)
    for _, range in ipairs { 'bytes=36-', 'bytes=-0', 'bytes=99-100,50-' } do
      local status, field = get('/a.txt', { Range = range })
      lu.assertEquals({ status, field 'Content-Range' }, { 416, 'bytes */36' }, range)
    end
    lu.assertEquals((get('/empty', { Range = 'bytes=0-0' })), 416)
    lu.assertEquals((get('/empty', { Range = 'bytes=-1' })), 416)
  end)
end

function T.test_several_ranges()
  local big = (TEXT .. '\n'):rep(20000)
  serve({ ['a.txt'] = big }, function(get)
    local status, field, body = get('/a.txt', { Range = 'bytes=0-1, 10-300009,-2' })
    lu.assertEquals(status, 206)
    local boundary = field 'Content-Type':match '^multipart/byteranges; boundary=([%w-]+)$'
    lu.assertEquals(field 'Content-Length', tostring(#body))
    lu.assertNil(field 'Content-Range')
    local function part(first, last)
      local text = '\r\n--%s\r\nContent-Type: text/plain; charset=utf-8\r\n' ..
        'Content-Range: bytes %d-%d/%d\r\n\r\n%s'
      return text:format(boundary, first, last, #big, big:sub(first + 1, last + 1))
    end
    t.same_bytes(body, part(0, 1) .. part(10, 300009) .. part(#big - 2, #big - 1) ..
      '\r\n--' .. boundary .. '--\r\n')
  end)
end

function T.test_if_range()
  serve({ ['a.txt'] = TEXT }, function(get, _, dir)
    t.touch(dir .. '/a.txt', CHANGED)
    local _, field = get '/a.txt'
    lu.assertEquals(field 'Last-Modified', 'Thu, 02 Jan 2020 03:04:05 GMT')
    local tag = field 'ETag'
    for value, status in pairs { [tag] = 206, [field 'Last-Modified'] = 206, ['"other"'] = 200,
      ['W/' .. tag] = 200, ['Thu, 02 Jan 2020 03:04:06 GMT'] = 200, ['nonsense'] = 200 } do
      lu.assertEquals((get('/a.txt', { Range = 'bytes=0-1', ['If-Range'] = value })), status, value)
    end
  end)
end

-- A file that has just changed may change again without a new tag: the tag is weak, no part of it is sent.
function T.test_a_file_that_has_just_changed_has_a_weak_tag()
  serve({ ['a.txt'] = TEXT }, function(get, _, dir)
    t.touch(dir .. '/a.txt', os.time() + 3600)
    local _, field = get '/a.txt'
    lu.assertStrMatches(field 'ETag', 'W/"%x+%-%x+%-24"')
    lu.assertEquals((get('/a.txt', { Range = 'bytes=0-1', ['If-Range'] = field 'ETag' })), 200)
    lu.assertEquals((get('/a.txt', { ['If-None-Match'] = field 'ETag' })), 304)
    lu.assertEquals((get('/a.txt', { ['If-Match'] = field 'ETag' })), 412)
  end)
end

-- Conditions ------------------------------------------------------------------------------------

function T.test_conditional_requests()
  serve({ ['a.txt'] = TEXT }, function(get, _, dir)
    t.touch(dir .. '/a.txt', CHANGED)
    local _, field = get '/a.txt'
    local tag = field 'ETag'
    local same, before, after = 'Thu, 02 Jan 2020 03:04:05 GMT', 'Thu, 02 Jan 2020 03:04:04 GMT',
      'Friday, 03-Jan-20 00:00:00 GMT'
    for _, case in ipairs {
      { 304, { ['If-None-Match'] = tag } }, { 304, { ['If-None-Match'] = '"x", W/' .. tag } },
      { 304, { ['If-None-Match'] = '*' } }, { 200, { ['If-None-Match'] = '"x"' } },
      { 304, { ['If-Modified-Since'] = same } }, { 304, { ['If-Modified-Since'] = after } },
      { 200, { ['If-Modified-Since'] = before } }, { 200, { ['If-Modified-Since'] = 'today' } },
      { 200, { ['If-None-Match'] = '"x"', ['If-Modified-Since'] = same } }, -- the tag alone counts
      { 200, { ['If-Match'] = '"x", ' .. tag } }, { 200, { ['If-Match'] = '*' } },
      { 412, { ['If-Match'] = '"x"' } }, { 412, { ['If-Match'] = 'W/' .. tag } },
      { 412, { ['If-Unmodified-Since'] = before } }, { 200, { ['If-Unmodified-Since'] = same } },
      { 200, { ['If-Match'] = tag, ['If-Unmodified-Since'] = before } },
      { 304, { ['If-Match'] = tag, ['If-None-Match'] = tag } },
      { 206, { ['If-None-Match'] = '"x"', Range = 'bytes=0-0' } },
    } do
      for _, method in ipairs { 'GET', 'HEAD' } do
        local status, its, body = get('/a.txt', case[2], method)
        local expected = method == 'HEAD' and case[1] == 206 and 200 or case[1]
        lu.assertEquals(status, expected, method .. ' ' .. shown(case[2]))
        if status == 304 then lu.assertEquals({ its 'ETag', its 'Content-Type', body }, { tag, nil, '' }) end
      end
    end
  end)
end

-- The root --------------------------------------------------------------------------------------

function T.test_no_way_out_of_the_root()
  t.with_files({ ['secret.txt'] = 'secret', ['root/a.txt'] = TEXT, ['root/sub/b.txt'] = 'b' }, function(dir)
    if can.has 'shell' then
      os.execute(('cd %s && ln -s ../secret.txt link && ln -s .. up && ln -s loop loop && ' ..
        'ln -s link chain && ln -s sub/../../secret.txt round && ln -s "$PWD/a.txt" absolute && ' ..
        'ln -s /proc/self/root system && ' ..
        'ln -s ../root/a.txt again && ln -s ../../secret.txt sub/link'):format(t.quote(dir .. '/root')))
    end
    web.with(http.files(dir .. '/root'), function(port)
      lu.assertEquals(select(3, web.request(port, 'GET', '/sub/b.txt')), 'b')
      for _, target in ipairs { '/../secret.txt', '/sub/../../secret.txt', '/%2e%2e/secret.txt',
        '/..%2fsecret.txt', '/%2e%2e%2fsecret.txt', '/..\\secret.txt',
        '/sub/..%5c..%5csecret.txt', '/a.txt%00.html', '/./a.txt',
        '/sub/../a.txt', '//a.txt', '/sub//b.txt', '/%2fetc/passwd', '//etc/passwd', '/a.txt/', '/a.txt/x',
        '/link', '/up/secret.txt', '/up/root/a.txt', '/loop', '/chain', '/round', '/absolute', '/again',
        '/system/etc/passwd', '/sub/link', '/%', '/%zz', '/' .. ('x'):rep(300),
        -- Second names on Windows.
        '/a.txt.', '/a.txt%20', '/a.txt::$DATA', '/a.txt:x', '/con', '/sub/nul', '/C:/windows/win.ini', '/C:',
        (dir:gsub('^/?', '/')) .. '/secret.txt' } do
        local status, _, body = web.request(port, 'GET', target)
        lu.assertEquals({ status, body }, { 404, 'Not Found\n' }, target)
      end
    end)
  end)
end

local LINKS = 'cd %s && ln -s sub/b.txt inner && ln -s sub subs && ln -s ../a.txt sub/back && ' ..
  'ln -s inner twice'

function T.test_links_that_stay_beneath_the_root()
  can.need('shell', 'links_beneath')
  serve({ ['a.txt'] = TEXT, ['sub/b.txt'] = 'b', ['sub/index.html'] = 'top' }, function(get, _, dir)
    os.execute(LINKS:format(t.quote(dir)))
    for target, text in pairs {
      ['/inner'] = 'b', ['/subs/b.txt'] = 'b', ['/sub/back'] = TEXT, ['/subs/back'] = TEXT, ['/twice'] = 'b',
      ['/subs/'] = 'top',
    } do
      local status, _, body = get(target)
      lu.assertEquals({ status, body }, { 200, text }, target)
    end
    lu.assertEquals((get '/subs'), 301)
  end)
end

-- Where the system does not know how to check them, none is followed.
function T.test_links_that_cannot_be_checked()
  can.need('shell', 'links_beneath')
  t.with_files({ ['a.txt'] = TEXT, ['sub/b.txt'] = 'b' }, function(dir)
    os.execute(LINKS:format(t.quote(dir)))
    for _, errno in ipairs { 'ENOSYS', 'EPERM' } do
      local out = t.quiet_child(function(root)
        local h = require 'asio.http'
        local server = h.server('127.0.0.1', 0, h.files(root))
        local _, port = server:address()
        require 'asio'.run(function()
          for _, path in ipairs { 'a.txt', 'sub/b.txt', 'inner', 'subs/b.txt', 'sub/back', '../a.txt' } do
            print(path, h.get(('http://127.0.0.1:%d/%s'):format(port, path), { pool = false }).status)
          end
          server:shutdown()
        end)
      end, {
        args = { dir }, env = t.ignore_leaks,
        wrap = t.strace('-e trace=openat2 -e inject=openat2:error=' .. errno .. ' -o /dev/null'),
      })
      lu.assertEquals(out,
        'a.txt\t200\nsub/b.txt\t200\ninner\t404\nsubs/b.txt\t404\nsub/back\t404\n../a.txt\t404\n')
    end
  end)
end

function T.test_names_with_a_dot_in_front()
  local files = {
    ['.git/config'] = 'x', ['.secret'] = 'x', ['sub/.hidden'] = 'x', ['.well-known/a.txt'] = 'x',
  }
  serve(files, function(get)
    for name in pairs(files) do
      lu.assertEquals((get('/' .. name)), name:find 'well' and 200 or 404, name)
    end
  end)
  serve(files, function(get)
    for name in pairs(files) do lu.assertEquals((get('/' .. name)), 200, name) end
  end, { dotfiles = true })
end

function T.test_directories()
  serve({ ['index.html'] = 'top', ['sub/index.html'] = 'sub', ['bare/x.txt'] = 'x' }, function(get)
    local status, field, body = get '/'
    lu.assertEquals({ status, body, field 'Content-Type' }, { 200, 'top', 'text/html; charset=utf-8' })
    lu.assertEquals(select(3, get '/sub/'), 'sub')
    status, field = get '/sub?a=b'
    lu.assertEquals({ status, field 'Location' }, { 301, '/sub/?a=b' })
    lu.assertEquals((get '/bare/'), 404)
    lu.assertEquals((get '/bare'), 404)
  end)
  serve({ ['index.html'] = 'top', ['sub/home.htm'] = 'home' }, function(get)
    lu.assertEquals((get '/'), 404)
    lu.assertEquals(select(3, get '/sub/'), 'home')
  end, { index = 'home.htm' })
  serve({ ['index.html'] = 'top' }, function(get) lu.assertEquals((get '/'), 404) end, { index = false })
end

function T.test_no_regular_files_and_no_rights()
  can.need 'shell'
  serve({ ['a.txt'] = 'x' }, function(get, _, dir)
    os.execute('mkfifo ' .. t.quote(dir .. '/pipe'))
    lu.assertEquals((get '/pipe'), 403)
  end)
end

function T.test_behind_a_router()
  t.with_files({ ['sub/a b.txt'] = TEXT }, function(dir)
    local r = http.router()
    r:get('/static/*path', http.files(dir)):get('/own/*name', http.files(dir, { param = 'name' }))
    web.with(r, function(port)
      for _, prefix in ipairs { '/static', '/own' } do
        lu.assertEquals(select(3, web.request(port, 'GET', prefix .. '/sub/a%20b.txt')), TEXT)
        lu.assertEquals((web.request(port, 'GET', prefix .. '/../sub/a%20b.txt')), 404)
        lu.assertEquals((web.request(port, 'GET', prefix .. '/%2e%2e%2fsub/a%20b.txt')), 404)
      end
    end)
  end)
end

-- res:file --------------------------------------------------------------------------------------

function T.test_res_file()
  t.with_files({ ['a.txt'] = TEXT, ['d/e.txt'] = 'e' }, function(dir)
    local fn
    local results
    web.with(function(_, res) results = { fn(res) } end, function(port)
      local function ask(f)
        fn = f
        local status, head, body = web.request(port, 'GET', '/')
        return status, head, body
      end
      local status, head, body, _
      status, _, body = ask(function(res) return res:file(dir .. '/a.txt') end)
      lu.assertEquals({ status, body, results[1] }, { 200, TEXT, true })
      status, head = ask(function(res)
        res.headers['content-type'] = 'text/x-own'
        return res:file(dir .. '/a.txt', { download = 'na"me \195\188.txt' })
      end)
      lu.assertEquals({ status, web.field(head, 'Content-Type') }, { 200, 'text/x-own' })
      lu.assertEquals(web.field(head, 'Content-Disposition'),
        'attachment; filename="na_me __.txt"; filename*=UTF-8\'\'na%22me%20%C3%BC.txt')
      _, head = ask(function(res) return res:file(dir .. '/a.txt', { download = true, type = 'a/b' }) end)
      lu.assertEquals(web.field(head, 'Content-Disposition'), 'attachment; filename="a.txt"')
      lu.assertEquals(web.field(head, 'Content-Type'), 'a/b')
      for path, expected in pairs { [dir .. '/none'] = { 404, 'ENOENT' }, [dir] = { 404, 'EISDIR' },
        [dir .. '/a.txt\0'] = { 404, 'ENOENT' } } do
        lu.assertEquals({ (ask(function(res) return res:file(path) end)), results[3] }, expected)
      end
      status = ask(function(res) return res:file('../d/e.txt', { root = dir .. '/d' }) end)
      lu.assertEquals({ status, results[3] }, { 404, 'ENOENT' })
      for _, name in ipairs { 'd/e.txt/', 'd//e.txt', '/d/e.txt', '', 'd' } do
        lu.assertEquals((ask(function(res) return res:file(name, { root = dir }) end)), 404, name)
      end
      _, _, body = ask(function(res) return res:file('d/e.txt', { root = dir }) end)
      lu.assertEquals(body, 'e')
      status, _, body = ask(function(res)
        if not res:file(dir .. '/none') then return res:send(404, nil, 'own page') end
      end)
      lu.assertEquals({ status, body }, { 404, 'own page' })
      ask(function(res)
        t.raises("unknown option 'roots'", res.file, res, 'x', { roots = 'x' })
        t.raises("option 'type'", res.file, res, 'x', { type = 'a\r\nb' })
        t.raises('string expected', res.file, res, nil)
      end)
      t.raises('the name of a directory', http.files, '')
    end)
  end)
end

-- Faults ----------------------------------------------------------------------------------------

-- The file is changed by fn(path) while a client that does not read has half of it. What the client gets.
local function change(size, fn)
  local outcome
  serve({ big = ('x'):rep(size) }, function(_, port, dir)
    local conn = assert(web.connect(port))
    conn:write 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n'
    conn:read_until '\r\n\r\n'
    asio.sleep(0.05) -- the server has filled what the system takes
    fn(dir .. '/big')
    local got = 0
    repeat
      local data, _, code = conn:read_some()
      got = got + #(data or '')
      outcome = code
    until not data
    conn:close()
    lu.assertTrue(got < size, got)
  end)
  return outcome
end

function T.test_a_file_that_shrinks_or_changes_resets()
  local size = 40 * 1048576
  local reset = can.has 'resets' and 'ECONNRESET' or 'EOF'
  lu.assertEquals(change(size, function(path) assert(io.open(path, 'wb')):close() end), reset)
  lu.assertEquals(change(size, function(path)
    local file = assert(io.open(path, 'ab'))
    file:write 'y'
    file:close()
  end), reset)
end

-- The file that was opened is sent to its end, whatever has its name meanwhile.
function T.test_a_file_that_is_replaced()
  can.need 'shell'
  local big = ('x'):rep(20 * 1048576)
  serve({ big = big }, function(_, port, dir)
    local conn = assert(web.connect(port))
    conn:write 'GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    conn:read_until '\r\n\r\n'
    asio.sleep(0.05)
    os.execute(('cd %s && echo new > new && mv new big'):format(t.quote(dir)))
    t.same_bytes(conn:read_all(1e9), big)
    conn:close()
  end)
end

-- A client that goes in the middle leaves no descriptor behind (the harness counts them).
function T.test_a_client_that_goes()
  serve({ big = ('x'):rep(20 * 1048576) }, function(_, port)
    for _ = 1, 10 do
      local conn = assert(web.connect(port))
      conn:write 'GET /big HTTP/1.1\r\nHost: x\r\n\r\n'
      lu.assertEquals(#assert(conn:read(100000)), 100000)
      conn:abort()
    end
  end)
end

-- curl ------------------------------------------------------------------------------------------

function T.test_curl()
  local big = (TEXT .. '\n'):rep(100000)
  serve({ ['a.txt'] = big }, function(_, port, dir)
    t.touch(dir .. '/a.txt', CHANGED) -- curl does not compare weak tags
    local got, etag = t.temporary(), t.temporary()
    local function curl(options)
      local text, code = web.curl(port, '/a.txt', ('-o %s -w "%%{http_code}" '):format(got) .. options)
      return text, code, t.contents(got)
    end
    local status, code, body = curl('--etag-save ' .. etag)
    lu.assertEquals({ status, code }, { '200', 0 })
    t.same_bytes(body, big)
    status, code, body = curl '-r 1000-299999'
    lu.assertEquals({ status, code }, { '206', 0 })
    t.same_bytes(body, big:sub(1001, 300000))
    local file = assert(io.open(got, 'wb'))
    file:write(big:sub(1, 12345))
    file:close()
    status, code, body = curl '-C -' -- goes on where it was cut
    lu.assertEquals({ status, code }, { '206', 0 })
    t.same_bytes(body, big)
    lu.assertEquals((curl('--etag-compare ' .. etag)), '304')
    lu.assertEquals((curl '-z "Wed, 01 Jan 2025 00:00:00 GMT"'), '304')
    lu.assertEquals((curl '-z "Mon, 01 Jan 1990 00:00:00 GMT"'), '200')
    lu.assertEquals((curl '-I'), '200')
    os.remove(got)
    os.remove(etag)
  end)
end

return T
