--[[
pulled.lua: the echo server of ../pulled.c in LuaJIT, with the library loaded at run time.

Shows what a loop that is pulled is for: no function of Lua's is ever called from C, so the JIT stays on.
One call returns what has happened, the bytes lie in one buffer, and one call writes the answers. The
structs and functions below are copied from omnipoll.h, its constants are written as numbers.

Run:  luajit pulled.lua [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--clients N]
With --clients it ends after N clients have come and gone. The library is the one the loader
finds, or the file that OMNIPOLL_LIBRARY names.
]]
local ffi = require("ffi")

ffi.cdef [[
typedef struct omni_loop omni_loop;
typedef struct omni_poller omni_poller;
typedef struct omni_conn omni_conn;
typedef struct omni_loop_event {
  uint64_t token;
  int64_t  value;
  uint32_t offset;
  uint32_t length;
  uint32_t ready;
  uint32_t kind;
} omni_loop_event;
typedef struct omni_write {
  omni_conn  *conn;
  const void *data;
  size_t      length;
  int         result;
  uint32_t    reserved;
} omni_write;
typedef struct omni_loop_options {
  uint32_t size, engine, flags, max_clients, backlog, reserved;
  uint64_t queue_limit, total_queue_limit, high_water, low_water;
  int64_t  idle_timeout_ns, read_timeout_ns, write_timeout_ns, linger_ns;
} omni_loop_options;
int omni_engine_by_name(const char *name);
int omni_loop_new(const omni_loop_options *options, const void *handler, omni_loop **out);
void omni_loop_free(omni_loop *loop);
int omni_loop_listen(omni_loop *loop, const char *address, const void *handler, uint64_t token);
int omni_loop_address(omni_loop *loop, char *buffer, size_t capacity);
int omni_loop_buffer(omni_loop *loop, const uint8_t **start, size_t *size);
int omni_loop_wait(omni_loop *loop, omni_loop_event *events, uint32_t capacity, int64_t timeout_ns);
int omni_loop_write(omni_loop *loop, omni_write *writes, uint32_t count);
int omni_loop_stop(omni_loop *loop, int64_t drain_ns);
omni_poller *omni_loop_poller(omni_loop *loop);
int omni_poller_signal_add(omni_poller *poller, int signo, uint64_t token);
int omni_conn_close(omni_conn *conn);
int omni_conn_abort(omni_conn *conn);
const char *omni_last_error(void);
]]

local omni = ffi.load(os.getenv("OMNIPOLL_LIBRARY") or "libomnipoll.so.0")

local SIGNAL, DATA, ENDED, CLOSED, STOPPING = 3, 18, 19, 21, 22
local SIGINT, SIGTERM = 2, 15
local BATCH, FOREVER, TIME_TO_STOP = 64, -1, 10e9

local function fail(words)
  io.stderr:write("pulled.lua: ", words, "\n")
  os.exit(1)
end

local function check(result)
  if result < 0 then fail(ffi.string(omni.omni_last_error())) end
  return result
end

local function parse_options(arguments)
  local options = { engine = "auto", address = "127.0.0.1:0", clients = "0" }
  for i = 1, #arguments, 2 do
    local name = arguments[i]:match("^%-%-(%a+)$")
    if not options[name] or not arguments[i + 1] then fail("usage: " .. arguments[i]) end
    options[name] = arguments[i + 1]
  end
  options.clients = tonumber(options.clients) or fail("not a number: " .. options.clients)
  return options
end

local function new_loop(engine, address)
  local options = ffi.new("omni_loop_options", { size = ffi.sizeof("omni_loop_options") })
  if engine ~= "auto" then options.engine = check(omni.omni_engine_by_name(engine)) end
  local out = ffi.new("omni_loop *[1]")
  check(omni.omni_loop_new(options, nil, out))
  check(omni.omni_loop_listen(out[0], address, nil, 0))
  local text = ffi.new("char[256]")
  check(omni.omni_loop_address(out[0], text, 256))
  print("listening on " .. ffi.string(text))
  io.stdout:flush()
  return out[0]
end

local options = parse_options(arg)
local loop = new_loop(options.engine, options.address)
for _, signo in ipairs({ SIGINT, SIGTERM }) do
  check(omni.omni_poller_signal_add(omni.omni_loop_poller(loop), signo, 0))
end

local start = ffi.new("const uint8_t *[1]")
check(omni.omni_loop_buffer(loop, start, nil))
local buffer = start[0]
local events = ffi.new("omni_loop_event[?]", BATCH)
local writes = ffi.new("omni_write[?]", BATCH)
local finished = 0

local function conn_of(event)
  return ffi.cast("omni_conn *", event.value)
end

-- What is written at once when all events have been looked at.
local function add_write(index, event)
  local write = writes[index]
  write.conn, write.data, write.length = conn_of(event), buffer + event.offset, event.length
end

local function handle(event)
  local kind = event.kind
  if kind == ENDED or kind == STOPPING then
    omni.omni_conn_close(conn_of(event)) -- once it has been sent what waits for it
  elseif kind == CLOSED then
    finished = finished + 1
  elseif kind == SIGNAL then
    check(omni.omni_loop_stop(loop, TIME_TO_STOP))
  end
end

-- Not a byte is left out in silence.
local function write_all(count)
  if omni.omni_loop_write(loop, writes, count) == count then return end
  for i = 0, count - 1 do
    if writes[i].result < 0 then omni.omni_conn_abort(writes[i].conn) end
  end
end

local function is_over()
  return options.clients > 0 and finished >= options.clients
end

while not is_over() do
  local count = check(omni.omni_loop_wait(loop, events, BATCH, FOREVER))
  if count == 0 then break end -- it was stopped, and all clients have gone
  local written = 0
  for i = 0, count - 1 do
    if events[i].kind == DATA then
      add_write(written, events[i])
      written = written + 1
    end
  end
  write_all(written)
  for i = 0, count - 1 do handle(events[i]) end
end
omni.omni_loop_free(loop)
