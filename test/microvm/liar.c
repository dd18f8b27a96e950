/* Stands in for native/init/personalise.c: a machine whose init does what LIE says. Built by Liars.ts with init's other sources. */
#include "init.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TOKEN = 1, CLOCK, GARBAGE, ENDLESS, SILENT, PANIC, HANG };

#define HEADER 9u
#define TOKEN_BYTES 32u

static void all(int fd, const void *bytes, size_t size) {
  for (const char *at = bytes; size > 0;) {
    ssize_t n = write(fd, at, size);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) end_machine();
    at += n;
    size -= (size_t)n;
  }
}

static void get(int fd, uint8_t *into, size_t size) {
  while (size > 0) {
    ssize_t n = read(fd, into, size);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) end_machine();
    into += n;
    size -= (size_t)n;
  }
}

static void frame(int fd, uint8_t type, const uint8_t *payload, uint32_t size) {
  uint8_t bytes[HEADER + 256] = {0};
  uint32_t little = htole32(size);
  memcpy(bytes, &little, 4);
  bytes[4] = type;
  memcpy(bytes + HEADER, payload, size);
  all(fd, bytes, HEADER + size);
}

static void answer(int fd, int lie) {
  uint8_t head[HEADER], asked[8192], said[TOKEN_BYTES + 12 + 16] = {1};
  get(fd, head, sizeof head);
  uint32_t size;
  memcpy(&size, head, 4);
  size = le32toh(size);
  if (size > sizeof asked) end_machine();
  get(fd, asked, size);
  uint64_t seconds;
  memcpy(&seconds, asked + 4, 8);
  seconds = htole64(le64toh(seconds) + (lie == CLOCK ? 3600 : 0));
  if (lie != TOKEN) memcpy(said, asked + 16, TOKEN_BYTES);
  memcpy(said + TOKEN_BYTES, &seconds, 8);
  memset(said + TOKEN_BYTES + 12, 7, 16);
  said[TOKEN_BYTES + 12 + 6] = 0x47; /* as an id has to look */
  said[TOKEN_BYTES + 12 + 8] = 0x87;
  frame(fd, 0xa0, said, sizeof said);
  uint8_t version[4] = {PROTOCOL};
  frame(fd, 0x81, version, sizeof version);
}

void personalise(int fd) {
  static const char garbage[] = "I am no guest of yours, and shall not stop to say so. ";
  uint8_t output[200] = {0};
  switch (LIE) {
    case GARBAGE:
      for (;;) all(fd, garbage, sizeof garbage);
    case PANIC:
      say("the last words", "of a liar");
      _exit(3);
    case ENDLESS:
      answer(fd, LIE);
      /* Output of a phase that nobody began. */
      for (;;) frame(fd, 0x85, output, sizeof output);
    default:
      answer(fd, LIE);
      for (;;) pause();
  }
}

/* Before init's first instruction. */
__attribute__((constructor)) static void hang(void) {
  while (LIE == HANG) pause();
}
