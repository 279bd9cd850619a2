/* Programs that a loop starts, checked through the public header on every engine: their streams, their
 * ends, and what can't be started.
 *
 * One line for each behaviour and engine. Ends with status 1 at the first thing that is not as
 * promised, and by itself in any case. */

#include "looping.h"

#include <signal.h>
#include <sys/wait.h>

enum { ALL = OMNI_SPAWN_STDIN | OMNI_SPAWN_STDOUT | OMNI_SPAWN_STDERR };

/* Waits until a program and so many of its streams have ended: its status, and what `conn` has brought. */
static int run(omni_loop *loop, omni_conn *conn, int streams, char *output, size_t capacity)
{
    const uint8_t *buffer;
    size_t size, length = 0;
    int status = -1, is_over = 0;
    IS(omni_loop_buffer(loop, &buffer, &size), 0);
    while (streams > 0 || !is_over) {
        omni_loop_event events[8];
        int count = omni_loop_wait(loop, events, 8, 60 * SECOND);
        OK(count > 0);
        for (int i = 0; i < count; i++) {
            if (events[i].kind == OMNI_EVENT_CHILD) {
                IS(events[i].token, 5);
                status = (int)events[i].value;
                is_over = 1;
            } else if (events[i].kind == OMNI_EVENT_DATA && conn_of(&events[i]) == conn) {
                OK(length + events[i].length < capacity);
                memcpy(output + length, buffer + events[i].offset, events[i].length);
                length += events[i].length;
            } else if (events[i].kind == OMNI_EVENT_ENDED) {
                IS(omni_conn_close(conn_of(&events[i])), 0);
            } else if (events[i].kind == OMNI_EVENT_CLOSED) {
                streams--;
            }
        }
    }
    output[length] = 0;
    return status;
}

static void streams_and_status(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const char *words[] = {"sh", "-c", "read word; echo \"$word $NAME $(pwd)\"; exit 3", NULL};
    const char *environment[] = {"NAME=of=it", "PATH=/usr/bin:/bin", NULL};
    omni_spawn_options options = {
        .size = sizeof options, .flags = ALL, .environment = environment, .directory = "/"};
    omni_spawned spawned;
    char output[64];
    IS(omni_loop_spawn(loop, words, &options, NULL, 5, &spawned), 0);
    OK(spawned.pid > 0 && spawned.reserved == 0);
    OK(spawned.stdin_conn && spawned.stdout_conn && spawned.stderr_conn);
    OK(omni_conn_write(spawned.stdin_conn, "hello\n", 6) >= 0);
    IS(omni_conn_close(spawned.stdin_conn), 0);
    int status = run(loop, spawned.stdout_conn, 3, output, sizeof output);
    OK(WIFEXITED(status));
    IS(WEXITSTATUS(status), 3);
    OK(strcmp(output, "hello of=it /\n") == 0);
    omni_loop_free(loop);
}

static void without_streams(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const char *words[] = {"sleep", "1000", NULL};
    omni_spawned spawned;
    char output[1];
    IS(omni_loop_spawn(loop, words, NULL, NULL, 5, &spawned), 0);
    OK(!spawned.stdin_conn && !spawned.stdout_conn && !spawned.stderr_conn);
    IS(kill(spawned.pid, SIGKILL), 0);
    int status = run(loop, NULL, 0, output, sizeof output);
    OK(WIFSIGNALED(status));
    IS(WTERMSIG(status), SIGKILL);
    const char *true_words[] = {"true", NULL};
    IS(omni_loop_spawn(loop, true_words, NULL, NULL, 5, NULL), 0);
    IS(run(loop, NULL, 0, output, sizeof output), 0);
    omni_loop_free(loop);
}

static void bad_arguments(uint32_t engine)
{
    omni_loop *loop = new_loop(engine, NULL);
    const char *none[] = {NULL}, *words[] = {"true", NULL}, *nobody[] = {"/no/such/program", NULL};
    const char *nameless[] = {"=x", NULL};
    const omni_handler handler = {.size = sizeof handler};
    omni_spawn_options options = {.size = sizeof options, .flags = 8};
    IS(omni_loop_spawn(loop, NULL, NULL, NULL, 5, NULL), -EINVAL);
    IS(omni_loop_spawn(loop, none, NULL, NULL, 5, NULL), -EINVAL);
    IS(omni_loop_spawn(loop, nobody, NULL, NULL, 5, NULL), -ENOENT);
    OK(strstr(omni_last_error(), "/no/such/program"));
    IS(omni_loop_spawn(loop, words, &options, NULL, 5, NULL), -EINVAL);
    options.flags = 0;
    options.environment = nameless;
    IS(omni_loop_spawn(loop, words, &options, NULL, 5, NULL), -EINVAL);
    options.environment = NULL;
    options.size--;
    IS(omni_loop_spawn(loop, words, &options, NULL, 5, NULL), -EINVAL);
    options.size = UINT32_MAX;
    IS(omni_loop_spawn(loop, words, &options, NULL, 5, NULL), -E2BIG);
    IS(omni_loop_spawn(loop, words, NULL, &handler, 5, NULL), -EINVAL);
    omni_loop_free(loop);
    IS(omni_loop_spawn(loop, words, NULL, NULL, 5, NULL), -ESTALE);
}

static const struct behaviour behaviours[] = {
    {"streams_and_status", streams_and_status},
    {"without_streams", without_streams},
    {"bad_arguments", bad_arguments},
};

int main(void)
{
    check_on_every_engine(behaviours, sizeof behaviours / sizeof *behaviours);
    return 0;
}
