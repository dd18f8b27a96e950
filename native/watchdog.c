/* watchdog: outlives the worker by a second at most, only to kill what it left running.
 *
 *   watchdog [-u MOUNTPOINT] [-b DIR] -c CGROUP_DIR [-c CGROUP_DIR]...
 *
 * The directories must be there already. Prints "ready" on fd 1 and then waits on fd 0, whose other end only the worker
 * holds. EOF there means the worker has died, however: then every process in the given cgroups, and in those below them,
 * is killed. A line "keep" before EOF is the clean shutdown: nothing is killed. Directories are left for the janitor.
 *
 * With -u or -b it keeps a mount namespace, to be entered through /proc/<pid>/ns/mnt, in which MOUNTPOINT is not mounted
 * (on hybrid hosts: the cgroup2 mount that crun refuses) and DIR is seen at /mnt. Nothing outside it changes. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SETUP 125
#define DIRS_MAX 64
#define DEPTH_MAX 16
#define SHOWN_AT "/mnt" /* there by the Filesystem Hierarchy Standard; its host content is hidden in our namespace only */
#define ROUNDS 100
#define ROUND_MILLIS 10

static _Noreturn void fail(const char *what, const char *which) {
  dprintf(STDERR_FILENO, "stoker-watchdog: %s %s: %s\n", what, which, strerror(errno));
  _exit(EXIT_SETUP);
}

static _Noreturn void usage(void) {
  dprintf(STDERR_FILENO, "stoker-watchdog: usage: watchdog [-u MOUNTPOINT] -c CGROUP_DIR [-c CGROUP_DIR]...\n");
  _exit(EXIT_SETUP);
}

static bool put(int dir, const char *name, const char *text) {
  int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  close(fd);
  return written;
}

static void kill_pid(long pid) {
  if (pid > 1 && pid != (long)getpid()) kill((pid_t)pid, SIGKILL);
}

/* Kills what cgroup.procs lists; true if it listed nobody but perhaps ourselves. */
static bool kill_listed(int dir) {
  char text[4096];
  bool nobody = true;
  long pid = 0;
  int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return true; /* gone */
  for (ssize_t n; (n = read(fd, text, sizeof text)) > 0;) {
    for (ssize_t i = 0; i < n; i++) {
      if (text[i] >= '0' && text[i] <= '9') pid = pid * 10 + (text[i] - '0');
      else {
        if (pid != (long)getpid()) nobody = false;
        kill_pid(pid);
        pid = 0;
      }
    }
  }
  close(fd);
  return nobody;
}

/* One round over a cgroup and all below it. v2 kills by one write; v1 freezes first, so that nobody forks away between
   the list and the kill, and thaws afterwards, because SIGKILL is only taken by who runs (also who was paused before). */
static bool clear_group(int parent, const char *name, int depth) {
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return true; /* gone */
  DIR *dir = fdopendir(fd);
  if (dir == NULL) {
    close(fd);
    return false;
  }
  bool v2 = put(fd, "cgroup.kill", "1");
  bool frozen = !v2 && put(fd, "freezer.state", "FROZEN");
  bool nobody = kill_listed(fd);
  for (struct dirent *entry; depth < DEPTH_MAX && (entry = readdir(dir)) != NULL;) {
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.' && !clear_group(fd, entry->d_name, depth + 1)) nobody = false;
  }
  if (frozen) put(fd, "freezer.state", "THAWED");
  closedir(dir);
  return nobody;
}

/* True: the worker ends in order and looks after its jobs itself. */
static bool wait_for_end(void) {
  char line[8], c;
  size_t size = 0;
  bool keep = false;
  for (;;) {
    ssize_t n = read(STDIN_FILENO, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return keep;
    if (c != '\n') {
      if (size < sizeof line) line[size] = c;
      size++;
      continue;
    }
    if (size == 4 && memcmp(line, "keep", 4) == 0) keep = true;
    size = 0;
  }
}

/* A slave, not private: what the host mounts and unmounts later is seen here too, nothing of ours is seen there. */
static void own_mounts(const char *hidden, const char *shown) {
  if (unshare(CLONE_NEWNS) < 0) fail("unshare the mount namespace for", hidden != NULL ? hidden : shown);
  if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) fail("make a slave of", "/");
  if (hidden != NULL && umount2(hidden, MNT_DETACH) < 0) fail("umount", hidden);
  if (shown != NULL && mount(shown, SHOWN_AT, NULL, MS_BIND, NULL) < 0) fail("bind at " SHOWN_AT " the directory", shown);
}

int main(int argc, char **argv) {
  const char *hidden = NULL, *shown = NULL, *dirs[DIRS_MAX];
  int count = 0;
  opterr = 0;
  for (int option; (option = getopt(argc, argv, "u:b:c:")) != -1;) {
    if (option == 'u' && hidden == NULL) hidden = optarg;
    else if (option == 'b' && shown == NULL) shown = optarg;
    else if (option == 'c' && count < DIRS_MAX) dirs[count++] = optarg;
    else usage();
  }
  while (optind < argc && count > 0 && count < DIRS_MAX) dirs[count++] = argv[optind++]; /* -c A B is -c A -c B */
  if (count == 0 || optind < argc) usage();

  setsid(); /* fails only if we lead a session already */
  int deaf_to[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
  for (size_t i = 0; i < sizeof deaf_to / sizeof *deaf_to; i++) signal(deaf_to[i], SIG_IGN);
  /* Opened before the namespace: what -u hides may be where a cgroup of ours is. */
  int fds[DIRS_MAX];
  for (int i = 0; i < count; i++) {
    fds[i] = open(dirs[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fds[i] < 0) fail("open", dirs[i]);
  }
  if (hidden != NULL || shown != NULL) own_mounts(hidden, shown);
  if (write(STDOUT_FILENO, "ready\n", 6) != 6) fail("tell", "ready");
  close(STDOUT_FILENO);

  if (wait_for_end()) return 0;
  for (int round = 0; round < ROUNDS; round++) {
    bool nobody = true;
    for (int i = 0; i < count; i++) {
      if (!clear_group(fds[i], ".", 0)) nobody = false;
    }
    if (nobody) return 0;
    nanosleep(&(struct timespec){.tv_nsec = ROUND_MILLIS * 1000000L}, NULL);
  }
  return 0; /* what is still there cannot be killed in time: the janitor's */
}
