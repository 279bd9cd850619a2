/* Where loops by handler listen, checked through the public header on every engine: addresses, the handler
 * and the token that each was given, and what a callback of the running loop listens on.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

/* The loop of the present check. */
static omni_loop *loop;

static void addresses(uint32_t engine)
{
    const omni_handler handler = {.size = sizeof handler};
    char text[256], some[10];
    loop = new_loop(engine, &handler);
    int port = loop_listen(loop, NULL, 7);
    IS(omni_loop_listen(loop, NULL, NULL, 0), -EINVAL);
    IS(omni_loop_listen(loop, "nonsense", NULL, 0), -EINVAL);
    OK(strstr(omni_last_error(), "omni_loop_listen: \"nonsense\""));
    snprintf(some, sizeof some, "x");
    snprintf(text, sizeof text, "127.0.0.1:%d", port);
    IS(omni_loop_listen(loop, text, &handler, 0), -EADDRINUSE);
    IS(omni_loop_listen(loop, "unix:@omnipoll loop", &handler, 0), 0);
    int length = omni_loop_address(loop, text, sizeof text);
    IS(length, strlen(text));
    OK(strstr(text, " unix:@omnipoll loop"));
    IS(omni_loop_address(loop, some, sizeof some), length);
    IS(strlen(some), 9);
    IS(omni_loop_address(loop, NULL, 1), -EINVAL);
    omni_loop_free(loop);
}

/* ---- Two handlers ---------------------------------------------------------------------------- */

struct one {
    char name;
    int opened, data, closed;
};

static int open_one(omni_conn *conn, void *context)
{
    struct one *one = context;
    one->opened++;
    IS(omni_conn_token(conn), one->name);
    IS(omni_conn_set_token(conn, 100), 0);
    IS(omni_conn_is_outgoing(conn), 0);
    OK(omni_conn_loop(conn) == loop);
    return 0;
}

static void data_of_one(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    struct one *one = context;
    OK(data && length);
    one->data++;
    IS(omni_conn_token(conn), 100);
    OK(omni_conn_write(conn, &one->name, 1) >= 0);
}

static void close_one(omni_conn *conn, int error, void *context)
{
    struct one *one = context;
    OK(conn);
    IS(error, 0);
    one->closed++;
}

static void two_handlers(uint32_t engine)
{
    struct one a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};
    omni_handler handler = {.size = sizeof handler, .context = &c, .on_open = open_one,
                            .on_data = data_of_one, .on_close = close_one};
    loop = new_loop(engine, &handler);
    struct one *all[] = {&a, &b, &c};
    int fds[6];
    for (int i = 0; i < 3; i++) {
        omni_handler own = handler;
        own.context = all[i];
        int where = loop_listen(loop, all[i] == &c ? NULL : &own, (uint64_t)all[i]->name);
        memset(&own, 0xff, sizeof own); /* it is copied */
        fds[2 * i] = connect_to(where);
        fds[2 * i + 1] = connect_to(where);
    }
    for (int i = 0; i < 6; i++)
        send_text(fds[i], "x");
    RUN_UNTIL(a.data == 2 && b.data == 2 && c.data == 2);
    IS(omni_loop_run_once(loop, LOOK), 1);
    for (int i = 0; i < 6; i++) {
        char name[2] = {all[i / 2]->name, 0};
        receive(fds[i], name);
        close(fds[i]);
    }
    RUN_UNTIL(a.closed == 2 && b.closed == 2 && c.closed == 2);
    OK(a.opened == 2 && b.opened == 2 && c.opened == 2);
    omni_loop_free(loop);
}

/* ---- In a callback ---------------------------------------------------------------------------- */

/* A client's message is where the loop listens from then on, for what it names itself. */
static void listen_more(omni_conn *conn, const uint8_t *data, size_t length, void *context)
{
    const struct one *one = context;
    char address[64], text[256];
    omni_handler other = {.size = sizeof other, .context = context, .on_open = open_one,
                          .on_data = data_of_one, .on_close = close_one};
    snprintf(address, sizeof address, "%.*s", (int)length, (const char *)data);
    IS(omni_loop_listen(loop, "nonsense", &other, 0), -EINVAL);
    IS(omni_loop_listen(loop, address, &other, (uint64_t)one->name), 0);
    OK(omni_loop_address(loop, text, sizeof text) > 0);
    const char *last = strrchr(text, ' ');
    OK(last && omni_conn_write(conn, last + 1, strlen(last + 1)) >= 0);
}

static void in_a_callback(uint32_t engine)
{
    struct one one = {.name = 'x'};
    const omni_handler handler = {.size = sizeof handler, .context = &one, .on_data = listen_more};
    loop = new_loop(engine, &handler);
    int fd = connect_to(loop_listen(loop, NULL, 7)), other[2];
    for (int i = 0; i < 2; i++) {
        char answer[64] = "";
        send_text(fd, "127.0.0.1:0");
        while (recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT | MSG_PEEK) <= 0)
            IS(omni_loop_run_once(loop, LOOK), 1);
        OK(recv(fd, answer, sizeof answer - 1, 0) > 0);
        other[i] = connect_to(atoi(strrchr(answer, ':') + 1));
        send_text(other[i], "x");
        RUN_UNTIL(one.data == i + 1);
        IS(omni_loop_run_once(loop, LOOK), 1);
        receive(other[i], "x");
    }
    close(other[0]);
    close(other[1]);
    RUN_UNTIL(one.closed == 2);
    IS(one.opened, 2);
    close(fd);
    omni_loop_free(loop);
}

/* ---- Datagrams ------------------------------------------------------------------------------- */

static struct {
    omni_loop *loop;
    omni_datagram_socket *asked;
    int questions, answers, refusals;
} udp;

static void answer_it(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    OK(context == &udp.questions);
    udp.questions++;
    IS(omni_datagram_reply(datagram, data, length), 0);
}

/* Of the loop's own handler: the answer. The next question is to nobody. */
static void ask_nobody(omni_datagram *datagram, const uint8_t *data, size_t length, void *context)
{
    OK(context == &udp && omni_datagram_receiver(datagram) == udp.asked);
    IS(length, 3);
    OK(memcmp(data, "ask", 3) == 0);
    udp.answers++;
    int port, nobody = bound(SOCK_DGRAM, &port);
    char address[32];
    close(nobody);
    snprintf(address, sizeof address, "udp:127.0.0.1:%d", port);
    IS(omni_datagram_socket_close(udp.asked), 0);
    IS(omni_loop_connect_datagrams(udp.loop, address, 0, &udp.asked), 0);
    IS(omni_datagram_socket_send(udp.asked, "ask", 3), 0);
}

static void stop_when_refused(omni_datagram_socket *socket, int error, void *context)
{
    OK(context == &udp && socket == udp.asked);
    IS(error, -ECONNREFUSED);
    udp.refusals++;
    IS(omni_loop_stop(udp.loop, 0), 0);
}

/* What a listener was passed is for what comes there, and the loop's own handler for the rest. */
static void datagrams(uint32_t engine)
{
    const omni_handler own = {.size = sizeof own,
                              .context = &udp,
                              .on_datagram = ask_nobody,
                              .on_datagram_error = stop_when_refused};
    const omni_handler other = {.size = sizeof other, .context = &udp.questions, .on_datagram = answer_it};
    char address[64];
    memset(&udp, 0, sizeof udp);
    udp.loop = new_loop(engine, &own);
    IS(omni_loop_listen(udp.loop, "udp:127.0.0.1:0", &other, 5), 0);
    OK(omni_loop_address(udp.loop, address, sizeof address) > 0);
    /* As many tokens as there are listeners. */
    IS(omni_loop_connect_datagrams(udp.loop, address, 0, &udp.asked), 0);
    IS(omni_datagram_socket_send(udp.asked, "ask", 3), 0);
    IS(omni_loop_run(udp.loop), 0);
    IS(udp.questions, 1);
    IS(udp.answers, 1);
    IS(udp.refusals, 1);
    IS(omni_loop_connect_datagrams(udp.loop, address, 0, NULL), -ESTALE);
    omni_loop_free(udp.loop);
}

static const struct behaviour behaviours[] = {
    {"addresses", addresses},
    {"each listener has its handler and its token", two_handlers},
    {"a callback listens", in_a_callback},
    {"datagrams come to the handler of their listener, or of the loop", datagrams},
};

int main(void)
{
    share_what_is_seen();
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
