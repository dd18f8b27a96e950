/* From fork to exec: everything a job's process must not inherit from the guest ends here. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum step { NONE, GROUP, SESSION, CWD, STREAMS, LIMITS, IDENTITY, EXEC };
static const char *const step_names[] = {
  "fork", "enter the group of", "setsid", "chdir", "connect the streams of", "limit", "change the identity for", "exec"
};

struct failure {
  int error;
  int step;
};

static _Noreturn void fail(int report, enum step step) {
  struct failure failure = {.error = errno, .step = step};
  ssize_t ignored = write(report, &failure, sizeof failure);
  (void)ignored;
  _exit(127);
}

/* Soft and hard, never above the hard limit we were given ourselves: without CAP_SYS_RESOURCE it can only be lowered. */
static bool limit(int resource, uint64_t soft, uint64_t hard) {
  struct rlimit now;
  if (getrlimit(resource, &now) < 0) return false;
  struct rlimit wanted = {
    .rlim_cur = soft < now.rlim_max ? soft : now.rlim_max,
    .rlim_max = hard < now.rlim_max ? hard : now.rlim_max
  };
  return setrlimit(resource, &wanted) == 0;
}

/* When memory runs out the job goes first. Raising needs no privilege, but the file belongs to the guest's own uid
   while all our file access goes by the job's. Best effort: the cgroup is what limits memory. */
static void prefer_for_oom(void) {
  setfsgid(getegid());
  setfsuid(geteuid());
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t ignored = write(fd, "1000", 4);
  (void)ignored;
  close(fd);
}

static bool become_job(void) {
  if (!job.set) return true;
  if (setgroups(0, NULL) < 0 && getgroups(0, NULL) != 0) return false;
  if (setresgid(job.gid, job.gid, job.gid) < 0 || setresuid(job.uid, job.uid, job.uid) < 0) return false;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  return syscall(SYS_capset, &header, none) == 0;
}

static _Noreturn void child(const struct run *run, int report) {
  if (group_procs >= 0 && write(group_procs, "0", 1) != 1) fail(report, GROUP);
  if (setsid() < 0) fail(report, SESSION);
  if (fchdir(run->cwd_fd) < 0) fail(report, CWD);
  if (dup2(run->stdin_fd, 0) < 0 || dup2(run->stdout_fd, 1) < 0 || dup2(run->stderr_fd, 2) < 0) fail(report, STREAMS);
  if (report != 3) {
    if (dup3(report, 3, O_CLOEXEC) < 0) fail(report, STREAMS);
    report = 3;
  }
  close_from(4);
  umask(022);
  prefer_for_oom();
  if (!become_job()) fail(report, IDENTITY);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail(report, IDENTITY);
  /* After the change of identity, which clears it. It only matters without a pid namespace. */
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != self_pid) fail(report, IDENTITY);
  for (int signo = 1; signo < NSIG; signo++) signal(signo, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  environ = run->envp;
  uint64_t killed_after = run->cpu_seconds + (run->cpu_seconds < UINT64_MAX); /* SIGXCPU a second before */
  /* 1, not 0: the one value at which the kernel does not start a handler for core dumps (core(5)). */
  bool limited = limit(RLIMIT_CORE, 1, 1) &&
    (run->nofile == 0 || limit(RLIMIT_NOFILE, run->nofile, run->nofile)) &&
    (run->fsize == 0 || limit(RLIMIT_FSIZE, run->fsize, run->fsize)) &&
    (run->cpu_seconds == 0 || limit(RLIMIT_CPU, run->cpu_seconds, killed_after)) &&
    (run->stack == 0 || limit(RLIMIT_STACK, run->stack, run->stack));
  if (!limited) fail(report, LIMITS);
  execvp(run->argv[0], run->argv);
  fail(report, EXEC);
}

pid_t spawn(const struct run *run, const char **what) {
  int report[2];
  *what = step_names[NONE];
  if (pipe2(report, O_CLOEXEC) < 0) return -1;
  char **own = environ;
  /* The child runs in our memory until its exec, while we wait: no page table is copied, and nobody has to wake us.
     An exec that hangs in its file system holds us up with it; then the host's limits end the sandbox. */
  pid_t pid = vfork();
  if (pid == 0) child(run, report[1]);
  int error = errno;
  environ = own;
  close(report[1]);
  struct failure failure = {.error = error, .step = NONE};
  ssize_t n = pid > 0 ? read(report[0], &failure, sizeof failure) : (ssize_t)sizeof failure;
  close(report[0]);
  if (n == 0) return pid; /* closed by exec */
  if (pid > 0) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, __WALL);
  }
  *what = step_names[failure.step];
  errno = failure.error;
  return -1;
}

static bool lower(pid_t pid, int resource, uint64_t wanted, uint64_t margin) {
  struct rlimit now;
  if (wanted == 0) return true;
  if (prlimit(pid, resource, NULL, &now) < 0) return false;
  if (wanted < now.rlim_cur) now.rlim_cur = wanted;
  if (wanted + margin < now.rlim_max) now.rlim_max = wanted + margin;
  return prlimit(pid, resource, &now, NULL) == 0;
}

int lower_limits(pid_t pid, const struct run *run) {
  if (run->fsize == 0 && run->nofile == 0 && run->cpu_seconds == 0 && run->stack == 0) return 0;
  /* Only the job's own user may, so a child becomes it. As in `spawn` it runs in our memory while we wait. */
  volatile int error = 0;
  pid_t child = vfork();
  if (child == 0) {
    bool done = become_job() && lower(pid, RLIMIT_NOFILE, run->nofile, 0) && lower(pid, RLIMIT_FSIZE, run->fsize, 0) &&
      lower(pid, RLIMIT_STACK, run->stack, 0) && lower(pid, RLIMIT_CPU, run->cpu_seconds, 1);
    if (!done) error = errno;
    _exit(0);
  }
  if (child < 0) return errno;
  while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR) continue;
  return error;
}
