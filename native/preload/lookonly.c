/* lookonly: a library that is loaded into QEMU (confine --preload): it opens its machine's memory file, /memory, read-only.
 *
 * A machine that is restored maps the snapshot's memory privately, what it writes is its own. But QEMU before 8.2 opens
 * that file for writing all the same, so a machine whose guest got out into QEMU could write into the memory of all clones
 * to come. The file is shown to it read-only: without this library it does not start, with it nothing is lost.
 * Freestanding: the program brings a libc of its own. Fits in for whatever names that libc's headers make of open(). */
#include <linux/fcntl.h> /* the kernel's: a libc's headers have macros of these names */
#include <stdarg.h>
#include <sys/syscall.h>

#ifdef __x86_64__ /* as QEMU's microvm machine is */

static long call(long number, long a, long b, long c, long d) {
  long result;
  register long fourth __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
  return result;
}

static int is_memory(const char *path) {
  static const char memory[] = "/memory";
  for (unsigned i = 0; i < sizeof memory; i++) {
    if (path[i] != memory[i]) return 0;
  }
  return 1;
}

extern int *__errno_location(void);

static int opened(int folder, const char *path, int flags, int mode) {
  if (is_memory(path)) flags = (flags & ~(O_ACCMODE | O_CREAT)) | O_RDONLY;
  long fd = call(SYS_openat, folder, (long)path, flags, mode);
  if (fd >= 0) return (int)fd;
  *__errno_location() = (int)-fd;
  return -1;
}

static int mode_of(int flags, va_list rest) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, int) : 0;
}

#define WITH_MODE(flags)      \
  va_list rest;               \
  va_start(rest, flags);      \
  int mode = mode_of(flags, rest); \
  va_end(rest)

int open(const char *path, int flags, ...) {
  WITH_MODE(flags);
  return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  WITH_MODE(flags);
  return opened(AT_FDCWD, path, flags, mode);
}

int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }

#endif
