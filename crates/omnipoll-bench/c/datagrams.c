/* What Linux can do for many datagrams of one size to and from one peer: a batch of them by sendmmsg(2)
 * and recvmmsg(2), as the library has it, beside one segmented message (UDP_SEGMENT) that is received as
 * one train (UDP_GRO) or one by one; and what the address costs that each was sent to (IP_PKTINFO).
 *
 *     make -C crates/omnipoll-bench ../../target/bench/datagrams_c && target/bench/datagrams_c
 *
 * Both ends are in this process, on the loopback device, which delivers a datagram within the call that
 * sends it. CPU per datagram in nanoseconds, the middle half of 1,000 turns. */
#include "measure.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { BATCH = 32, SLOT = 65536, TURNS = 1000, REPEATS = 20 };

struct ends {
    int from, to;
};

static char data[BATCH * 1472], slots[BATCH][SLOT];
static char controls[BATCH][128];
static struct mmsghdr headers[BATCH];
static struct iovec pieces[BATCH];
static struct sockaddr_in peer, senders[BATCH];

static int bound(struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 8 << 20;
    socklen_t length = sizeof *address;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    must(fd >= 0 && bind(fd, (struct sockaddr *)address, length) == 0, "bind");
    must(getsockname(fd, (struct sockaddr *)address, &length) == 0, "getsockname");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    return fd;
}

static void set(int fd, int level, int option) {
    int yes = 1;
    must(setsockopt(fd, level, option, &yes, sizeof yes) == 0, "setsockopt");
}

static void send_batch(const struct ends *ends, int size, int with_source) {
    for (int i = 0; i < BATCH; i++) {
        pieces[i] = (struct iovec){data + i * size, (size_t)size};
        headers[i].msg_hdr =
            (struct msghdr){.msg_name = &peer, .msg_namelen = sizeof peer, .msg_iov = &pieces[i], .msg_iovlen = 1};
        if (with_source) {
            struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(INADDR_LOOPBACK)};
            headers[i].msg_hdr.msg_control = controls[i];
            headers[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof info);
            struct cmsghdr *message = CMSG_FIRSTHDR(&headers[i].msg_hdr);
            message->cmsg_level = IPPROTO_IP;
            message->cmsg_type = IP_PKTINFO;
            message->cmsg_len = CMSG_LEN(sizeof info);
            memcpy(CMSG_DATA(message), &info, sizeof info);
        }
    }
    must(sendmmsg(ends->from, headers, BATCH, 0) == BATCH, "sendmmsg");
}

/* As many as one message has room for: 64 segments, 65,507 bytes. */
static void send_train(const struct ends *ends, int size) {
    for (int sent = 0, count; sent < BATCH; sent += count) {
        uint16_t segment = (uint16_t)size;
        count = 65507 / size < BATCH - sent ? 65507 / size : BATCH - sent;
        struct iovec piece = {data + sent * size, (size_t)(count * size)};
        struct msghdr header = {.msg_name = &peer, .msg_namelen = sizeof peer, .msg_iov = &piece, .msg_iovlen = 1,
                                .msg_control = controls[0], .msg_controllen = CMSG_SPACE(sizeof segment)};
        struct cmsghdr *message = CMSG_FIRSTHDR(&header);
        message->cmsg_level = IPPROTO_UDP;
        message->cmsg_type = UDP_SEGMENT;
        message->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(message), &segment, sizeof segment);
        must(sendmsg(ends->from, &header, 0) == count * size, "sendmsg with UDP_SEGMENT");
    }
}

/* Receives `size` bytes BATCH times, however they come. */
static void receive(const struct ends *ends, int size, int has_control) {
    for (int bytes = 0; bytes < BATCH * size;) {
        for (int i = 0; i < BATCH; i++) {
            pieces[i] = (struct iovec){slots[i], SLOT};
            headers[i].msg_hdr = (struct msghdr){.msg_name = &senders[i], .msg_namelen = sizeof senders[i],
                                                 .msg_iov = &pieces[i], .msg_iovlen = 1,
                                                 .msg_control = has_control ? controls[i] : NULL,
                                                 .msg_controllen = has_control ? sizeof controls[i] : 0};
        }
        int count = recvmmsg(ends->to, headers, BATCH, MSG_DONTWAIT, NULL);
        must(count > 0, "recvmmsg");
        for (int i = 0; i < count; i++)
            bytes += (int)headers[i].msg_len;
    }
}

static double cpu(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

enum way { PLAIN, TRAIN, TRAIN_BOTH_WAYS, WITH_ADDRESSES };

static void measure(enum way way, const char *name, int size) {
    static struct figure figures[2] = {{.name = "send"}, {.name = "receive"}};
    struct ends ends = {.to = bound(&peer)};
    struct sockaddr_in own;
    ends.from = bound(&own);
    if (way == TRAIN_BOTH_WAYS)
        set(ends.to, IPPROTO_UDP, UDP_GRO);
    if (way == WITH_ADDRESSES)
        set(ends.to, IPPROTO_IP, IP_PKTINFO);
    for (int turn = 0; turn < TURNS; turn++) {
        double sending = 0, receiving = 0;
        for (int repeat = 0; repeat < REPEATS; repeat++) {
            double begun = cpu();
            if (way == TRAIN || way == TRAIN_BOTH_WAYS)
                send_train(&ends, size);
            else
                send_batch(&ends, size, way == WITH_ADDRESSES);
            double sent = cpu();
            receive(&ends, size, way == TRAIN_BOTH_WAYS || way == WITH_ADDRESSES);
            sending += sent - begun;
            receiving += cpu() - sent;
        }
        figures[0].values[turn] = sending / (REPEATS * BATCH);
        figures[1].values[turn] = receiving / (REPEATS * BATCH);
    }
    double sent = middle(figures[0].values, TURNS), received = middle(figures[1].values, TURNS);
    printf("%5d bytes  %-34s %7.0f %8.0f %7.0f\n", size, name, sent, received, sent + received);
    close(ends.from);
    close(ends.to);
}

int main(void) {
    settle_down();
    printf("%-46s %7s %8s %7s\n", "ns of CPU per datagram", "send", "receive", "both");
    const int sizes[] = {64, 512, 1200, 1472};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        measure(PLAIN, "sendmmsg, recvmmsg", sizes[i]);
        measure(WITH_ADDRESSES, "the same with IP_PKTINFO", sizes[i]);
        measure(TRAIN, "UDP_SEGMENT, recvmmsg", sizes[i]);
        measure(TRAIN_BOTH_WAYS, "UDP_SEGMENT, UDP_GRO", sizes[i]);
    }
    return 0;
}
