/* One library's timers: what timers.c compares. */
#ifndef TIMERS_H
#define TIMERS_H

#include "measure.h"

/* Timers are numbered: those that stay armed from 0, those of a turn from MOST. */
enum { BATCH = 1000, MOST = 1000000 };

/* How many have expired. */
extern int expired;

struct timers {
    const char *name;
    void (*open)(void);
    void (*arm)(int timer, int64_t nanoseconds);
    void (*cancel)(int timer);
    /* Runs what is due, without waiting. */
    void (*run)(void);
};

/* NULL where the library is missing. */
extern const struct timers omnipoll;
extern const struct timers libuv __attribute__((weak)), libevent __attribute__((weak)),
    libev __attribute__((weak));

#endif
