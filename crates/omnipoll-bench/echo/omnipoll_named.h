/* What the servers on omnipoll have in common: its errors in words, its engines by their names. */
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

#endif
