/*
 * resolve.c: many names looked up at once, by c-ares on a loop (ares_adapter.h). Prints a line for each: the
 * name, then its first address or why there is none.
 *
 * Build:  cc -std=c11 -O2 -o resolve resolve.c $(pkg-config --cflags --libs omnipoll libcares)
 * Run:    ./resolve [--engine select|poll|epoll|io_uring] [--server ADDRESS:PORT[,...]] [--timeout MS] NAME...
 */
#define _GNU_SOURCE /* getopt_long */
#include "ares_adapter.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

static omni_loop *loop;
static int waiting, failed;

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "resolve: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

static void on_host(void *name, int status, int timeouts, struct hostent *host)
{
    char text[INET6_ADDRSTRLEN];
    (void)timeouts;
    if (status == ARES_SUCCESS)
        printf("%s %s\n", (char *)name, inet_ntop(host->h_addrtype, host->h_addr_list[0], text, sizeof text));
    else
        printf("%s: %s\n", (char *)name, ares_strerror(status));
    failed += status != ARES_SUCCESS;
    if (--waiting == 0)
        omni_loop_stop(loop, 0);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"engine", 1, NULL, 'e'}, {"server", 1, NULL, 's'}, {"timeout", 1, NULL, 't'}, {0}};
    omni_loop_options options = {.size = sizeof options};
    struct ares_options ares = {.timeout = 5000, .tries = 2, .lookups = (char[]){"b"} /* DNS alone */};
    const char *server = NULL;
    struct ares_adapter adapter;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'e': options.engine = (uint32_t)omni_engine_by_name(optarg); break;
        case 's': server = optarg; break;
        case 't': ares.timeout = atoi(optarg); break;
        default: return EXIT_FAILURE;
        }
    must(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS, "ares_library_init");
    must(omni_loop_new(&options, &adapter_handler, &loop) == 0, omni_last_error());
    must(ares_adapter_init(&adapter, loop, &ares, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS) == ARES_SUCCESS,
         "ares_init_options");
    if (server != NULL)
        must(ares_set_servers_ports_csv(adapter.channel, server) == ARES_SUCCESS, "no such server");
    must(argc > optind, "no name");
    waiting = argc - optind;
    for (int i = optind; i < argc; i++)
        ares_gethostbyname(adapter.channel, argv[i], AF_INET, on_host, argv[i]);
    ares_adapter_update(&adapter);
    must(omni_loop_run(loop) == 0, omni_last_error());
    ares_destroy(adapter.channel);
    must(adapter.base.error == 0, omni_strerror(adapter.base.error));
    omni_loop_free(loop);
    ares_library_cleanup();
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
