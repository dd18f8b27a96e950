/* Limits and measures inside a machine of our own: a cgroup v2 for each LIMIT, in which the phases after it live.
 *
 * The groups are root's, and the guest's file access is the job's: it takes its own back for these few files. A phase enters
 * through a descriptor that the guest opened, as the kernel asks who opened it; it has none itself, and no way to the files. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNKNOWN UINT64_MAX
#define PERIOD_MICROS 100000u
#define QUOTA_MIN_MICROS 1000u /* the kernel's */

int group_procs = -1;

static int base = -1;
static uint32_t first = 1, last = 0; /* groups that may be there; the last is the phases' */

void groups_init(const char *dir) { base = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC); }
bool groups_ready(void) { return base >= 0; }

static void as_ourselves(void) {
  if (!job.set) return;
  setfsgid(getegid());
  setfsuid(geteuid());
}

static void as_job(void) {
  if (!job.set) return;
  setfsgid(job.gid);
  setfsuid(job.uid);
}

static int open_file(uint32_t group, const char *file, int flags) {
  char path[64];
  snprintf(path, sizeof path, "%" PRIu32 "/%s", group, file);
  return openat(base, path, flags | O_CLOEXEC);
}

/* 0 or errno. */
static int put(uint32_t group, const char *file, const char *text) {
  int fd = open_file(group, file, O_WRONLY);
  if (fd < 0) return errno;
  int error = write(fd, text, strlen(text)) < 0 ? errno : 0;
  close(fd);
  return error;
}

static int put_number(uint32_t group, const char *file, uint64_t value) {
  char text[24] = "max";
  if (value != 0) snprintf(text, sizeof text, "%" PRIu64, value);
  return put(group, file, text);
}

static int set_limits(uint32_t group, uint64_t memory, uint64_t pids, uint64_t cpu, const char **which) {
  char quota[48];
  if (cpu == 0) snprintf(quota, sizeof quota, "max %u", PERIOD_MICROS);
  else snprintf(quota, sizeof quota, "%" PRIu64 " %u", cpu < QUOTA_MIN_MICROS ? QUOTA_MIN_MICROS : cpu, PERIOD_MICROS);
  int error = put_number(group, *which = "memory.max", memory);
  if (error == 0 && (error = put(group, *which = "memory.swap.max", "0")) == ENOENT) error = 0; /* no swap at all */
  if (error == 0) error = put_number(group, *which = "pids.max", pids);
  if (error == 0) error = put(group, *which = "cpu.max", quota);
  return error;
}

static void remove_group(uint32_t group) {
  char name[16];
  snprintf(name, sizeof name, "%" PRIu32, group);
  if (unlinkat(base, name, AT_REMOVEDIR) == 0 || errno == ENOENT) if (group == first) first += 1;
}

/* A new group with these limits, with its way in, or errno. */
static int new_group(uint64_t memory, uint64_t pids, uint64_t cpu, const char **which) {
  char name[16];
  uint32_t group = last + 1;
  snprintf(name, sizeof name, "%" PRIu32, group);
  *which = "a group";
  if (mkdirat(base, name, 0755) < 0) return errno;
  int error = set_limits(group, memory, pids, cpu, which);
  int procs = error == 0 ? open_file(group, *which = "cgroup.procs", O_WRONLY) : -1;
  if (procs < 0) {
    if (error == 0) error = errno;
    unlinkat(base, name, AT_REMOVEDIR);
    return error;
  }
  if (group_procs >= 0) close(group_procs);
  group_procs = procs;
  last = group;
  for (uint32_t old = first; old < last; old++) remove_group(old); /* one with somebody in it goes next time */
  return 0;
}

/* While a phase waits or runs its own group is changed: it is the one it was meant for. */
void handle_limit(struct frame *f) {
  uint64_t memory = take_u64(f), pids = take_u64(f), cpu = take_u64(f);
  if (f->bad || f->at != f->end) malformed("a LIMIT that does not parse");
  if (base < 0) return reply_fail(f->seq, EOPNOTSUPP, "limit", "without --cgroup");
  const char *which = "";
  as_ourselves();
  int error = phase_active() && group_procs >= 0
    ? set_limits(last, memory, pids, cpu, &which)
    : new_group(memory, pids, cpu, &which);
  as_job();
  if (error != 0) return reply_fail(f->seq, error, "limit", which);
  reply_ok(f->seq);
}

/* The number after a word of a file of the group; the whole file's first number without a word. */
static uint64_t read_number(const char *file, const char *word) {
  char text[2048];
  int fd = open_file(last, file, O_RDONLY);
  if (fd < 0) return UNKNOWN;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return UNKNOWN;
  text[n] = 0;
  if (word == NULL) return *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) : UNKNOWN;
  size_t length = strlen(word);
  for (char *line = text; line != NULL; line = strchr(line, '\n')) {
    if (*line == '\n') line += 1;
    if (strncmp(line, word, length) == 0 && line[length] == ' ') return strtoull(line + length + 1, NULL, 10);
  }
  return UNKNOWN;
}

/* Of all disks together. A group that touched none has an empty file. */
static uint64_t read_io(const char *word) {
  char text[2048];
  uint64_t sum = 0;
  int fd = open_file(last, "io.stat", O_RDONLY);
  if (fd < 0) return UNKNOWN;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n < 0) return UNKNOWN;
  text[n] = 0;
  for (const char *at = text; (at = strstr(at, word)) != NULL;) sum += strtoull(at += strlen(word), NULL, 10);
  return sum;
}

void handle_measure(struct frame *f) {
  if (f->at != f->end) malformed("a MEASURE with a payload");
  if (base < 0) return reply_fail(f->seq, EOPNOTSUPP, "measure", "without --cgroup");
  if (last == 0) return reply_fail(f->seq, ENODATA, "measure", "before any limit");
  const uint64_t values[] = {
    read_number("memory.peak", NULL), read_number("memory.events", "oom_kill"),
    read_number("pids.peak", NULL), read_number("pids.events", "max"),
    read_number("cpu.stat", "user_usec"), read_number("cpu.stat", "system_usec"),
    read_io(" rbytes="), read_io(" wbytes=")
  };
  uint8_t payload[sizeof values];
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) put_u64(payload + 8 * i, values[i]);
  reply(MEASURED, f->seq, payload, sizeof payload);
}
