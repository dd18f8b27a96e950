/* Frames in and out: two fixed buffers, no allocation, no copy between a job's pipe and the frame it leaves in. */
#include "guest.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IN_CAP (HEADER + MAX_PAYLOAD + CHUNK)
#define PAGE (64u << 10) /* the largest page size there is */
#define PAGES(size) ((size) / PAGE * PAGE) /* madvise would round up, into the next variable */

static uint8_t out[OUT_CAP] __attribute__((aligned(PAGE)));
static size_t out_head, out_tail, out_peak;
static uint8_t in[IN_CAP] __attribute__((aligned(PAGE)));
static size_t in_head, in_tail, in_peak;
static size_t in_frame; /* size of the frame in_next gave out */

void put_u32(uint8_t *at, uint32_t value) {
  value = htole32(value);
  memcpy(at, &value, sizeof value);
}

void put_u64(uint8_t *at, uint64_t value) {
  value = htole64(value);
  memcpy(at, &value, sizeof value);
}

static uint32_t get_u32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return le32toh(value);
}

size_t out_pending(void) { return out_tail - out_head; }
size_t out_room(void) { return OUT_CAP - out_pending(); }

void out_release(void) {
  if (out_head != out_tail || out_peak <= CHUNK) return;
  madvise(out, PAGES(sizeof out), MADV_DONTNEED);
  out_peak = 0;
}

bool out_flush(void) {
  while (out_head < out_tail) {
    ssize_t n = write(STDOUT_FILENO, out + out_head, out_tail - out_head);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN;
    }
    out_head += (size_t)n;
  }
  out_head = out_tail = 0;
  return true;
}

/* The callers keep to REPLY_ROOM and OUT_HALF, so there is always room: leaving it would be our own bug. */
uint8_t *reply_begin(size_t payload_max) {
  if (out_room() < HEADER + payload_max) malformed("(own bug) no room for an answer");
  if (OUT_CAP - out_tail < HEADER + payload_max) {
    memmove(out, out + out_head, out_pending());
    out_tail -= out_head;
    out_head = 0;
  }
  return out + out_tail + HEADER;
}

void reply_end(uint8_t type, uint32_t seq, size_t payload_size) {
  uint8_t *at = out + out_tail;
  put_u32(at, (uint32_t)payload_size);
  at[4] = type;
  put_u32(at + 5, seq);
  out_tail += HEADER + payload_size;
  if (out_tail > out_peak) out_peak = out_tail;
}

void reply(uint8_t type, uint32_t seq, const void *payload, size_t size) {
  uint8_t *at = reply_begin(size);
  if (size > 0) memcpy(at, payload, size);
  reply_end(type, seq, size);
}

void reply_ok(uint32_t seq) { reply(OK, seq, NULL, 0); }

void reply_fail(uint32_t seq, int error, const char *what, const char *which) {
  char text[512];
  int n = snprintf(text, sizeof text, "%s %.400s", what, which);
  size_t size = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
  uint8_t *at = reply_begin(8 + size);
  put_u32(at, (uint32_t)error);
  put_u32(at + 4, (uint32_t)size);
  memcpy(at + 8, text, size);
  reply_end(FAIL, seq, 8 + size);
}

bool in_fill(void) {
  size_t have = in_tail - in_head, want = CHUNK;
  if (in_head > 0) {
    memmove(in, in + in_head, have);
    in_head = 0;
    in_tail = have;
  }
  if (have >= HEADER) { /* in_next has already refused a length above MAX_PAYLOAD */
    size_t missing = HEADER + get_u32(in) - have;
    if (missing > want) want = missing;
  }
  if (want > IN_CAP - in_tail) want = IN_CAP - in_tail;
  ssize_t n = read(STDIN_FILENO, in + in_tail, want);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  in_tail += (size_t)n;
  if (in_tail > in_peak) in_peak = in_tail;
  return true;
}

bool in_next(struct frame *f) {
  size_t have = in_tail - in_head;
  if (have < HEADER) return false;
  uint8_t *at = in + in_head;
  uint32_t size = get_u32(at);
  if (size > MAX_PAYLOAD) malformed("a frame above 1 MiB");
  if (at[4] < PUT || at[4] > MEASURE) malformed("an unknown frame type");
  if (have < HEADER + size) return false;
  in_frame = HEADER + size;
  *f = (struct frame){.type = at[4], .seq = get_u32(at + 5), .at = at + HEADER, .end = at + HEADER + size};
  return true;
}

void in_done(void) {
  in_head += in_frame;
  if (in_head < in_tail) return;
  in_head = in_tail = 0;
  if (in_peak > CHUNK) { /* a big file passed through: do not keep its pages */
    madvise(in, PAGES(sizeof in), MADV_DONTNEED);
    in_peak = 0;
  }
}

static bool take(struct frame *f, size_t size) {
  if ((size_t)(f->end - f->at) < size) f->bad = true;
  if (!f->bad) f->at += size;
  return !f->bad;
}

uint8_t take_u8(struct frame *f) { return take(f, 1) ? f->at[-1] : 0; }
uint32_t take_u32(struct frame *f) { return take(f, 4) ? get_u32(f->at - 4) : 0; }

uint64_t take_u64(struct frame *f) {
  uint64_t low = take_u32(f);
  return low | (uint64_t)take_u32(f) << 32;
}

/* The length before the string makes room for the NUL behind it: the string moves down by one byte. */
char *take_string(struct frame *f) {
  uint32_t size = take_u32(f);
  if (!take(f, size)) return NULL;
  uint8_t *end = f->at - 1;
  char *text = (char *)(end - size);
  memmove(text, text + 1, size);
  *end = 0;
  return memchr(text, 0, size) == NULL ? text : NULL;
}
