/* The wait of loops that are pulled, checked through the public header on every engine: what it returns that
 * is not of connections, how long it takes, what ends it, and what a stop brings.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

/* ---- What is not of connections -------------------------------------------------------------- */

static void *post_a_hundred(void *argument)
{
    for (int i = 0; i < 100; i++)
        IS(omni_poller_post(argument, 5, i), 0);
    return NULL;
}

/* A policy of a loop: its waits last their time, but for a timer's. */
static void thrifty(uint32_t engine)
{
    omni_loop_options options = {
        .size = sizeof options, .engine = engine, .wait_policy = OMNI_WAIT_THRIFTY, .wait_ns = 20 * MS};
    omni_loop *loop = NULL;
    IS(omni_loop_new(&options, NULL, &loop), 0);
    IS(omni_poller_post(omni_loop_poller(loop), 5, 0), 0);
    int64_t begun = now_ns();
    one_loop_event(loop, OMNI_EVENT_POST, 5);
    OK(now_ns() - begun >= 20 * MS);
    omni_loop_free(loop);

    options.wait_ns = INT64_MAX;
    IS(omni_loop_new(&options, NULL, &loop), 0);
    IS(omni_poller_timer_add(omni_loop_poller(loop), MS, 0, 1, NULL), 0);
    one_loop_event(loop, OMNI_EVENT_TIMER, 1);
    omni_loop_free(loop);
    options.wait_ns = 0;
    IS(omni_loop_new(&options, NULL, &loop), -EINVAL);
}

static void events_of_the_program(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    omni_poller *poller = omni_loop_poller(loop);
    struct pair pipe = pipe_pair();
    uint64_t timer;
    OK(poller);
    OK(poller == omni_loop_poller(loop));
    IS(omni_poller_timer_add(poller, 1, 0, 1, &timer), 0);
    omni_loop_event event = one_loop_event(loop, OMNI_EVENT_TIMER, 1);
    IS(event.value, 1);
    IS(omni_poller_add(poller, pipe.ours, OMNI_READ, 2), 0);
    put(pipe.theirs, 1);
    event = one_loop_event(loop, OMNI_EVENT_IO, 2);
    IS(event.value, pipe.ours);
    OK(event.ready & OMNI_READ);
    IS(omni_poller_remove(poller, pipe.ours), 0);
    IS(omni_poller_signal_add(poller, SIGUSR2, 3), 0);
    IS(kill(getpid(), SIGUSR2), 0);
    event = one_loop_event(loop, OMNI_EVENT_SIGNAL, 3);
    IS(event.value, SIGUSR2);
    IS(event.ready, 1);
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    IS(omni_poller_child_add(poller, child, 4), 0);
    event = one_loop_event(loop, OMNI_EVENT_CHILD, 4);
    OK(WIFEXITED(event.value) && WEXITSTATUS(event.value) == 3);
    elsewhere(post_a_hundred, poller);
    for (int i = 0; i < 100; i++)
        IS(one_loop_event(loop, OMNI_EVENT_POST, 5).value, i);
    close_pair(pipe);
    omni_loop_free(loop);
    IS(omni_poller_post(poller, 5, 1), -ESTALE);
}

static void the_poller_is_the_loops(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    omni_poller *poller = omni_loop_poller(loop);
    omni_event event;
    uint64_t timer;
    IS(omni_poller_wait(poller, &event, 1, LOOK), -EPERM);
    OK(strstr(omni_last_error(), "omni_poller_wait: the poller is a loop's"));
    IS(omni_poller_after_fork(poller), -EPERM);
    omni_poller_free(poller);
    OK(strstr(omni_last_error(), "omni_poller_free: the poller is a loop's"));
    IS(omni_poller_timer_add(poller, 1, 0, UINT64_C(0xffffffff80000000), &timer), -EINVAL);
    IS(omni_poller_post(poller, UINT64_MAX, 0), -EINVAL);
    IS(omni_poller_timer_add(poller, 1, 0, UINT64_C(0xffffffff7fffffff), NULL), 0);
    one_loop_event(loop, OMNI_EVENT_TIMER, UINT64_C(0xffffffff7fffffff));
    OK(omni_poller_engine(poller) != OMNI_ENGINE_AUTO);
    omni_loop_free(loop);
    IS(omni_poller_wake(poller), -ESTALE);
}

static void datagrams(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const uint8_t *buffer = buffer_of(loop, NULL);
    char address[128];
    IS(omni_loop_listen(loop, "udp:127.0.0.1:0", NULL, 9), 0);
    OK(omni_loop_address(loop, address, sizeof address) > 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    IS(sendto(fd, "hello", 5, 0, (struct sockaddr *)&to, sizeof to), 5);
    omni_loop_event event = one_loop_event(loop, OMNI_EVENT_DATAGRAM, 9);
    IS(event.length, 5);
    OK(memcmp(buffer + event.offset, "hello", 5) == 0);
    close(fd);
    omni_loop_free(loop);
}

/* ---- The wait -------------------------------------------------------------------------------- */

static void how_long_a_wait_takes(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    omni_loop_event event;
    IS(omni_loop_wait(loop, &event, 1, LOOK), 0);
    int64_t begin = now_ns();
    IS(omni_loop_wait(loop, &event, 1, 20 * MS), 0);
    OK(now_ns() - begin >= 20 * MS);
    IS(omni_loop_wait(loop, &event, 0, LOOK), -EINVAL);
    IS(omni_loop_wait(loop, NULL, 1, LOOK), -EINVAL);
    omni_loop_free(loop);
}

static void *kill_with_usr1(void *argument)
{
    const struct waiter *waiter = argument;
    while (!waiter->tid || !is_asleep(waiter->tid))
        sched_yield();
    IS(syscall(SYS_tgkill, getpid(), waiter->tid, SIGUSR1), 0);
    return NULL;
}

static _Atomic int signals_handled;

static void handle_usr1(int signo)
{
    (void)signo;
    signals_handled++;
}

/* Only an interruptible wait is ended by a signal. */
static void interruptible(uint32_t engine)
{
    struct sigaction action = {.sa_handler = handle_usr1}, before;
    IS(sigaction(SIGUSR1, &action, &before), 0);
    signals_handled = 0;
    for (uint32_t flag = 0; flag <= OMNI_INTERRUPTIBLE; flag++) {
        omni_loop_options options = {.size = sizeof options, .engine = engine, .flags = flag};
        omni_loop *loop = NULL;
        omni_loop_event event;
        struct waiter waiter = {.tid = syscall(SYS_gettid)};
        pthread_t thread;
        IS(omni_loop_new(&options, NULL, &loop), 0);
        IS(pthread_create(&thread, NULL, kill_with_usr1, &waiter), 0);
        IS(omni_loop_wait(loop, &event, 1, flag ? FOREVER : 200 * MS), flag ? -EINTR : 0);
        IS(pthread_join(thread, NULL), 0);
        IS(signals_handled, flag + 1);
        IS(omni_loop_wait(loop, &event, 1, LOOK), 0);
        omni_loop_free(loop);
    }
    IS(sigaction(SIGUSR1, &before, NULL), 0);
}

static void *stop_it(void *loop)
{
    IS(omni_loop_stop(loop, -1), 0);
    return NULL;
}

static void a_stop(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    int fd, port = loop_listen(loop, NULL, 7);
    omni_loop_event event;
    omni_conn *conn = accepted(loop, port, &fd);
    elsewhere(stop_it, loop);
    event = one_loop_event(loop, OMNI_EVENT_STOPPING, 7);
    OK(conn_of(&event) == conn);
    IS(omni_conn_stopping(conn), 1);
    IS(try_to_connect(port), -ECONNREFUSED);
    IS(omni_loop_listen(loop, "127.0.0.1:0", NULL, 7), -EINVAL);
    send_text(fd, "last");
    one_loop_event(loop, OMNI_EVENT_DATA, 7);
    /* The limit becomes a shorter one. */
    IS(omni_loop_stop(loop, 0), 0);
    IS(one_loop_event(loop, OMNI_EVENT_CLOSED, 7).ready, ECANCELED);
    IS(receive_end(fd), ECONNRESET);
    IS(omni_loop_wait(loop, &event, 1, FOREVER), 0);
    IS(omni_loop_wait(loop, &event, 1, FOREVER), 0);
    close(fd);
    omni_loop_free(loop);
}

static void of_one_kind(uint32_t engine)
{
    const omni_handler handler = {.size = sizeof handler};
    const uint8_t *start;
    omni_loop_event event;
    omni_loop *loop = new_loop(engine, NULL);
    IS(omni_loop_run(loop), -EINVAL);
    OK(strstr(omni_last_error(), "omni_loop_run: the loop is pulled"));
    IS(omni_loop_run_once(loop, LOOK), -EINVAL);
    IS(omni_loop_listen(loop, "127.0.0.1:0", &handler, 7), -EINVAL);
    IS(omni_loop_address(loop, NULL, 0), 0);
    omni_loop_free(loop);
    loop = new_loop(engine, &handler);
    IS(omni_loop_wait(loop, &event, 1, LOOK), -EINVAL);
    OK(strstr(omni_last_error(), "omni_loop_wait: the loop has a handler"));
    IS(omni_loop_buffer(loop, &start, NULL), -EINVAL);
    omni_loop_free(loop);
}

/* ---- Datagrams ------------------------------------------------------------------------------- */

static omni_datagram_socket *datagram_socket_of(const omni_loop_event *event)
{
    return (omni_datagram_socket *)(uintptr_t)event->value;
}

static void connected_datagrams(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const uint8_t *buffer = buffer_of(loop, NULL);
    omni_datagram_socket *upstream = NULL;
    char address[64];
    struct sockaddr_storage peer, local;
    uint32_t peer_length = sizeof peer, local_length = sizeof local;
    IS(omni_loop_listen(loop, "udp:0.0.0.0:0", NULL, 7), 0);
    OK(omni_loop_address(loop, address, sizeof address) > 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1)};

    /* One that is connected asks the other, which answers from the address that was asked. */
    snprintf(address, sizeof address, "udp:127.0.0.2:%d", ntohs(to.sin_port));
    IS(omni_loop_connect_datagrams(loop, address, UINT64_MAX, &upstream), 0);
    IS(omni_datagram_socket_send(upstream, "ask", 3), 0);
    omni_loop_event event = one_loop_event(loop, OMNI_EVENT_DATAGRAM, 7);
    IS(event.length, 3);
    OK(memcmp(buffer + event.offset, "ask", 3) == 0);
    IS(omni_loop_event_peer_sockaddr(loop, &event, (struct sockaddr *)&peer, &peer_length), 0);
    IS(omni_loop_event_local_sockaddr(loop, &event, (struct sockaddr *)&local, &local_length), 0);
    IS(local_length, sizeof to);
    OK(memcmp(&local, &to, sizeof to) == 0);
    IS(omni_datagram_socket_send_from(datagram_socket_of(&event), (struct sockaddr *)&local, local_length,
                                      (struct sockaddr *)&peer, peer_length, "back", 4), 0);
    omni_loop_event answer = one_loop_event(loop, OMNI_EVENT_DATAGRAM, UINT64_MAX);
    OK(datagram_socket_of(&answer) == upstream);
    OK(memcmp(buffer + answer.offset, "back", 4) == 0);

    /* Its peer goes. */
    IS(omni_datagram_socket_close(datagram_socket_of(&event)), 0);
    IS(omni_loop_wait(loop, &event, 1, 0), 0);
    IS(omni_datagram_socket_send(upstream, "ask", 3), 0);
    event = one_loop_event(loop, OMNI_EVENT_DATAGRAM_ERROR, UINT64_MAX);
    OK(datagram_socket_of(&event) == upstream);
    IS(event.ready, ECONNREFUSED);
    OK(event.length > 0);
    IS(omni_loop_event_peer_sockaddr(loop, &event, (struct sockaddr *)&peer, &peer_length), -EINVAL);
    IS(omni_loop_event_peer_sockaddr(loop, NULL, (struct sockaddr *)&peer, &peer_length), -EINVAL);

    IS(omni_loop_connect_datagrams(loop, "127.0.0.1:9", 0, &upstream), -EINVAL);
    IS(omni_loop_connect_datagrams(loop, "udp:localhost:9", 0, &upstream), -EINVAL);
    IS(omni_loop_connect_datagrams(loop, NULL, 0, &upstream), -EINVAL);
    omni_loop_free(loop);
    IS(omni_datagram_socket_send(upstream, "late", 4), -ESTALE);
}

/* An outer loop sleeps on the descriptor, and wakes for all that there is. */
static void in_an_outer_loop(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const uint8_t *buffer = buffer_of(loop, NULL);
    int has_descriptor = engine == OMNI_ENGINE_EPOLL || engine == OMNI_ENGINE_IO_URING;
    struct pollfd outer = {.fd = omni_loop_descriptor(loop), .events = POLLIN};
    IS(outer.fd >= 0 ? 0 : outer.fd, has_descriptor ? 0 : -ENOTSUP);
    if (!has_descriptor) {
        OK(strstr(omni_last_error(), "omni_loop_descriptor: "));
        omni_loop_free(loop);
        return;
    }
    IS(omni_loop_descriptor(loop), outer.fd);
    int port = loop_listen(loop, NULL, 7), fd = connect_to(port), echoed = 0, timers = 0;
    IS(omni_poller_timer_add(omni_loop_poller(loop), 10 * MS, 0, 1, NULL), 0);
    send_text(fd, "hello");
    while (!echoed || !timers) {
        omni_loop_event events[ROOM];
        IS(poll(&outer, 1, -1), 1);
        int count = omni_loop_wait(loop, events, ROOM, LOOK);
        OK(count >= 0);
        for (int i = 0; i < count; i++) {
            timers += events[i].kind == OMNI_EVENT_TIMER;
            if (events[i].kind != OMNI_EVENT_DATA)
                continue;
            OK(omni_conn_write(conn_of(&events[i]), buffer + events[i].offset, events[i].length) >= 0);
            echoed = 1;
        }
    }
    /* What was written leaves also if nothing else comes. */
    IS(poll(&outer, 1, 0) >= 0, 1);
    omni_loop_event event;
    IS(omni_loop_wait(loop, &event, 1, LOOK), 0);
    receive(fd, "hello");
    close(fd);
    omni_loop_free(loop);
}

static const struct behaviour behaviours[] = {
    {"a wait policy of a loop", thrifty},
    {"events_of_the_program", events_of_the_program},
    {"the_poller_is_the_loops", the_poller_is_the_loops},
    {"datagrams", datagrams},
    {"how_long_a_wait_takes", how_long_a_wait_takes},
    {"interruptible", interruptible},
    {"a_stop", a_stop},
    {"of_one_kind", of_one_kind},
    {"in_an_outer_loop", in_an_outer_loop},
    {"datagrams have addresses, and connected sockets hear of refusals", connected_datagrams},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
