/* SPDX-License-Identifier: MIT
 *
 * A blocking UDP client: sends one byte, waits for it to come back, again, for a while. Waits up to ten seconds for the first answer,
 * warms up, then counts. Usage: udpping ADDRESS PORT SECONDS; prints one JSON object:
 * {"round_trips": n, "seconds": s, "lost": n, "p50_us": x, "p99_us": x}
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP = 100, FIRST_TRIES = 100, MOST_SAMPLES = 1 << 22 };

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* 1: the byte that was sent came back; 0: nothing, or an old one. */
static int round_trip(int fd, uint8_t byte)
{
    uint8_t answer;
    if (send(fd, &byte, 1, 0) != 1)
        return 0;
    while (recv(fd, &answer, 1, 0) == 1)
        if (answer == byte)
            return 1;
    return 0;
}

static void set_patience(int fd, long microseconds)
{
    struct timeval patience = {microseconds / 1000000, microseconds % 1000000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    double seconds = argc == 4 ? atof(argv[3]) : 0;
    if (seconds <= 0 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: udpping ADDRESS PORT SECONDS\n");
        return 2;
    }
    to.sin_port = htons((uint16_t)atoi(argv[2]));
    int fd = socket(AF_INET, SOCK_DGRAM, 0), up = 0;
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        perror(argv[1]);
        return 1;
    }
    set_patience(fd, 100000);
    for (int i = 0; i < FIRST_TRIES && !up; i++) {
        up = round_trip(fd, 255);
        if (!up)
            usleep(10000);
    }
    if (!up) {
        fprintf(stderr, "udpping: no answer from %s port %s\n", argv[1], argv[2]);
        return 1;
    }
    set_patience(fd, 1000000);
    for (int i = 0; i < WARM_UP; i++)
        round_trip(fd, (uint8_t)i);

    uint32_t *took = malloc(MOST_SAMPLES * sizeof *took);
    uint64_t start = now(), end = start + (uint64_t)(seconds * 1e9), at = start, good = 0, lost = 0;
    while (took && at < end) {
        int came = round_trip(fd, (uint8_t)(good + lost));
        uint64_t then = now();
        if (!came)
            lost++;
        else if (good++ < MOST_SAMPLES)
            took[good - 1] = (uint32_t)(then - at);
        at = then;
    }
    uint64_t n = good < MOST_SAMPLES ? good : MOST_SAMPLES;
    if (!took || n == 0)
        return 1;
    qsort(took, n, sizeof *took, by_size);
    printf("{\"round_trips\": %llu, \"seconds\": %.6f, \"lost\": %llu, \"p50_us\": %.3f, \"p99_us\": %.3f}\n", (unsigned long long)good,
           (double)(at - start) / 1e9, (unsigned long long)lost, took[n / 2] / 1e3, took[n * 99 / 100] / 1e3);
    return 0;
}
