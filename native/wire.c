/* wire: its fd 0 and 1 become the connection to the guest of a microVM.
 *
 *   wire --netns PATH --connect ADDRESS:PORT --within MS [--probe] [--uid N --gid N]
 *   wire --vsock SOCKET --port PORT --within MS [--probe] [--uid N --gid N]
 *
 * The first enters the network namespace and connects there; the second asks Firecracker's unix socket for a port of the
 * guest. Both try until MS milliseconds are over: a machine that boots answers late, one that is restored at once. With
 * --probe it ends as soon as the guest listens. Otherwise it copies both ways, through a fixed buffer each, until the guest
 * hangs up or nobody reads fd 1 any more; the end of fd 0 is passed on, and what the guest still says is waited for.
 * A PERSONALISE, if that is the first frame, gets the time at which it leaves: the guest's clock does not lag by the time
 * the machine took to answer.
 *
 * Once it is connected it has no capability, cannot gain any, and is the user N (default: nobody, 65534), if it was root:
 * what comes from the guest is bytes to it. Exit codes: 0 the guest hung up (or it listens), 64 usage, 69 the guest was
 * not reached in time, 71 it could not be tried, 74 the connection broke. fd 2 says why, in one line. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EXIT_USAGE 64
#define EXIT_UNREACHED 69
#define EXIT_SETUP 71
#define EXIT_BROKEN 74

#define NOBODY 65534
#define BUFFER (64u << 10)
/* A try is an unanswered SYN, which the kernel itself repeats only after a second: so there is soon another one beside it.
   The first to be answered is taken; the guest lets go of the others, which say nothing. */
#define TRIES 16
#define EAGER_MILLIS 500
#define EAGER_STEP 10
#define PATIENT_MILLIS 3000
#define PATIENT_STEP 25
#define STEP 60
/* For Firecracker's answer to CONNECT. */
#define HANDSHAKE_MILLIS 1000

static const char *netns, *address, *vsock;
static uint32_t port, within, uid = NOBODY, gid = NOBODY;
static bool probe, has_within, has_port;
static int last_error = ETIMEDOUT;

static _Noreturn void fail(int code, const char *what, const char *which) {
  dprintf(STDERR_FILENO, "stoker-wire: %s %s: %s\n", what, which, strerror(errno));
  _exit(code);
}

static _Noreturn void usage(void) {
  dprintf(STDERR_FILENO,
    "usage: wire (--netns PATH --connect ADDRESS:PORT | --vsock SOCKET --port PORT) --within MS [--probe] [--uid N --gid N]\n");
  _exit(EXIT_USAGE);
}

static uint64_t now_millis(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static uint32_t number(const char *text, uint32_t most) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != 0 || errno != 0 || value > most) usage();
  return (uint32_t)value;
}

static void arguments(int argc, char **argv) {
  static const struct option options[] = {
    {"netns", required_argument, NULL, 'n'}, {"connect", required_argument, NULL, 'c'},
    {"vsock", required_argument, NULL, 'v'}, {"port", required_argument, NULL, 'p'},
    {"within", required_argument, NULL, 'w'}, {"probe", no_argument, NULL, 'P'},
    {"uid", required_argument, NULL, 'u'}, {"gid", required_argument, NULL, 'g'}, {0}
  };
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 'n': netns = optarg; break;
      case 'c': address = optarg; break;
      case 'v': vsock = optarg; break;
      case 'p': port = number(optarg, UINT32_MAX - 1); has_port = true; break;
      case 'w': within = number(optarg, 86400000); has_within = true; break;
      case 'P': probe = true; break;
      case 'u': uid = number(optarg, UINT32_MAX - 1); break;
      case 'g': gid = number(optarg, UINT32_MAX - 1); break;
      default: usage();
    }
  }
  bool tcp = netns != NULL && address != NULL && vsock == NULL && !has_port;
  bool unix_socket = netns == NULL && address == NULL && vsock != NULL && has_port;
  if (!has_within || optind != argc || tcp == unix_socket) usage();
}

static _Noreturn void unreached(const char *which) {
  dprintf(STDERR_FILENO, "stoker-wire: the guest did not answer on %s within %u ms (%s)\n", which, within, strerror(last_error));
  _exit(EXIT_UNREACHED);
}

/* TCP */

static struct sockaddr_in parsed_address(void) {
  char ip[16];
  struct sockaddr_in to = {.sin_family = AF_INET};
  const char *colon = strrchr(address, ':');
  size_t size = colon == NULL ? sizeof ip : (size_t)(colon - address);
  if (size >= sizeof ip) usage();
  memcpy(ip, address, size);
  ip[size] = 0;
  if (inet_pton(AF_INET, ip, &to.sin_addr) != 1) usage();
  to.sin_port = htons((uint16_t)number(colon + 1, 65535));
  return to;
}

static void enter(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(EXIT_SETUP, "open", path);
  if (setns(fd, CLONE_NEWNET) < 0) fail(EXIT_SETUP, "enter the network namespace", path);
  close(fd);
}

static struct pollfd tries[TRIES];
static nfds_t tried;

static void drop_try(nfds_t which) {
  close(tries[which].fd);
  memmove(tries + which, tries + which + 1, (tried - which - 1) * sizeof *tries);
  tried -= 1;
}

static int taken_try(nfds_t which) {
  int fd = tries[which].fd;
  for (nfds_t i = 0; i < tried; i++) if (i != which) close(tries[i].fd);
  return fd;
}

/* A connected socket, or -1: not yet. */
static int another_try(const struct sockaddr_in *to) {
  if (tried == TRIES) drop_try(0);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) fail(EXIT_SETUP, "open", "a socket");
  tries[tried++] = (struct pollfd){.fd = fd, .events = POLLOUT};
  if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0) return taken_try(tried - 1);
  if (errno == EINPROGRESS) return -1;
  last_error = errno;
  drop_try(tried - 1);
  return -1;
}

static int connect_tcp(void) {
  struct sockaddr_in to = parsed_address();
  enter(netns);
  uint64_t start = now_millis(), until = start + within, next = start;
  for (;;) {
    uint64_t now = now_millis();
    if (now >= next) {
      int fd = another_try(&to);
      if (fd >= 0) return fd;
      uint64_t age = now - start;
      next = now + (age < EAGER_MILLIS ? EAGER_STEP : age < PATIENT_MILLIS ? PATIENT_STEP : STEP);
    }
    if (now >= until) unreached(address);
    uint64_t wake = next < until ? next : until;
    int n = poll(tries, tried, wake > now ? (int)(wake - now) : 0);
    if (n < 0 && errno != EINTR) fail(EXIT_SETUP, "wait for", address);
    for (nfds_t i = 0; n > 0 && i < tried;) {
      int error = 0;
      if (tries[i].revents == 0) {
        i++;
        continue;
      }
      getsockopt(tries[i].fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error});
      if (error == 0 && tries[i].revents & POLLOUT) return taken_try(i);
      if (error != 0) last_error = error;
      drop_try(i);
    }
  }
}

/* vsock over Firecracker's unix socket: `CONNECT port\n`, answered by `OK port\n`; no answer where nobody listens. */

static bool handshake(int fd, uint64_t until) {
  char line[32];
  int n = snprintf(line, sizeof line, "CONNECT %u\n", port);
  if (write(fd, line, (size_t)n) != n) return false;
  /* Byte by byte: what follows is the guest's. */
  for (size_t have = 0; have < sizeof line;) {
    uint64_t now = now_millis();
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    errno = ETIMEDOUT;
    if (now >= until || poll(&ready, 1, (int)(until - now)) <= 0) return false;
    ssize_t got = read(fd, line + have, 1);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got == 0) errno = ECONNREFUSED;
    if (got <= 0) return false;
    if (line[have++] == '\n') {
      errno = EPROTO;
      return have > 3 && memcmp(line, "OK ", 3) == 0;
    }
  }
  errno = EPROTO;
  return false;
}

/* A jail may lie deeper than an address can say: then the socket is named from its own folder. */
static const char *short_name(const char *path, size_t room) {
  const char *slash = strrchr(path, '/');
  if (strlen(path) < room || slash == NULL || slash == path) return path;
  char *folder = strndup(path, (size_t)(slash - path));
  if (folder == NULL || chdir(folder) < 0) fail(EXIT_SETUP, "enter the folder of", path);
  free(folder);
  return slash + 1;
}

static int connect_vsock(void) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  const char *name = short_name(vsock, sizeof to.sun_path);
  errno = ENAMETOOLONG;
  if (strlen(name) >= sizeof to.sun_path) fail(EXIT_SETUP, "connect", vsock);
  strcpy(to.sun_path, name);
  uint64_t start = now_millis(), until = start + within;
  for (;;) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail(EXIT_SETUP, "open", "a socket");
    uint64_t now = now_millis(), limit = now + HANDSHAKE_MILLIS;
    bool connected = connect(fd, (const struct sockaddr *)&to, sizeof to) == 0;
    if (connected && handshake(fd, limit < until ? limit : until)) return fd;
    if (errno != ETIMEDOUT) last_error = errno; /* which the last try always is */
    close(fd);
    now = now_millis();
    if (now >= until) unreached(vsock);
    uint64_t step = now - start < EAGER_MILLIS ? EAGER_STEP : PATIENT_STEP;
    poll(NULL, 0, (int)(until - now < step ? until - now : step));
  }
}

/* Copying */

struct way {
  int from, to;
  uint8_t bytes[BUFFER];
  size_t head, tail;
  bool ended;  /* nothing more comes */
  bool closed; /* and that has been passed on */
};

/* 0: fd 0 to the guest. 1: the guest to fd 1. */
static struct way ways[2];

/* The beginning of a PERSONALISE (src/guest/Personalisation.ts): header, version, seconds, nanoseconds. */
#define HEADER 9u
#define STAMPED (HEADER + 4u + 8u + 4u)
#define PERSONALISE 0x20
static bool stamped;

static void put(uint8_t *at, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; i++) at[i] = (uint8_t)(value >> 8 * i);
}

/* True as soon as the first frame may leave. */
static bool stamp(struct way *way) {
  if (stamped) return true;
  /* Its length is below 16 MiB, which tells it from "POST ". */
  bool is = way->tail <= 4 || (way->bytes[4] == PERSONALISE && way->bytes[3] == 0);
  if (is && way->tail < STAMPED && !way->ended) return false;
  if (is && way->tail >= STAMPED) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    put(way->bytes + HEADER + 4, (uint64_t)now.tv_sec, 8);
    put(way->bytes + HEADER + 12, (uint64_t)now.tv_nsec, 4);
  }
  return stamped = true;
}

static _Noreturn void broken(void) { fail(EXIT_BROKEN, "the connection", "broke"); }

/* False: it cannot be read any more. */
static bool take(struct way *way) {
  ssize_t n = read(way->from, way->bytes + way->tail, BUFFER - way->tail);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) way->ended = true;
  way->tail += (size_t)n;
  return true;
}

/* False: it cannot be written any more. */
static bool give(struct way *way) {
  while (way->head < way->tail) {
    ssize_t n = write(way->to, way->bytes + way->head, way->tail - way->head);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    way->head += (size_t)n;
  }
  way->head = way->tail = 0;
  return true;
}

static void unblock(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) fail(EXIT_SETUP, "use", "fd 0 and 1");
}

static _Noreturn void copy(int guest) {
  struct way *in = &ways[0], *out = &ways[1];
  unblock(0);
  unblock(1);
  unblock(guest);
  in->from = 0;
  in->to = out->from = guest;
  out->to = 1;
  for (;;) {
    /* A negative fd is not looked at, so that nobody is woken for what there is no room for. */
    struct pollfd fds[4] = {
      {.fd = in->ended || in->tail == BUFFER ? -1 : 0, .events = POLLIN},
      {.fd = stamped && in->tail > in->head ? guest : -1, .events = POLLOUT},
      {.fd = out->ended || out->tail == BUFFER ? -1 : guest, .events = POLLIN},
      {.fd = 1, .events = out->tail > out->head ? POLLOUT : 0}
    };
    if (poll(fds, 4, -1) < 0 && errno != EINTR) broken();
    if (fds[0].revents != 0 && !take(in)) in->ended = true;
    if (fds[2].revents != 0 && !take(out)) broken();
    /* What came is passed on in the same turn: nearly always there is room. */
    bool leaves = stamp(in);
    if (leaves && in->tail > in->head && !give(in)) {
      /* The guest does not listen any more; what it still says is worth having. */
      in->head = in->tail = 0;
      in->ended = in->closed = true;
    }
    if (out->tail > out->head && !give(out)) _exit(0);
    if (in->ended && in->tail == 0 && !in->closed) {
      shutdown(guest, SHUT_WR);
      in->closed = true;
    }
    if (out->ended && out->tail == 0) _exit(0);
    if (fds[3].revents & (POLLERR | POLLHUP | POLLNVAL) && out->tail == out->head) _exit(0);
  }
}

static void drop_privileges(void) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail(EXIT_SETUP, "set", "no_new_privs");
  if (geteuid() == 0) {
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
      fail(EXIT_SETUP, "become", "another user");
  }
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  if (syscall(SYS_capset, &header, none) < 0) fail(EXIT_SETUP, "drop", "capabilities");
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int main(int argc, char **argv) {
  arguments(argc, argv);
  if (fcntl(0, F_GETFD) < 0 || fcntl(1, F_GETFD) < 0) fail(EXIT_SETUP, "use", "fd 0 and 1");
  signal(SIGPIPE, SIG_IGN);
  int guest = vsock == NULL ? connect_tcp() : connect_vsock();
  if (probe) _exit(0);
  if (vsock == NULL) setsockopt(guest, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  drop_privileges();
  copy(guest);
}
