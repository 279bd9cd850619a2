/*
 * restart.c: a server that is replaced while clients keep coming, and none of them is refused. On
 * SIGHUP it starts its program again, a newer one if it was replaced meanwhile, and hands it the
 * listening sockets. It stops when the new process says that it serves, and has its own clients go
 * on until they are done. When the program can't be started, or ends before it serves, nothing has
 * changed. It answers whatever it is sent with the number of its process.
 *
 * Shows:
 *  - omni_server_dup_listener: descriptors of the listening sockets, whose queues outlive the server;
 *  - the address "systemd": the sockets a process was started with. They may as well come from
 *    systemd itself, which passes them in the same way;
 *  - omni_server_keep_files: the file of a unix socket leads to the new process from then on;
 *  - a poller in a thread beside the server: signals, what the new process says, and its end.
 *
 * Build:  cc -std=c11 -O2 -pthread -o restart restart.c $(pkg-config --cflags --libs omnipoll)
 * Run:    ./restart [127.0.0.1:7000 unix:/path ...] & sleep 1; kill -HUP $!
 */
#define _GNU_SOURCE /* pipe2, environ */
#include <errno.h>
#include <fcntl.h>
#include <omnipoll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST = 3 }; /* where sd_listen_fds(3) has the descriptors begin */

/* What an event is about: its token. */
enum { RESTART, STOP, WORD, CHILD };

static const int64_t DRAIN_NS = 10 * INT64_C(1000000000);

static omni_server *server;
static omni_poller *poller;
static char **arguments;
static int listeners;      /* how many there are */
static int next_one = -1;  /* the pipe from a process that was started and does not serve yet */
static bool is_replaced;   /* by a process that serves */

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

/* ---- The process that follows ---------------------------------------------------------------- */

/* Moves a descriptor above those that the new process gets, so that none of these replaces it. */
static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST + listeners + 1);
    close(fd);
    return moved;
}

/* Starts the program by the name it was started by, which finds a newer one. It gets the listening
 * sockets as its descriptors from FIRST on, and `ready` behind them. Returns 0, or the errno. */
static int spawn(int ready, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    int passed[listeners + 1], error = posix_spawn_file_actions_init(&actions);
    for (int i = 0; i <= listeners; i++) {
        passed[i] = move_up(i < listeners ? omni_server_dup_listener(server, (uint32_t)i) : ready);
        if (!error)
            error = posix_spawn_file_actions_adddup2(&actions, passed[i], FIRST + i);
    }
    if (!error)
        error = posix_spawnp(pid, arguments[0], &actions, NULL, arguments, environ);
    for (int i = 0; i <= listeners; i++)
        close(passed[i]);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* Stops waiting for it. If it is running, it can't report that it serves, and ends. */
static void forget_next(void)
{
    omni_poller_remove(poller, next_one);
    close(next_one);
    next_one = -1;
}

static void start_next(void)
{
    int ends[2], error;
    pid_t pid;
    if (next_one >= 0 || is_replaced) {
        fprintf(stderr, "restart: another process takes over already\n");
        return;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        perror("restart: pipe2");
        return;
    }
    next_one = ends[0];
    error = spawn(ends[1], &pid);
    if (error) {
        fprintf(stderr, "restart: %s: %s\n", arguments[0], strerror(error));
        forget_next();
    } else if (omni_poller_child_add(poller, pid, CHILD) < 0
               || omni_poller_add(poller, next_one, OMNI_READ, WORD) < 0) {
        fprintf(stderr, "restart: %s\n", omni_last_error());
        forget_next();
    }
}

/* The new process serves; or it has ended, which closes its end of the pipe. */
static void hear_next(void)
{
    char word;
    is_replaced = read(next_one, &word, 1) == 1;
    forget_next();
    if (is_replaced) {
        omni_server_keep_files(server);
        omni_server_stop(server, -1); /* the old clients stay as long as they like */
    } else {
        fprintf(stderr, "restart: the new process has ended before it served\n");
    }
}

static void stop(void)
{
    if (next_one >= 0)
        forget_next();
    omni_server_stop(server, DRAIN_NS);
}

static void *manage(void *unused)
{
    omni_event event;
    int count;
    (void)unused;
    while ((count = omni_poller_wait(poller, &event, 1, -1)) != -ESTALE) {
        if (count < 1)
            continue;
        switch (event.token) {
        case RESTART: start_next(); break;
        case STOP: stop(); break;
        case WORD: hear_next(); break;
        case CHILD: break; /* the wait has reaped it */
        }
    }
    return NULL;
}

/* ---- The program ----------------------------------------------------------------------------- */

/* Listens on the sockets that it was started with, or else on those that the command line names. */
static void listen_on(int count, char **addresses)
{
    static char any[] = "127.0.0.1:0", *default_addresses[] = {any};
    const char *passed = getenv("LISTEN_FDS");
    if (passed) {
        check(omni_server_listen(server, "systemd"));
        for (int i = 0; i < atoi(passed); i++)
            close(FIRST + i); /* the server has duplicates */
        return;
    }
    if (count == 0) {
        addresses = default_addresses;
        count = 1;
    }
    for (int i = 0; i < count; i++)
        check(omni_server_listen(server, addresses[i]));
}

/* Describes to the next process, in its environment, what it inherits. */
static void prepare_next(void)
{
    char number[16];
    for (int fd; (fd = omni_server_dup_listener(server, (uint32_t)listeners)) >= 0; listeners++)
        close(fd);
    snprintf(number, sizeof number, "%d", listeners);
    setenv("LISTEN_FDS", number, 1);
    unsetenv("LISTEN_PID");
    snprintf(number, sizeof number, "%d", FIRST + listeners);
    setenv("READY_FD", number, 1);
}

/* Has the process before this one stop. SIGPIPE ends this one when none listens any more: that one
 * was stopped meanwhile, or has died. */
static void say_that_it_serves(int ready)
{
    if (write(ready, "", 1) != 1)
        exit(EXIT_FAILURE);
    close(ready);
}

int main(int argc, char **argv)
{
    omni_handler handler = {.size = sizeof handler, .on_data = on_data};
    int ready = getenv("READY_FD") ? atoi(getenv("READY_FD")) : -1;
    char listening[1024];
    pthread_t manager;

    arguments = argv;
    check(omni_poller_new(OMNI_ENGINE_AUTO, 0, &poller));
    check(omni_poller_signal_add(poller, SIGHUP, RESTART));
    check(omni_poller_signal_add(poller, SIGTERM, STOP));
    check(omni_poller_signal_add(poller, SIGINT, STOP));
    check(omni_server_new(NULL, &handler, &server));
    listen_on(argc - 1, argv + 1);
    check(omni_server_address(server, listening, sizeof listening));
    prepare_next();
    if (pthread_create(&manager, NULL, manage, NULL) != 0)
        return EXIT_FAILURE;
    printf("listening on %s\n", listening);
    fflush(stdout);
    if (ready >= 0)
        say_that_it_serves(ready);
    check(omni_server_run(server));
    omni_poller_free(poller);
    pthread_join(manager, NULL);
    omni_server_free(server);
    return EXIT_SUCCESS;
}
