/* The kernel's command line. */
#include "init.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static char line[4096];
static size_t size;

void options_read(void) {
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  if (n < 0) fatal("read", "/proc/cmdline");
  close(fd);
  size = (size_t)n;
  for (size_t i = 0; i < size; i++) if (line[i] == ' ' || line[i] == '\n') line[i] = 0;
}

const char *option(const char *name) {
  size_t length = strlen(name);
  for (const char *at = line; at < line + size; at += strlen(at) + 1) {
    if (strncmp(at, name, length) == 0) return at + length;
  }
  return NULL;
}
