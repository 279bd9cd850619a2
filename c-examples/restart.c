/*
 * restart.c: a server that is replaced while clients keep coming, and no one of them is refused:
 * on SIGHUP it starts its program anew, hands it the listening socket, and serves those it has
 * until they are done. It answers whatever it is sent with the number of its process.
 *
 * Shows:
 *  - omni_server_dup_listener: a descriptor of the listening socket, whose queue outlives the server;
 *  - the address "systemd": the sockets a process was started with. They may as well come from
 *    systemd itself, which passes them in the same way;
 *  - signals in a thread of their own, which stops the server from there.
 *
 * Build:  cc -std=c11 -O2 -pthread -o restart restart.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./restart & sleep 1; kill -HUP $!
 */
#define _GNU_SOURCE /* sigwait, execv */
#include <fcntl.h>
#include <omnipoll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIRST = 3 }; /* where sd_listen_fds(3) has the descriptors begin */

static omni_server *server;
static char **arguments;

static int check(int result)
{
    if (result < 0) {
        fprintf(stderr, "restart: %s\n", omni_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

static void on_data(omni_conn *client, const uint8_t *data, size_t length, void *context)
{
    char answer[32];
    (void)data, (void)length, (void)context;
    omni_conn_write(client, answer, (size_t)snprintf(answer, sizeof answer, "%d\n", (int)getpid()));
}

/* Starts the program that follows, with the listening socket as its descriptor 3. */
static bool start_next(const sigset_t *handled)
{
    int listener = check(omni_server_dup_listener(server, 0));
    pid_t pid = fork();
    if (pid == 0) {
        /* Between fork and exec a process that had threads may call little. */
        pthread_sigmask(SIG_UNBLOCK, handled, NULL);
        if ((listener == FIRST ? fcntl(FIRST, F_SETFD, 0) : dup2(listener, FIRST)) >= 0)
            execv("/proc/self/exe", arguments);
        _exit(EXIT_FAILURE);
    }
    close(listener);
    return pid > 0;
}

static void *handle_signals(void *set)
{
    const sigset_t *handled = set;
    int signo;
    while (sigwait(handled, &signo) == 0)
        if (signo != SIGHUP || start_next(handled))
            omni_server_stop(server, -1); /* no new clients; the old ones stay as they like */
    return NULL;
}

int main(int argc, char **argv)
{
    omni_handler handler = {.size = sizeof handler, .on_data = on_data};
    const char *address = getenv("LISTEN_FDS") ? "systemd" : argc > 1 ? argv[1] : "127.0.0.1:0";
    char listening[256];
    sigset_t handled;
    pthread_t signals;

    /* Blocked before there is a thread, so that all of them have them blocked. */
    sigemptyset(&handled);
    sigaddset(&handled, SIGHUP);
    sigaddset(&handled, SIGTERM);
    sigaddset(&handled, SIGINT);
    pthread_sigmask(SIG_BLOCK, &handled, NULL);

    arguments = argv;
    check(omni_server_new(NULL, &handler, &server));
    check(omni_server_listen(server, address));
    check(omni_server_address(server, listening, sizeof listening));
    setenv("LISTEN_FDS", "1", 1); /* for the process that follows */
    unsetenv("LISTEN_PID");
    if (pthread_create(&signals, NULL, handle_signals, &handled) != 0)
        return EXIT_FAILURE;
    printf("listening on %s\n", listening);
    fflush(stdout);
    check(omni_server_run(server));
    omni_server_free(server);
    return EXIT_SUCCESS;
}
