/* A loop on io_uring's multishot polls, which report edges, with liburing and nothing else: it does not
 * ask whether a descriptor is open, or still stands for the file it was added for. What it costs is
 * what the kernel's polls cost. */
#include "watcher.h"
#include <liburing.h>
#include <poll.h>

/* Requests submitted at once: few, so that what they are written to stays in the cache. */
enum { REQUESTS = 64, COMPLETIONS = 32768 };

static struct io_uring ring;

static void open_ring(uint32_t engine) {
    (void)engine;
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETIONS,
    };
    must(io_uring_queue_init_params(REQUESTS, &ring, &params) == 0, "io_uring_setup");
}

static void close_ring(void) {
    io_uring_queue_exit(&ring);
}

/* Handles what has been completed: a poll that was cancelled is over. */
static void take(void) {
    struct io_uring_cqe *completion;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&ring, head, completion) {
        count++;
        if (completion->res > 0)
            visit((int)completion->user_data);
    }
    io_uring_cq_advance(&ring, count);
}

static struct io_uring_sqe *request(void) {
    struct io_uring_sqe *request = io_uring_get_sqe(&ring);
    if (request == NULL) {
        must(io_uring_submit_and_get_events(&ring) >= 0, "io_uring_enter");
        take();
        request = io_uring_get_sqe(&ring);
    }
    return request;
}

/* One whose own completion is only of interest if it fails. */
static void change_poll(struct io_uring_sqe *request) {
    request->flags |= IOSQE_CQE_SKIP_SUCCESS;
    request->user_data = 0;
}

static void add(int index) {
    struct io_uring_sqe *own = request();
    io_uring_prep_poll_multishot(own, descriptors[index], POLLIN);
    own->user_data = (uint64_t)descriptors[index];
}

static void change(int index, enum interest interest) {
    struct io_uring_sqe *own = request();
    uint64_t key = (uint64_t)descriptors[index];
    io_uring_prep_poll_update(own, key, key, interest == READABLE ? POLLIN : POLLOUT,
                              IORING_POLL_UPDATE_EVENTS | IORING_POLL_ADD_MULTI);
    change_poll(own);
}

static void forget(int index) {
    struct io_uring_sqe *own = request();
    io_uring_prep_cancel64(own, (uint64_t)descriptors[index], 0);
    change_poll(own);
}

static void wait_once(int for_ever) {
    int result = for_ever ? io_uring_submit_and_wait(&ring, 1) : io_uring_submit_and_get_events(&ring);
    must(result >= 0, "io_uring_enter");
    take();
}

const struct watcher raw_io_uring = {"raw io_uring, edges", 0, open_ring, close_ring, add, change, forget,
                                     wait_once};
