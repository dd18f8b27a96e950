/* Stage 2: the file systems of the kernel, and the few files that say who and where this machine is. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define KERNEL_FILES (MS_NOSUID | MS_NOEXEC | MS_NODEV)

/* 0, 1 and 2: the console where there is one, else the kernel's log, else nothing. */
void open_console(void) {
  int fd = open("/dev/console", O_RDWR | O_NOCTTY);
  if (fd < 0) fd = open("/dev/kmsg", O_RDWR);
  if (fd < 0) fd = open("/dev/null", O_RDWR);
  if (fd < 0) return;
  for (int target = 0; target < 3; target++) if (fd != target) dup2(fd, target);
  if (fd > 2) close(fd);
}

bool put_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t n = write(fd, text, strlen(text));
  int error = errno;
  close(fd);
  errno = error;
  return n >= 0;
}

bool new_file(const char *path, mode_t mode, const char *text, size_t size) {
  unlink(path);
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return false;
  bool written = write(fd, text, size) == (ssize_t)size;
  close(fd);
  return written;
}

static void made(const char *path, mode_t mode) {
  if (mkdir(path, mode) < 0 && errno != EEXIST) say("make", path);
}

static void mounted(const char *source, const char *target, const char *type, unsigned long flags, const char *options) {
  made(target, 0755);
  if (mount(source, target, type, flags, options) < 0 && errno != EBUSY) fatal("mount", target);
}

static bool in_memory(const char *path) {
  struct statfs at;
  return statfs(path, &at) == 0 && at.f_type == TMPFS_MAGIC;
}

/* Nobody in here is root, and nobody needs what these leave to those who are not. */
static void harden(void) {
  static const char *const values[][2] = {
    {"/proc/sys/kernel/dmesg_restrict", "1"},
    {"/proc/sys/kernel/kptr_restrict", "2"},
    {"/proc/sys/user/max_user_namespaces", "0"}
  };
  /* A kernel that does not know one has not what it is about. */
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) put_text(values[i][0], values[i][1]);
}

/* What the kernel, the guest and we keep to ourselves when jobs take all they can get. */
#define RESERVE_KIB 12288u

/* Jobs run out of memory before the machine does: then one of theirs is killed at once, where the machine itself would first
   throw out every page of every program, again and again, for minutes. */
static void keep_reserve(void) {
  char line[128], text[24];
  unsigned long long available = 0;
  FILE *info = fopen("/proc/meminfo", "re");
  while (info != NULL && fgets(line, sizeof line, info) != NULL) sscanf(line, "MemAvailable: %llu kB", &available);
  if (info != NULL) fclose(info);
  if (available <= 2 * RESERVE_KIB) return say("there is hardly any memory for", "jobs");
  snprintf(text, sizeof text, "%llu", (available - RESERVE_KIB) * 1024);
  if (!put_text("/sys/fs/cgroup/jobs/memory.max", text)) say("limit", "the memory of jobs");
}

/* Moving a process into a group is a matter of microseconds with `favordynmods` (Linux 6.0), of milliseconds without. */
static void groups(void) {
  made("/sys/fs/cgroup", 0755);
  if (mount("cgroup2", "/sys/fs/cgroup", "cgroup2", KERNEL_FILES, "favordynmods") < 0 && errno != EBUSY &&
      mount("cgroup2", "/sys/fs/cgroup", "cgroup2", KERNEL_FILES, NULL) < 0)
    fatal("mount", "/sys/fs/cgroup");
  static const char *const controllers[] = {"+memory", "+pids", "+cpu", "+io"};
  made("/sys/fs/cgroup/jobs", 0755);
  for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++) {
    if (!put_text("/sys/fs/cgroup/cgroup.subtree_control", controllers[i]) ||
        !put_text("/sys/fs/cgroup/jobs/cgroup.subtree_control", controllers[i]))
      say("the kernel does not limit", controllers[i] + 1);
  }
  keep_reserve();
}

void kernel_files(void) {
  mounted("dev", "/dev", "devtmpfs", MS_NOSUID, NULL);
  if (fcntl(STDERR_FILENO, F_GETFD) < 0) open_console();
  mounted("proc", "/proc", "proc", KERNEL_FILES, NULL);
  mounted("sysfs", "/sys", "sysfs", KERNEL_FILES, NULL);
  mounted("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620");
  mounted("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  static const char *const links[][2] = {
    {"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"}, {"fd/1", "/dev/stdout"}, {"fd/2", "/dev/stderr"}
  };
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
    if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST) say("link", links[i][1]);
  }
  groups();
  harden();
  /* Without an initramfs before us these are still the root's own. */
  if (!in_memory("/run")) mounted("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
  made(OWN, 0711);
  made(OWN_PRIVATE, 0700);
  if (access("/work", F_OK) < 0) {
    mounted("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    made("/work", 0700);
    if (access("/work", F_OK) < 0) fatal("make", "/work");
  }
  if (chown("/work", JOB_UID, JOB_GID) < 0) say("chown", "/work");
}

/* Where programs look for it; the file itself is made when this machine knows who it is. */
static void linked(const char *file, const char *path) {
  char now[64];
  ssize_t n = readlink(path, now, sizeof now);
  if (n == (ssize_t)strlen(file) && memcmp(now, file, (size_t)n) == 0) return;
  unlink(path);
  if (symlink(file, path) < 0) say("link", path);
}

/* Appends a line unless one has this id as its third field. */
static void with_entry(const char *path, unsigned id, const char *line) {
  FILE *file = fopen(path, "a+e");
  if (file == NULL) return say("open", path);
  char text[1024];
  bool known = false, ended = true;
  rewind(file);
  while (fgets(text, sizeof text, file) != NULL) {
    char *field = strchr(text, ':');
    if (field != NULL && (field = strchr(field + 1, ':')) != NULL && strtoul(field + 1, NULL, 10) == id) known = true;
    ended = strchr(text, '\n') != NULL;
  }
  if (!known) fprintf(file, "%s%s\n", ended ? "" : "\n", line);
  if (fclose(file) != 0) say("write", path);
}

void known_files(void) {
  made("/etc", 0755);
  linked(OWN "/resolv.conf", "/etc/resolv.conf");
  linked(OWN "/machine-id", "/etc/machine-id");
  with_entry("/etc/passwd", JOB_UID, "job:x:1000:1000:job:/work:/bin/sh");
  with_entry("/etc/group", JOB_GID, "job:x:1000:");
}
