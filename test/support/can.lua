-- What the system and this machine can do, for the tests that need it: a case is skipped by what it
-- needs, not by the name of a system.
--
--     local can = require 'can'
--     can.need 'fork'              -- skips the case where that is impossible; may name several
--     if can.has 'ipv6' then
--
-- A capability is found out when it is asked for the first time. The runner counts the skipped cases by
-- their reasons: few reasons, in fixed words.
--
-- SPDX-License-Identifier: MIT

local ffi = require 'ffi'

local unix, linux = ffi.os ~= 'Windows', ffi.os == 'Linux'
local emulated = os.getenv 'ASIO_EMULATED' == '1' -- the system calls that one sees are the emulator's

local function works(command)
  return unix and os.execute(command .. ' >/dev/null 2>&1') == 0
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- name = { reason for a skip, function or boolean }
local known = {
  fork = { 'this system has no fork', unix },
  shell = { 'this system has no Unix shell', unix },
  descriptors = { 'descriptors are not small numbers here, which can be counted and limited', unix },
  renames = { 'an open file cannot be renamed here', unix },
  unix_sockets = { 'libuv has named pipes here, not Unix sockets', unix },
  abstract_names = { 'this system has no abstract names', linux },
  dispositions = { 'this system keeps no dispositions of signals', unix },
  cpu_clock = { 'this system tells the time of a processor in steps of 10 ms', unix },
  numbers = { 'the numbers of options and addresses in this test are those of Linux', linux },
  loopback_net = { 'only Linux owns all of 127.0.0.0/8', linux },
  threaded_servers = { 'connections cannot change threads on this system', unix },
  fixed_connections = { 'connections can change threads on this system', not unix },
  shared_ports = { 'how sockets share a port is tested for Linux', linux },
  proc = { 'this system has no /proc', function() return linux and exists '/proc/self/status' end },
  splice = { 'splicing is of Linux', linux },
  mmsg = { 'many datagrams in one call are of Linux', linux },
  console = { 'this system has no consoles', not unix },
  terminals = { 'this system has no pseudo-terminals', function()
    return unix and (not linux or exists '/dev/pts/ptmx')
  end },
  host = { 'the host was not built: it needs a linker with --wrap', function()
    local path = os.getenv 'ASIO_BUILD' .. '/test/host'
    return exists(path) or exists(path .. '.exe')
  end },
  line_editing = { 'the program was built without libedit', function()
    local path = os.getenv 'ASIO_PROGRAM' or os.getenv 'ASIO_BUILD' .. '/bin/asio'
    if exists(path .. '.elf') then path = path .. '.elf' end -- else a script that runs it
    return works(("grep -qe el_init -e editrc '%s'"):format(path))
  end },
  accept_order = { 'libuv takes connections in no order here', unix },
  unsent = { 'this system does not tell what a peer has not yet received', linux },
  refusals = { 'that a datagram was refused is told to a light thread that waits, to no later call', unix },
  resets = { 'a connection that is reset looks like one that has ended (Wine)', function()
    local raw = require 'raw'
    local listener = raw.listen()
    local a = raw.connect(listener:port())
    local b = assert(listener:accept(5))
    a:reset()
    local data = b:recv(1, 5)
    b:close()
    listener:close()
    return data == false
  end },
  oom = { 'the program that runs short of memory was not built', function()
    local path = os.getenv 'ASIO_BUILD' .. '/test/oom'
    return exists(path) or exists(path .. '.exe')
  end },
  native = { 'this build is for another machine: what is here cannot link or run it', function()
    return not exists(os.getenv 'ASIO_BUILD' .. '/luajit')
  end },
  ares = { 'the resolver over c-ares was not built', function() return require('ns').has_ares() end },
  module_file = { 'the module is a part of the program', function()
    return not package.preload['asio']
  end },
  real_kernel = { 'the emulator of this processor does not do this as the kernel does', not emulated },
  processor = { 'takes too long where the processor is emulated', not emulated },
  openssl = { 'the command openssl is not installed', function()
    return works 'command -v openssl'
  end },
  http = { 'HTTP was not built', function()
    local ok, message = pcall(require, 'asio.http')
    return ok or not message:find("module 'asio.http' not found", 1, true) -- else there, and it fails
  end },
  zlib = { 'HTTP was built without zlib', function()
    local asio, head = require 'asio', nil
    local server = asio.server('127.0.0.1', 0, function(conn)
      head = conn:read_until '\r\n\r\n'
      conn:close()
    end)
    local _, port = server:address()
    require('asio.http').get('http://127.0.0.1:' .. port, { pool = false, proxy = false })
    server:close()
    return head:find('\r\nAccept-Encoding: gzip', 1, true) ~= nil -- what the client could decode
  end },
  links_beneath = { 'this system does not look after links beneath a directory (openat2)', function()
    if not linux then return false end
    ffi.cdef 'long can_openat2(long number, long fd, void *path, void *how, size_t size) __asm__("syscall");'
    return ffi.C.can_openat2(437, -1, nil, nil, 0) == -1 and ffi.errno() == 22 -- EINVAL, not ENOSYS
  end },
  libpsl = { 'libpsl is not installed', function() return (pcall(ffi.load, 'libpsl.so.5')) end },
  libfuzzer = { 'clang with libFuzzer is not installed', function()
    return works([[echo 'int LLVMFuzzerTestOneInput(const char *bytes, unsigned long n) { return 0; }' |
      clang -fsanitize=fuzzer,address,undefined -x c -o /dev/null -]])
  end },
  chromium = { 'chromium is not installed, or does not start', function()
    return works 'timeout 20 chromium --headless --no-sandbox --disable-gpu --version'
  end },
  tls = { 'TLS was not built', function()
    local a, b = require('over_tls').plain_pair()
    local _, _, code = a:start_tls { server = true } -- without a certificate: nothing happens
    a:close()
    b:close()
    return code ~= 'ENOTSUP'
  end },
  plain = { 'looks at the bytes below TLS', os.getenv 'ASIO_TEST_TLS' ~= '1' },
  strace = { 'this machine does not allow strace', function()
    return not emulated and works 'strace -o /dev/null true'
  end },
  namespaces = { 'this machine does not allow network namespaces', function()
    return linux and (works 'unshare -nm true' or works 'unshare -rnm true')
  end },
}

local found = {}

local M = { works = works }

function M.has(name)
  if found[name] == nil then
    local answer = assert(known[name], name)[2]
    if type(answer) == 'function' then answer = answer() end
    found[name] = answer
  end
  return found[name]
end

--- Skips the case unless all of these are there; in a child of a case (support.lua) as well.
function M.need(...)
  for _, name in ipairs { ... } do
    if not M.has(name) and package.loaded['child of a test'] then
      io.stderr:write('skip ', name, '\n')
      os.exit(77)
    end
    require('luaunit').skipIf(not M.has(name), known[name][1])
  end
end

--- Skips the case unless these programs are there.
function M.run(...)
  for _, program in ipairs { ... } do
    M.need 'shell'
    require('luaunit').skipIf(not works("command -v '" .. program .. "'"), program .. ' is not installed')
  end
end

return M
