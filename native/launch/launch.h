/* What the two ways to launch share: see ../launch.c for the promise they keep. */
#ifndef STOKER_LAUNCH_H
#define STOKER_LAUNCH_H
#define _GNU_SOURCE

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_LAUNCH 125
#define GROUPS_MAX 64
#define ARGS_MAX 256

/* A request of `--serve` (src/layers/host/Launcher.ts is the other side), all numbers u32 little endian, a string is
   its length and its bytes, without a NUL: length of all that follows; count of cgroup.procs files, each a string; file
   that at its end has the last 8 KiB of what it wrote to fd 2, if that is anything, a string ("" = nobody wants to know);
   1 to run a sealed copy of the program, else 0; count of arguments, each a string. */
#define REQUEST_MAX (64u << 10)

struct launch {
  const char *namespace; /* for messages; NULL: stay in this one */
  int namespace_fd;
  const char *cwd; /* there, by name */
  const char *groups[GROUPS_MAX];
  int group_count;
  int program_fd; /* to be executed instead of what argv[0] names, if not negative */
  char **argv;
};

struct request {
  const char *said; /* file for what it writes to fd 2 */
  bool sealed;
  struct launch launch;
  char *argv[ARGS_MAX + 1];
};

/* launch.c */
_Noreturn void fail(const char *what, const char *which);
_Noreturn void become(const struct launch *launch); /* groups, namespace, program; or fail */

/* request.c: points into `bytes`, which it changes. False: not a request. */
bool parse_request(uint8_t *bytes, size_t size, struct request *request);

/* sealed.c: a copy of the program in memory that nobody can change, made once for as long as its file stays the same.
   -1: there is none, the program is to be run as it is. */
int sealed_copy(const char *program);

/* serve.c */
_Noreturn void serve(const char *path, const char *namespace);

#endif
