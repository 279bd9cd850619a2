/* What a wait returns besides descriptors and timers, checked through the public header on every
 * engine: signals, children, posts, and all of them in one wait.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "harness.h"

#include <limits.h>
#include <sys/wait.h>

/* ---- Signals ------------------------------------------------------------------------------- */

static void signal_counts(uint32_t engine)
{
    omni_poller *poller = new_poller(engine), *other = new_poller(engine);
    struct waiter waiter;
    IS(omni_poller_signal_add(poller, SIGUSR1, 1), 0);
    IS(omni_poller_signal_add(other, SIGUSR1, 2), 0);
    IS(omni_poller_signal_add(poller, SIGRTMIN, 3), 0);
    IS(look(poller), 0);
    for (int i = 0; i < 3; i++)
        IS(raise(SIGUSR1), 0);
    omni_event event = one_of(poller, OMNI_EVENT_SIGNAL, 1);
    IS(event.value, SIGUSR1);
    IS(event.ready, 3);
    IS(look(poller), 0);
    /* The other poller returns these and one more. */
    IS(raise(SIGUSR1), 0);
    IS(one_of(other, OMNI_EVENT_SIGNAL, 2).ready, 4);
    IS(one_of(poller, OMNI_EVENT_SIGNAL, 1).ready, 1);

    start_waiting(&waiter, poller, FOREVER);
    IS(raise(SIGRTMIN), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].kind, OMNI_EVENT_SIGNAL);
    IS(waiter.events[0].value, SIGRTMIN);
    IS(waiter.events[0].token, 3);
    start_waiting(&waiter, poller, FOREVER);
    IS(pthread_kill(waiter.thread, SIGUSR1), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].value, SIGUSR1);

    /* What arrived and was not returned ends with the watch. */
    IS(raise(SIGUSR1), 0);
    IS(omni_poller_signal_remove(poller, SIGUSR1), 0);
    IS(omni_poller_signal_add(poller, SIGUSR1, 4), 0);
    IS(look(poller), 0);
    omni_poller_free(poller);
    omni_poller_free(other);
}

static void on_signal(int signo)
{
    (void)signo;
}

/* The signal's disposition is this, as on_signal was installed. */
static void is_installed(int signo, void (*handler)(int))
{
    struct sigaction now;
    IS(sigaction(signo, NULL, &now), 0);
    OK(now.sa_handler == handler);
    IS(sigismember(&now.sa_mask, SIGUSR2), handler == on_signal);
    IS(now.sa_flags & SA_NODEFER, handler == on_signal ? SA_NODEFER : 0);
}

static void signal_disposition(uint32_t engine)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER}, old;
    omni_poller *poller = new_poller(engine), *other = new_poller(engine);
    struct sigaction during;
    sigaddset(&action.sa_mask, SIGUSR2);
    IS(sigaction(SIGUSR1, &action, &old), 0);

    IS(omni_poller_signal_add(poller, SIGUSR1, 1), 0);
    IS(sigaction(SIGUSR1, NULL, &during), 0);
    OK(during.sa_handler != on_signal);
    IS(omni_poller_signal_add(other, SIGUSR1, 1), 0);
    IS(omni_poller_signal_remove(poller, SIGUSR1), 0);
    /* The other poller still watches it. */
    IS(raise(SIGUSR1), 0);
    one_of(other, OMNI_EVENT_SIGNAL, 1);
    IS(omni_poller_signal_remove(other, SIGUSR1), 0);
    is_installed(SIGUSR1, on_signal);

    /* A poller that is freed gives back what it has taken. */
    IS(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = SIG_IGN}, NULL), 0);
    IS(omni_poller_signal_add(poller, SIGUSR1, 1), 0);
    omni_poller_free(poller);
    is_installed(SIGUSR1, SIG_IGN);
    omni_poller_free(other);
    IS(sigaction(SIGUSR1, &old, NULL), 0);
}

static void signal_errors(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    const int wrong[] = {0, -1, INT_MIN, INT_MAX, 65, SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        IS(omni_poller_signal_add(poller, wrong[i], 1), -EINVAL);
        IS(omni_poller_signal_remove(poller, wrong[i]), -ENOENT);
    }
    IS(omni_poller_signal_remove(poller, SIGUSR1), -ENOENT);
    IS(omni_poller_signal_add(poller, SIGUSR1, 1), 0);
    IS(omni_poller_signal_add(poller, SIGUSR1, 2), -EEXIST);
    IS(raise(SIGUSR1), 0);
    one_of(poller, OMNI_EVENT_SIGNAL, 1);
    IS(omni_poller_signal_remove(poller, SIGUSR1), 0);
    IS(omni_poller_signal_remove(poller, SIGUSR1), -ENOENT);
    omni_poller_free(poller);
}

/* ---- Children ------------------------------------------------------------------------------ */

/* A child that lives until a byte or the end of the pipe arrives, and then ends with
 * this status; or, with a negative one, is killed by that signal. */
struct child {
    pid_t pid;
    int life;
};

static struct child start_child(int status)
{
    struct pair pair = socket_pair();
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(pair.ours);
        IS(fcntl(pair.theirs, F_SETFL, 0), 0);
        OK(read(pair.theirs, &byte, 1) >= 0);
        if (status < 0)
            kill(getpid(), -status);
        _exit(status);
    }
    OK(pid > 0);
    close(pair.theirs);
    return (struct child){pid, pair.ours};
}

static void end(struct child child)
{
    put(child.life, 1);
    close(child.life);
}

static void wait_until_dead(pid_t pid)
{
    siginfo_t info;
    IS(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

static void child_status(uint32_t engine)
{
    int before = open_descriptors();
    omni_poller *poller = new_poller(engine);
    struct child quits = start_child(7), killed = start_child(-SIGTERM), quick = start_child(0);
    struct waiter waiter;
    IS(omni_poller_child_add(poller, quits.pid, 1), 0);
    IS(omni_poller_child_add(poller, killed.pid, 2), 0);
    IS(look(poller), 0);

    start_waiting(&waiter, poller, FOREVER);
    end(quits);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].kind, OMNI_EVENT_CHILD);
    IS(waiter.events[0].token, 1);
    int status = (int)waiter.events[0].value;
    OK(WIFEXITED(status));
    IS(WEXITSTATUS(status), 7);

    end(killed);
    status = (int)one_of(poller, OMNI_EVENT_CHILD, 2).value;
    OK(WIFSIGNALED(status));
    IS(WTERMSIG(status), SIGTERM);

    /* One that has ended before it is watched. */
    end(quick);
    wait_until_dead(quick.pid);
    IS(omni_poller_child_add(poller, quick.pid, 3), 0);
    IS(one_of(poller, OMNI_EVENT_CHILD, 3).value, 0);
    IS(look(poller), 0);

    /* Each was reaped, once, and its watch is over. */
    const pid_t reaped[] = {quits.pid, killed.pid, quick.pid};
    for (size_t i = 0; i < sizeof reaped / sizeof *reaped; i++) {
        IS(waitpid(reaped[i], NULL, WNOHANG), -1);
        IS(errno, ECHILD);
        IS(omni_poller_child_remove(poller, reaped[i]), -ENOENT);
        IS(omni_poller_child_add(poller, reaped[i], 4), -ECHILD);
    }
    omni_poller_free(poller);
    IS(open_descriptors(), before);
}

static void child_of_another_process(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct child mine = start_child(0), forgotten = start_child(5), taken = start_child(6);
    const int not_mine[] = {0, -1, INT_MIN, INT_MAX, 1, getpid(), getppid()};
    int status = 0;
    for (size_t i = 0; i < sizeof not_mine / sizeof *not_mine; i++) {
        IS(omni_poller_child_add(poller, not_mine[i], 1), -ECHILD);
        IS(omni_poller_child_remove(poller, not_mine[i]), -ENOENT);
    }
    IS(omni_poller_child_add(poller, mine.pid, 1), 0);
    IS(omni_poller_child_add(poller, mine.pid, 2), -EEXIST);

    /* A child that is watched no more, or never was, is left alone when it ends. */
    IS(omni_poller_child_add(poller, forgotten.pid, 3), 0);
    IS(omni_poller_child_remove(poller, forgotten.pid), 0);
    IS(omni_poller_child_remove(poller, forgotten.pid), -ENOENT);
    end(forgotten);
    wait_until_dead(forgotten.pid);
    IS(look(poller), 0);
    IS(waitpid(forgotten.pid, &status, 0), forgotten.pid);
    IS(WEXITSTATUS(status), 5);

    /* One that was reaped elsewhere: that it ended is returned, but not how. */
    IS(omni_poller_child_add(poller, taken.pid, 4), 0);
    end(taken);
    IS(waitpid(taken.pid, &status, 0), taken.pid);
    IS(one_of(poller, OMNI_EVENT_CHILD, 4).value, -1);

    end(mine);
    IS(one_of(poller, OMNI_EVENT_CHILD, 1).value, 0);
    omni_poller_free(poller);
}

/* ---- Posts and wakes ----------------------------------------------------------------------- */

static void post_order(uint32_t engine)
{
    enum { POSTS = 1000 };
    omni_poller *poller = new_poller(engine);
    struct waiter waiter;
    for (int64_t i = 0; i < POSTS; i++)
        IS(omni_poller_post(poller, UINT64_MAX - (uint64_t)i, INT64_MIN + i), 0);
    for (int64_t returned = 0; returned < POSTS;) {
        omni_event events[ROOM];
        int count = omni_poller_wait(poller, events, ROOM, FOREVER);
        OK(count > 0);
        for (int i = 0; i < count; i++, returned++) {
            IS(events[i].kind, OMNI_EVENT_POST);
            IS(events[i].token, UINT64_MAX - (uint64_t)returned);
            IS(events[i].value, INT64_MIN + returned);
            IS(events[i].ready, 0);
        }
    }
    IS(look(poller), 0);
    start_waiting(&waiter, poller, FOREVER);
    IS(omni_poller_post(poller, 1, 2), 0);
    IS(finish_waiting(&waiter), 1);
    IS(waiter.events[0].kind, OMNI_EVENT_POST);
    omni_poller_free(poller);
}

static void post_full(uint32_t engine)
{
    enum { MOST = 65536 };
    omni_poller *poller = new_poller(engine);
    omni_event events[ROOM];
    for (int64_t i = 0; i < MOST; i++)
        IS(omni_poller_post(poller, 0, i), 0);
    IS(omni_poller_post(poller, 0, MOST), -EAGAIN);
    OK(strstr(omni_last_error(), "omni_poller_post: ") && strstr(omni_last_error(), "(EAGAIN)"));
    IS(omni_poller_wait(poller, events, 1, FOREVER), 1);
    IS(events[0].value, 0);
    IS(omni_poller_post(poller, 0, MOST), 0);
    IS(omni_poller_post(poller, 0, MOST + 1), -EAGAIN);
    for (int64_t returned = 1; returned <= MOST;) {
        int count = omni_poller_wait(poller, events, ROOM, FOREVER);
        OK(count > 0);
        for (int i = 0; i < count; i++, returned++)
            IS(events[i].value, returned);
    }
    IS(look(poller), 0);
    omni_poller_free(poller);
}

enum { POSTERS = 4, EACH = 20000 };

struct poster {
    pthread_t thread;
    omni_poller *poller;
    uint64_t number;
};

static void *post_many(void *argument)
{
    struct poster *poster = argument;
    for (int64_t i = 0; i < EACH;) {
        int posted = omni_poller_post(poster->poller, poster->number, i);
        OK(posted == 0 || posted == -EAGAIN);
        i += posted == 0;
    }
    return NULL;
}

static void posts_from_threads(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    struct poster posters[POSTERS];
    int64_t next[POSTERS] = {0};
    for (uint64_t i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.poller = poller, .number = i};
        IS(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
    for (int returned = 0; returned < POSTERS * EACH;) {
        omni_event events[ROOM];
        int count = omni_poller_wait(poller, events, ROOM, FOREVER);
        OK(count > 0);
        for (int i = 0; i < count; i++, returned++)
            IS(events[i].value, next[events[i].token]++);
    }
    for (int i = 0; i < POSTERS; i++)
        IS(pthread_join(posters[i].thread, NULL), 0);
    IS(look(poller), 0);
    omni_poller_free(poller);
}

static void wakes_merge(uint32_t engine)
{
    omni_poller *poller = new_poller(engine);
    IS(omni_poller_wake(poller), 0);
    IS(omni_poller_post(poller, 1, 1), 0);
    IS(omni_poller_wake(poller), 0);
    omni_event events[ROOM];
    IS(omni_poller_wait(poller, events, ROOM, FOREVER), 2);
    int wake = events[0].kind == OMNI_EVENT_WAKE ? 0 : 1;
    IS(events[wake].kind, OMNI_EVENT_WAKE);
    IS(events[wake].value, 2);
    IS(events[!wake].kind, OMNI_EVENT_POST);
    IS(look(poller), 0);
    omni_poller_free(poller);
}

/* ---- All at once --------------------------------------------------------------------------- */

/* Something of every kind is there: seven events. */
static struct child prepare_all(omni_poller *poller, struct pair pair)
{
    struct child child = start_child(0);
    IS(omni_poller_add(poller, pair.ours, OMNI_READ, 1), 0);
    put(pair.theirs, 1);
    IS(omni_poller_timer_add(poller, 0, 0, 2, NULL), 0);
    IS(omni_poller_timer_add_at(poller, 0, 2, NULL), 0);
    IS(omni_poller_signal_add(poller, SIGUSR1, 3), 0);
    IS(raise(SIGUSR1), 0);
    IS(omni_poller_child_add(poller, child.pid, 4), 0);
    end(child);
    wait_until_dead(child.pid);
    IS(omni_poller_wake(poller), 0);
    IS(omni_poller_post(poller, 6, 1), 0);
    return child;
}

/* One wait returns every kind; and so do single slots, one after the other, though the descriptor
 * stays ready all the time. */
static void every_kind(uint32_t engine)
{
    const int expected[] = {0, 1, 2, 1, 1, 1, 1};
    enum { KINDS = sizeof expected / sizeof *expected };
    for (uint32_t capacity = 1; capacity <= ROOM; capacity += ROOM - 1) {
        omni_poller *poller = new_poller(engine);
        struct pair pair = pipe_pair();
        int seen[KINDS] = {0}, returned = 0;
        prepare_all(poller, pair);
        for (int waits = 0; returned < 6 && waits < 100; waits++) {
            omni_event events[ROOM];
            int count = omni_poller_wait(poller, events, capacity, FOREVER);
            OK(count > 0);
            for (int i = 0; i < count; i++) {
                OK(events[i].kind < KINDS);
                IS(events[i].token, events[i].kind == OMNI_EVENT_WAKE ? 0 : events[i].kind);
                returned += events[i].kind != OMNI_EVENT_IO;
                seen[events[i].kind]++;
            }
        }
        OK(seen[OMNI_EVENT_IO] > 0);
        for (int kind = 2; kind < KINDS; kind++)
            IS(seen[kind], expected[kind]);
        take(pair.ours, 1);
        IS(look(poller), 0);
        omni_poller_free(poller);
        close_pair(pair);
    }
}

/* What a poller holds when it is freed is given back, and its child left to us. */
static void freed_with_all(uint32_t engine)
{
    struct pair pair = pipe_pair();
    int before = open_descriptors();
    omni_poller *poller = new_poller(engine);
    struct child child = prepare_all(poller, pair);
    omni_poller_free(poller);
    IS(open_descriptors(), before);
    is_installed(SIGUSR1, SIG_DFL);
    IS(waitpid(child.pid, NULL, 0), child.pid);
    close_pair(pair);
}

/* ---- Fork ---------------------------------------------------------------------------------- */

/* Runs in a forked child. */
static void use_inherited(omni_poller *poller, pid_t sibling, uint64_t timer)
{
    uint64_t id = 7;
    IS(omni_poller_timer_add(poller, 0, 0, 9, &id), -EOWNERDEAD);
    IS(omni_poller_timer_add_at(poller, 0, 9, &id), -EOWNERDEAD);
    IS(id, 7);
    IS(omni_poller_timer_set(poller, timer, 0, 0), -EOWNERDEAD);
    IS(omni_poller_timer_cancel(poller, timer), -EOWNERDEAD);
    IS(omni_poller_signal_add(poller, SIGUSR2, 9), -EOWNERDEAD);
    IS(omni_poller_signal_remove(poller, SIGUSR1), -EOWNERDEAD);
    IS(omni_poller_child_add(poller, sibling, 9), -EOWNERDEAD);
    IS(omni_poller_child_remove(poller, sibling), -EOWNERDEAD);
    IS(omni_poller_post(poller, 9, 9), -EOWNERDEAD);

    /* Signals and children that came before the fork, and posts, are the parent's. */
    IS(omni_poller_after_fork(poller), 0);
    IS(look(poller), 0);
    IS(omni_poller_child_remove(poller, sibling), -ENOENT);
    IS(omni_poller_child_add(poller, sibling, 9), -ECHILD);
    IS(raise(SIGUSR1), 0);
    IS(one_of(poller, OMNI_EVENT_SIGNAL, 1).ready, 1);
    IS(omni_poller_post(poller, 5, 5), 0);
    IS(one_of(poller, OMNI_EVENT_POST, 5).value, 5);
    IS(omni_poller_timer_set(poller, timer, 0, 0), 0);
    one_of(poller, OMNI_EVENT_TIMER, 2);
    IS(omni_poller_timer_add_at(poller, 0, 3, NULL), 0);
    one_of(poller, OMNI_EVENT_TIMER, 3);
    struct child own = start_child(3);
    IS(omni_poller_child_add(poller, own.pid, 6), 0);
    end(own);
    IS(WEXITSTATUS((int)one_of(poller, OMNI_EVENT_CHILD, 6).value), 3);
}

static void forked(uint32_t engine)
{
    struct child sibling = start_child(0);
    omni_poller *poller = new_poller(engine);
    uint64_t timer = 0;
    int status = 0;
    IS(omni_poller_signal_add(poller, SIGUSR1, 1), 0);
    IS(omni_poller_timer_add(poller, INT64_MAX, 0, 2, &timer), 0);
    IS(omni_poller_timer_add_at(poller, INT64_MAX, 3, NULL), 0);
    IS(omni_poller_child_add(poller, sibling.pid, 4), 0);
    IS(raise(SIGUSR1), 0);
    IS(omni_poller_post(poller, 5, 50), 0);
    pid_t pid = fork();
    if (pid == 0) {
        use_inherited(poller, sibling.pid, timer);
        omni_poller_free(poller);
        _exit(0);
    }
    OK(pid > 0);
    IS(waitpid(pid, &status, 0), pid);
    IS(status, 0);

    /* The parent has lost nothing, and got nothing of what was the child's. */
    omni_event events[ROOM];
    IS(omni_poller_wait(poller, events, ROOM, FOREVER), 2);
    int post = events[0].kind == OMNI_EVENT_POST ? 0 : 1;
    IS(events[post].value, 50);
    IS(events[!post].kind, OMNI_EVENT_SIGNAL);
    IS(events[!post].ready, 1);
    IS(look(poller), 0);
    end(sibling);
    IS(one_of(poller, OMNI_EVENT_CHILD, 4).value, 0);
    IS(omni_poller_timer_set(poller, timer, 0, 0), 0);
    one_of(poller, OMNI_EVENT_TIMER, 2);
    omni_poller_free(poller);
}

static const struct behaviour behaviours[] = {
    {"signals are counted, for each poller", signal_counts},
    {"a signal's former disposition is restored", signal_disposition},
    {"EEXIST, ENOENT and EINVAL of signals", signal_errors},
    {"children are returned with their status, and reaped once", child_status},
    {"ECHILD for another process's child, which is left alone", child_of_another_process},
    {"posts come in order", post_order},
    {"EAGAIN when 65,536 posts wait", post_full},
    {"posts of four threads, none lost", posts_from_threads},
    {"wakes are merged, posts are not", wakes_merge},
    {"one wait returns every kind, and none starves", every_kind},
    {"a freed poller gives back what it held", freed_with_all},
    {"a forked child: EOWNERDEAD, after_fork, and what continues", forked},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
