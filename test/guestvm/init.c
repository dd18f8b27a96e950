/*
 * The first process of the guest VM. The root file system is the host's, shared read-only, under an overlay whose upper
 * side is memory. Makes of that a plain machine with cgroup v2 alone, runs the one command of /job, and ends the machine.
 *
 * /job: strings that end with a zero byte: the folder to run in, NAME=VALUE each, an empty one, the command's words.
 * Ports: 1 is what the command says; 2 its end ("exit N", then the text of /run/guest/summary, then "end"); 3 is
 * /run/guest/report. The host believes nothing of port 2 that does not finish with "end".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(void) {
  sync();
  reboot(RB_AUTOBOOT); /* with -no-reboot this ends QEMU, whether or not the machine can switch itself off */
  for (;;) pause();
}

/* Onto the serial line, which the host keeps. */
static void fatal(const char *what, const char *name) {
  dprintf(2, "guest init: %s %s: %s\n", what, name, strerror(errno));
  end();
}

static void made(const char *path, mode_t mode) {
  if (mkdir(path, mode) && errno != EEXIST) fatal("mkdir", path);
}

static void mounted(const char *source, const char *target, const char *type, unsigned long flags, const char *options) {
  made(target, 0755);
  if (mount(source, target, type, flags, options)) fatal("mount", target);
}

static void written(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) fatal("write", path);
  close(fd);
}

/* In the order of the list: what a module needs comes before it. */
static void modules(void) {
  char path[256];
  FILE *list = fopen("/modules.list", "re");
  if (!list) fatal("open", "/modules.list");
  while (fgets(path, sizeof path, list)) {
    path[strcspn(path, "\n")] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) fatal("module", path);
    close(fd);
  }
  fclose(list);
}

static char *job;
static size_t jobSize;

static void readJob(void) {
  struct stat is;
  int fd = open("/job", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &is)) fatal("open", "/job");
  jobSize = is.st_size;
  job = malloc(jobSize + 1);
  if (!job || read(fd, job, jobSize) != (ssize_t)jobSize) fatal("read", "/job");
  job[jobSize] = 0;
  close(fd);
}

static void root(void) {
  mounted("host", "/lower", "virtiofs", MS_RDONLY, 0);
  mounted("memory", "/upper", "tmpfs", 0, "mode=755");
  made("/upper/files", 0755);
  made("/upper/work", 0755);
  mounted("root", "/next", "overlay", 0, "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work");
  if (chdir("/next") || mount("/dev", "dev", 0, MS_MOVE, 0) || mount(".", "/", 0, MS_MOVE, 0) || chroot(".") || chdir("/"))
    fatal("enter", "/next");
}

static void kernelFiles(void) {
  mounted("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0);
  mounted("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0);
  mounted("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0);
  /* What systemd gives the groups below the root of a plain host. */
  written("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset +cpu +io +memory +pids");
  mounted("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666");
  mounted("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mounted("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
  made("/run/guest", 0755);
  if (symlink("/proc/self/fd", "/dev/fd") || symlink("fd/0", "/dev/stdin") || symlink("fd/1", "/dev/stdout") ||
      symlink("fd/2", "/dev/stderr"))
    fatal("symlink", "/dev/fd");
}

static void madeAll(char *path) {
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    made(path, 0755);
    *slash = '/';
  }
  made(path, 0755);
}

/* /tmp is empty and in memory, but for the checkout, if that lies below it. */
static void temporary(char *folder) {
  char from[64];
  int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fatal("open", folder);
  mounted("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  if (!strncmp(folder, "/tmp/", 5)) {
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    madeAll(folder);
    if (mount(from, folder, 0, MS_BIND, 0)) fatal("bind", folder);
  }
  close(fd);
}

/*
 * For each file whose inode is in memory here, the host's file server holds a descriptor, and may hold some 20,000. Without
 * one left, closing any file fails here (EBADF), and programs give up. A walk over all of /usr would get there.
 */
static void forgetful(void) {
  if (fork() != 0) return;
  for (;; usleep(500000)) {
    char text[32] = "";
    int fd = open("/proc/sys/fs/inode-nr", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) _exit(1);
    close(fd);
    if (atol(text) > 14000) written("/proc/sys/vm/drop_caches", "2");
  }
}

/* The disk whose rates and weights can be limited: the root is no block device. */
static void disk(void) {
  written("/sys/block/vda/queue/scheduler", "bfq");
  mounted("/dev/vda", "/mnt/disk", "ext4", MS_NOATIME, 0);
}

static void loopback(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request)) fatal("up", "lo");
  close(fd);
}

static int port(int number) {
  char path[32];
  snprintf(path, sizeof path, "/dev/vport0p%d", number);
  /* The host names the ports one by one, while this program already runs. */
  for (int tenths = 0; access(path, F_OK) && tenths < 100; tenths++) usleep(100000);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) fatal("open", path);
  return fd;
}

static void sent(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t written = write(fd, bytes, length);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fatal("write", "port");
    bytes += written;
    length -= written;
  }
}

static void copied(int from, int to) {
  static char buffer[65536];
  for (;;) {
    ssize_t length = read(from, buffer, sizeof buffer);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) return;
    sent(to, buffer, length);
  }
}

static void copiedFile(const char *path, int to) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return; /* the command ended before it wrote one, which the host sees */
  copied(fd, to);
  close(fd);
}

/* A port takes more when the host has taken the last; without this the end of the machine could overtake its words. */
static void flushed(int fd) {
  struct pollfd ready = {.fd = fd, .events = POLLOUT};
  poll(&ready, 1, 5000);
  close(fd);
}

/* The command's output goes through a pipe, for a port can be opened once only. */
static int ran(char *folder, char **environment, char **words) {
  int ends[2], status = 0;
  if (pipe2(ends, O_CLOEXEC)) fatal("pipe", "output");
  pid_t command = fork();
  if (command == 0) {
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setsid();
    if (null < 0 || dup2(null, 0) < 0 || dup2(ends[1], 1) < 0 || dup2(ends[1], 2) < 0 || chdir(folder)) _exit(126);
    execve(words[0], words, environment);
    dprintf(2, "guest init: %s: %s\n", words[0], strerror(errno));
    _exit(127);
  }
  pid_t pump = fork();
  if (pump == 0) {
    int out = port(1);
    close(ends[1]);
    copied(ends[0], out);
    flushed(out);
    _exit(0);
  }
  close(ends[0]);
  close(ends[1]);
  if (command < 0 || pump < 0) fatal("fork", words[0]);
  for (pid_t gone = 0; gone != command;) gone = wait(&status);
  /* Five seconds: what the command left running may hold the pipe, and must not keep the machine. */
  for (int tenths = 0; tenths < 50 && waitpid(pump, 0, WNOHANG) == 0; tenths++) usleep(100000);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void) {
  char *environment[64], *words[256], line[32];
  int count = 0;
  mounted("dev", "/dev", "devtmpfs", MS_NOSUID, 0);
  modules();
  readJob();
  root();
  kernelFiles();
  char *folder = job, *next = job + strlen(job) + 1, *stop = job + jobSize;
  for (; next < stop && *next && count < 63; next += strlen(next) + 1) environment[count++] = next;
  environment[count] = 0;
  for (count = 0, next++; next < stop && count < 255; next += strlen(next) + 1) words[count++] = next;
  words[count] = 0;
  if (count == 0) fatal("read", "/job");
  temporary(folder);
  disk();
  loopback();
  sethostname("guest", 5);
  forgetful();
  int code = ran(folder, environment, words);
  int report = port(3), result = port(2);
  copiedFile("/run/guest/report", report);
  flushed(report);
  sent(result, line, snprintf(line, sizeof line, "exit %d\n", code));
  copiedFile("/run/guest/summary", result);
  sent(result, "end\n", 4);
  flushed(result);
  end();
}
