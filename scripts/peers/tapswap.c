/* SPDX-License-Identifier: MIT
 *
 * The least a user-space UDP echo on a TAP device can do: read a frame, swap its MAC and IPv4 addresses and its UDP ports, write it
 * back. Swapping leaves both checksums right. The peer that the echo LibOS is compared with; it answers nothing else, so the client
 * needs a permanent neighbour entry. Usage: tapswap DEVICE poll|sleep; ends with SIGTERM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void swap(uint8_t *a, uint8_t *b, size_t n)
{
    uint8_t keep[6];
    memcpy(keep, a, n);
    memcpy(a, b, n);
    memcpy(b, keep, n);
}

static int is_udp(const uint8_t *frame, ssize_t n)
{
    return n >= 42 && frame[12] == 8 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == 17;
}

static int attach(const char *name, int flags)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | flags);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    return fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0 ? fd : -1;
}

int main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[2], "poll") != 0 && strcmp(argv[2], "sleep") != 0)) {
        fprintf(stderr, "usage: tapswap DEVICE poll|sleep\n");
        return 2;
    }
    int fd = attach(argv[1], strcmp(argv[2], "poll") == 0 ? O_NONBLOCK : 0);
    if (fd < 0) {
        perror(argv[1]);
        return 1;
    }
    static uint8_t frame[65536];
    for (;;) {
        ssize_t n = read(fd, frame, sizeof frame);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            perror("read");
            return 1;
        }
        if (!is_udp(frame, n))
            continue;
        swap(frame, frame + 6, 6);
        swap(frame + 26, frame + 30, 4);
        swap(frame + 34, frame + 36, 2);
        if (write(fd, frame, (size_t)n) < 0 && errno != EAGAIN) {
            perror("write");
            return 1;
        }
    }
}
