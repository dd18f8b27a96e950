/* The guest as a child: pid 1 of a pid namespace, in a mount namespace in which /tmp is the job's own directory and /proc
 * shows the job its own processes alone. Whatever the job starts dies with it. */
#include "agent.h"

#include "../guest/guest.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* One frame at most, and what a read brings beyond it. */
#define FRAMES_MAX (GET_MAX + 4096u)
#define PIECE (512u << 10)
/* From a phase's being told to die to its report; from SHUTDOWN to the guest's end; for the first frame. */
#define REPORT_MILLIS 3000
#define LEAVE_MILLIS 3000
#define READY_MILLIS 10000
#define JOB_PROCESSES 512
#define JOB_FILE_BYTES (256u << 20)
#define JOB_OPEN_FILES 1024

static void le32(uint8_t *at, uint32_t value) {
  value = htole32(value);
  memcpy(at, &value, sizeof value);
}

static uint32_t read32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return le32toh(value);
}

static uint64_t read64(const uint8_t *at) { return read32(at) | (uint64_t)read32(at + 4) << 32; }

/* /tmp last: the directories to be bound may lie below it. */
static bool arrange(const char *place) {
  static const char *const binds[][2] = {{"shm", "/dev/shm"}, {"tmp", "/var/tmp"}, {"tmp", "/tmp"}};
  char from[4096];
  if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return false;
  for (size_t i = 0; i < sizeof binds / sizeof *binds; i++) {
    if (access(binds[i][1], F_OK) != 0) continue;
    snprintf(from, sizeof from, "%s/%s", place, binds[i][0]);
    if (mount(from, binds[i][1], NULL, MS_BIND, NULL) < 0) return false;
    if (mount("", binds[i][1], NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL) < 0) return false;
  }
  return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2") == 0;
}

static _Noreturn void become_guest(const struct settings *settings, const char *place, int program, int in, int out) {
  char uid[16], gid[16];
  snprintf(uid, sizeof uid, "%u", settings->uid);
  snprintf(gid, sizeof gid, "%u", settings->gid);
  char *argv[] = {"guest", "--work", "/tmp", "--uid", uid, "--gid", gid, NULL};
  struct rlimit processes = {JOB_PROCESSES, JOB_PROCESSES};
  if (arrange(place) && setrlimit(RLIMIT_NPROC, &processes) == 0 && dup2(in, 0) == 0 && dup2(out, 1) == 1 &&
      chdir("/tmp") == 0) {
    syscall(SYS_execveat, program, "", argv, (char *[]){NULL}, AT_EMPTY_PATH);
  }
  dprintf(STDERR_FILENO, "stoker-agent: starting the guest: %s\n", strerror(errno));
  _exit(71);
}

static bool guest_write(struct guest *guest, const void *data, size_t size) {
  const uint8_t *at = data;
  while (size > 0) {
    ssize_t n = write(guest->in, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= (size_t)n;
  }
  return true;
}

static bool send_frame(struct guest *guest, uint8_t type, const struct text *parts, size_t count) {
  uint8_t header[HEADER] = {0};
  size_t size = 0;
  for (size_t i = 0; i < count; i++) size += parts[i].size;
  le32(header, (uint32_t)size);
  header[4] = type;
  bool sent = guest_write(guest, header, sizeof header);
  for (size_t i = 0; sent && i < count; i++) sent = guest_write(guest, parts[i].at, parts[i].size);
  return sent;
}

struct answer_frame {
  uint8_t type;
  const uint8_t *payload;
  size_t size;
};

static void guest_took(struct guest *guest, const struct answer_frame *frame) {
  size_t whole = HEADER + frame->size;
  memmove(guest->frames, guest->frames + whole, guest->have - whole);
  guest->have -= whole;
}

/* 1: a frame; 0: not in time; -1: the guest is gone or talks nonsense. */
static int guest_next(struct guest *guest, struct answer_frame *frame, uint64_t until) {
  for (;;) {
    size_t size = guest->have < HEADER ? 0 : read32(guest->frames);
    if (size > FRAMES_MAX - HEADER) return -1;
    if (guest->have >= HEADER && guest->have >= HEADER + size) {
      *frame = (struct answer_frame){guest->frames[4], guest->frames + HEADER, size};
      return 1;
    }
    uint64_t now = now_millis();
    struct pollfd p = {.fd = guest->out, .events = POLLIN};
    if (now >= until) return 0;
    if (poll(&p, 1, (int)(until - now)) < 0 && errno != EINTR) return -1;
    if (p.revents == 0) continue;
    ssize_t n = read(guest->out, guest->frames + guest->have, FRAMES_MAX - guest->have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    guest->have += (size_t)n;
  }
}

bool guest_start(const struct settings *settings, const char *place, struct guest *guest) {
  int to[2], from[2], program = open(settings->guest, O_PATH | O_CLOEXEC);
  *guest = (struct guest){.pid = -1, .in = -1, .out = -1, .frames = malloc(FRAMES_MAX)};
  if (guest->frames == NULL || program < 0 || pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0) return false;
  if (unshare(CLONE_NEWPID) < 0) return false;
  guest->pid = fork();
  if (guest->pid == 0) become_guest(settings, place, program, to[0], from[1]);
  close(to[0]);
  close(from[1]);
  close(program);
  guest->in = to[1];
  guest->out = from[0];
  struct answer_frame frame;
  bool ready = guest->pid > 0 && guest_next(guest, &frame, now_millis() + READY_MILLIS) == 1 && frame.type == READY &&
    frame.size == 4 && read32(frame.payload) == PROTOCOL_VERSION;
  if (ready) guest_took(guest, &frame);
  return ready;
}

bool guest_put(struct guest *guest, const char *path, const struct text *content) {
  uint8_t head[1 + 4 + 256];
  size_t length = strlen(path), sent = 0;
  le32(head + 1, (uint32_t)length);
  memcpy(head + 5, path, length);
  do {
    size_t size = content->size - sent < PIECE ? content->size - sent : PIECE;
    head[0] = sent > 0 ? 1 : 0; /* append */
    struct text parts[] = {{(char *)head, 5 + length}, {content->at + sent, size}};
    struct answer_frame frame;
    if (!send_frame(guest, PUT, parts, 2)) return false;
    if (guest_next(guest, &frame, now_millis() + REPORT_MILLIS) != 1 || frame.type != OK) return false;
    guest_took(guest, &frame);
    sent += size;
  } while (sent < content->size);
  return true;
}

static size_t put_strings(uint8_t *at, const char *const *strings) {
  uint8_t *const from = at;
  uint32_t count = 0;
  for (at += 4; strings[count] != NULL; count++) {
    size_t size = strlen(strings[count]);
    le32(at, (uint32_t)size);
    memcpy(at + 4, strings[count], size);
    at += 4 + size;
  }
  le32(from, count);
  return (size_t)(at - from);
}

static bool send_run(struct guest *guest, const struct phase *phase) {
  /* Our own words only, a few hundred bytes: no string of the job is among them. */
  uint8_t payload[4096] = {0};
  size_t size = 4; /* the directory: "" */
  le32(payload + size, JOB_FILE_BYTES);
  le32(payload + size + 8, JOB_OPEN_FILES);
  size += 32;
  size += put_strings(payload + size, phase->argv);
  size += put_strings(payload + size, phase->env);
  return send_frame(guest, RUN, &(struct text){(char *)payload, size}, 1);
}

static void keep(struct output *out, size_t max, const uint8_t *at, size_t size) {
  size_t room = max - out->size, kept = size < room ? size : room;
  char *grown = kept == 0 ? out->at : realloc(out->at, out->size + kept);
  if (grown == NULL) kept = 0;
  else out->at = grown;
  if (kept > 0) memcpy(out->at + out->size, at, kept);
  out->size += kept;
  out->dropped += size - kept;
}

static bool kill_all(struct guest *guest) {
  uint8_t payload[5] = {SIGKILL, 0, 0, 0, 1};
  return send_frame(guest, SIGNAL, &(struct text){(char *)payload, sizeof payload}, 1);
}

struct result guest_run(struct guest *guest, const struct phase *phase) {
  struct result result = {.ending = BROKEN};
  uint64_t until = now_millis() + phase->seconds * 1000ull;
  bool late = false;
  if (!send_run(guest, phase)) return result;
  for (;;) {
    struct answer_frame frame;
    int came = guest_next(guest, &frame, until);
    if (came < 0 || (came == 0 && late)) break;
    if (came == 0) {
      late = true;
      until = now_millis() + REPORT_MILLIS;
      if (!kill_all(guest)) break;
      continue;
    }
    /* What a flood has brought in is taken first, so the time is looked at here, too. */
    if (!late && now_millis() >= until) until = 0;
    if ((frame.type == STDOUT || frame.type == STDERR) && phase->out != NULL) {
      keep(&phase->out[frame.type == STDOUT ? 0 : 1], phase->output_max, frame.payload, frame.size);
    }
    bool ended = frame.type == EXITED && frame.size == 37, refused = frame.type == FAIL && frame.size >= 8 && !late;
    if (ended) {
      result.ending = late ? TIMED_OUT : frame.payload[0] == 0 ? ENDED : SIGNALLED;
      result.number = (int)read32(frame.payload + 1);
      result.micros = read64(frame.payload + 5);
      result.rss_kib = read64(frame.payload + 29);
    } else if (refused) {
      result.ending = REFUSED;
      result.number = (int)read32(frame.payload);
    }
    guest_took(guest, &frame);
    if (ended || refused) return result;
  }
  if (late) result.ending = TIMED_OUT; /* it did not even report: guest_end does the rest */
  return result;
}

/* Its end is the end of its pid namespace: the kernel kills whoever is left in it, and the guest is gone only after them. */
void guest_end(struct guest *guest) {
  if (guest->in >= 0) close(guest->in);
  if (guest->pid > 0) {
    uint64_t until = now_millis() + LEAVE_MILLIS;
    while (waitpid(guest->pid, NULL, WNOHANG) == 0) {
      if (now_millis() > until) {
        kill(guest->pid, SIGKILL);
        waitpid(guest->pid, NULL, 0);
        break;
      }
      struct pollfd p = {.fd = guest->out, .events = 0}; /* POLLHUP when it has gone */
      if (poll(&p, 1, 20) > 0) poll(NULL, 0, 1);
    }
  }
  if (guest->out >= 0) close(guest->out);
  free(guest->frames);
}
