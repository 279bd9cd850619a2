/* Preloaded by tests: dlsym() doesn't find the functions that HIDDEN_SYMBOLS names, as in an interpreter that
 * doesn't export them. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static int is_hidden(const char *name)
{
    const char *hidden = getenv("HIDDEN_SYMBOLS");
    size_t length = strlen(name);
    while (hidden && (hidden = strstr(hidden, name)) && hidden[length] != ',' && hidden[length] != '\0')
        hidden += length;
    return hidden != NULL;
}

void *dlsym(void *restrict handle, const char *restrict name)
{
    static void *(*real)(void *, const char *);
    if (!real)
        real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    return is_hidden(name) ? NULL : real(handle, name);
}
