/* What a timer costs, by several libraries that take turns in one process.
 *
 *   timers ARMED MILLISECONDS
 *       With so many others armed: the time to arm one, to cancel one, and to get one that is
 *       due. "again" cancels one of the others, chosen at random, and arms another in its place.
 *       Prints a line of JSON for each library, with one value for each turn.
 */
#include "timers.h"

enum { FIGURES = 4, MAX_CONTENDERS = 4 };

int expired;
static const struct timers *contenders[MAX_CONTENDERS];
static int contestants;

static void enter_all(void) {
    const struct timers *const all[] = {&omnipoll, &libuv, &libevent, &libev};
    for (int i = 0; i < MAX_CONTENDERS; i++)
        if (all[i] != NULL)
            contenders[contestants++] = all[i];
}

/* Between 10 and 1,000 seconds: longer than the measurement. */
static int64_t long_delay(void) {
    return 10000000000 + (int64_t)drawn(990000000000);
}

static void take_turn(const struct timers *timers, int armed, double figures[FIGURES]) {
    static int64_t delays[BATCH];
    static int order[BATCH];
    for (int i = 0; i < BATCH; i++) {
        delays[i] = long_delay();
        int other = (int)drawn((uint64_t)i + 1);
        order[i] = order[other];
        order[other] = MOST + i;
    }
    double begin = now();
    for (int i = 0; i < BATCH; i++)
        timers->arm(MOST + i, delays[i]);
    figures[0] = now() - begin;
    begin = now();
    for (int i = 0; i < BATCH; i++)
        timers->cancel(order[i]);
    figures[1] = now() - begin;

    for (int i = 0; i < BATCH; i++)
        order[i] = (int)drawn((uint64_t)armed);
    begin = now();
    for (int i = 0; i < BATCH; i++) {
        timers->cancel(order[i]);
        timers->arm(order[i], delays[i]);
    }
    figures[2] = now() - begin;

    begin = now();
    for (int i = 0; i < BATCH; i++)
        timers->arm(MOST + i, (int64_t)drawn(1000000));
    /* Until the last is due; libevent reads a clock that moves every 4 ms, or 10. */
    while (now() < begin + 12e6)
        ;
    begin = now();
    for (expired = 0; expired < BATCH;)
        timers->run();
    figures[3] = now() - begin;
}

static void compare(int armed, double budget) {
    static struct figure figures[MAX_CONTENDERS][FIGURES];
    static const char *const names[FIGURES] = {"arm_ns", "cancel_ns", "again_ns", "expire_ns"};
    int turns = 0;
    for (double end = now() + budget; turns < 3 || (now() < end && turns < MAX_TURNS); turns++)
        for (int i = 0; i < contestants; i++) {
            int index = turns % 2 == 0 ? i : contestants - 1 - i;
            double times[FIGURES];
            take_turn(contenders[index], armed, times);
            for (int figure = 0; figure < FIGURES; figure++)
                figures[index][figure].values[turns] = times[figure] / BATCH;
        }
    for (int index = 0; index < contestants; index++) {
        for (int figure = 0; figure < FIGURES; figure++)
            figures[index][figure].name = names[figure];
        report(contenders[index]->name, figures[index], FIGURES, turns);
    }
}

int main(int argc, char **argv) {
    int armed = argc == 3 ? atoi(argv[1]) : 0;
    if (armed < 1 || armed > MOST) {
        fprintf(stderr, "usage: timers ARMED MILLISECONDS\n");
        return 2;
    }
    settle_down();
    enter_all();
    for (int index = 0; index < contestants; index++) {
        contenders[index]->open();
        for (int timer = 0; timer < armed; timer++)
            contenders[index]->arm(timer, long_delay());
    }
    compare(armed, atof(argv[2]) * 1e6);
    return 0;
}
