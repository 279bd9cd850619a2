--[[
echo.lua: the echo server of ../echo.c in LuaJIT, with the library loaded at run time.

Shows that the facts of omnipoll.h are all it takes: the struct and the functions below are
copied from it, its constants are written as numbers. The sockets are libc's. SIGINT and
SIGTERM come through signalfd(2), which is a descriptor like any other: LuaJIT must not be
called from a signal handler.

Run:  luajit echo.lua [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--clients N]
With --clients it ends after N clients have come and gone. The library is the one the loader
finds, or the file that OMNIPOLL_LIBRARY names. The numbers of libc are those of Linux.
]]
local ffi = require("ffi")
local bit = require("bit")

ffi.cdef [[
/* omnipoll.h */
typedef struct omni_poller omni_poller;
typedef struct omni_event {
  uint64_t token;
  int64_t  value;
  uint32_t ready;
  uint32_t kind;
} omni_event;
int omni_poller_new(uint32_t engine, uint32_t flags, omni_poller **out);
void omni_poller_free(omni_poller *poller);
int omni_poller_add(omni_poller *poller, int fd, uint32_t interest, uint64_t token);
int omni_poller_modify(omni_poller *poller, int fd, uint32_t interest, uint64_t token);
int omni_poller_remove(omni_poller *poller, int fd);
int omni_poller_wait(omni_poller *poller, omni_event *events, uint32_t capacity, int64_t timeout_ns);
const char *omni_last_error(void);

/* libc */
typedef struct { unsigned long bits[128 / sizeof(unsigned long)]; } sigset_t;
struct sockaddr_in { uint16_t family; uint16_t port; uint32_t address; uint8_t zero[8]; };
int sigemptyset(sigset_t *set);
int sigaddset(sigset_t *set, int signo);
int sigprocmask(int how, const sigset_t *set, sigset_t *old);
int signalfd(int fd, const sigset_t *mask, int flags);
int socket(int domain, int type, int protocol);
int bind(int fd, const struct sockaddr_in *name, uint32_t length);
int listen(int fd, int backlog);
int getsockname(int fd, struct sockaddr_in *name, uint32_t *length);
int accept4(int fd, void *name, void *length, int flags);
int inet_pton(int family, const char *text, void *address);
uint16_t htons(uint16_t value);
uint16_t ntohs(uint16_t value);
intptr_t read(int fd, void *buffer, size_t count);
intptr_t send(int fd, const void *buffer, size_t count, int flags);
int close(int fd);
const char *strerror(int error);
]]

local C = ffi.C
local omni = ffi.load(os.getenv("OMNIPOLL_LIBRARY") or "libomnipoll.so.0")

local ENGINES = { auto = 0, select = 1, poll = 2, epoll = 3, io_uring = 4 }
local OMNI_READ, OMNI_WRITE = 1, 2
local FOREVER = -1

local AF_INET, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC = 2, 1, 0x800, 0x80000
local MSG_NOSIGNAL, SIG_BLOCK, SIGINT, SIGTERM = 0x4000, 0, 2, 15
local EINTR, EAGAIN, ECONNABORTED = 4, 11, 103

local QUEUE_SIZE, BATCH = 65536, 64

local function fail(what, why)
  io.stderr:write("echo.lua: ", what, ": ", why, "\n")
  os.exit(1)
end

-- For the functions of omnipoll, whose messages name the function.
local function check(result)
  if result < 0 then fail("omnipoll", ffi.string(omni.omni_last_error())) end
  return result
end

-- For the functions of the system.
local function check_system(result, what)
  if result < 0 then fail(what, ffi.string(C.strerror(ffi.errno()))) end
  return result
end

local function parse_options(arguments)
  local options = { engine = "auto", address = "127.0.0.1:0", clients = "0" }
  for i = 1, #arguments, 2 do
    local name = arguments[i]:match("^%-%-(%a+)$")
    if not options[name] or not arguments[i + 1] then fail("usage", arguments[i]) end
    options[name] = arguments[i + 1]
  end
  options.engine = ENGINES[options.engine] or fail("no such engine", options.engine)
  options.clients = tonumber(options.clients) or fail("not a number", options.clients)
  return options
end

local function listen_on(address)
  local host, port = address:match("^([%d.]+):(%d+)$")
  local name = ffi.new("struct sockaddr_in", { family = AF_INET })
  local length = ffi.new("uint32_t[1]", ffi.sizeof(name))
  local where = ffi.new("uint32_t[1]")
  if not host or C.inet_pton(AF_INET, host, where) ~= 1 then fail("bad address", address) end
  name.port, name.address = C.htons(tonumber(port)), where[0]

  local kind = SOCK_STREAM + SOCK_NONBLOCK + SOCK_CLOEXEC
  local fd = check_system(C.socket(AF_INET, kind, 0), "socket")
  check_system(C.bind(fd, name, length[0]), "bind")
  check_system(C.listen(fd, 4096), "listen")
  check_system(C.getsockname(fd, name, length), "getsockname")
  print(("listening on %s:%d"):format(host, C.ntohs(name.port)))
  io.stdout:flush()
  return fd
end

-- A descriptor that is readable once SIGINT or SIGTERM has come.
local function signal_descriptor()
  local set = ffi.new("sigset_t")
  C.sigemptyset(set)
  C.sigaddset(set, SIGINT)
  C.sigaddset(set, SIGTERM)
  check_system(C.sigprocmask(SIG_BLOCK, set, nil), "sigprocmask")
  return check_system(C.signalfd(-1, set, SOCK_NONBLOCK + SOCK_CLOEXEC), "signalfd")
end

local options = parse_options(arg)
local signals = signal_descriptor()
local listener = listen_on(options.address)

local out = ffi.new("omni_poller *[1]")
check(omni.omni_poller_new(options.engine, 0, out))
local poller = out[0]

local clients = {} -- by descriptor
local finished = 0

-- The token of each registration is its descriptor.
local function watch(fd)
  check(omni.omni_poller_add(poller, fd, OMNI_READ, fd))
end

local function accept_client()
  local fd = C.accept4(listener, nil, nil, SOCK_NONBLOCK + SOCK_CLOEXEC)
  if fd < 0 then
    local errno = ffi.errno()
    if errno == EAGAIN or errno == EINTR or errno == ECONNABORTED then return end
    fail("accept4", ffi.string(C.strerror(errno)))
  end
  watch(fd)
  -- queue[first] to queue[last - 1] is read and not yet written back
  clients[fd] = { interest = OMNI_READ, ended = false, first = 0, last = 0,
                  queue = ffi.new("uint8_t[?]", QUEUE_SIZE) }
end

local function close_client(fd)
  check(omni.omni_poller_remove(poller, fd)) -- always before close
  C.close(fd)
  clients[fd] = nil
  finished = finished + 1
end

-- Reads what there is room for. False when the connection is broken.
local function fill(fd, client)
  local count = tonumber(C.read(fd, client.queue + client.last, QUEUE_SIZE - client.last))
  if count < 0 then return ffi.errno() == EAGAIN or ffi.errno() == EINTR end
  client.last = client.last + count
  client.ended = count == 0
  return true
end

-- Writes what the socket takes. False when the connection is broken or all is done.
local function drain(fd, client)
  while client.first < client.last do
    local waiting = client.last - client.first
    local count = tonumber(C.send(fd, client.queue + client.first, waiting, MSG_NOSIGNAL))
    if count >= 0 then
      client.first = client.first + count
    elseif ffi.errno() ~= EINTR then
      return ffi.errno() == EAGAIN
    end
  end
  client.first, client.last = 0, 0
  return not client.ended
end

local function serve_client(fd, ready)
  local client = clients[fd]
  local readable = bit.band(ready, OMNI_READ) ~= 0
  if (readable and not fill(fd, client)) or not drain(fd, client) then
    return close_client(fd)
  end
  local interest = 0
  if client.last < QUEUE_SIZE and not client.ended then interest = interest + OMNI_READ end
  if client.first < client.last then interest = interest + OMNI_WRITE end
  if interest ~= client.interest then
    check(omni.omni_poller_modify(poller, fd, interest, fd))
    client.interest = interest
  end
end

local function serve()
  local events = ffi.new("omni_event[?]", BATCH)
  while options.clients == 0 or finished < options.clients do
    local count = check(omni.omni_poller_wait(poller, events, BATCH, FOREVER))
    for i = 0, count - 1 do
      local fd = tonumber(events[i].token)
      if fd == signals then return end
      if fd == listener then accept_client() else serve_client(fd, events[i].ready) end
    end
  end
end

watch(signals)
watch(listener)
serve()

for fd in pairs(clients) do close_client(fd) end
omni.omni_poller_free(poller)
C.close(listener)
C.close(signals)
