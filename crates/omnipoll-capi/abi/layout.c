/* The sizes, offsets and values that compiled programs hold. A line may be added here; one that
 * has to be changed means a new soname. */
#include <omnipoll.h>

#include <stddef.h>

#define FIELD(type, field, offset, size)                                                      \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " has moved");         \
    _Static_assert(sizeof(((type *)0)->field) == (size), #type "." #field " has grown")
#define VALUE(name, value) _Static_assert((name) == (value), #name " has changed")

_Static_assert(sizeof(omni_event) == 24, "omni_event has grown");
FIELD(omni_event, token, 0, 8);
FIELD(omni_event, value, 8, 8);
FIELD(omni_event, ready, 16, 4);
FIELD(omni_event, kind, 20, 4);

VALUE(OMNI_ENGINE_AUTO, 0);
VALUE(OMNI_ENGINE_SELECT, 1);
VALUE(OMNI_ENGINE_POLL, 2);
VALUE(OMNI_ENGINE_EPOLL, 3);
VALUE(OMNI_ENGINE_IO_URING, 4);
VALUE(OMNI_ENGINE_KQUEUE, 5);

VALUE(OMNI_INTERRUPTIBLE, 1);
VALUE(OMNI_FILES_ALWAYS_READY, 2);

VALUE(OMNI_READ, 1);
VALUE(OMNI_WRITE, 2);
VALUE(OMNI_PRIORITY, 4);
VALUE(OMNI_READ_CLOSED, 8);
VALUE(OMNI_HANGUP, 16);
VALUE(OMNI_ERROR, 32);
VALUE(OMNI_INVALID, 64);
VALUE(OMNI_EDGE, 0x100);
VALUE(OMNI_ONESHOT, 0x200);
VALUE(OMNI_EXCLUSIVE, 0x400);

VALUE(OMNI_TELLS_HANGUP, 1);
VALUE(OMNI_TELLS_READ_CLOSED, 2);
VALUE(OMNI_NATIVE_EDGE, 4);
VALUE(OMNI_HAS_EXCLUSIVE, 8);

VALUE(OMNI_EVENT_IO, 1);
VALUE(OMNI_EVENT_TIMER, 2);
VALUE(OMNI_EVENT_SIGNAL, 3);
VALUE(OMNI_EVENT_CHILD, 4);
VALUE(OMNI_EVENT_WAKE, 5);
VALUE(OMNI_EVENT_POST, 6);
