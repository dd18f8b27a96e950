/* The wire: one connection in the machine's life, and the guest on it. Or, for the older worker, its agent. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Connections that have said nothing yet. Whoever looks whether we listen says nothing; and a restored machine holds those
   of the template, whose other end is gone for ever. */
#define SILENT_MAX 32
/* A guest whose host has gone kills its job and ends within this. */
#define LEAVE_MILLIS 3000
/* Its last words are read within this, or not at all. */
#define LINGER_MILLIS 1000

static const char *program(const char *own, const char *installed) { return access(own, X_OK) == 0 ? own : installed; }

static void protect_from_oom(void) { put_text("/proc/self/oom_score_adj", "-1000"); }

static int listening(int domain, const struct sockaddr *at, socklen_t size) {
  int fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 || bind(fd, at, size) < 0 ||
      listen(fd, SILENT_MAX) < 0)
    fatal("listen on", domain == AF_INET ? "TCP" : "vsock");
  return fd;
}

static int listening_tcp(int port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  return listening(AF_INET, (const struct sockaddr *)&at, sizeof at);
}

static int listening_vsock(int port) {
  struct sockaddr_vm at = {.svm_family = AF_VSOCK, .svm_port = (unsigned)port, .svm_cid = VMADDR_CID_ANY};
  return listening(AF_VSOCK, (const struct sockaddr *)&at, sizeof at);
}

static struct pollfd fds[2 + SILENT_MAX];
static nfds_t count = 2;

static void let_go(nfds_t which) {
  close(fds[which].fd);
  memmove(fds + which, fds + which + 1, (count - which - 1) * sizeof *fds);
  count -= 1;
  forget_neighbour();
}

static void take_in(int listener) {
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* vsock has nothing of the kind */
    if (count == 2 + SILENT_MAX) let_go(2);
    fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
}

/* The first connection that says something. All others, and the listeners, are closed. */
static int the_host(int tcp_port, int vsock_port) {
  fds[0] = (struct pollfd){.fd = tcp_port > 0 ? listening_tcp(tcp_port) : -1, .events = POLLIN};
  fds[1] = (struct pollfd){.fd = vsock_port > 0 ? listening_vsock(vsock_port) : -1, .events = POLLIN};
  for (;;) {
    if (poll(fds, count, -1) < 0 && errno != EINTR) fatal("wait for", "the host");
    for (nfds_t i = 2; i < count;) {
      char first;
      ssize_t n = fds[i].revents == 0 ? -1 : recv(fds[i].fd, &first, 1, MSG_PEEK);
      if (n > 0) {
        int host = fds[i].fd;
        for (nfds_t other = 0; other < count; other++) if (other != i && fds[other].fd >= 0) close(fds[other].fd);
        return host;
      }
      if (fds[i].revents != 0 && (n == 0 || (errno != EAGAIN && errno != EINTR))) let_go(i);
      else i++;
    }
    for (int i = 0; i < 2; i++) if (fds[i].revents != 0) take_in(fds[i].fd);
  }
}

/* In its own namespaces: it sees its job and nothing of us, and its job sees neither. */
static _Noreturn void become_guest(int host) {
  static char uid[12], gid[12];
  snprintf(uid, sizeof uid, "%u", JOB_UID);
  snprintf(gid, sizeof gid, "%u", JOB_GID);
  setsid();
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fatal("hold private", "mounts");
  /* The way into the jobs' groups: for the guest, through a folder that is root's alone. */
  if (mkdir(OWN_PRIVATE "/groups", 0700) < 0 && errno != EEXIST) fatal("make", OWN_PRIVATE "/groups");
  if (mount("/sys/fs/cgroup/jobs", OWN_PRIVATE "/groups", NULL, MS_BIND, NULL) < 0) fatal("mount", OWN_PRIVATE "/groups");
  if (umount2("/sys/fs/cgroup", MNT_DETACH) < 0) fatal("umount", "/sys/fs/cgroup");
  if (mount(NULL, "/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL) < 0)
    fatal("close", "/sys");
  if (umount2("/proc", MNT_DETACH) < 0) fatal("umount", "/proc");
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, "hidepid=2") < 0) fatal("mount", "/proc");
  if (dup2(host, 0) < 0 || dup2(host, 1) < 0) fatal("connect", "the guest");
  const char *path = program(OWN "/guest", "/usr/lib/stoker/guest");
  execl(path, "guest", "--work", "/work", "--uid", uid, "--gid", gid, "--cgroup", OWN_PRIVATE "/groups", (char *)NULL);
  fatal("exec", path);
}

/* A process in its own namespaces is an ordinary child to us; what ends with 1 there ends altogether. */
static pid_t start_guest(int host) {
  pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) become_guest(host);
  if (pid < 0) fatal("start", "the guest");
  return pid;
}

/* What the guest said last is on its way until the host has taken it; its hanging up says that it has. */
static void linger(int host) {
  uint64_t until = now_millis() + LINGER_MILLIS;
  shutdown(host, SHUT_WR);
  for (;;) {
    char more[256];
    uint64_t now = now_millis();
    struct pollfd ready = {.fd = host, .events = POLLIN};
    if (now >= until || poll(&ready, 1, (int)(until - now)) <= 0) return;
    ssize_t n = read(host, more, sizeof more);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return;
  }
}

_Noreturn void serve_wire(int tcp_port, int vsock_port) {
  protect_from_oom();
  int host = the_host(tcp_port, vsock_port);
  personalise(host);
  pid_t guest = start_guest(host);
  int guest_fd = (int)syscall(SYS_pidfd_open, guest, 0);
  if (guest_fd < 0) fatal("watch", "the guest");
  struct pollfd ends[2] = {{.fd = guest_fd, .events = POLLIN}, {.fd = host, .events = POLLRDHUP}};
  while (poll(ends, 2, -1) < 0 && errno == EINTR) continue;
  /* The host has gone first: the guest sees it too, and ends its job. One that cannot is ended with the machine. */
  if (ends[0].revents == 0) poll(ends, 1, LEAVE_MILLIS);
  int status = 0;
  errno = 0;
  if (waitpid(guest, &status, WNOHANG) == guest && status != 0) say("the guest ended", WIFSIGNALED(status) ? "by a signal" : "and says why above");
  linger(host);
  /* No sync: nobody reads this machine's disk again. */
  end_machine();
}

/* It finds what it would mount mounted, and its network up: kernels need no ip= of their own for that. */
_Noreturn void become_init(const char *path) {
  signal(SIGPIPE, SIG_DFL);
  execl(path, path, (char *)NULL);
  fatal("exec", path);
}

_Noreturn void serve_agent(void) {
  protect_from_oom();
  const char *path = program(OWN "/agent", "/usr/lib/stoker/agent");
  pid_t agent = fork();
  if (agent == 0) {
    setsid();
    execl(path, "agent", (char *)NULL);
    fatal("exec", path);
  }
  if (agent < 0) fatal("start", path);
  for (pid_t gone = 0; gone != agent;) {
    gone = wait(NULL);
    if (gone < 0 && errno != EINTR) break;
  }
  sync();
  end_machine();
}
