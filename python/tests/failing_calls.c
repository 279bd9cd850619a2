/* Loaded by tests: the nth system call of a kind fails, whoever makes it, by seccomp(2)'s
 * SECCOMP_RET_USER_NOTIF. A thread that is older than the filter answers for the kernel (Linux 5.5). */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned number;
} calls[] = {
#define CALL(name) { #name, SYS_##name },
    CALL(accept4) CALL(recvfrom) CALL(sendto) CALL(sendmsg) CALL(read) CALL(write) CALL(epoll_ctl)
    CALL(epoll_pwait) CALL(epoll_pwait2) CALL(ppoll) CALL(pselect6) CALL(io_uring_enter) CALL(eventfd2)
    CALL(socket) CALL(socketpair) CALL(bind) CALL(listen) CALL(connect) CALL(getsockname)
    CALL(getpeername) CALL(getsockopt) CALL(setsockopt) CALL(shutdown) CALL(ioctl) CALL(fcntl)
#ifdef SYS_poll
    CALL(poll) CALL(epoll_wait)
#endif
};
#define CALLS (sizeof calls / sizeof *calls)

static atomic_int armed = -1, left, error, injected, listener = -1;
static atomic_int seen[CALLS];
static sem_t installed;

/* A name by its index; NULL after the last one. */
const char *call_name(int call)
{
    return (size_t)call < CALLS ? calls[call].name : NULL;
}

/* How often it has been called. */
int call_count(int call)
{
    return seen[call];
}

/* Has the nth call from now on fail with that error. */
void fail_call(int call, int nth, int number)
{
    injected = 0;
    error = number;
    left = nth;
    armed = call;
}

/* No call fails any more; whether one has. */
int end_failing(void)
{
    armed = -1;
    return injected;
}

static int fails(unsigned number)
{
    int call = 0;
    while (calls[call].number != number)
        call++;
    seen[call]++;
    if (call != armed || --left != 0)
        return 0;
    armed = -1;
    return injected = 1;
}

static void *answer(void *unused)
{
    (void)unused;
    sem_wait(&installed);
    while (listener >= 0) {
        struct seccomp_notif asked = { 0 };
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0)
            continue; /* A signal; or what asked has ended. */
        struct seccomp_notif_resp answered = { .id = asked.id };
        if (fails((unsigned)asked.data.nr))
            answered.error = -error;
        else
            answered.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answered);
    }
    return NULL;
}

static int install(void)
{
    struct sock_filter filter[CALLS + 3], *step = filter;
    *step++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t call = 0; call < CALLS; call++)
        *step++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[call].number,
                                               (unsigned char)(CALLS - call), 0);
    *step++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    *step++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = { .len = CALLS + 3, .filter = filter };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* Has the calls of this thread, and of those it makes, counted and failed; 0, or an errno. */
int supervise(void)
{
    pthread_t thread;
    sem_init(&installed, 0, 0);
    int failed = pthread_create(&thread, NULL, answer, NULL);
    if (failed)
        return failed;
    listener = install();
    failed = listener < 0 ? errno : 0;
    sem_post(&installed);
    return failed;
}
