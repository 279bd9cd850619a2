/* Loops that are pulled, checked through the public header on every engine: what a wait returns of
 * connections, where their bytes are, and what is done to connections between two waits.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

enum { CLIENTS = 100, ROUNDS = 5, LARGE = 4 << 20 };

/* ---- What there is to say of one connection -------------------------------------------------- */

static void one_connection(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    size_t size = 0;
    const uint8_t *buffer = buffer_of(loop, &size);
    OK(size >= 1 << 16);
    int fd, port = loop_listen(loop, NULL, 7);
    omni_conn *conn = accepted(loop, port, &fd);
    IS(omni_conn_id(conn), (uint64_t)(uintptr_t)conn);

    send_text(fd, "hello");
    omni_loop_event event = one_loop_event(loop, OMNI_EVENT_DATA, 7);
    OK(conn_of(&event) == conn);
    IS(event.length, 5);
    OK(event.offset + event.length <= size);
    OK(memcmp(buffer + event.offset, "hello", 5) == 0);
    OK(omni_conn_write(conn, buffer + event.offset, event.length) >= 0);

    IS(omni_conn_post(conn, -5), 0);
    event = one_loop_event(loop, OMNI_EVENT_CONN_POST, 7);
    IS((int64_t)((uint64_t)event.offset << 32 | event.length), -5);

    IS(omni_conn_token(conn), 7);
    IS(omni_conn_set_token(conn, UINT64_MAX), 0);
    IS(omni_conn_is_outgoing(conn), 0);
    IS(omni_conn_has_ended(conn), 0);
    shutdown(fd, SHUT_WR);
    event = one_loop_event(loop, OMNI_EVENT_ENDED, UINT64_MAX);
    IS(omni_conn_has_ended(conn), 1);
    OK(conn_of(&event) == conn);
    IS(omni_conn_close(conn), 0);
    event = one_loop_event(loop, OMNI_EVENT_CLOSED, UINT64_MAX);
    receive(fd, "hello");
    IS(receive_end(fd), 0);
    IS(event.ready, 0);
    IS(event.length, 0);
    IS(omni_conn_write(conn, "x", 1), -ESTALE);
    IS(omni_conn_queued(conn), -ESTALE);
    close(fd);
    omni_loop_free(loop);
}

/* Each frame is an event, and so is a connection's timer. */
static void frames_and_a_timer(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    size_t size = 0;
    const uint8_t *buffer = buffer_of(loop, &size);
    int fd, port = loop_listen(loop, NULL, 7);
    omni_conn *conn = accepted(loop, port, &fd);
    IS(omni_conn_set_frame_until(conn, "\n", 1, size + 1), -EINVAL);
    IS(omni_conn_set_frame_until(conn, "\n", 1, size), 0);
    send_text(fd, "one\ntwo\nrest");
    omni_loop_event events[8];
    int64_t began = now_ns();
    int count = omni_loop_wait(loop, events, 8, 1000 * MS);
    for (int i = 0; i < 2; i++) {
        OK(i < count);
        IS(events[i].kind, OMNI_EVENT_DATA);
        IS(events[i].length, 4);
        OK(memcmp(buffer + events[i].offset, i ? "two\n" : "one\n", 4) == 0);
    }
    IS(count, 2);
    IS(omni_conn_set_timer(conn, 5 * MS), 0);
    omni_loop_event event = one_loop_event(loop, OMNI_EVENT_CONN_TIMER, 7);
    OK(conn_of(&event) == conn);
    OK(now_ns() - began >= 5 * MS);
    close(fd);
    omni_loop_free(loop);
}

/* Every function of a connection's acts at once in the thread of the loop. */
static void everything_at_once(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    int fd, port = loop_listen(loop, NULL, 7);
    omni_conn *conn = accepted(loop, port, &fd);
    char text[64];
    struct iovec pieces[2] = {{"wri", 3}, {"tev", 3}};
    OK(omni_conn_loop(conn) == loop);
    OK(omni_conn_context(conn) == NULL);
    IS(omni_conn_set_context(conn, text), 0);
    OK(omni_conn_context(conn) == text);
    OK(omni_conn_peer(conn, text, sizeof text) > 0);
    OK(strncmp(text, "127.0.0.1:", 10) == 0);
    OK(omni_conn_local(conn, text, sizeof text) > 0);
    IS(atoi(strrchr(text, ':') + 1), port);
    IS(omni_conn_queued(conn), 0);
    OK(omni_conn_fd(conn) > 0);
    IS(omni_conn_worker(conn), 0);
    IS(omni_conn_stopping(conn), 0);
    IS(omni_conn_set_idle_timeout(conn, 1000 * SECOND), 0);
    IS(omni_conn_set_read_timeout(conn, 1000 * SECOND), 0);
    IS(omni_conn_set_write_timeout(conn, 1000 * SECOND), 0);
    IS(omni_conn_pause(conn), 0);
    send_text(fd, "unread");
    omni_loop_event event;
    IS(omni_loop_wait(loop, &event, 1, 20 * MS), 0);
    IS(omni_conn_resume(conn), 0);
    IS(one_loop_event(loop, OMNI_EVENT_DATA, 7).length, 6);
    OK(omni_conn_writev(conn, pieces, 2) >= 0);
    IS(omni_conn_shutdown(conn), 0);
    IS(omni_conn_write(conn, "x", 1), -EPIPE);
    IS(omni_loop_wait(loop, &event, 1, LOOK), 0);
    receive(fd, "writev");
    IS(receive_end(fd), 0);
    IS(omni_conn_abort(conn), 0);
    event = one_loop_event(loop, OMNI_EVENT_CLOSED, 7);
    IS(event.ready, ECONNABORTED);
    close(fd);
    omni_loop_free(loop);
}

static void why_it_ended(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const uint8_t *buffer = buffer_of(loop, NULL);
    int fd, port = loop_listen(loop, NULL, 7);
    accepted(loop, port, &fd);
    reset(fd);
    omni_loop_event event = one_loop_event(loop, OMNI_EVENT_CLOSED, 7);
    IS(event.ready, ECONNRESET);
    OK(event.length > 0);
    OK(memchr(buffer + event.offset, 'r', event.length)); /* "Connection reset by peer" */
    omni_loop_free(loop);
}

/* ---- Many connections ------------------------------------------------------------------------ */

struct clients {
    int port;
    _Atomic int done;
    omni_loop *loop;
};

/* A hundred clients, each of which is answered before it sends again. */
static void *be_clients(void *argument)
{
    struct clients *clients = argument;
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = connect_to(clients->port);
    for (int round = 0; round < ROUNDS; round++) {
        char text[32];
        for (int i = 0; i < CLIENTS; i++) {
            snprintf(text, sizeof text, "%d of %d", round, i);
            send_text(fds[i], text);
        }
        for (int i = 0; i < CLIENTS; i++) {
            snprintf(text, sizeof text, "%d of %d", round, i);
            receive(fds[i], text);
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        shutdown(fds[i], SHUT_WR);
        IS(receive_end(fds[i]), 0);
        close(fds[i]);
    }
    IS(omni_loop_stop(clients->loop, -1), 0);
    return NULL;
}

/* Echoes by one call of omni_loop_write for each wait, or by one of omni_conn_write for each message. */
static void echo_pulled(uint32_t engine, int batched)
{
    struct clients clients = {.loop = new_loop(engine, NULL)};
    const uint8_t *buffer = buffer_of(clients.loop, NULL);
    omni_loop_event events[ROOM];
    omni_write writes[ROOM];
    pthread_t thread;
    int count, came = 0, gone = 0;
    clients.port = loop_listen(clients.loop, NULL, 7);
    IS(pthread_create(&thread, NULL, be_clients, &clients), 0);
    while ((count = omni_loop_wait(clients.loop, events, ROOM, FOREVER)) > 0) {
        uint32_t written = 0;
        for (int i = 0; i < count; i++) {
            const omni_loop_event *event = &events[i];
            came += event->kind == OMNI_EVENT_ACCEPTED;
            gone += event->kind == OMNI_EVENT_CLOSED;
            if (event->kind == OMNI_EVENT_ENDED)
                IS(omni_conn_close(conn_of(event)), 0);
            if (event->kind == OMNI_EVENT_DATA && batched)
                writes[written++] = (omni_write){conn_of(event), buffer + event->offset, event->length, 1, 0};
            else if (event->kind == OMNI_EVENT_DATA)
                OK(omni_conn_write(conn_of(event), buffer + event->offset, event->length) >= 0);
        }
        IS(omni_loop_write(clients.loop, writes, written), written);
        for (uint32_t i = 0; i < written; i++)
            OK(writes[i].result >= 0);
    }
    IS(count, 0);
    IS(came, CLIENTS);
    IS(gone, CLIENTS);
    IS(pthread_join(thread, NULL), 0);
    omni_loop_free(clients.loop);
}

static void echo_to_a_hundred(uint32_t engine)
{
    echo_pulled(engine, 0);
}

static void echo_in_batches(uint32_t engine)
{
    echo_pulled(engine, 1);
}

static void bad_batches(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    int fd, port = loop_listen(loop, NULL, 7);
    omni_conn *conn = accepted(loop, port, &fd);
    omni_write writes[4] = {{conn, "one", 3, 1, 0}, {NULL, "two", 3, 1, 0}, {conn, NULL, 1, 1, 0}, {conn, "four", 4, 1, 0}};
    IS(omni_loop_write(loop, NULL, 1), -EINVAL);
    IS(omni_loop_write(loop, NULL, 0), 0);
    IS(omni_loop_write(loop, writes, 4), 2);
    OK(writes[0].result >= 0);
    IS(writes[1].result, -ESTALE);
    IS(writes[2].result, -EINVAL);
    OK(writes[3].result >= 0);
    omni_loop_event event;
    IS(omni_loop_wait(loop, &event, 1, LOOK), 0);
    receive(fd, "onefour");
    close(fd);
    omni_loop_free(loop);
}

/* What one client sends is returned whole and in order, however small the array and the buffer are. */
static void *send_much(void *argument)
{
    static char large[LARGE];
    int fd = *(int *)argument;
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i % 251);
    for (size_t at = 0; at < sizeof large;) {
        ssize_t sent = send(fd, large + at, sizeof large - at, MSG_NOSIGNAL);
        OK(sent > 0);
        at += (size_t)sent;
    }
    shutdown(fd, SHUT_WR);
    return NULL;
}

static void more_than_the_buffer(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const uint8_t *buffer = buffer_of(loop, NULL);
    int port = loop_listen(loop, NULL, 7);
    int fd = connect_to(port);
    pthread_t thread;
    IS(pthread_create(&thread, NULL, send_much, &fd), 0);
    size_t got = 0;
    for (int ended = 0; !ended;) {
        omni_loop_event event;
        IS(omni_loop_wait(loop, &event, 1, FOREVER), 1);
        ended = event.kind == OMNI_EVENT_ENDED;
        for (uint32_t i = 0; event.kind == OMNI_EVENT_DATA && i < event.length; i++, got++)
            if (buffer[event.offset + i] != (uint8_t)(got % 251))
                IS(got, -1);
    }
    IS(got, LARGE);
    IS(pthread_join(thread, NULL), 0);
    close(fd);
    omni_loop_free(loop);
}

/* Several at once, for which there is not always room: the end of each comes after all of its bytes. */
static void the_end_comes_last(uint32_t engine)
{
    enum { MANY = 6 };
    static char large[400000];
    omni_loop *loop = new_loop(engine, NULL);
    int fds[MANY], port = loop_listen(loop, NULL, 7), ended = 0;
    size_t counts[MANY] = {0};
    omni_loop_event event;
    for (int i = 0; i < MANY; i++) {
        omni_conn *conn = accepted(loop, port, &fds[i]);
        IS(omni_conn_set_token(conn, (uint64_t)i), 0);
        unblock(fds[i]);
    }
    size_t sent[MANY];
    for (int i = 0; i < MANY; i++) { /* as much as the kernel keeps */
        ssize_t count = send(fds[i], large, sizeof large, MSG_NOSIGNAL);
        OK(count > 0);
        sent[i] = (size_t)count;
        shutdown(fds[i], SHUT_WR);
    }
    while (ended < MANY) {
        IS(omni_loop_wait(loop, &event, 1, FOREVER), 1);
        if (event.kind == OMNI_EVENT_DATA)
            counts[event.token] += event.length;
        else if (event.kind == OMNI_EVENT_ENDED) {
            IS(counts[event.token], sent[event.token]);
            ended++;
        }
    }
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    omni_loop_free(loop);
}

static void back_pressure(uint32_t engine)
{
    static char large[LARGE];
    omni_loop *loop = new_loop(engine, NULL);
    int fd, port = loop_listen(loop, NULL, 7);
    omni_conn *conn = accepted(loop, port, &fd);
    int queued;
    while ((queued = omni_conn_write(conn, large, sizeof large)) >= 0 && queued < 1 << 20)
        ;
    OK(queued > 0);
    IS(omni_conn_queued(conn), queued);
    /* The peer reads in a thread of its own, while the loop sends. */
    omni_loop_event event;
    IS(omni_loop_wait(loop, &event, 1, LOOK), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char bytes[65536];
        ssize_t count;
        while ((count = recv(fd, bytes, sizeof bytes, 0)) > 0)
            ;
        _exit(0);
    }
    one_loop_event(loop, OMNI_EVENT_DRAINED, 7);
    IS(omni_conn_close(conn), 0);
    shutdown(fd, SHUT_WR);
    one_loop_event(loop, OMNI_EVENT_CLOSED, 7);
    reap(pid);
    close(fd);
    omni_loop_free(loop);
}

static const struct behaviour behaviours[] = {
    {"one_connection", one_connection},
    {"everything_at_once", everything_at_once},
    {"frames_and_a_timer", frames_and_a_timer},
    {"why_it_ended", why_it_ended},
    {"echo_to_a_hundred", echo_to_a_hundred},
    {"echo_in_batches", echo_in_batches},
    {"bad_batches", bad_batches},
    {"more_than_the_buffer", more_than_the_buffer},
    {"the_end_comes_last", the_end_comes_last},
    {"back_pressure", back_pressure},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
