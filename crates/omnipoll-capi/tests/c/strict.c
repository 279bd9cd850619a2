/* Strict mode, checked through the public header on every engine: each mistake is said once, and
 * nothing of correct code.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "harness.h"

#include <sys/wait.h>

/* What the callback got. */
struct report {
    omni_poller *poller;
    int blocks; /* the loop is blocked on purpose */
    int count;
    omni_finding last;
    char words[256];
};

static void take_down(const omni_finding *finding, void *context)
{
    struct report *report = context;
    IS(finding->size, sizeof *finding);
    OK(strlen(finding->words) < sizeof report->words);
    OK(strchr(finding->words, '\n') == NULL);
    /* A machine that is busy with other things blocks any loop. */
    if (finding->kind == OMNI_FINDING_BLOCKED_LOOP && !report->blocks)
        return;
    report->count++;
    report->last = *finding;
    strcpy(report->words, finding->words);
    /* Ends the wait during which it comes; the last finding may come from omni_poller_free. */
    int woken = omni_poller_wake(report->poller);
    OK(woken == 0 || woken == -ESTALE || woken == -EOWNERDEAD);
}

static omni_poller *strict_poller(uint32_t engine, struct report *report)
{
    omni_poller *poller = NULL;
    *report = (struct report){0};
    IS(omni_poller_new(engine, OMNI_STRICT, &poller), 0);
    IS(omni_poller_on_finding(poller, take_down, report), 0);
    report->poller = poller;
    return poller;
}

/* One finding was said, of this descriptor with this token; its wake is taken. */
static void said(struct report *report, uint32_t kind, int fd, uint64_t token, const char *words)
{
    char subject[64];
    IS(report->count, 1);
    IS(report->last.kind, kind);
    IS(report->last.fd, fd);
    IS(report->last.token, token);
    snprintf(subject, sizeof subject, "descriptor %d (token %d) ", fd, (int)token);
    OK(fd < 0 || !strncmp(report->words, subject, strlen(subject)));
    OK(strstr(report->words, words));
    report->count = 0;
}

static void blocking_edge(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = pipe_pair();
    IS(fcntl(pair.ours, F_SETFL, 0), 0);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 7), 0);
    IS(report.count, 0);
    IS(omni_poller_modify(poller, pair.ours, OMNI_READ | OMNI_EDGE, 8), 0);
    said(&report, OMNI_FINDING_BLOCKING_EDGE, pair.ours, 8, "O_NONBLOCK");
    IS(omni_poller_modify(poller, pair.ours, OMNI_READ | OMNI_EDGE, 9), 0);
    IS(omni_poller_remove(poller, pair.ours), 0);
    omni_poller_free(poller);
    IS(report.count, 0);
    close_pair(pair);
}

static void undrained(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = pipe_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ | OMNI_EDGE, 7), 0);
    put(pair.theirs, 2);
    IS(one_event(poller, pair.ours, 7), OMNI_READ);
    take(pair.ours, 1);
    /* Nothing else would ever end this wait. */
    IS(one_wake(poller), 1);
    said(&report, OMNI_FINDING_UNDRAINED, pair.ours, 7, "EAGAIN");
    IS(omni_poller_remove(poller, pair.ours), 0);
    omni_poller_free(poller);
    IS(report.count, 0);
    close_pair(pair);
}

static void forgotten_oneshot(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = pipe_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ | OMNI_ONESHOT, 7), 0);
    put(pair.theirs, 1);
    IS(one_event(poller, pair.ours, 7), OMNI_READ);
    for (int i = 0; i < 16; i++)
        IS(look(poller), 0);
    IS(one_wake(poller), 1);
    said(&report, OMNI_FINDING_FORGOTTEN_ONESHOT, pair.ours, 7, "modify");
    IS(omni_poller_remove(poller, pair.ours), 0);
    omni_poller_free(poller);
    close_pair(pair);
}

static void closed(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = pipe_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 7), 0);
    close(pair.ours);
    OK(look(poller) >= 0);
    said(&report, OMNI_FINDING_CLOSED, pair.ours, 7, "closed while registered");
    omni_poller_remove(poller, pair.ours);
    omni_poller_free(poller);
    IS(report.count, 0);
    close(pair.theirs);
}

static void reused(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = pipe_pair(), other = pipe_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 7), 0);
    IS(dup2(other.ours, pair.ours), pair.ours);
    OK(look(poller) >= 0);
    said(&report, OMNI_FINDING_REUSED, pair.ours, 7, "another file");
    omni_poller_remove(poller, pair.ours);
    omni_poller_free(poller);
    IS(report.count, 0);
    close_pair(pair);
    close_pair(other);
}

static void busy_writer(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = socket_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_WRITE, 7), 0);
    for (int i = 0; i < 999; i++)
        IS(one_event(poller, pair.ours, 7), OMNI_WRITE);
    IS(report.count, 0);
    IS(one_event(poller, pair.ours, 7), OMNI_WRITE);
    said(&report, OMNI_FINDING_BUSY_WRITER, pair.ours, 7, "WRITE");
    IS(omni_poller_remove(poller, pair.ours), 0);
    omni_poller_free(poller);
    close_pair(pair);
}

static void blocked_loop(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = pipe_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 7), 0);
    put(pair.theirs, 1);
    IS(one_event(poller, pair.ours, 7), OMNI_READ);
    take(pair.ours, 1);
    report.blocks = 1;
    let_pass(110 * MS);
    IS(one_wake(poller), 1);
    said(&report, OMNI_FINDING_BLOCKED_LOOP, pair.ours, 7, "another thread");
    IS(omni_poller_remove(poller, pair.ours), 0);
    omni_poller_free(poller);
    close_pair(pair);
}

static void forked_child(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 2; i++) {
            IS(look(poller), -EOWNERDEAD);
            IS(omni_poller_post(poller, 0, 0), -EOWNERDEAD);
        }
        said(&report, OMNI_FINDING_FORKED_CHILD, -1, 0, "after_fork");
        _exit(0);
    }
    OK(pid > 0);
    IS(waitpid(pid, &status, 0), pid);
    IS(status, 0);
    omni_poller_free(poller);
    IS(report.count, 0);
}

/* A callback that forks. */
struct forker {
    omni_poller *poller;
    int frees; /* the child frees the poller before it returns */
    pid_t child; /* -1 before */
};

static void fork_once(const omni_finding *finding, void *context)
{
    struct forker *forker = context;
    (void)finding;
    if (forker->child >= 0)
        return;
    forker->child = fork();
    OK(forker->child >= 0);
    if (forker->child == 0)
        alarm(60);
    if (forker->child == 0 && forker->frees)
        omni_poller_free(forker->poller);
}

/* The callback is called by a wait, which continues in the child as well. */
static void forked_in_a_callback(uint32_t engine)
{
    for (int frees = 0; frees < 2; frees++) {
        struct forker forker = {.frees = frees, .child = -1};
        struct pair closed = pipe_pair(), open = pipe_pair();
        int status = 0;
        IS(omni_poller_new(engine, OMNI_STRICT, &forker.poller), 0);
        IS(omni_poller_on_finding(forker.poller, fork_once, &forker), 0);
        IS(omni_poller_add(forker.poller, closed.ours, OMNI_READ, 7), 0);
        close(closed.ours);
        int found = look(forker.poller);
        if (forker.child == 0) {
            IS(found, frees ? -ESTALE : -EOWNERDEAD);
            if (!frees)
                free_under_a_wait(forker.poller);
            _exit(0);
        }
        OK(found >= 0);
        IS(waitpid(forker.child, &status, 0), forker.child);
        IS(status, 0);
        omni_poller_remove(forker.poller, closed.ours);
        IS(omni_poller_add(forker.poller, open.ours, OMNI_READ, 8), 0);
        put(open.theirs, 1);
        IS(one_event(forker.poller, open.ours, 8), OMNI_READ);
        omni_poller_free(forker.poller);
        close(closed.theirs);
        close_pair(open);
    }
}

static void leaked(uint32_t engine)
{
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    struct pair pair = pipe_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 7), 0);
    omni_poller_free(poller);
    said(&report, OMNI_FINDING_LEAKED, pair.ours, 7, "still registered");
    close_pair(pair);
}

/* Each trigger used as it should be, and timers and posts: no findings. */
static void correct(uint32_t engine)
{
    const uint32_t triggers[] = {0, OMNI_EDGE, OMNI_ONESHOT, OMNI_EDGE | OMNI_ONESHOT};
    struct report report;
    omni_poller *poller = strict_poller(engine, &report);
    for (size_t i = 0; i < sizeof triggers / sizeof *triggers; i++) {
        struct pair pair = socket_pair();
        uint32_t interest = OMNI_READ | triggers[i];
        IS(omni_poller_add(poller, pair.ours, interest, i), 0);
        for (int round = 0; round < 40; round++) {
            put(pair.theirs, 2048);
            IS(one_event(poller, pair.ours, i), OMNI_READ);
            drain(pair.ours);
            if (triggers[i] & OMNI_ONESHOT)
                IS(omni_poller_modify(poller, pair.ours, interest, i), 0);
            else if (triggers[i] & OMNI_EDGE)
                IS(omni_poller_rearm(poller, pair.ours, OMNI_READ), 0);
            IS(look(poller), 0);
        }
        /* Longer than anything may be left. */
        omni_event events[ROOM];
        IS(omni_poller_wait(poller, events, ROOM, 120 * MS), 0);
        IS(omni_poller_timer_add(poller, 0, 0, 1, NULL), 0);
        IS(look(poller), 1);
        IS(omni_poller_post(poller, 1, 1), 0);
        IS(look(poller), 1);
        IS(omni_poller_remove(poller, pair.ours), 0);
        close_pair(pair);
    }
    omni_poller_free(poller);
    IS(report.count, 0);
}

/* Without a callback each finding is a line on stderr, and the environment asks for it too. */
static void on_stderr(uint32_t engine)
{
    for (int by_environment = 0; by_environment < 2; by_environment++) {
        struct pair errors = pipe_pair();
        pid_t pid = fork();
        if (pid == 0) {
            struct pair pair = socket_pair();
            omni_poller *poller = NULL;
            IS(dup2(errors.theirs, STDERR_FILENO), STDERR_FILENO);
            IS(fcntl(pair.ours, F_SETFL, 0), 0);
            if (by_environment)
                IS(setenv("OMNIPOLL_STRICT", "1", 1), 0);
            IS(omni_poller_new(engine, by_environment ? 0 : OMNI_STRICT, &poller), 0);
            IS(omni_poller_add(poller, pair.ours, OMNI_READ | OMNI_EDGE, 7), 0);
            IS(omni_poller_remove(poller, pair.ours), 0);
            omni_poller_free(poller);
            _exit(0);
        }
        int status = 0;
        char line[512] = "";
        OK(pid > 0);
        IS(waitpid(pid, &status, 0), pid);
        IS(status, 0);
        OK(read(errors.ours, line, sizeof line - 1) > 0);
        OK(!strncmp(line, "omnipoll: descriptor ", 21));
        OK(strstr(line, "(token 7) is watched with EDGE but blocks"));
        OK(strchr(line, '\n') == line + strlen(line) - 1);
        close_pair(errors);
    }
}

static void errors(uint32_t engine)
{
    struct report report, next;
    omni_poller *lax = new_poller(engine), *poller = strict_poller(engine, &report);
    IS(omni_poller_on_finding(lax, take_down, &report), -EINVAL);
    IS(omni_poller_on_finding(poller, NULL, &report), -EINVAL);
    omni_poller_free(lax);
    /* A callback replaces the one before. */
    next = (struct report){.poller = poller};
    IS(omni_poller_on_finding(poller, take_down, &next), 0);
    struct pair pair = pipe_pair();
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 7), 0);
    omni_poller_free(poller);
    IS(report.count, 0);
    said(&next, OMNI_FINDING_LEAKED, pair.ours, 7, "");
    close_pair(pair);
}

static const struct behaviour behaviours[] = {
    {"EDGE on a blocking descriptor is said", blocking_edge},
    {"an EDGE left undrained is said", undrained},
    {"a ONESHOT never enabled again is said", forgotten_oneshot},
    {"a descriptor closed while registered is said", closed},
    {"a number used again while registered is said", reused},
    {"a writer with nothing to write is said", busy_writer},
    {"a loop that was blocked is said", blocked_loop},
    {"a forked child that uses the poller is said", forked_child},
    {"a callback may fork, and the child free the poller", forked_in_a_callback},
    {"a registration left at the end is said", leaked},
    {"nothing is said of correct code", correct},
    {"without a callback it is a line on stderr", on_stderr},
    {"callbacks: EINVAL, and one replaces the other", errors},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
