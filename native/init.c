/* init: the first process of a microVM, as /init of its initramfs and as its /sbin/init.
 *
 * Stage 1, when its root is an initramfs: loads modules, joins the read-only root file system and the scratch disk, and
 * becomes stage 2 there (init/root.c). Stage 2 makes a plain machine of it: kernel file systems, network, cgroups
 * (init/mounts.c, init/net.c), and then, as the kernel's command line says:
 *
 *   stoker.ip=ADDRESS/PREFIX,GATEWAY   its network; also the kernel's own ip=A::G:M:HOST:IF:off:DNS:DNS
 *   stoker.wire=PORT, stoker.vsock=PORT   waits there for its host, is made this machine and no other (init/personalise.c),
 *                                      and starts the guest on that connection, the only one there will ever be
 *   stoker.init=PATH                   becomes that: a root of somebody else's, which starts an agent by itself
 *   none of these                      starts the agent of CodeBench
 *
 * It ends the machine, always by RB_AUTOBOOT, when the guest ends, when the host is gone, and when anything goes wrong:
 * a machine lives for one job and is never repaired. What it writes on the console is a few lines at most.
 *
 * Until it is personalised it is a template of which there may be many copies: it reads nothing that the kernel makes up
 * once and keeps (/proc/sys/kernel/random/boot_id), and asks for no random byte. */
#include "init/init.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

uint64_t now_millis(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

_Noreturn void end_machine(void) {
  reboot(RB_AUTOBOOT);
  for (;;) pause(); /* a VMM that does not let go: its host kills it */
}

void say(const char *what, const char *which) {
  char line[300];
  int error = errno;
  int n = error == 0 ? snprintf(line, sizeof line, "stoker-init: %s %s", what, which)
                     : snprintf(line, sizeof line, "stoker-init: %s %s: %s", what, which, strerror(error));
  size_t size = n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
  for (size_t i = 0; i < size; i++) if (line[i] < ' ') line[i] = '?';
  line[size < sizeof line - 1 ? size : sizeof line - 2] = '\n';
  ssize_t ignored = write(STDERR_FILENO, line, size < sizeof line - 1 ? size + 1 : sizeof line - 1);
  (void)ignored;
}

_Noreturn void fatal(const char *what, const char *which) {
  say(what, which);
  end_machine();
}

/* What the guest and its phases may at most be given; they lower it themselves. The groups say how many processes. */
static void raise_limits(void) {
  setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 1024, .rlim_max = 1u << 20});
  setrlimit(RLIMIT_NPROC, &(struct rlimit){.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY});
}

static int port(const char *name) {
  const char *text = option(name);
  if (text == NULL) return -1;
  char *end;
  long value = strtol(text, &end, 10);
  errno = EINVAL;
  if (end == text || *end != 0 || value < 1 || value > 65535) fatal("listen on", text);
  return (int)value;
}

int main(void) {
  if (getpid() != 1) {
    dprintf(STDERR_FILENO, "stoker-init: this is the first process of a microVM and nothing else\n");
    return 64;
  }
  reboot(RB_DISABLE_CAD);
  if (in_initramfs()) enter_root();
  signal(SIGPIPE, SIG_IGN);
  raise_limits();
  kernel_files();
  options_read();
  int tcp = port("stoker.wire="), vsock = port("stoker.vsock=");
  bool served = tcp > 0 || vsock > 0;
  network_up(!served);
  known_files();
  setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
  if (served) serve_wire(tcp, vsock);
  const char *other = option("stoker.init=");
  if (other != NULL) become_init(other);
  serve_agent();
}
