/* Broadcasts of a program's own loop, checked through the public header on every engine.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

enum { CLIENTS = 3 };

static omni_loop *loop;
static int clients[CLIENTS];
static omni_conn *conns[CLIENTS];

static void begin(uint32_t engine)
{
    loop = new_loop(engine, NULL);
    int port = loop_listen(loop, NULL, 7);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_to(port);
        omni_loop_event accepted = one_loop_event(loop, OMNI_EVENT_ACCEPTED, 7);
        conns[i] = conn_of(&accepted);
    }
}

static void end(void)
{
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    omni_loop_free(loop);
    IS(omni_loop_broadcast(loop, "nobody", 6), -ESTALE);
}

static void *read_clients(void *expected)
{
    for (int i = 0; i < CLIENTS; i++)
        receive(clients[i], ((const char **)expected)[i]);
    IS(omni_poller_post(omni_loop_poller(loop), 1, 1), 0);
    return NULL;
}

/* Runs the loop until each client has received this. */
static void expect(const char *first, const char *second, const char *third)
{
    const char *expected[CLIENTS] = {first, second, third};
    omni_loop_event event;
    pthread_t reader;
    IS(pthread_create(&reader, NULL, read_clients, expected), 0);
    do
        IS(omni_loop_wait(loop, &event, 1, FOREVER), 1);
    while (event.kind != OMNI_EVENT_POST);
    IS(pthread_join(reader, NULL), 0);
}

static void *broadcast_elsewhere(void *argument)
{
    IS(omni_loop_broadcast(argument, "all", 3), CLIENTS);
    IS(omni_loop_broadcast_except(argument, "one", 3, conns[0]), CLIENTS - 1);
    IS(omni_loop_broadcast_except(argument, ".", 1, NULL), CLIENTS);
    return NULL;
}

static void all_or_all_but_one(uint32_t engine)
{
    begin(engine);
    elsewhere(broadcast_elsewhere, loop);
    expect("all.", "allone.", "allone.");
    end();
}

static void a_group(uint32_t engine)
{
    begin(engine);
    IS(omni_loop_broadcast_group(loop, "a", "nobody", 6, NULL), 0);
    IS(omni_conn_join(conns[0], "a"), 0);
    IS(omni_conn_join(conns[1], "a"), 0);
    IS(omni_loop_broadcast_group(loop, "a", "group", 5, NULL), 2);
    IS(omni_loop_broadcast_group(loop, "a", " but", 4, conns[0]), 1);
    IS(omni_conn_leave(conns[1], "a"), 0);
    IS(omni_loop_broadcast_group(loop, "a", "!", 1, NULL), 1);
    IS(omni_loop_broadcast_group(loop, "", "x", 1, NULL), -EINVAL);
    IS(omni_loop_broadcast(loop, ".", 1), CLIENTS);
    expect("group!.", "group but.", ".");
    end();
}

static const struct behaviour behaviours[] = {
    {"a broadcast reaches all, or all but one", all_or_all_but_one},
    {"a broadcast reaches a group", a_group},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
