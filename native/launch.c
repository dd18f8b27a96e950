/* launch: the last step before a program of ours, taken in its own process.
 *
 *   launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...
 *
 * Enters a mount namespace, moves itself into cgroups, and becomes PROGRAM (found by PATH), which therefore has not run
 * one instruction outside of them. All files are opened first, by their names outside; the working directory is kept by
 * name. Any failure is one line on fd 2 and exit 125, and PROGRAM does not run: never with less than what was asked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXIT_LAUNCH 125
#define GROUPS_MAX 64

static _Noreturn void fail(const char *what, const char *which) {
  dprintf(STDERR_FILENO, "stoker-launch: %s %s: %s\n", what, which, strerror(errno));
  _exit(EXIT_LAUNCH);
}

static _Noreturn void usage(const char *why) {
  dprintf(STDERR_FILENO, "stoker-launch: %s (launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...)\n", why);
  _exit(EXIT_LAUNCH);
}

int main(int argc, char **argv) {
  const char *namespace = NULL, *groups[GROUPS_MAX];
  int group_fds[GROUPS_MAX], count = 0, namespace_fd = -1;
  char cwd[PATH_MAX];
  opterr = 0;
  for (int option; (option = getopt(argc, argv, "+n:g:")) != -1;) {
    if (option == 'n' && namespace == NULL) namespace = optarg;
    else if (option == 'g' && count < GROUPS_MAX) groups[count++] = optarg;
    else usage("wrong or too many options");
  }
  if (optind >= argc) usage("no program");

  if (namespace != NULL) {
    namespace_fd = open(namespace, O_RDONLY | O_CLOEXEC);
    if (namespace_fd < 0) fail("open", namespace);
    if (getcwd(cwd, sizeof cwd) == NULL) fail("find the working directory for", argv[optind]);
  }
  for (int i = 0; i < count; i++) {
    group_fds[i] = open(groups[i], O_WRONLY | O_CLOEXEC);
    if (group_fds[i] < 0) fail("open", groups[i]);
  }
  if (namespace != NULL) {
    if (setns(namespace_fd, CLONE_NEWNS) < 0) fail("enter", namespace);
    if (chdir(cwd) < 0) fail("chdir", cwd); /* setns went to the root */
  }
  for (int i = 0; i < count; i++) {
    if (write(group_fds[i], "0", 1) != 1) fail("write", groups[i]); /* 0 = the writer itself */
  }
  execvp(argv[optind], argv + optind);
  fail("exec", argv[optind]);
}
