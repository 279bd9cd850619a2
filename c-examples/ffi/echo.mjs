// echo.mjs: the echo server of ../echo.c in Node.js, with the library loaded at run time.
//
// Shows that the facts of omnipoll.h are all it takes: koffi is given the declarations below,
// copied from it; its constants are written as numbers, and struct omni_event is read by its
// layout. The sockets are libc's, because Node doesn't expose the descriptors of its own.
// omni_poller_wait runs on a worker thread, so that Node's own loop continues: its signal events end
// the server with omni_poller_wake.
//
// Install:  npm install koffi
// Run:      node echo.mjs [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--clients N]
// With --clients it ends after N clients have come and gone. The library is the one the loader
// finds, or the file that OMNIPOLL_LIBRARY names. The numbers of libc are those of Linux.

import { parseArgs, promisify } from 'node:util';
import koffi from 'koffi';

const omni = koffi.load(process.env.OMNIPOLL_LIBRARY ?? 'libomnipoll.so.0');
koffi.opaque('omni_poller');
const omni_poller_new = omni.func('int omni_poller_new(uint32_t engine, uint32_t flags, _Out_ omni_poller **out)');
const omni_poller_free = omni.func('void omni_poller_free(omni_poller *poller)');
const omni_poller_add = omni.func(
  'int omni_poller_add(omni_poller *poller, int fd, uint32_t interest, uint64_t token)');
const omni_poller_modify = omni.func(
  'int omni_poller_modify(omni_poller *poller, int fd, uint32_t interest, uint64_t token)');
const omni_poller_remove = omni.func('int omni_poller_remove(omni_poller *poller, int fd)');
const omni_poller_wait = omni.func(
  'int omni_poller_wait(omni_poller *poller, void *events, uint32_t capacity, int64_t timeout_ns)');
const omni_poller_wake = omni.func('int omni_poller_wake(omni_poller *poller)');
const omni_strerror = omni.func('const char *omni_strerror(int error)');
const omni_last_error = omni.func('const char *omni_last_error(void)');

const libc = koffi.load(null);
koffi.struct('sockaddr_in', {
  family: 'uint16_t', port: 'uint16_t', address: 'uint32_t', zero: koffi.array('uint8_t', 8),
});
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const sockaddr_in *name, uint32_t length)');
const listen = libc.func('int listen(int fd, int backlog)');
const getsockname = libc.func('int getsockname(int fd, _Out_ sockaddr_in *name, _Inout_ uint32_t *length)');
const inet_addr = libc.func('uint32_t inet_addr(const char *text)');
const htons = libc.func('uint16_t htons(uint16_t value)');
const accept4 = libc.func('int accept4(int fd, void *name, void *length, int flags)');
const read = libc.func('intptr_t read(int fd, void *buffer, size_t count)');
const send = libc.func('intptr_t send(int fd, const void *buffer, size_t count, int flags)');
const close = libc.func('int close(int fd)');
const strerror = libc.func('const char *strerror(int error)');

const ENGINES = { auto: 0, select: 1, poll: 2, epoll: 3, io_uring: 4 };
const OMNI_READ = 1, OMNI_WRITE = 2, OMNI_EVENT_WAKE = 5;
const FOREVER = -1;

const AF_INET = 2, SOCK_STREAM = 1, SOCK_NONBLOCK = 0x800, SOCK_CLOEXEC = 0x80000;
const MSG_NOSIGNAL = 0x4000, INADDR_NONE = 0xffffffff;
const { EINTR, EAGAIN, ECONNABORTED } = koffi.os.errno;

const QUEUE_SIZE = 65536, BATCH = 64;

// struct omni_event: uint64_t token, int64_t value, uint32_t ready, uint32_t kind
const EVENT_SIZE = 24, TOKEN = 0, READY = 16, KIND = 20;

// For the functions of omnipoll, whose messages name the function.
function check(result) {
  if (result < 0) throw new Error(omni_last_error());
  return result;
}

// For the functions of the system.
function checkSystem(result, what) {
  if (result < 0) throw new Error(`${what}: ${strerror(koffi.errno())}`);
  return result;
}

function listenOn(address) {
  const [host, port] = address.split(':');
  const where = inet_addr(host);
  if (where === INADDR_NONE) throw new Error(`bad address: ${address}`);
  const name = { family: AF_INET, port: htons(Number(port)), address: where, zero: Array(8).fill(0) };
  const length = [koffi.sizeof('sockaddr_in')];

  const fd = checkSystem(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
  checkSystem(bind(fd, name, length[0]), 'bind');
  checkSystem(listen(fd, 4096), 'listen');
  checkSystem(getsockname(fd, name, length), 'getsockname');
  console.log(`listening on ${host}:${htons(name.port)}`);
  return fd;
}

const { values: options } = parseArgs({
  options: {
    engine: { type: 'string', default: 'auto' },
    address: { type: 'string', default: '127.0.0.1:0' },
    clients: { type: 'string', default: '0' },
  },
});
const engine = ENGINES[options.engine];
if (engine === undefined) throw new Error(`no such engine: ${options.engine}`);
const limit = Number(options.clients);

const out = [null];
check(omni_poller_new(engine, 0, out));
const poller = out[0];
const listener = listenOn(options.address);
const clients = new Map(); // by descriptor
let finished = 0;

// The token of each registration is its descriptor.
function watch(fd) {
  check(omni_poller_add(poller, fd, OMNI_READ, fd));
}

function acceptClient() {
  const fd = accept4(listener, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0 && [EAGAIN, EINTR, ECONNABORTED].includes(koffi.errno())) return;
  checkSystem(fd, 'accept4');
  watch(fd);
  // queue.subarray(begin, end) is read and not yet written back
  const queue = Buffer.alloc(QUEUE_SIZE);
  clients.set(fd, { fd, interest: OMNI_READ, ended: false, begin: 0, end: 0, queue });
}

function closeClient(fd) {
  check(omni_poller_remove(poller, fd)); // always before close
  close(fd);
  clients.delete(fd);
  finished++;
}

// Reads what there is room for. False when the connection is broken.
function fill(client) {
  const room = client.queue.subarray(client.end);
  const count = read(client.fd, room, room.length);
  if (count < 0) return [EAGAIN, EINTR].includes(koffi.errno());
  client.end += count;
  client.ended = count === 0;
  return true;
}

// Writes what the socket takes. False when the connection is broken or all is done.
function drain(client) {
  while (client.begin < client.end) {
    const waiting = client.queue.subarray(client.begin, client.end);
    const count = send(client.fd, waiting, waiting.length, MSG_NOSIGNAL);
    if (count >= 0) client.begin += count;
    else if (koffi.errno() !== EINTR) return koffi.errno() === EAGAIN;
  }
  client.begin = client.end = 0;
  return !client.ended;
}

function serveClient(client, ready) {
  if ((ready & OMNI_READ && !fill(client)) || !drain(client)) {
    closeClient(client.fd);
    return;
  }
  let interest = 0;
  if (client.end < QUEUE_SIZE && !client.ended) interest |= OMNI_READ;
  if (client.begin < client.end) interest |= OMNI_WRITE;
  if (interest !== client.interest) {
    check(omni_poller_modify(poller, client.fd, interest, client.fd));
    client.interest = interest;
  }
}

async function serve() {
  const wait = promisify(omni_poller_wait.async);
  const events = Buffer.alloc(BATCH * EVENT_SIZE);
  while (limit === 0 || finished < limit) {
    const count = await wait(poller, events, BATCH, FOREVER);
    // omni_last_error is the worker thread's own, which is out of reach here.
    if (count < 0) throw new Error(`omni_poller_wait: ${omni_strerror(count)}`);
    for (let at = 0; at < count * EVENT_SIZE; at += EVENT_SIZE) {
      if (events.readUInt32LE(at + KIND) === OMNI_EVENT_WAKE) return;
      const fd = Number(events.readBigUInt64LE(at + TOKEN));
      if (fd === listener) acceptClient();
      else serveClient(clients.get(fd), events.readUInt32LE(at + READY));
    }
  }
}

const stop = () => omni_poller_wake(poller);
process.on('SIGINT', stop).on('SIGTERM', stop);
watch(listener);
await serve();

for (const fd of clients.keys()) closeClient(fd);
omni_poller_free(poller);
close(listener);
