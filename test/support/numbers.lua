-- The numbers of Linux that differ between processors: MIPS has its own for sockets, flags and signals.
--
-- SPDX-License-Identifier: MIT

if jit.arch:find '^mips' then
  return {
    SOCK_STREAM = 2, SOCK_DGRAM = 1, SOCK_NONBLOCK = 0x80,
    SOL_SOCKET = 0xffff, SO_REUSEADDR = 4, SO_LINGER = 0x80, SO_SNDBUF = 0x1001, SO_RCVBUF = 0x1002,
    SO_REUSEPORT = 0x200, SO_KEEPALIVE = 8, SO_BROADCAST = 0x20,
    O_APPEND = 8, O_NONBLOCK = 0x80, O_CREAT = 0x100, O_TRUNC = 0x200, O_NOCTTY = 0x800,
    RLIMIT_NOFILE = 5, SIGUSR1 = 16, SIGUSR2 = 17, SIGCHLD = 18, SIGWINCH = 20,
  }
end

return {
  SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_NONBLOCK = 0x800,
  SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_LINGER = 13, SO_SNDBUF = 7, SO_RCVBUF = 8,
  SO_REUSEPORT = 15, SO_KEEPALIVE = 9, SO_BROADCAST = 6,
  O_APPEND = 0x400, O_NONBLOCK = 0x800, O_CREAT = 0x40, O_TRUNC = 0x200, O_NOCTTY = 0x100,
  RLIMIT_NOFILE = 7, SIGUSR1 = 10, SIGUSR2 = 12, SIGCHLD = 17, SIGWINCH = 28,
}
