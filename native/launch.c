/* launch: the last step before a program of ours, taken in its own process.
 *
 *   launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...
 *   launch --serve SOCKET_PATH [-n MOUNT_NS_PATH]
 *
 * Enters a mount namespace, moves itself into cgroups, and becomes PROGRAM (found by PATH), which therefore has not run
 * one instruction outside of them. All files are opened first, by their names outside; the working directory is kept by
 * name. Any failure is one line on fd 2 and exit 125, and PROGRAM does not run: never with less than what was asked.
 *
 * With --serve it stays, says "ready" on fd 1, and does the same for each connection to its socket (mode 0600): a child
 * in / without environment, the connection as its fd 0 and 1, memory as fd 2 (launch/launch.h has the request). When
 * the child dies the connection is shut down, whoever else holds it; no exit status is told. It ends at EOF on fd 0 and
 * leaves its children to their own links, the watchdog and the janitor; signals of a terminal do not end it. */
#include "launch/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

_Noreturn void fail(const char *what, const char *which) {
  dprintf(STDERR_FILENO, "stoker-launch: %s %s: %s\n", what, which, strerror(errno));
  _exit(EXIT_LAUNCH);
}

static _Noreturn void usage(const char *why) {
  dprintf(STDERR_FILENO, "stoker-launch: %s (launch [-n MOUNT_NS_PATH] [-g CGROUP_PROCS_FILE]... -- PROGRAM ARGS...)\n", why);
  _exit(EXIT_LAUNCH);
}

_Noreturn void become(const struct launch *launch) {
  int fds[GROUPS_MAX];
  for (int i = 0; i < launch->group_count; i++) {
    fds[i] = open(launch->groups[i], O_WRONLY | O_CLOEXEC);
    if (fds[i] < 0) fail("open", launch->groups[i]);
  }
  if (launch->namespace != NULL) {
    if (setns(launch->namespace_fd, CLONE_NEWNS) < 0) fail("enter", launch->namespace);
    if (chdir(launch->cwd) < 0) fail("chdir", launch->cwd); /* setns went to the root */
  }
  for (int i = 0; i < launch->group_count; i++) {
    if (write(fds[i], "0", 1) != 1) fail("write", launch->groups[i]); /* 0 = the writer itself */
  }
  /* Where nothing may run from memory the program protects itself, as it does for everybody else. */
  if (launch->program_fd >= 0) syscall(SYS_execveat, launch->program_fd, "", launch->argv, environ, AT_EMPTY_PATH);
  execvp(launch->argv[0], launch->argv);
  fail("exec", launch->argv[0]);
}

int main(int argc, char **argv) {
  struct launch launch = {.program_fd = -1};
  char cwd[PATH_MAX];
  if (argc == 3 && strcmp(argv[1], "--serve") == 0) serve(argv[2], NULL);
  if (argc == 5 && strcmp(argv[1], "--serve") == 0 && strcmp(argv[3], "-n") == 0) serve(argv[2], argv[4]);
  opterr = 0;
  for (int option; (option = getopt(argc, argv, "+n:g:")) != -1;) {
    if (option == 'n' && launch.namespace == NULL) launch.namespace = optarg;
    else if (option == 'g' && launch.group_count < GROUPS_MAX) launch.groups[launch.group_count++] = optarg;
    else usage("wrong or too many options");
  }
  if (optind >= argc) usage("no program");
  launch.argv = argv + optind;
  if (launch.namespace != NULL) {
    launch.namespace_fd = open(launch.namespace, O_RDONLY | O_CLOEXEC);
    if (launch.namespace_fd < 0) fail("open", launch.namespace);
    if (getcwd(cwd, sizeof cwd) == NULL) fail("find the working directory for", argv[optind]);
    launch.cwd = cwd;
  }
  become(&launch);
}
