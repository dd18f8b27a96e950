/* What the attacks share: each tells in one line what it tried and what came of it, "name: DID IT" or "name: EPERM". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024l * 1024l)

static const char *error_name(int error) {
  switch (error) {
#define NAME(e) case e: return #e
    NAME(EPERM); NAME(ENOENT); NAME(ESRCH); NAME(EINTR); NAME(EIO); NAME(ENXIO); NAME(E2BIG); NAME(EBADF); NAME(ECHILD);
    NAME(EAGAIN); NAME(ENOMEM); NAME(EACCES); NAME(EFAULT); NAME(EBUSY); NAME(EEXIST); NAME(EXDEV); NAME(ENODEV);
    NAME(ENOTDIR); NAME(EISDIR); NAME(EINVAL); NAME(ENFILE); NAME(EMFILE); NAME(ENOTTY); NAME(EFBIG); NAME(ENOSPC);
    NAME(EROFS); NAME(ENOSYS); NAME(ELOOP); NAME(ENOBUFS); NAME(ETOOMANYREFS); NAME(EAFNOSUPPORT); NAME(ENETUNREACH);
    NAME(ECONNREFUSED); NAME(EPROTONOSUPPORT); NAME(ENOPROTOOPT); NAME(EOPNOTSUPP); NAME(EADDRINUSE); NAME(ENOEXEC);
    NAME(EADDRNOTAVAIL); NAME(EDQUOT); NAME(ETXTBSY); NAME(ESOCKTNOSUPPORT); NAME(ENAMETOOLONG);
#undef NAME
    default: return strerror(error);
  }
}

/* At once, whatever becomes of us. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
  char text[1024];
  va_list list;
  va_start(list, format);
  int n = vsnprintf(text, sizeof text - 1, format, list);
  va_end(list);
  if (n > (int)sizeof text - 2) n = (int)sizeof text - 2;
  text[n++] = '\n';
  if (write(1, text, (size_t)n) != n) _exit(90);
}

/* `result` is what a call gave back: -1 with errno, or success, which is what must not be. */
static bool attempt(const char *name, long result) {
  if (result == -1) say("%s: %s", name, error_name(errno));
  else say("%s: DID IT", name);
  return result != -1;
}

/* STOKER_TEST_SLOWNESS of the host, for what has to be waited for. */
static long slowly(long millis) {
  const char *text = getenv("SLOWNESS");
  return text == NULL ? millis : (long)((double)millis * atof(text));
}

static void doze(long millis) {
  nanosleep(&(struct timespec){.tv_sec = millis / 1000, .tv_nsec = millis % 1000 * 1000000}, NULL);
}

struct mode {
  const char *name;
  void (*run)(int argc, char **argv);
};

/* The first argument says which of a program's attacks it is to be; the rest are that one's. */
static int choose(const struct mode *modes, int argc, char **argv) {
  for (; modes->name != NULL; modes++) {
    if (argc > 1 && strcmp(argv[1], modes->name) == 0) {
      modes->run(argc - 2, argv + 2);
      return 0;
    }
  }
  say("no such attack");
  return 91;
}
