/* crun must not run from a file that a container could write to through /proc/self/exe (CVE-2019-5736). Run from a plain
 * file it therefore copies or mounts itself and starts once more, for each container, with a file in /tmp that stays if
 * it is killed then. Run from memory with these four seals it goes on at once (`is_self_cloned` in its cloned_binary.c):
 * the same protection, a third less CPU. */
#include "launch.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
/* It stays in memory: not for the large runtimes, which do not ask for it either. */
#define COPY_MAX (16 << 20)

static struct {
  int fd;
  char path[PATH_MAX];
  struct stat of;
} copy = {.fd = -1};

/* As `execvp` finds it without a PATH, which is not the same for every libc: Stoker gives whole paths. */
static bool find(const char *program, char *path) {
  static const char *const folders[] = {"", "/bin/", "/usr/bin/"};
  bool is_path = strchr(program, '/') != NULL;
  for (int i = is_path ? 0 : 1; i < (is_path ? 1 : 3); i++) {
    int size = snprintf(path, PATH_MAX, "%s%s", folders[i], program);
    if (size > 0 && size < PATH_MAX && access(path, X_OK) == 0) return true;
  }
  return false;
}

static bool same(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
         a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
         a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Of a program, not of a script: whose interpreter could not open what closes at exec. */
static bool is_elf(int file) {
  char head[4];
  return pread(file, head, sizeof head, 0) == sizeof head && memcmp(head, "\177ELF", sizeof head) == 0;
}

static int copied(int file, off_t size) {
  int fd = memfd_create("crun", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
  if (fd < 0) fd = memfd_create("crun", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* a kernel before 6.3 */
  if (fd < 0) return -1;
  off_t at = 0;
  while (at < size && sendfile(fd, file, &at, (size_t)(size - at)) > 0) continue;
  if (at == size && fchmod(fd, 0555) == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0) return fd;
  close(fd);
  return -1;
}

int sealed_copy(const char *program) {
  char path[PATH_MAX];
  struct stat now;
  if (!find(program, path) || stat(path, &now) < 0) return -1;
  if (copy.fd >= 0 && strcmp(copy.path, path) == 0 && same(&copy.of, &now)) return copy.fd;
  int file = open(path, O_RDONLY | O_CLOEXEC), fd = -1;
  if (file < 0) return -1;
  if (fstat(file, &now) == 0 && S_ISREG(now.st_mode) && now.st_size <= COPY_MAX && is_elf(file)) {
    fd = copied(file, now.st_size);
  }
  close(file);
  if (fd < 0) return -1;
  if (copy.fd >= 0) close(copy.fd);
  copy.fd = fd;
  copy.of = now;
  strcpy(copy.path, path);
  return fd;
}
