/* A first program with the library just installed. */

#include <omnipoll.h>

#include <stdio.h>
#include <unistd.h>

int main(void)
{
    omni_poller *poller;
    omni_event event;
    int ends[2];
    uint32_t version = omni_version();

    if (pipe(ends) < 0 || write(ends[1], "!", 1) != 1)
        return 1;
    if (omni_poller_new(OMNI_ENGINE_AUTO, 0, &poller) < 0
        || omni_poller_add(poller, ends[0], OMNI_READ, 42) < 0
        || omni_poller_wait(poller, &event, 1, 1000000000) != 1
        || event.token != 42) {
        fprintf(stderr, "%s\n", omni_last_error());
        return 1;
    }
    omni_poller_free(poller);
    printf("omnipoll %u.%u.%u: ready\n", (unsigned)(version >> 24), (unsigned)(version >> 16 & 255),
           (unsigned)(version >> 8 & 255));
    return 0;
}
