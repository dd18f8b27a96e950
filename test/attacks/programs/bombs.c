/* Processes: many at once, hard to find, hard to end. */
#include "attack.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/ptrace.h>

static void *asleep(void *ignored) {
  (void)ignored;
  for (;;) pause();
  return NULL;
}

/* Threads until no more, in each process that is left of a vfork and fork storm. */
static void threads(int argc, char **argv) {
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 16384);
  long made = 0;
  for (;;) {
    pthread_t thread;
    int error = pthread_create(&thread, &small, asleep, NULL);
    if (error != 0) {
      say("threads: %s after %s", error_name(error), made > 0 ? "some" : "none");
      break;
    }
    made++;
  }
  for (int i = 0; i < 1000; i++) {
    pid_t pid = vfork();
    if (pid == 0) {
      execl("/proc/self/exe", "attack", "threads", NULL);
      _exit(0);
    }
    if (pid < 0) {
      attempt("vfork", -1);
      break;
    }
  }
  for (;;) pause();
}

/* Each daemon keeps two more alive, in sessions of their own. The main process ends at once. */
static void daemons(int argc, char **argv) {
  bool stay = argc > 0;
  signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < 4; i++) {
    if (fork() != 0) continue;
    setsid();
    if (fork() != 0) _exit(0);
    for (int signo = 1; signo < NSIG; signo++) signal(signo, SIG_IGN);
    prctl(PR_SET_NAME, "kworker/0:1");
    for (;;) {
      if (fork() == 0) {
        setsid();
        if (fork() != 0) _exit(0);
        doze(20);
      }
      doze(5);
    }
  }
  doze(150);
  say("left");
  while (stay) pause();
}

/* Orphans die so fast that who reaps them has no time for anything else. */
static void orphans(int argc, char **argv) {
  say("up");
  signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < 24; i++) if (fork() == 0) break;
  for (;;) {
    pid_t pid = fork();
    if (pid == 0) {
      if (fork() >= 0) _exit(0);
      _exit(1);
    }
  }
}

static void many(int argc, char **argv) {
  int wanted = atoi(argv[0]), made = 0;
  for (int i = 0; i < wanted; i++) {
    pid_t pid = fork();
    if (pid == 0) for (;;) pause();
    if (pid > 0) made++;
  }
  say("%d processes, up", made);
  for (;;) pause();
}

/* Blocks and ignores whatever can be. */
static void deaf(int argc, char **argv) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  for (int signo = 1; signo < NSIG; signo++) signal(signo, SIG_IGN);
  if (fork() == 0) setsid();
  say("up");
  for (;;) pause();
}

static void told(int signo) {
  char line[] = "signal 00\n";
  line[7] = (char)('0' + signo / 10);
  line[8] = (char)('0' + signo % 10);
  if (write(1, line, 10) != 10) _exit(90);
}

/* Says each signal that comes, and stays. */
static void count(int argc, char **argv) {
  for (int signo = 1; signo < 32; signo++) signal(signo, told);
  say("up");
  for (;;) pause();
}

/* Moves out of the group that it leads, to a group of its child, and counts there. */
static void elsewhere(int argc, char **argv) {
  pid_t pid = fork();
  if (pid == 0) for (;;) pause();
  setpgid(pid, pid);
  setpgid(0, pid);
  count(argc, argv);
}

static void stopped(int argc, char **argv) {
  for (int i = 0; i < 5; i++) if (fork() == 0) break;
  say("up");
  kill(0, SIGSTOP);
  doze(100000);
}

/* Children that hang in a system call their own filter passes on to somebody who never answers. */
static void unanswered(int argc, char **argv) {
  struct sock_filter code[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
  };
  struct sock_fprog program = {.len = 4, .filter = code};
  long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  say("listener: %s", fd >= 0 ? "there" : error_name(errno));
  for (int i = 0; i < 10; i++) if (fork() == 0) for (;;) syscall(SYS_getppid);
  doze(100);
  say("up");
  for (;;) syscall(SYS_getppid);
}

/* Tracees that stop at their exit, with a tracer that never goes on. */
static void traced(int argc, char **argv) {
  if (fork() == 0) {
    for (int i = 0; i < 8; i++) {
      pid_t pid = fork();
      if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        _exit(0);
      }
      int status;
      waitpid(pid, &status, __WALL);
      ptrace(PTRACE_SETOPTIONS, pid, 0, (void *)(long)(PTRACE_O_TRACEEXIT | PTRACE_O_TRACEFORK));
      if (i % 2 == 0) ptrace(PTRACE_CONT, pid, 0, 0);
    }
    for (;;) pause();
  }
  doze(150);
  say("left");
}

/* The first thread is gone, the others go on: a zombie that is none. */
static void headless(int argc, char **argv) {
  pthread_t thread;
  for (int i = 0; i < 8; i++) pthread_create(&thread, NULL, asleep, NULL);
  say("up");
  syscall(SYS_exit, 0);
}

int main(int argc, char **argv) {
  static const struct mode modes[] = {
    {"threads", threads}, {"daemons", daemons}, {"orphans", orphans}, {"many", many}, {"deaf", deaf}, {"count", count},
    {"elsewhere", elsewhere}, {"stopped", stopped}, {"unanswered", unanswered}, {"traced", traced},
    {"headless", headless}, {NULL, NULL}
  };
  return choose(modes, argc, argv);
}
