/* The guest: the program inside a sandbox that puts files, runs phases, passes their output on and reports.
 *
 *   guest --work DIR [--uid N --gid N] [--cgroup DIR]
 *
 * It speaks framed requests on fd 0 and answers on fd 1 (guest/guest.h, src/guest/Protocol.ts); fd 2 is for its own
 * last words. It lives exactly as long as its host: EOF or an error on either ends the job's processes and the guest.
 * It is pid 1 of a sandbox, or an ordinary process that adopts the orphans of its descendants (PR_SET_CHILD_SUBREAPER).
 *
 * It shares the sandbox with a hostile job. What keeps the job off it:
 *  - signals: the job has another uid and no capability, so kill() is refused; a pid 1 receives from inside its
 *    namespace only what it handles, and the guest blocks all but SIGCHLD, which merely makes it look for the dead;
 *  - tracing, /proc/PID/{mem,fd,environ,exe}: another uid, and PR_SET_DUMPABLE 0 even where the uid is the same;
 *  - imitating: fd 0 and 1 of the guest are closed in every child before exec, and /proc/PID/fd is out of reach, so only
 *    the guest can write a frame; what a job prints always travels as the payload of one;
 *  - files: all file access of the guest is the job's (fsuid, fsgid, no groups, no file capabilities), beneath the work
 *    directory, through no link of any kind, and never waits for a fifo, a device or a lease;
 *  - gaining: PR_SET_NO_NEW_PRIVS, and the guest itself keeps only CAP_SETUID, CAP_SETGID and CAP_KILL (and with --cgroup
 *    CAP_SYS_RESOURCE);
 *  - memory: two fixed buffers; no size the job or the host chooses is ever allocated; a job whose output nobody reads
 *    blocks on its pipe;
 *  - limits: with --cgroup (a machine of its own) every phase lives in a group it can neither leave nor see (groups.c);
 *  - surviving: nothing of a phase outlives its main process (guest/tree.c), and EXIT comes after the last byte.
 * Without --uid (the unisolated process driver) a job with the guest's uid can kill it, and then dies with it
 * (PR_SET_PDEATHSIG) or by the watchdog. That driver does not claim otherwise. */
#include "guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How long leaving may take: killing, and telling the host that SHUTDOWN is done. */
#define LEAVE_MICROS 1500000u
#define HOST_BUFFER (256 << 10)

struct job_identity job;
int work_fd = -1;
pid_t self_pid;

static int child_fd = -1; /* readable when a child has died */

uint64_t now_micros(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void close_from(int first) {
  if (syscall(SYS_close_range, (unsigned)first, ~0u, 0) == 0) return;
  for (int fd = first; fd < 1024; fd++) close(fd); /* kernels before 5.9; what the guest opens itself is O_CLOEXEC */
}

static void end_job(void) {
  uint64_t until = now_micros() + LEAVE_MICROS;
  for (;;) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0) continue;
    if (pid < 0 || now_micros() > until) return;
    signal_all(SIGKILL);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
}

_Noreturn void leave(int code) {
  end_job();
  _exit(code);
}

_Noreturn void malformed(const char *what) {
  dprintf(STDERR_FILENO, "stoker-guest: the host sent %s\n", what);
  leave(EXIT_MALFORMED);
}

static _Noreturn void no_start(const char *what) {
  dprintf(STDERR_FILENO, "stoker-guest: %s: %s\n", what, strerror(errno));
  _exit(EXIT_SETUP);
}

static _Noreturn void usage(void) {
  dprintf(STDERR_FILENO, "usage: guest --work DIR [--uid N --gid N] [--cgroup DIR]\n");
  _exit(EXIT_USAGE);
}

static uint32_t number(const char *text) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != 0 || errno != 0 || value >= UINT32_MAX) usage();
  return (uint32_t)value;
}

static const char *cgroup;

static const char *arguments(int argc, char **argv) {
  static const struct option options[] = {
    {"work", required_argument, NULL, 'w'}, {"uid", required_argument, NULL, 'u'},
    {"gid", required_argument, NULL, 'g'}, {"cgroup", required_argument, NULL, 'c'}, {0}
  };
  const char *work = NULL;
  bool uid = false, gid = false;
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 'w': work = optarg; break;
      case 'u': job.uid = number(optarg); uid = true; break;
      case 'g': job.gid = number(optarg); gid = true; break;
      case 'c': cgroup = optarg; break;
      default: usage();
    }
  }
  if (work == NULL || uid != gid || optind != argc) usage();
  job.set = uid;
  return work;
}

/* gVisor has no ids for files alone. There the effective ones are the job's; real and saved ones, which signals and tracing
   go by, stay the guest's, and with them what it may take back (capabilities that are permitted). */
static bool take_effective_identity(void) {
  return setresgid((gid_t)-1, job.gid, (gid_t)-1) == 0 && setresuid((uid_t)-1, job.uid, (uid_t)-1) == 0;
}

/* From here on the guest reaches no file the job could not. It keeps what it needs to become the job and to kill it. */
static void take_file_identity(void) {
  if (!job.set) return;
  if (setgroups(0, NULL) < 0 && getgroups(0, NULL) != 0) no_start("setgroups");
  errno = 0;
  setfsgid(job.gid);
  setfsuid(job.uid);
  bool taken = errno == ENOSYS
    ? take_effective_identity()
    : (gid_t)setfsgid((gid_t)-1) == job.gid && (uid_t)setfsuid((uid_t)-1) == job.uid;
  if (!taken) {
    errno = EPERM;
    no_start("take the job's uid and gid for file access (CAP_SETUID, CAP_SETGID)");
  }
  if (getuid() == job.uid && getgid() == job.gid) return; /* already the job: no capability to keep */
  uint32_t keep = 1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_KILL;
  /* Where the guest is spared when memory runs out, a job could ask for the same: what raises its score is then the least. */
  if (cgroup != NULL) keep |= 1u << CAP_SYS_RESOURCE;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{.effective = keep, .permitted = keep}, {0}};
  if (syscall(SYS_capset, &header, data) < 0) no_start("keep CAP_SETUID, CAP_SETGID and CAP_KILL");
}

static void set_up(const char *work) {
  self_pid = getpid();
  if (fcntl(0, F_GETFD) < 0 || fcntl(1, F_GETFD) < 0) no_start("fd 0 and 1");
  if (fcntl(2, F_GETFD) < 0 && open("/", O_PATH) != 2) no_start("fd 2");
  close_from(3);
  umask(022);
  sigset_t all, child;
  sigfillset(&all);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_SETMASK, &all, NULL);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL); /* an inherited "ignore" would reap behind our back */
  if ((child_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK)) < 0) no_start("signalfd");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) no_start("no_new_privs");
  if (self_pid != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) no_start("subreaper");
  if (cgroup != NULL) {
    groups_init(cgroup);
    if (!groups_ready()) no_start(cgroup);
  }
  take_file_identity();
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) no_start("dumpable");
  if ((work_fd = open(work, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) no_start(work);
  files_init();
  for (int fd = 0; fd < 2; fd++) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) no_start("non-blocking fd 0 and 1");
  }
  /* Best effort, for throughput: the way out is a pipe or a socket. */
  if (fcntl(1, F_SETPIPE_SZ, HOST_BUFFER) < 0) setsockopt(1, SOL_SOCKET, SO_SNDBUF, &(int){HOST_BUFFER}, sizeof(int));
}

/* Killed first, answered then: OK means there is nobody left. */
static _Noreturn void shut_down(uint32_t seq) {
  end_job();
  reply_ok(seq);
  uint64_t until = now_micros() + LEAVE_MICROS;
  while (out_flush() && out_pending() > 0 && now_micros() < until) {
    struct pollfd room = {.fd = 1, .events = POLLOUT};
    poll(&room, 1, 100);
  }
  _exit(0);
}

static void dispatch(struct frame *f) {
  switch ((enum from_host)f->type) {
    case PUT: return handle_put(f);
    case STDIN: return handle_stdin(f);
    case RUN: return handle_run(f, false);
    case WAIT: return handle_run(f, true);
    case FEED: return handle_feed(f);
    case SIGNAL: return handle_signal(f);
    case GET: return handle_get(f);
    case LIMIT: return handle_limit(f);
    case MEASURE: return handle_measure(f);
    case SHUTDOWN:
      if (f->at != f->end) malformed("a SHUTDOWN with a payload");
      shut_down(f->seq);
  }
}

static void forget_dead_signals(void) {
  struct signalfd_siginfo info[4];
  while (read(child_fd, info, sizeof info) > 0) continue;
}

static _Noreturn void serve(void) {
  struct frame frame;
  bool children_died = false;
  for (;;) {
    while (out_room() >= REPLY_ROOM && in_next(&frame)) {
      dispatch(&frame);
      in_done();
    }
    phase_step(children_died);
    children_died = false;
    if (out_pending() > 0) {
      if (!out_flush()) leave(0);
      if (!phase_active()) out_release();
      if (out_room() >= REPLY_ROOM && in_next(&frame)) continue;
    }
    bool full = out_pending() > OUT_HALF, deaf = out_room() < REPLY_ROOM;
    struct pollfd fds[6] = {
      {.fd = 0, .events = deaf ? 0 : POLLIN},
      {.fd = 1, .events = out_pending() > 0 ? POLLOUT : 0},
      {.fd = child_fd, .events = POLLIN},
      {.fd = full ? -1 : phase_pipe(0), .events = POLLIN},
      {.fd = full ? -1 : phase_pipe(1), .events = POLLIN},
      {.fd = phase_feeds(), .events = POLLOUT}
    };
    if (poll(fds, 6, phase_timeout(full)) < 0 && errno != EINTR) leave(EXIT_SETUP);
    if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) leave(0);
    if (deaf ? fds[0].revents != 0 : fds[0].revents != 0 && !in_fill()) leave(0);
    if (fds[2].revents != 0) {
      forget_dead_signals();
      children_died = true;
    }
    if (fds[5].revents != 0) phase_feed();
    for (int which = 0; which < 2; which++) {
      bool wanted = fds[3 + which].revents != 0 || phase_draining();
      if (wanted && phase_pipe(which) >= 0 && out_pending() <= OUT_HALF) phase_read(which);
    }
  }
}

int main(int argc, char **argv) {
  set_up(arguments(argc, argv));
  uint8_t version[4];
  put_u32(version, PROTOCOL_VERSION);
  reply(READY, 0, version, sizeof version);
  serve();
}
