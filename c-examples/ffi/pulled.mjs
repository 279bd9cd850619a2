// pulled.mjs: the echo server of ../pulled.c in Node.js, with the library loaded at run time.
//
// Shows what a loop that is pulled is for: no function of JavaScript's is ever called from C. One call
// returns what has happened, and the bytes lie in one buffer. koffi is given the declarations below, copied
// from omnipoll.h; struct omni_loop_event is read by its layout. The loop belongs to a worker thread, which
// waits on it, so that Node's own loop continues; that one handles signals, and any thread may stop a loop.
//
// Install:  npm install koffi
// Run:      node pulled.mjs [--engine select|poll|epoll|io_uring] [--address 127.0.0.1:7000] [--clients N]
// With --clients it ends after N clients have come and gone. The library is the one the loader
// finds, or the file that OMNIPOLL_LIBRARY names.

import { parseArgs } from 'node:util';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import koffi from 'koffi';

// Handles are numbers.
const omni = koffi.load(process.env.OMNIPOLL_LIBRARY ?? 'libomnipoll.so.0');
const omni_engine_by_name = omni.func('int omni_engine_by_name(const char *name)');
const omni_loop_new = omni.func('int omni_loop_new(const void *options, const void *handler, _Out_ uint64_t *out)');
const omni_loop_free = omni.func('void omni_loop_free(uint64_t loop)');
const omni_loop_listen = omni.func('int omni_loop_listen(uint64_t loop, const char *address, const void *handler, uint64_t token)');
const omni_loop_address = omni.func('int omni_loop_address(uint64_t loop, _Out_ uint8_t *buffer, size_t capacity)');
const omni_loop_buffer = omni.func('int omni_loop_buffer(uint64_t loop, _Out_ uint64_t *start, void *size)');
const omni_loop_wait = omni.func('int omni_loop_wait(uint64_t loop, _Out_ uint8_t *events, uint32_t capacity, int64_t timeout_ns)');
const omni_loop_stop = omni.func('int omni_loop_stop(uint64_t loop, int64_t drain_ns)');
const omni_conn_write = omni.func('int omni_conn_write(uint64_t conn, uint64_t data, size_t length)');
const omni_conn_close = omni.func('int omni_conn_close(uint64_t conn)');
const omni_conn_abort = omni.func('int omni_conn_abort(uint64_t conn)');
const omni_last_error = omni.func('const char *omni_last_error(void)');

const DATA = 18, ENDED = 19, CLOSED = 21, STOPPING = 22;
const FOREVER = -1, TIME_TO_STOP = 10e9;
const BATCH = 64;

// struct omni_loop_event: uint64_t token, int64_t value, uint32_t offset, length, ready, kind
const EVENT_SIZE = 32, VALUE = 8, OFFSET = 16, LENGTH = 20, KIND = 28;
// struct omni_loop_options: six uint32_t, of which size and engine are not 0, and eight numbers of 64 bits
const OPTIONS_SIZE = 88;

function check(result) {
  if (result < 0) throw new Error(omni_last_error());
  return result;
}

function newLoop({ engine, address }) {
  const options = Buffer.alloc(OPTIONS_SIZE);
  options.writeUInt32LE(OPTIONS_SIZE, 0);
  options.writeUInt32LE(engine === 'auto' ? 0 : check(omni_engine_by_name(engine)), 4);
  const out = [0n];
  check(omni_loop_new(options, null, out));
  check(omni_loop_listen(out[0], address, null, 0));
  return out[0];
}

function addressOf(loop) {
  const text = Buffer.alloc(256);
  return text.toString('latin1', 0, check(omni_loop_address(loop, text, text.length)));
}

// In the worker thread, until the loop was stopped and all clients have gone.
function serve(options) {
  const loop = newLoop(options);
  const start = [0n];
  check(omni_loop_buffer(loop, start, null));
  const buffer = BigInt(start[0]);
  const events = Buffer.alloc(BATCH * EVENT_SIZE);
  const limit = Number(options.clients);
  parentPort.postMessage({ loop, address: addressOf(loop) });

  for (let finished = 0; limit === 0 || finished < limit; ) {
    const count = check(omni_loop_wait(loop, events, BATCH, FOREVER));
    if (count === 0) break;
    for (let at = 0; at < count * EVENT_SIZE; at += EVENT_SIZE) {
      const kind = events.readUInt32LE(at + KIND);
      const conn = events.readBigUInt64LE(at + VALUE);
      if (kind === DATA) {
        const data = buffer + BigInt(events.readUInt32LE(at + OFFSET));
        // Not a byte is left out in silence.
        if (omni_conn_write(conn, data, events.readUInt32LE(at + LENGTH)) < 0) omni_conn_abort(conn);
      } else if (kind === ENDED || kind === STOPPING) {
        omni_conn_close(conn); // once it has been sent what waits for it
      } else if (kind === CLOSED) {
        finished++;
      }
    }
  }
  omni_loop_free(loop);
}

function main() {
  const { values: options } = parseArgs({
    options: {
      engine: { type: 'string', default: 'auto' },
      address: { type: 'string', default: '127.0.0.1:0' },
      clients: { type: 'string', default: '0' },
    },
  });
  const worker = new Worker(new URL(import.meta.url), { workerData: options });
  worker.on('message', ({ loop, address }) => {
    const stop = () => omni_loop_stop(loop, TIME_TO_STOP);
    process.on('SIGINT', stop).on('SIGTERM', stop);
    worker.on('exit', () => process.removeListener('SIGINT', stop).removeListener('SIGTERM', stop));
    console.log(`listening on ${address}`);
  });
}

if (isMainThread) main();
else serve(workerData);
