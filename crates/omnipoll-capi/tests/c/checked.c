/* A server that runs in the main thread and its clients in another: for valgrind, which must find
 * nothing with the suppressions that are installed. */
#include "serving.h"

static void *be_clients(void *server)
{
    for (int i = 0; i < 4; i++) {
        int fd = client();
        send_text(fd, "hello");
        receive(fd, "hello");
        close(fd);
    }
    IS(omni_server_stop(server, 10 * SECOND), 0);
    return NULL;
}

int main(void)
{
    /* epoll: valgrind 3.19 lets nothing else run while a thread is in io_uring_enter. */
    omni_server_options options = {.size = sizeof options,
                                   .engine = OMNI_ENGINE_EPOLL,
                                   .model = OMNI_MODEL_CORES,
                                   .workers = 2};
    omni_handler handler = noting(echo);
    omni_poller *poller = new_poller(OMNI_ENGINE_EPOLL);
    pthread_t clients;
    alarm(300);
    share_what_is_seen();
    IS(omni_poller_add(poller, -1, OMNI_READ, 0), -EBADF);
    omni_server *server = new_server(&options, &handler);
    seen->port = listen_somewhere(server);
    IS(pthread_create(&clients, NULL, be_clients, server), 0);
    IS(omni_server_run(server), 0);
    IS(pthread_join(clients, NULL), 0);
    IS(seen->closed, 4);
    omni_server_free(server);
    omni_poller_free(poller);
    printf("checked\n");
    return 0;
}
