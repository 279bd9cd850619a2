/* The proxy on epoll, level-triggered, with no library. */
#include "copy.h"
#include "epoll_interest.h"
#include "pair.h"
#include "on_epoll.h"

int main(int argc, char **argv) {
    run(argc, argv);
}
