/* The sizes, offsets and values that compiled programs hold. A line may be added here; one that
 * has to be changed means a new soname. */
#include <omnipoll.h>

#include <stddef.h>

#define FIELD(type, field, offset, size)                                                      \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved");         \
    _Static_assert(sizeof(((type *)0)->field) == (size), #type "." #field " has grown")
/* No byte of a struct is padding, whose value would be undefined. */
#define FILLED(type, last) \
    _Static_assert(sizeof(type) == offsetof(type, last) + sizeof(((type *)0)->last), #type " is padded")
#define VALUE(name, value) _Static_assert((name) == (value), #name " has changed")

_Static_assert(sizeof(omni_event) == 24, "omni_event has grown");
FIELD(omni_event, token, 0, 8);
FIELD(omni_event, value, 8, 8);
FIELD(omni_event, ready, 16, 4);
FIELD(omni_event, kind, 20, 4);
FILLED(omni_event, kind);

_Static_assert(sizeof(omni_finding) == 24 + sizeof(char *), "omni_finding has grown");
FIELD(omni_finding, size, 0, 4);
FIELD(omni_finding, kind, 4, 4);
FIELD(omni_finding, fd, 8, 4);
FIELD(omni_finding, reserved, 12, 4);
FIELD(omni_finding, token, 16, 8);
FIELD(omni_finding, words, 24, sizeof(char *));
FILLED(omni_finding, words);

/* The size may grow: a caller says which it has. */
_Static_assert(sizeof(omni_poller_options) >= 24, "omni_poller_options has shrunk");
FIELD(omni_poller_options, size, 0, 4);
FIELD(omni_poller_options, engine, 4, 4);
FIELD(omni_poller_options, flags, 8, 4);
FIELD(omni_poller_options, wait_policy, 12, 4);
FIELD(omni_poller_options, wait_ns, 16, 8);
FILLED(omni_poller_options, wait_ns);

_Static_assert(sizeof(omni_poller_statistics) >= 120, "omni_poller_statistics has shrunk");
FIELD(omni_poller_statistics, size, 0, 4);
FIELD(omni_poller_statistics, signals, 4, 4);
FIELD(omni_poller_statistics, registrations, 8, 8);
FIELD(omni_poller_statistics, timers, 16, 8);
FIELD(omni_poller_statistics, children, 24, 8);
FIELD(omni_poller_statistics, posts, 32, 8);
FIELD(omni_poller_statistics, waits, 40, 8);
FIELD(omni_poller_statistics, system_calls, 48, 8);
FIELD(omni_poller_statistics, spurious, 56, 8);
FIELD(omni_poller_statistics, io_events, 64, 8);
FIELD(omni_poller_statistics, timer_events, 72, 8);
FIELD(omni_poller_statistics, signal_events, 80, 8);
FIELD(omni_poller_statistics, child_events, 88, 8);
FIELD(omni_poller_statistics, wake_events, 96, 8);
FIELD(omni_poller_statistics, post_events, 104, 8);
FIELD(omni_poller_statistics, longest_dispatch_ns, 112, 8);
FILLED(omni_poller_statistics, longest_dispatch_ns);

_Static_assert(sizeof(omni_server_options) >= 112, "omni_server_options has shrunk");
FIELD(omni_server_options, size, 0, 4);
FIELD(omni_server_options, model, 4, 4);
FIELD(omni_server_options, engine, 8, 4);
FIELD(omni_server_options, flags, 12, 4);
FIELD(omni_server_options, workers, 16, 4);
FIELD(omni_server_options, max_clients, 20, 4);
FIELD(omni_server_options, backlog, 24, 4);
FIELD(omni_server_options, wait_policy, 28, 4);
FIELD(omni_server_options, queue_limit, 32, 8);
FIELD(omni_server_options, total_queue_limit, 40, 8);
FIELD(omni_server_options, high_water, 48, 8);
FIELD(omni_server_options, low_water, 56, 8);
FIELD(omni_server_options, idle_timeout_ns, 64, 8);
FIELD(omni_server_options, read_timeout_ns, 72, 8);
FIELD(omni_server_options, write_timeout_ns, 80, 8);
FIELD(omni_server_options, linger_ns, 88, 8);
FIELD(omni_server_options, drain_ns, 96, 8);
FIELD(omni_server_options, wait_ns, 104, 8);
FIELD(omni_server_options, proxy_header_ns, 112, 8);
FIELD(omni_server_options, max_address_clients, 120, 4);
FIELD(omni_server_options, max_address_rate, 124, 4);
FIELD(omni_server_options, allow, 128, sizeof(void *));
FIELD(omni_server_options, deny, 128 + sizeof(void *), sizeof(void *));
FIELD(omni_server_options, max_receive_rate, 128 + 2 * sizeof(void *), 8);
FIELD(omni_server_options, restart, 136 + 2 * sizeof(void *), sizeof(void *));
FIELD(omni_server_options, keep_alive_idle, 136 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, keep_alive_interval, 140 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, keep_alive_count, 144 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, defer_accept, 148 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, fast_open, 152 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, unix_mode, 156 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, unix_user, 160 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, unix_group, 164 + 3 * sizeof(void *), 4);
FIELD(omni_server_options, receive_buffer, 168 + 3 * sizeof(void *), 8);
FIELD(omni_server_options, send_buffer, 176 + 3 * sizeof(void *), 8);
FIELD(omni_server_options, multicast, 184 + 3 * sizeof(void *), sizeof(void *));
FIELD(omni_server_options, clients_per_worker, 184 + 4 * sizeof(void *), 8);
FIELD(omni_server_options, clients_jitter, 192 + 4 * sizeof(void *), 8);
FIELD(omni_server_options, hang_timeout_ns, 200 + 4 * sizeof(void *), 8);
FILLED(omni_server_options, hang_timeout_ns);

_Static_assert(sizeof(omni_restart_options) >= 16 + 3 * sizeof(void *), "omni_restart_options has shrunk");
FIELD(omni_restart_options, size, 0, 4);
FIELD(omni_restart_options, reserved, 4, 4);
FIELD(omni_restart_options, arguments, 8, sizeof(void *));
FIELD(omni_restart_options, timeout_ns, 8 + sizeof(void *), 8);
FIELD(omni_restart_options, on_done, 16 + sizeof(void *), sizeof(void *));
FIELD(omni_restart_options, context, 16 + 2 * sizeof(void *), sizeof(void *));
FILLED(omni_restart_options, context);

_Static_assert(sizeof(omni_handler) >= 16 * sizeof(void *), "omni_handler has shrunk");
FIELD(omni_handler, size, 0, 4);
FIELD(omni_handler, reserved, 4, 4);
FIELD(omni_handler, context, 1 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_open, 2 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_data, 3 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_drain, 4 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_close, 5 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_end, 6 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_post, 7 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_stop, 8 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_datagram, 9 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_datagram_error, 10 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_timeout, 11 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_timer, 12 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_event, 13 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_worker_start, 14 * sizeof(void *), sizeof(void *));
FIELD(omni_handler, on_worker_end, 15 * sizeof(void *), sizeof(void *));
FILLED(omni_handler, on_worker_end);

_Static_assert(sizeof(omni_connect_options) >= 24 + 2 * sizeof(void *), "omni_connect_options has shrunk");
FIELD(omni_connect_options, size, 0, 4);
FIELD(omni_connect_options, flags, 4, 4);
FIELD(omni_connect_options, timeout_ns, 8, 8);
FIELD(omni_connect_options, keep_alive_ns, 16, 8);
FIELD(omni_connect_options, local_address, 24, sizeof(void *));
FIELD(omni_connect_options, context, 24 + sizeof(void *), sizeof(void *));
FILLED(omni_connect_options, context);

_Static_assert(sizeof(omni_spawn_options) >= 8 + 2 * sizeof(void *), "omni_spawn_options has shrunk");
FIELD(omni_spawn_options, size, 0, 4);
FIELD(omni_spawn_options, flags, 4, 4);
FIELD(omni_spawn_options, environment, 8, sizeof(void *));
FIELD(omni_spawn_options, directory, 8 + sizeof(void *), sizeof(void *));
FILLED(omni_spawn_options, directory);

_Static_assert(sizeof(omni_spawned) == 8 + 3 * sizeof(void *), "omni_spawned has changed");
FIELD(omni_spawned, pid, 0, 4);
FIELD(omni_spawned, stdin_conn, 8, sizeof(void *));
FIELD(omni_spawned, stdout_conn, 8 + sizeof(void *), sizeof(void *));
FIELD(omni_spawned, stderr_conn, 8 + 2 * sizeof(void *), sizeof(void *));

_Static_assert(sizeof(omni_loop_options) >= 96, "omni_loop_options has shrunk");
FIELD(omni_loop_options, size, 0, 4);
FIELD(omni_loop_options, engine, 4, 4);
FIELD(omni_loop_options, flags, 8, 4);
FIELD(omni_loop_options, max_clients, 12, 4);
FIELD(omni_loop_options, backlog, 16, 4);
FIELD(omni_loop_options, wait_policy, 20, 4);
FIELD(omni_loop_options, queue_limit, 24, 8);
FIELD(omni_loop_options, total_queue_limit, 32, 8);
FIELD(omni_loop_options, high_water, 40, 8);
FIELD(omni_loop_options, low_water, 48, 8);
FIELD(omni_loop_options, idle_timeout_ns, 56, 8);
FIELD(omni_loop_options, read_timeout_ns, 64, 8);
FIELD(omni_loop_options, write_timeout_ns, 72, 8);
FIELD(omni_loop_options, linger_ns, 80, 8);
FIELD(omni_loop_options, wait_ns, 88, 8);
FIELD(omni_loop_options, proxy_header_ns, 96, 8);
FIELD(omni_loop_options, max_address_clients, 104, 4);
FIELD(omni_loop_options, max_address_rate, 108, 4);
FIELD(omni_loop_options, allow, 112, sizeof(void *));
FIELD(omni_loop_options, deny, 112 + sizeof(void *), sizeof(void *));
FIELD(omni_loop_options, max_receive_rate, 112 + 2 * sizeof(void *), 8);
FILLED(omni_loop_options, max_receive_rate);

_Static_assert(sizeof(omni_loop_event) == 32, "omni_loop_event has grown");
FIELD(omni_loop_event, token, 0, 8);
FIELD(omni_loop_event, value, 8, 8);
FIELD(omni_loop_event, offset, 16, 4);
FIELD(omni_loop_event, length, 20, 4);
FIELD(omni_loop_event, ready, 24, 4);
FIELD(omni_loop_event, kind, 28, 4);
FILLED(omni_loop_event, kind);

_Static_assert(sizeof(omni_write) == 8 + 3 * sizeof(void *), "omni_write has grown");
FIELD(omni_write, conn, 0, sizeof(void *));
FIELD(omni_write, data, 1 * sizeof(void *), sizeof(void *));
FIELD(omni_write, length, 2 * sizeof(void *), sizeof(void *));
FIELD(omni_write, result, 3 * sizeof(void *), 4);
FIELD(omni_write, reserved, 3 * sizeof(void *) + 4, 4);
FILLED(omni_write, reserved);

_Static_assert(sizeof(omni_server_statistics) >= 104, "omni_server_statistics has shrunk");
FIELD(omni_server_statistics, size, 0, 4);
FIELD(omni_server_statistics, reserved, 4, 4);
FIELD(omni_server_statistics, accepted, 8, 8);
FIELD(omni_server_statistics, active, 16, 8);
FIELD(omni_server_statistics, bytes_in, 24, 8);
FIELD(omni_server_statistics, bytes_out, 32, 8);
FIELD(omni_server_statistics, refused, 40, 8);
FIELD(omni_server_statistics, timed_out, 48, 8);
FIELD(omni_server_statistics, accept_pauses, 56, 8);
FIELD(omni_server_statistics, writes_refused, 64, 8);
FIELD(omni_server_statistics, datagrams_in, 72, 8);
FIELD(omni_server_statistics, datagrams_out, 80, 8);
FIELD(omni_server_statistics, datagrams_dropped, 88, 8);
FIELD(omni_server_statistics, restarts, 96, 8);
FIELD(omni_server_statistics, refused_header, 104, 8);
FIELD(omni_server_statistics, refused_filter, 112, 8);
FIELD(omni_server_statistics, refused_address, 120, 8);
FIELD(omni_server_statistics, refused_rate, 128, 8);
FILLED(omni_server_statistics, refused_rate);

VALUE(OMNI_ENGINE_AUTO, 0);
VALUE(OMNI_ENGINE_SELECT, 1);
VALUE(OMNI_ENGINE_POLL, 2);
VALUE(OMNI_ENGINE_EPOLL, 3);
VALUE(OMNI_ENGINE_IO_URING, 4);
VALUE(OMNI_ENGINE_KQUEUE, 5);

VALUE(OMNI_INTERRUPTIBLE, 0x1);
VALUE(OMNI_FILES_ALWAYS_READY, 0x2);
VALUE(OMNI_STRICT, 0x4);
VALUE(OMNI_WAIT_BALANCED, 0);
VALUE(OMNI_WAIT_LATENCY, 1);
VALUE(OMNI_WAIT_THRIFTY, 2);

VALUE(OMNI_READ, 0x1);
VALUE(OMNI_WRITE, 0x2);
VALUE(OMNI_PRIORITY, 0x4);
VALUE(OMNI_READ_CLOSED, 0x8);
VALUE(OMNI_HANGUP, 0x10);
VALUE(OMNI_ERROR, 0x20);
VALUE(OMNI_INVALID, 0x40);
VALUE(OMNI_EDGE, 0x100);
VALUE(OMNI_ONESHOT, 0x200);
VALUE(OMNI_EXCLUSIVE, 0x400);

VALUE(OMNI_REPORTS_HANGUP, 0x1);
VALUE(OMNI_REPORTS_READ_CLOSED, 0x2);
VALUE(OMNI_NATIVE_EDGE, 0x4);
VALUE(OMNI_HAS_EXCLUSIVE, 0x8);

VALUE(OMNI_EVENT_IO, 1);
VALUE(OMNI_EVENT_TIMER, 2);
VALUE(OMNI_EVENT_SIGNAL, 3);
VALUE(OMNI_EVENT_CHILD, 4);
VALUE(OMNI_EVENT_WAKE, 5);
VALUE(OMNI_EVENT_POST, 6);
VALUE(OMNI_CONNECT_DELAY, 0x1);
VALUE(OMNI_EVENT_ACCEPTED, 16);
VALUE(OMNI_EVENT_CONNECTED, 17);
VALUE(OMNI_EVENT_DATA, 18);
VALUE(OMNI_EVENT_ENDED, 19);
VALUE(OMNI_EVENT_DRAINED, 20);
VALUE(OMNI_EVENT_CLOSED, 21);
VALUE(OMNI_EVENT_STOPPING, 22);
VALUE(OMNI_EVENT_CONN_POST, 23);
VALUE(OMNI_EVENT_DATAGRAM, 24);
VALUE(OMNI_EVENT_DATAGRAM_ERROR, 25);
VALUE(OMNI_EVENT_CONN_TIMER, 26);

VALUE(OMNI_TIMEOUT_IDLE, 1);
VALUE(OMNI_TIMEOUT_READ, 2);
VALUE(OMNI_TIMEOUT_WRITE, 3);

VALUE(OMNI_FINDING_BLOCKING_EDGE, 1);
VALUE(OMNI_FINDING_UNDRAINED, 2);
VALUE(OMNI_FINDING_FORGOTTEN_ONESHOT, 3);
VALUE(OMNI_FINDING_CLOSED, 4);
VALUE(OMNI_FINDING_REUSED, 5);
VALUE(OMNI_FINDING_BUSY_WRITER, 6);
VALUE(OMNI_FINDING_BLOCKED_LOOP, 7);
VALUE(OMNI_FINDING_FORKED_CHILD, 8);
VALUE(OMNI_FINDING_LEAKED, 9);

VALUE(OMNI_MODEL_REACTOR, 1);
VALUE(OMNI_MODEL_CORES, 2);
VALUE(OMNI_MODEL_THREAD, 3);
VALUE(OMNI_MODEL_FORK, 4);
VALUE(OMNI_MODEL_PREFORK, 5);

VALUE(OMNI_SERVER_SIGNALS, 0x1);
VALUE(OMNI_SERVER_NOTIFY, 0x8);
VALUE(OMNI_SERVER_REUSE_PORT, 0x2);
VALUE(OMNI_SERVER_SHARE_PORT, 0x4);
