/* PERSONALISE: the first frame of a machine's connection makes of a template this machine and no other.
 *
 * Entropy comes first, so that whatever is random from here on is random here alone; then the clock, which stood still
 * while the machine was a file. src/guest/Personalisation.ts is the other side. */
#include "init.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define PERSONALISE 0x20
#define PERSONALISED 0xa0
#define FAIL 0x83
#define VERSION 1u
#define HEADER 9u
#define TOKEN 32u
#define ENTROPY_MIN 64u
#define ENTROPY_MAX 512u
#define RESOLV_MAX 4096u
#define PAYLOAD_MAX 8192u
#define ANSWER (TOKEN + 12u + 16u)
/* From its first byte to its last. */
#define FRAME_MILLIS 10000u

static uint8_t frame[HEADER + PAYLOAD_MAX];
static const uint8_t *at, *end;
static uint32_t seq;
static int host = -1;

static uint32_t get_u32(const uint8_t *from) {
  uint32_t value;
  memcpy(&value, from, sizeof value);
  return le32toh(value);
}

static void put_u32(uint8_t *to, uint32_t value) {
  value = htole32(value);
  memcpy(to, &value, sizeof value);
}

static void put_u64(uint8_t *to, uint64_t value) {
  value = htole64(value);
  memcpy(to, &value, sizeof value);
}

static void answer(uint8_t type, const uint8_t *payload, size_t size) {
  uint8_t bytes[HEADER + 256];
  put_u32(bytes, (uint32_t)size);
  bytes[4] = type;
  put_u32(bytes + 5, seq);
  memcpy(bytes + HEADER, payload, size);
  /* The first bytes of a connection: there is room for them. */
  if (write(host, bytes, HEADER + size) != (ssize_t)(HEADER + size)) fatal("answer", "the host");
}

/* Says why, on the wire and on the console. The machine does not come back. */
static _Noreturn void refuse(int error, const char *why) {
  uint8_t payload[8 + 128];
  size_t size = strlen(why);
  put_u32(payload, (uint32_t)error);
  put_u32(payload + 4, (uint32_t)size);
  memcpy(payload + 8, why, size);
  answer(FAIL, payload, 8 + size);
  errno = error;
  say("personalise:", why);
  /* What is not yet on the wire would go with the machine. */
  nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
  end_machine();
}

static void receive(uint8_t *into, size_t size, uint64_t until) {
  while (size > 0) {
    uint64_t now = now_millis();
    struct pollfd ready = {.fd = host, .events = POLLIN};
    if (now >= until || poll(&ready, 1, (int)(until - now)) == 0) refuse(ETIMEDOUT, "the first frame did not come to its end");
    ssize_t n = read(host, into, size);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    errno = n == 0 ? ECONNRESET : errno;
    if (n <= 0) fatal("personalise:", "the host went");
    into += n;
    size -= (size_t)n;
  }
}

static const uint8_t *take(size_t size) {
  if ((size_t)(end - at) < size) refuse(EBADMSG, "a frame that does not parse");
  at += size;
  return at - size;
}

static const uint8_t *take_string(size_t *size, size_t most) {
  *size = get_u32(take(4));
  if (*size > most) refuse(EBADMSG, "a frame that does not parse");
  return take(*size);
}

static void reseed(const uint8_t *bytes, size_t size) {
  struct {
    struct rand_pool_info info;
    uint8_t bytes[ENTROPY_MAX];
  } pool = {.info = {.entropy_count = (int)size * 8, .buf_size = (int)size}};
  memcpy(pool.bytes, bytes, size);
  int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
  if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG, 0) < 0) refuse(errno, "entropy");
  close(fd);
  explicit_bzero(&pool, sizeof pool);
}

/* As RFC 9562 has version 4, which is how machine ids are made. */
static void machine_id(uint8_t id[16]) {
  char text[34];
  if (getrandom(id, 16, 0) != 16) refuse(errno, "random bytes");
  id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
  id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
  for (int i = 0; i < 16; i++) snprintf(text + 2 * i, 3, "%02x", id[i]);
  text[32] = '\n';
  if (!new_file(OWN "/machine-id", 0444, text, 33)) refuse(errno, "machine-id");
}

static void name_machine(const uint8_t *name, size_t size) {
  char line[128];
  if (sethostname((const char *)name, size) < 0) refuse(errno, "hostname");
  int n = snprintf(line, sizeof line, "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %.*s\n", (int)size, (const char *)name);
  if (!new_file("/etc/hosts", 0644, line, (size_t)n)) say("write", "/etc/hosts");
}

void personalise(int fd) {
  host = fd;
  uint64_t until = now_millis() + FRAME_MILLIS;
  receive(frame, HEADER, until);
  uint32_t size = get_u32(frame);
  seq = get_u32(frame + 5);
  if (frame[4] != PERSONALISE) refuse(EPROTO, "the first frame is not a PERSONALISE");
  if (size > PAYLOAD_MAX) refuse(EMSGSIZE, "a PERSONALISE that is too long");
  receive(frame + HEADER, size, until);
  at = frame + HEADER;
  end = at + size;
  if (get_u32(take(4)) != VERSION) refuse(EPROTONOSUPPORT, "another version of PERSONALISE");
  struct timespec now;
  const uint8_t *seconds = take(8);
  now.tv_sec = (time_t)((uint64_t)get_u32(seconds) | (uint64_t)get_u32(seconds + 4) << 32);
  now.tv_nsec = (long)get_u32(take(4));
  const uint8_t *token = take(TOKEN);
  size_t entropy_size, name_size, resolv_size;
  const uint8_t *entropy = take_string(&entropy_size, ENTROPY_MAX), *name = take_string(&name_size, 64);
  uint8_t flags = *take(1);
  const uint8_t *resolv = take_string(&resolv_size, RESOLV_MAX);
  if (at != end || entropy_size < ENTROPY_MIN || now.tv_nsec >= 1000000000) refuse(EBADMSG, "a frame that does not parse");

  reseed(entropy, entropy_size);
  if (clock_settime(CLOCK_REALTIME, &now) < 0) refuse(errno, "clock");
  name_machine(name, name_size);
  if (!new_file(OWN "/resolv.conf", 0644, (const char *)resolv, resolv_size)) refuse(errno, "resolv.conf");
  if (flags & 1) default_route();
  uint8_t payload[ANSWER];
  memcpy(payload, token, TOKEN);
  machine_id(payload + TOKEN + 12);
  clock_gettime(CLOCK_REALTIME, &now);
  put_u64(payload + TOKEN, (uint64_t)now.tv_sec);
  put_u32(payload + TOKEN + 8, (uint32_t)now.tv_nsec);
  answer(PERSONALISED, payload, sizeof payload);
  explicit_bzero(frame, sizeof frame);
}
