/* slow_link.c: a link of a given latency and rate between two network namespaces: two tun devices
 * and this process, which hands packets from one to the other. For kernels without tc's netem and
 * tbf.
 *
 * slow_link PID_A PID_B NAME MS MBIT: devices NAME in the network namespaces of two processes. A
 * packet leaves when those before it have left at the rate, and arrives MS later. Prints "up" once
 * the devices are there; runs until it is killed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
    PACKET_BYTES = 65536,
    PACKETS = 4096 /* on the way in one direction; further ones are dropped, as by a full router */
};

typedef struct {
    int64_t due_ns;
    ssize_t bytes;
    char *data;
} Packet;

typedef struct {
    int from, to;
    Packet packets[PACKETS]; /* a ring */
    size_t first, n;
    int64_t free_ns; /* the last packet has left by then */
} Direction;

static void fail(const char *what) {
    perror(what);
    exit(3);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int tun_open(const char *pid, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/ns/net", pid);
    int space = open(path, O_RDONLY), tun = -1;
    if (space < 0 || setns(space, CLONE_NEWNET) != 0) fail(path);
    if ((tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK)) < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(tun, TUNSETIFF, &request) != 0) fail("TUNSETIFF");
    close(space);
    return tun;
}

static void accept_packets(Direction *d, double ns_per_byte, int64_t latency_ns) {
    static char data[PACKET_BYTES];
    ssize_t bytes;
    while ((bytes = read(d->from, data, sizeof data)) > 0) {
        if (d->n == PACKETS) continue;
        Packet *p = &d->packets[(d->first + d->n++) % PACKETS];
        int64_t now = now_ns(), begin = d->free_ns > now ? d->free_ns : now;
        d->free_ns = begin + (int64_t)((double)bytes * ns_per_byte);
        *p = (Packet){
            .due_ns = d->free_ns + latency_ns, .bytes = bytes, .data = malloc((size_t)bytes)};
        if (p->data == NULL) fail("malloc");
        memcpy(p->data, data, (size_t)bytes);
    }
}

/* Returns how long the next packet has to wait, or -1. */
static int64_t deliver_packets(Direction *d) {
    for (; d->n > 0; d->n--) {
        Packet *p = &d->packets[d->first];
        int64_t wait = p->due_ns - now_ns();
        if (wait > 0) return wait;
        if (write(d->to, p->data, (size_t)p->bytes) < 0 && errno != EIO) /* EIO: not up yet */
            perror("a packet is lost");
        free(p->data);
        d->first = (d->first + 1) % PACKETS;
    }
    return -1;
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: slow_link PID_A PID_B NAME MS MBIT\n");
        return 2;
    }
    int a = tun_open(argv[1], argv[3]), b = tun_open(argv[2], argv[3]);
    int64_t latency_ns = (int64_t)(atof(argv[4]) * 1e6);
    double ns_per_byte = 8e3 / atof(argv[5]);
    static Direction directions[2];
    directions[0].from = directions[1].to = a;
    directions[0].to = directions[1].from = b;
    puts("up");
    fflush(stdout);
    for (;;) {
        int64_t wait = -1;
        for (int i = 0; i < 2; i++) {
            accept_packets(&directions[i], ns_per_byte, latency_ns);
            int64_t next = deliver_packets(&directions[i]);
            if (next >= 0 && (wait < 0 || next < wait)) wait = next;
        }
        struct timespec time = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
        struct pollfd files[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
        ppoll(files, 2, wait >= 0 ? &time : NULL, NULL);
    }
}
