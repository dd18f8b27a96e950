/* Signals for every process of the job, whatever it forked, however it daemonised.
 *
 * As pid 1 the kernel does it: kill(-1) reaches everything in the namespace in one step, and a process with SIGKILL
 * pending cannot fork. As subreaper (no namespace) every descendant stays below us, orphans come up to us, and we walk
 * down from our own children. The walk signals through pidfds and only after the parent was seen to be the expected
 * one, because outside a namespace a pid that was reused could be anybody. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* More processes than this are reached in later rounds. */
#define KNOWN_MAX 8192
/* Freezing ends when a round met the same processes as the one before, or after this long. */
#define FREEZE_MICROS 250000u

struct dirent64 {
  uint64_t ino;
  int64_t off;
  uint16_t size;
  uint8_t type;
  char name[];
};

static struct { pid_t pid, parent; } known[KNOWN_MAX];
static size_t known_count;

static void add(pid_t pid, pid_t parent) {
  if (pid <= 1 || pid == self_pid || known_count == KNOWN_MAX) return;
  known[known_count].pid = pid;
  known[known_count++].parent = parent;
}

/* The parent of a process, or -1. The name in /proc/PID/stat is the job's choice, so look behind its last `)`. */
static pid_t parent_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return -1;
  text[n] = 0;
  char *at = strrchr(text, ')'), state;
  pid_t parent;
  return at != NULL && sscanf(at + 1, " %c %d", &state, &parent) == 2 ? parent : -1;
}

/* Calls `each` with every number that names an entry of a directory of /proc. */
static bool each_number(const char *path, void (*each)(pid_t number, pid_t owner), pid_t owner) {
  char buffer[4096] __attribute__((aligned(8)));
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  for (;;) {
    ssize_t n = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
    if (n <= 0) break;
    for (ssize_t at = 0; at < n;) {
      const struct dirent64 *entry = (const struct dirent64 *)(buffer + at);
      if (entry->name[0] >= '1' && entry->name[0] <= '9') each((pid_t)strtol(entry->name, NULL, 10), owner);
      at += entry->size;
    }
  }
  close(fd);
  return true;
}

static bool no_children_file;

static void add_children_of_thread(pid_t tid, pid_t owner) {
  char path[64], text[4096];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", owner, tid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  pid_t pid = 0;
  for (;;) {
    ssize_t n = read(fd, text, sizeof text);
    if (n <= 0) break;
    for (ssize_t i = 0; i < n; i++) {
      if (text[i] >= '0' && text[i] <= '9') pid = pid * 10 + (text[i] - '0');
      else {
        add(pid, owner);
        pid = 0;
      }
    }
  }
  add(pid, owner);
  close(fd);
}

static void add_if_child(pid_t pid, pid_t owner) {
  if (parent_of(pid) == owner) add(pid, owner);
}

static void add_children(pid_t owner) {
  if (no_children_file) { /* a kernel without CONFIG_PROC_CHILDREN */
    each_number("/proc", add_if_child, owner);
    return;
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", owner);
  each_number(path, add_children_of_thread, owner);
}

/* One walk over all descendants, parents first: a parent that is signalled before its children are listed cannot add
   another behind our back (with any signal pending, fork starts over instead). Gives a digest of whom it met. */
static uint64_t walk(int signo) {
  uint64_t met = 0;
  known_count = 0;
  add_children(self_pid);
  for (size_t i = 0; i < known_count; i++) {
    pid_t pid = known[i].pid;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool no_pidfd = fd < 0 && errno != ESRCH;
    pid_t parent = fd >= 0 || no_pidfd ? parent_of(pid) : -1;
    if (parent == known[i].parent || parent == self_pid) {
      if (no_pidfd) kill(pid, signo);
      else syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0);
      met += (uint64_t)pid * 0x9e3779b97f4a7c15u;
      add_children(pid);
    }
    if (fd >= 0) close(fd);
  }
  return met;
}

void signal_all(int signo) {
  if (self_pid == 1) {
    kill(-1, signo);
    return;
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", self_pid, self_pid);
  no_children_file = access(path, R_OK) != 0;
  if (signo == SIGKILL) {
    uint64_t until = now_micros() + FREEZE_MICROS;
    for (uint64_t before = 0, met = walk(SIGSTOP); met != before && now_micros() < until;) {
      sched_yield();
      before = met;
      met = walk(SIGSTOP);
    }
  }
  walk(signo);
}
