/* What the programs on omnipoll have in common: its errors in words, its engines by their names, its servers. */
#ifndef OMNIPOLL_NAMED_H
#define OMNIPOLL_NAMED_H

#include <omnipoll.h>

static inline void ours(int result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "%s: %s\n", what, omni_last_error());
        exit(1);
    }
}

static inline uint32_t engine_named(const char *name) {
    for (uint32_t engine = 0; omni_engine_name(engine) != NULL; engine++)
        if (strcmp(omni_engine_name(engine), name) == 0)
            return engine;
    fprintf(stderr, "no such engine: %s\n", name);
    exit(1);
}

/* Which of the wait policies has this name; all of them wait or look for 100 us. */
static inline uint32_t policy_named(const char *name) {
    static const char *const names[] = {"balanced", "latency", "thrifty"};
    for (uint32_t policy = OMNI_WAIT_BALANCED; policy <= OMNI_WAIT_THRIFTY; policy++)
        if (strcmp(names[policy], name) == 0)
            return policy;
    fprintf(stderr, "no such wait policy: %s\n", name);
    exit(1);
}

/* Serves on a free port of the loopback device, which it prints: on one loop, or by so many processes. Ends with
 * its standard input. */
static inline void run_server(const char *engine, uint32_t processes, const char *policy,
                              const omni_handler *handler) {
    omni_server *server;
    char address[64];
    const omni_server_options options = {
        .size = sizeof options,
        .model = processes > 0 ? OMNI_MODEL_PREFORK : OMNI_MODEL_REACTOR,
        .engine = engine_named(engine),
        .workers = processes,
        .wait_policy = policy_named(policy),
        .wait_ns = strcmp(policy, "balanced") == 0 ? 0 : 100000,
    };
    end_with_stdin();
    raise_descriptor_limit();
    ours(omni_server_new(&options, handler, &server), "omni_server_new");
    ours(omni_server_listen(server, "127.0.0.1:0"), "omni_server_listen");
    ours(omni_server_address(server, address, sizeof address), "omni_server_address");
    tell_port(atoi(strrchr(address, ':') + 1));
    ours(omni_server_run(server), "omni_server_run");
}

#endif
