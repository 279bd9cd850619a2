/* What connections send and receive, checked through the public header on every engine: writes of
 * every kind and from every thread, limits, the peer's end, pauses and posts.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "serving.h"

enum { LARGE = 4 << 20 };

static char large[LARGE];

/* ---- Writing --------------------------------------------------------------------------------- */

static void write_pieces(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    char one[] = "one ", two[] = "two ", three[] = "three";
    struct iovec pieces[] = {{one, 4}, {NULL, 0}, {two, 4}, {three, 5}}, bad = {NULL, 1};
    int file = memfd_create("file", MFD_CLOEXEC);
    OK(data && length && context == &seen);
    OK(omni_conn_writev(conn, pieces, 4) >= 0);
    OK(omni_conn_writev(conn, NULL, 0) >= 0);
    IS(omni_conn_writev(conn, NULL, 1), -EINVAL);
    IS(omni_conn_writev(conn, &bad, 1), -EINVAL);
    IS(write(file, large, LARGE), LARGE);
    IS(omni_conn_send_file(conn, -1, 0, 1), -EBADF);
    IS(omni_conn_send_file(conn, closed_descriptor(), 0, 1), -EBADF);
    IS(omni_conn_send_file(conn, file, UINT64_MAX, 1), -EINVAL);
    IS(omni_conn_send_file(conn, file, INT64_MAX, 1), -EINVAL);
    IS(omni_conn_send_file(conn, file, 1, LARGE - 2), 0);
    close(file);
    OK(omni_conn_write(conn, "end", 3) >= 0);
    IS(omni_conn_shutdown(conn), 0);
    IS(omni_conn_write(conn, "late", 4), -EPIPE);
    IS(omni_conn_writev(conn, pieces, 3), -EPIPE);
    IS(omni_conn_send_file(conn, 0, 0, 1), -EPIPE);
}

static void writes_of_every_kind(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        serve(&service, engine, model, noting(write_pieces));
        int fd = client();
        send_text(fd, "go");
        receive(fd, "one two three");
        hear_bytes(fd, large + 1, LARGE - 2);
        receive(fd, "end");
        IS(receive_end(fd), 0);
        IS(seen->closed, 0);
        close(fd);
        UNTIL(seen->closed == 1);
        IS(seen->error, 0);
        finish(&service);
    }
}

static void overfill(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    int queued = 0, more;
    OK(data && length && context == &seen);
    while ((more = omni_conn_write(conn, large, 65536)) >= 0)
        queued = more;
    IS(more, -ENOBUFS);
    OK(queued > 0 && queued <= 1 << 20);
    IS(omni_conn_queued(conn), queued);
    IS(omni_conn_write(conn, large, LARGE), -ENOBUFS);
    IS(omni_conn_queued(conn), queued);
    struct iovec piece = {large, LARGE};
    IS(omni_conn_writev(conn, &piece, 1), -ENOBUFS);
    seen->value = queued;
}

static void limits(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        char received[65536];
        serve_with(&service, engine, model, noting(overfill),
                   (omni_server_options){.queue_limit = 1 << 20, .high_water = 65536, .low_water = 1024});
        int fd = client();
        send_text(fd, "go");
        UNTIL(seen->value);
        if (service.server)
            IS(omni_conn_write(seen->conn, large, LARGE), -ENOBUFS);
        IS(seen->drained, 0);
        /* All may have been read by the time it is called. */
        UNTIL(recv(fd, received, sizeof received, MSG_DONTWAIT) == 0 || seen->drained);
        IS(seen->drained, 1);
        IS(shutdown(fd, SHUT_WR), 0);
        while (recv(fd, received, sizeof received, 0) > 0)
            ;
        close(fd);
        finish(&service);
        IS(seen->error, 0);
        IS(seen->closed, 1);
    }
}

struct writer {
    pthread_t thread;
    uint64_t id;
    char name;
};

static void *write_lines(void *argument)
{
    struct writer *writer = argument;
    char line[8];
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof line, "%c %03d\n", writer->name, i);
        OK(omni_conn_write(by_id(writer->id), line, 6) >= 0);
    }
    return NULL;
}

static void writes_from_threads(uint32_t engine)
{
    enum { WRITERS = 4 };
    for (MODELS_HERE(model)) {
        struct service service;
        struct writer writers[WRITERS];
        int next[WRITERS] = {0};
        char line[8] = "";
        serve(&service, engine, model, noting(echo));
        int fd = client();
        UNTIL(seen->opened == 1);
        for (int i = 0; i < WRITERS; i++) {
            writers[i] = (struct writer){.id = omni_conn_id(seen->conn), .name = (char)('a' + i)};
            IS(pthread_create(&writers[i].thread, NULL, write_lines, &writers[i]), 0);
        }
        for (int i = 0; i < WRITERS * 1000; i++) {
            read_whole(fd, line, 6);
            OK(line[0] >= 'a' && line[0] < 'a' + WRITERS);
            IS(atoi(line + 2), next[line[0] - 'a']++);
        }
        for (int i = 0; i < WRITERS; i++)
            IS(pthread_join(writers[i].thread, NULL), 0);
        close(fd);
        finish(&service);
    }
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void answer_until_end(omni_conn *conn, void *context)
{
    OK(context == &seen);
    seen->ended++;
    OK(omni_conn_write(conn, "after the end", 13) >= 0);
    IS(omni_conn_close(conn), 0);
    IS(omni_conn_close(conn), 0);
    IS(omni_conn_write(conn, "late", 4), -EPIPE);
}

static void half_closed(uint32_t engine)
{
    for (EVERY_MODEL(model)) {
        struct service service;
        omni_handler handler = noting(echo);
        handler.on_end = answer_until_end;
        serve(&service, engine, model, handler);
        int fd = client();
        send_text(fd, "hello");
        IS(shutdown(fd, SHUT_WR), 0);
        receive(fd, "helloafter the end");
        IS(receive_end(fd), 0);
        close(fd);
        finish(&service);
        IS(seen->ended, 1);
        IS(seen->closed, 1);
        IS(seen->error, 0);
    }
}

static void pause_it(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    echo(conn, data, length, context);
    IS(omni_conn_pause(conn), 0);
    IS(omni_conn_post(conn, INT64_MIN), 0);
}

static void resume_it(omni_conn *conn, int64_t value, void *context)
{
    note_post(conn, value, context);
    if (value == 42)
        IS(omni_conn_resume(conn), 0);
}

static void paused_and_posted(uint32_t engine)
{
    for (MODELS_HERE(model)) {
        struct service service;
        omni_handler handler = noting(pause_it);
        handler.on_post = resume_it;
        serve(&service, engine, model, handler);
        int fd = client();
        send_text(fd, "one");
        receive(fd, "one");
        UNTIL(seen->posted == 1);
        IS(seen->value, INT64_MIN);
        send_text(fd, "two");
        /* The post is behind the pause, and what the loop does for it behind the data. */
        IS(omni_conn_post(seen->conn, 1), 0);
        UNTIL(seen->posted == 2);
        IS(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0), 0);
        IS(omni_conn_post(by_id(omni_conn_id(seen->conn)), 42), 0);
        receive(fd, "two");
        UNTIL(seen->posted == 4);
        send_text(fd, "three");
        IS(omni_conn_resume(seen->conn), 0);
        receive(fd, "three");
        IS(omni_conn_resume(seen->conn), 0);
        close(fd);
        UNTIL(seen->closed == 1);
        finish(&service);
    }
}

static const struct behaviour behaviours[] = {
    {"writes of every kind arrive in order", writes_of_every_kind},
    {"what can't be queued is refused whole", limits},
    {"threads write to a connection", writes_from_threads},
    {"a handler continues after the peer's end", half_closed},
    {"a connection is paused, resumed and posted to", paused_and_posted},
};

int main(void)
{
    share_what_is_seen();
    for (size_t i = 0; i < LARGE; i++)
        large[i] = (char)(i * 31 + (i >> 8));
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
