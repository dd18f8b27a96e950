/* tsc: the rate of this processor's time stamp counter in kHz, as a line on fd 1. usage: tsc
 *
 * For machines that are emulated: their counter is this one, and they have nothing to measure it against (docs/microvms.md).
 * Measured over 50 ms against CLOCK_MONOTONIC_RAW, which no NTP bends; of each pair of readings the quickest of several, so
 * that having been descheduled between the two does not matter. Exit 1, with the reason on fd 2, where there is no such counter. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#ifdef __x86_64__
#include <x86intrin.h>

struct reading {
  int64_t nanos;
  uint64_t ticks;
};

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_RAW, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct reading take(void) {
  struct reading best = {0};
  int64_t least = INT64_MAX;
  for (int i = 0; i < 64; i++) {
    int64_t before = now();
    uint64_t ticks = __rdtsc();
    int64_t after = now();
    if (after - before >= least) continue;
    least = after - before;
    best = (struct reading){.nanos = before + least / 2, .ticks = ticks};
  }
  return best;
}

int main(void) {
  const struct timespec span = {.tv_nsec = 50000000};
  struct reading from = take();
  nanosleep(&span, NULL);
  struct reading to = take();
  if (to.ticks <= from.ticks || to.nanos <= from.nanos) {
    fprintf(stderr, "stoker-tsc: the counter does not go on\n");
    return 1;
  }
  uint64_t khz = (to.ticks - from.ticks) * 1000000 / (uint64_t)(to.nanos - from.nanos);
  return printf("%llu\n", (unsigned long long)khz) < 0;
}
#else
int main(void) {
  fprintf(stderr, "stoker-tsc: this processor has none\n");
  return 1;
}
#endif
