/* PUT and GET: regular files beneath the work directory, reached as the job and never through a link. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PUT_APPEND 1
#define PUT_EXECUTABLE 2

static bool have_openat2;

static int openat2(int dir, const char *path, int flags, mode_t mode) {
  struct open_how how = {
    .flags = (uint64_t)(unsigned)flags,
    .mode = flags & O_CREAT ? mode : 0,
    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
  };
  return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

/* Old gVisor and some seccomp profiles have no openat2: there the walk below does all the work. */
void files_init(void) {
  int fd = openat2(work_fd, ".", O_PATH | O_CLOEXEC, 0);
  have_openat2 = fd >= 0;
  if (fd >= 0) close(fd);
}

/* Why a path is not one of ours, or 0. Absolute paths and any `..` are refused before the kernel sees them. */
static int refuse(const char *path) {
  if (*path == 0) return EINVAL;
  if (*path == '/') return EXDEV;
  if (strlen(path) >= 4096) return ENAMETOOLONG;
  for (const char *at = path; *at != 0;) {
    size_t n = strcspn(at, "/");
    if (n == 2 && memcmp(at, "..", 2) == 0) return EXDEV;
    at += n;
    while (*at == '/') at++;
  }
  return 0;
}

/* One component after the other, each opened with O_NOFOLLOW from the directory before it: no link is ever followed.
   Missing directories are made on the way if asked. The last component is opened with the given flags. */
static int walk(const char *path, int flags, mode_t mode, bool make_parents) {
  int dir = fcntl(work_fd, F_DUPFD_CLOEXEC, 3), fd = -1;
  while (dir >= 0) {
    char name[256];
    size_t n = strcspn(path, "/");
    if (n >= sizeof name) {
      errno = ENAMETOOLONG;
      break;
    }
    memcpy(name, path, n);
    name[n] = 0;
    path += n;
    bool last = *path == 0;
    while (*path == '/') path++;
    if (last) {
      fd = openat(dir, n == 0 ? "." : name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
      break;
    }
    int next = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (next < 0 && errno == ENOENT && make_parents && (mkdirat(dir, name, 0755) == 0 || errno == EEXIST)) {
      next = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    int error = errno;
    close(dir);
    errno = error;
    dir = next;
  }
  int error = errno;
  if (dir >= 0) close(dir);
  errno = error;
  return fd;
}

int open_beneath(const char *path, int flags, mode_t mode, bool make_parents) {
  int refused = refuse(path);
  if (refused != 0) {
    errno = refused;
    return -1;
  }
  if (!have_openat2) return walk(path, flags, mode, make_parents);
  int fd = openat2(work_fd, path, flags | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd >= 0 || errno != ENOENT || !make_parents) return fd;
  int made = walk(path, O_PATH, 0, true); /* for its directories; the file itself is expected not to be there */
  if (made >= 0) close(made);
  else if (errno != ENOENT) return -1;
  return openat2(work_fd, path, flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

/* A regular file, opened without ever waiting: O_NONBLOCK is for fifos without a peer and for broken leases. */
static int open_regular(const char *path, int flags, struct stat *st) {
  int fd = open_beneath(path, flags | O_NONBLOCK | O_NOCTTY, 0644, (flags & O_CREAT) != 0);
  if (fd < 0) return -1;
  int error = fstat(fd, st) < 0 ? errno : S_ISREG(st->st_mode) ? 0 : S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
  if (error == 0) return fd;
  close(fd);
  errno = error;
  return -1;
}

static int write_all(int fd, const uint8_t *at, const uint8_t *end) {
  while (at < end) {
    ssize_t n = write(fd, at, (size_t)(end - at));
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    at += n;
  }
  return 0;
}

void handle_put(struct frame *f) {
  uint8_t flags = take_u8(f);
  const char *path = take_string(f);
  if (f->bad || (flags & ~(PUT_APPEND | PUT_EXECUTABLE)) != 0) malformed("a PUT that does not parse");
  if (path == NULL) return reply_fail(f->seq, EINVAL, "put", "a path with a NUL");
  struct stat st;
  /* Truncated only once it is known to be a regular file. */
  int fd = open_regular(path, O_WRONLY | O_CREAT | (flags & PUT_APPEND ? O_APPEND : 0), &st);
  if (fd < 0) return reply_fail(f->seq, errno, "put", path);
  int error = !(flags & PUT_APPEND) && st.st_size > 0 && ftruncate(fd, 0) < 0 ? errno : 0;
  if (error == 0) error = write_all(fd, f->at, f->end);
  if (error == 0 && flags & PUT_EXECUTABLE && (st.st_mode & 0111) != 0111 && fchmod(fd, 0755) < 0) error = errno;
  close(fd);
  if (error != 0) return reply_fail(f->seq, error, "put", path);
  reply_ok(f->seq);
}

void handle_get(struct frame *f) {
  const char *path = take_string(f);
  uint64_t offset = take_u64(f);
  uint32_t max = take_u32(f);
  if (f->bad || f->at != f->end) malformed("a GET that does not parse");
  if (phase_active()) return reply_fail(f->seq, EBUSY, "get", "while a phase runs");
  if (path == NULL) return reply_fail(f->seq, EINVAL, "get", "a path with a NUL");
  if (offset > INT64_MAX) return reply_fail(f->seq, EINVAL, "get", path);
  if (max > GET_MAX) max = GET_MAX;
  struct stat st;
  int fd = open_regular(path, O_RDONLY, &st);
  if (fd < 0) return reply_fail(f->seq, errno, "get", path);
  uint8_t *at = reply_begin(12 + max);
  size_t got = 0;
  int error = 0;
  while (got < max) {
    ssize_t n = pread(fd, at + 12 + got, max - got, (off_t)(offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) error = errno;
    if (n <= 0) break;
    got += (size_t)n;
  }
  close(fd);
  if (error != 0) return reply_fail(f->seq, error, "get", path);
  put_u64(at, (uint64_t)st.st_size);
  put_u32(at + 8, st.st_mode & 07777);
  reply_end(DATA, f->seq, 12 + got);
}
