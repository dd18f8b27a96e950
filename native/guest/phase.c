/* One phase: from RUN over STARTED and the bytes of two pipes to EXIT.
 *
 * RUNNING -main process reaped-> KILLING -nobody left, or 2 s-> DRAINING -pipes empty-> EXIT.
 * What the job wrote before its end is in the pipes by then, and FIONREAD says exactly how much that is: so nothing is
 * lost, and somebody outside who was handed the other end cannot keep the phase from ending. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILL_MICROS 2000000u
#define KILL_TICK_MILLIS 5
#define PIPE_SIZE (256 << 10)
/* Arguments and environment entries of one RUN, together. */
#define STRINGS_MAX 16384u
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

static enum { IDLE, RUNNING, KILLING, DRAINING } state;
static struct {
  uint32_t seq;
  pid_t main;
  int fd[2];       /* stdout, stderr; -1 = at its end */
  size_t left[2];  /* DRAINING: bytes still to come */
  int status;
  uint64_t started, wall, user, sys, rss_kib;
  uint64_t kill_until;
  int gate;        /* its standard input, when that comes later: open until it has all of it; else -1 */
  int feed;        /* what is on its way through the gate, or -1 */
  off_t fed;
} phase = {.fd = {-1, -1}, .gate = -1, .feed = -1};

static int stdin_fd = -1;
static int stdin_error;
static char *strings[STRINGS_MAX + 2];

bool phase_active(void) { return state != IDLE; }
int phase_pipe(int which) { return phase.fd[which]; }
bool phase_draining(void) { return state == DRAINING; }
int phase_timeout(bool full) { return state == KILLING ? KILL_TICK_MILLIS : state == DRAINING && !full ? 0 : -1; }

static int new_stdin(void) {
  int fd = memfd_create("stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  return fd >= 0 || errno != EINVAL ? fd : memfd_create("stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

/* A failure here (memory) is told by the RUN it was meant for. */
void handle_stdin(struct frame *f) {
  if (stdin_error == 0 && stdin_fd < 0 && (stdin_fd = new_stdin()) < 0) stdin_error = errno;
  while (stdin_error == 0 && f->at < f->end) {
    ssize_t n = write(stdin_fd, f->at, (size_t)(f->end - f->at));
    if (n >= 0) f->at += n;
    else if (errno != EINTR) stdin_error = errno;
  }
}

/* The collected input as fd 0 of the phase, from its beginning and unchangeable. */
static int take_stdin(void) {
  if (stdin_error == 0 && stdin_fd < 0 && (stdin_fd = new_stdin()) < 0) stdin_error = errno;
  int fd = stdin_fd, error = stdin_error;
  stdin_fd = -1;
  stdin_error = 0;
  if (error == 0 && lseek(fd, 0, SEEK_SET) == 0) {
    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    return fd;
  }
  if (fd >= 0) close(fd);
  errno = error == 0 ? EIO : error;
  return -1;
}

static char **take_strings(struct frame *f, size_t *used, bool environment, int *error) {
  uint32_t count = take_u32(f);
  char **list = strings + *used;
  if (*used + count > STRINGS_MAX) {
    *error = E2BIG;
    return list;
  }
  for (uint32_t i = 0; i < count && !f->bad; i++) {
    char *text = take_string(f);
    if (text == NULL || (environment && strchr(text, '=') == NULL)) *error = EINVAL;
    strings[(*used)++] = text;
  }
  strings[(*used)++] = NULL;
  return list;
}

static bool job_pipe(int ends[2]) {
  if (pipe2(ends, O_CLOEXEC) < 0) return false;
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE);
  return true;
}

static void close_all(const int *fds, size_t count) {
  for (size_t i = 0; i < count; i++) if (fds[i] >= 0) close(fds[i]);
}

/* Of RUN and FEED, in this order. */
static void take_limits(struct frame *f, struct run *run) {
  run->fsize = take_u64(f);
  run->nofile = take_u64(f);
  run->stack = take_u64(f);
  run->cpu_seconds = take_u64(f);
}

/* Standard input that is a pipe of which we keep the other end. -1 = errno says why. */
static int open_gate(int *gate) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return -1;
  fcntl(ends[1], F_SETFL, O_NONBLOCK);
  *gate = ends[1];
  return ends[0];
}

static void shut_gate(void) {
  close_all((int[]){phase.gate, phase.feed}, 2);
  phase.gate = phase.feed = -1;
}

void handle_run(struct frame *f, bool waits) {
  struct run run = {0};
  int gate = -1;
  int error = 0;
  size_t used = 0;
  const char *cwd = take_string(f);
  take_limits(f, &run);
  if (cwd == NULL) error = EINVAL;
  run.argv = take_strings(f, &used, false, &error);
  if (error != E2BIG) run.envp = take_strings(f, &used, true, &error);
  if (f->bad || (error != E2BIG && f->at != f->end)) malformed("a RUN that does not parse");
  if (error == 0 && run.argv[0] == NULL) error = EINVAL;

  int input = take_stdin(); /* it was meant for this RUN, whatever becomes of it */
  if (error == 0 && state != IDLE) error = EBUSY;
  if (error != 0) {
    close_all(&input, 1);
    return reply_fail(f->seq, error, "run", error == EBUSY ? "while a phase runs" : "with these arguments");
  }
  if (waits) {
    close_all(&input, 1);
    input = open_gate(&gate);
  }
  if (input < 0) return reply_fail(f->seq, errno, "run", "standard input");
  int fds[7] = {input, -1, -1, -1, -1, -1, gate}, *const outs = fds + 1, *const errs = fds + 3, *const dir = fds + 5;
  *dir = *cwd == 0 ? fcntl(work_fd, F_DUPFD_CLOEXEC, 3) : open_beneath(cwd, O_PATH | O_DIRECTORY, 0, false);
  if (*dir < 0) {
    error = errno;
    close_all(fds, 7);
    return reply_fail(f->seq, error, "chdir", cwd);
  }
  if (!job_pipe(outs) || !job_pipe(errs)) {
    error = errno;
    close_all(fds, 7);
    return reply_fail(f->seq, error, "run", "pipes");
  }
  run.cwd_fd = *dir;
  run.stdin_fd = input;
  run.stdout_fd = outs[1];
  run.stderr_fd = errs[1];
  uint64_t started = now_micros();
  const char *what;
  pid_t pid = spawn(&run, &what);
  if (pid < 0) {
    error = errno;
    close_all(fds, 7);
    return reply_fail(f->seq, error, what, run.argv[0]);
  }
  close_all((int[]){input, outs[1], errs[1], *dir}, 4);
  phase = (typeof(phase)){.seq = f->seq, .main = pid, .fd = {outs[0], errs[0]}, .started = started, .gate = gate, .feed = -1};
  state = RUNNING;
  uint8_t payload[4];
  put_u32(payload, (uint32_t)pid);
  reply(STARTED, f->seq, payload, sizeof payload);
}

/* What STDIN has collected is the whole of a waiting phase's input. Its time has begun, so these are its limits. */
void handle_feed(struct frame *f) {
  struct run run = {0};
  take_limits(f, &run);
  if (f->bad || f->at != f->end) malformed("a FEED that does not parse");
  int input = take_stdin(), error = input < 0 ? errno : 0;
  if (error == 0 && (state != RUNNING || phase.gate < 0 || phase.feed >= 0)) error = ESRCH;
  if (error == 0) error = lower_limits(phase.main, &run);
  if (error != 0) {
    close_all(&input, 1);
    return reply_fail(f->seq, error, "feed", error == ESRCH ? "no phase waits" : "the phase");
  }
  phase.feed = input;
  phase.fed = 0;
  reply_ok(f->seq);
  phase_feed();
}

int phase_feeds(void) { return phase.feed >= 0 ? phase.gate : -1; }

void phase_feed(void) {
  static uint8_t piece[CHUNK];
  while (phase.feed >= 0) {
    ssize_t n = pread(phase.feed, piece, sizeof piece, phase.fed);
    if (n < 0 && errno == EINTR) continue;
    ssize_t written = n <= 0 ? 0 : write(phase.gate, piece, (size_t)n);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) return;
    /* At its end; or nobody reads it any more, which is the phase's own affair. */
    if (written <= 0) return shut_gate();
    phase.fed += written;
  }
}

/* The main process leads a group of its own; whatever it moved out of it is reached by scope "all" only. */
static int signal_main(int signo) {
  int group = kill(-phase.main, signo);
  if (group == 0 && getpgid(phase.main) == phase.main) return 0; /* it got it with its group: not twice */
  return kill(phase.main, signo) == 0 || group == 0 ? 0 : errno;
}

void handle_signal(struct frame *f) {
  int32_t signo = (int32_t)take_u32(f);
  uint8_t scope = take_u8(f);
  if (f->bad || f->at != f->end || scope > 1) malformed("a SIGNAL that does not parse");
  if (signo < 1 || signo >= NSIG) return reply_fail(f->seq, EINVAL, "signal", "number");
  if (state == IDLE || (scope == 0 && state != RUNNING)) return reply_fail(f->seq, ESRCH, "signal", "no phase runs");
  int error = 0;
  if (scope == 1) signal_all(signo);
  else error = signal_main(signo);
  if (error != 0) return reply_fail(f->seq, error, "signal", "the main process");
  reply_ok(f->seq);
}

void phase_read(int which) {
  size_t max = CHUNK;
  if (state == DRAINING && phase.left[which] < max) max = phase.left[which];
  ssize_t n = max == 0 ? 0 : read(phase.fd[which], reply_begin(CHUNK), max);
  if (n < 0 && (errno == EAGAIN || errno == EINTR) && state != DRAINING) return;
  if (n > 0) {
    reply_end(which == 0 ? STDOUT : STDERR, phase.seq, (size_t)n);
    if (state != DRAINING || (phase.left[which] -= (size_t)n) > 0) return;
  }
  close(phase.fd[which]);
  phase.fd[which] = -1;
}

static uint64_t micros(struct timeval t) { return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec; }

/* Reaps whoever has died, the main process among them. True: there is no process of the job any more. */
static bool reap(void) {
  for (;;) {
    struct rusage usage;
    int status;
    pid_t pid = wait4(-1, &status, WNOHANG | __WALL, &usage);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return pid < 0;
    phase.user += micros(usage.ru_utime);
    phase.sys += micros(usage.ru_stime);
    if ((uint64_t)usage.ru_maxrss > phase.rss_kib) phase.rss_kib = (uint64_t)usage.ru_maxrss;
    if (state == RUNNING && pid == phase.main) {
      uint64_t now = now_micros();
      phase.status = status;
      phase.wall = now - phase.started;
      phase.kill_until = now + KILL_MICROS;
      shut_gate();
      state = KILLING;
    }
  }
}

static void begin_draining(void) {
  state = DRAINING;
  for (int which = 0; which < 2; which++) {
    int size = 0;
    if (phase.fd[which] < 0) continue;
    phase.left[which] = ioctl(phase.fd[which], FIONREAD, &size) == 0 && size > 0 ? (size_t)size : 0;
    if (phase.left[which] > 0) continue;
    close(phase.fd[which]);
    phase.fd[which] = -1;
  }
}

static void report_exit(void) {
  uint8_t payload[37];
  bool signalled = WIFSIGNALED(phase.status);
  payload[0] = signalled ? 1 : 0;
  put_u32(payload + 1, (uint32_t)(signalled ? WTERMSIG(phase.status) : WEXITSTATUS(phase.status)));
  put_u64(payload + 5, phase.wall);
  put_u64(payload + 13, phase.user);
  put_u64(payload + 21, phase.sys);
  put_u64(payload + 29, phase.rss_kib);
  reply(EXITED, phase.seq, payload, sizeof payload);
  state = IDLE;
}

void phase_step(bool children_died) {
  bool nobody = (children_died || state == KILLING) && reap();
  if (state == KILLING) {
    if (!nobody) {
      signal_all(SIGKILL);
      nobody = reap();
    }
    if (nobody || now_micros() >= phase.kill_until) begin_draining();
  }
  if (state == DRAINING && phase.fd[0] < 0 && phase.fd[1] < 0 && out_room() >= REPLY_ROOM) report_exit();
}
