/* One small process that forks for a large one: `fork` copies page tables, and a worker has a hundred megabytes of them.
 * Single-threaded; nothing in its loop waits for one client. Of a launch it keeps the connection, to shut it down when
 * the child has died: a guest whose runtime was killed hears EOF, and the client hears of it though a guest still runs. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 1024
#define CLIENTS_MAX 1024
#define CHILDREN_MAX 8192 /* more wait in the backlog */
#define REQUEST_MS 5000
/* Without a descriptor or memory for the next connection: others end meanwhile. */
#define BREATH_MS 20
#define SAID_MAX 8192

struct client {
  int fd;
  uint8_t head[4], *body;
  uint32_t have, size; /* of the body once it is there, of the head before */
  int64_t until;
};

static const int deaf_to[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};

struct child {
  pid_t pid;
  int fd;
  int said;   /* what it writes to its fd 2, in memory; -1: nobody asked */
  char *path; /* of the file that it becomes if there is any, owned; with `said` only */
};

static struct client clients[CLIENTS_MAX];
static size_t count;
static struct child children[CHILDREN_MAX];
static size_t child_count;
static const char *mounts;
static int mounts_fd = -1;

static int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A file only of those that said something, because nearly none does, and an inode for each one costs some per cent of it all.
   Not for a worker that has hung up: it does not want to know any more, and would not remove it. */
static void write_down(const struct child *child) {
  static char words[SAID_MAX];
  struct stat of;
  struct pollfd connection = {.fd = child->fd};
  if (fstat(child->said, &of) < 0 || of.st_size == 0) return;
  if (poll(&connection, 1, 0) > 0 && (connection.revents & POLLHUP) != 0) return;
  ssize_t size = pread(child->said, words, sizeof words, of.st_size > SAID_MAX ? of.st_size - SAID_MAX : 0);
  int file = open(child->path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0) return;
  if (size > 0 && write(file, words, (size_t)size) < 0) unlink(child->path);
  close(file);
}

static void forget(const struct child *child) {
  shutdown(child->fd, SHUT_RDWR);
  close(child->fd);
  if (child->said < 0) return;
  close(child->said);
  free(child->path);
}

/* In the child. All descriptors but 0, 1 and 2 close at exec. */
static _Noreturn void launch(int connection, int said, struct request *request) {
  if (said < 0) said = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (said < 0 || dup2(said, STDERR_FILENO) < 0) _exit(EXIT_LAUNCH);
  if (dup2(connection, STDIN_FILENO) < 0 || dup2(connection, STDOUT_FILENO) < 0) fail("take", "the connection");
  setsid(); /* a terminal's Ctrl-C is for the worker: it drains, and its sandboxes live on meanwhile */
  for (size_t i = 0; i < sizeof deaf_to / sizeof *deaf_to; i++) signal(deaf_to[i], SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  become(&request->launch);
}

/* True: the connection is a child's now. */
static bool start(struct client *client) {
  static struct request request;
  memset(&request, 0, sizeof request);
  request.launch.namespace = mounts;
  request.launch.namespace_fd = mounts_fd;
  request.launch.cwd = "/";
  if (!parse_request(client->body, client->size, &request)) return false;
  request.launch.program_fd = request.sealed ? sealed_copy(request.argv[0]) : -1;
  struct child child = {.fd = client->fd, .said = -1};
  if (request.said[0] != 0) {
    child.path = strdup(request.said);
    if (child.path != NULL) child.said = memfd_create("said", MFD_CLOEXEC);
    if (child.said < 0) free(child.path); /* no descriptor left: better without its words than not at all */
  }
  child.pid = fork();
  if (child.pid == 0) launch(client->fd, child.said, &request);
  if (child.pid > 0) {
    children[child_count++] = child;
    return true;
  }
  if (child.said >= 0) {
    dprintf(child.said, "stoker-launch: fork for %s: %s\n", request.argv[0], strerror(errno));
    write_down(&child);
  }
  forget(&child); /* the client's descriptor with it */
  return true;
}

/* What was written before is still read. */
static void bury(void) {
  for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
    for (size_t i = 0; i < child_count; i++) {
      if (children[i].pid != pid) continue;
      if (children[i].said >= 0) write_down(&children[i]);
      forget(&children[i]);
      children[i] = children[--child_count];
      break;
    }
  }
}

/* Takes what is there and never a byte beyond the request: those are the program's. True: nothing more is wanted. */
static bool attend(struct client *client) {
  for (;;) {
    uint8_t *to = client->body != NULL ? client->body : client->head;
    ssize_t n = recv(client->fd, to + client->have, client->size - client->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0) return true;
    client->have += (uint32_t)n;
    if (client->have < client->size) continue;
    if (client->body != NULL) {
      if (start(client)) client->fd = -1;
      return true;
    }
    const uint8_t *h = client->head;
    client->size = h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
    client->have = 0;
    if (client->size == 0 || client->size > REQUEST_MAX || (client->body = malloc(client->size)) == NULL) return true;
  }
}

static void drop(size_t index) {
  if (clients[index].fd >= 0) close(clients[index].fd);
  free(clients[index].body);
  clients[index] = clients[--count];
}

static bool has_room(void) {
  return count < CLIENTS_MAX && count + child_count < CHILDREN_MAX;
}

/* False: there is one, but no means to take it. */
static bool take_clients(int listener) {
  while (has_room()) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
    clients[count++] = (struct client){.fd = fd, .size = sizeof clients->head, .until = now_ms() + REQUEST_MS};
  }
  return true;
}

/* The worker holds the other end and writes nothing to it. */
static void end_with_worker(void) {
  char ignored[64];
  ssize_t n = read(STDIN_FILENO, ignored, sizeof ignored);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) _exit(0);
}

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    fail("listen at", path);
  }
  strcpy(address.sun_path, path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  mode_t mask = umask(0177); /* the socket's mode is 0600 from its first moment */
  if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, BACKLOG) < 0) {
    fail("listen at", path);
  }
  umask(mask);
  return listener;
}

_Noreturn void serve(const char *path, const char *namespace) {
  static struct pollfd polled[CLIENTS_MAX + 3];
  sigset_t deaths;
  syscall(SYS_close_range, 3, ~0u, 0); /* fails only on kernels before 5.9; Node passes on nothing else */
  clearenv();
  if (namespace != NULL) {
    mounts = namespace;
    mounts_fd = open(namespace, O_RDONLY | O_CLOEXEC);
    if (mounts_fd < 0) fail("open", namespace);
    if (ioctl(mounts_fd, NS_GET_NSTYPE) != CLONE_NEWNS) {
      errno = EINVAL;
      fail("enter", namespace);
    }
  }
  int listener = listen_at(path);
  if (chdir("/") < 0) fail("chdir", "/");
  for (size_t i = 0; i < sizeof deaf_to / sizeof *deaf_to; i++) signal(deaf_to[i], SIG_IGN);
  sigemptyset(&deaths);
  sigaddset(&deaths, SIGCHLD);
  sigprocmask(SIG_BLOCK, &deaths, NULL);
  int deaths_fd = signalfd(-1, &deaths, SFD_CLOEXEC | SFD_NONBLOCK);
  if (deaths_fd < 0) fail("hear of", "children");
  if (write(STDOUT_FILENO, "ready\n", 6) != 6) fail("say", "ready");

  for (bool able = true;;) {
    int64_t wait = -1, now = now_ms();
    polled[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = able && has_room() ? listener : -1, .events = POLLIN};
    polled[2] = (struct pollfd){.fd = deaths_fd, .events = POLLIN};
    for (size_t i = 0; i < count; i++) {
      polled[i + 3] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
      int64_t left = clients[i].until > now ? clients[i].until - now : 0;
      if (wait < 0 || left < wait) wait = left;
    }
    if (!able && (wait < 0 || wait > BREATH_MS)) wait = BREATH_MS;
    able = true;
    if (poll(polled, count + 3, (int)wait) < 0 && errno != EINTR) fail("poll", path);
    if (polled[0].revents != 0) end_with_worker(); /* before anybody is served for a dead one */
    if (polled[2].revents != 0) {
      struct signalfd_siginfo info;
      while (read(deaths_fd, &info, sizeof info) > 0) continue;
      bury();
    }
    now = now_ms();
    for (size_t i = count; i-- > 0;) { /* backwards: `drop` moves the last one, which has been seen */
      if ((polled[i + 3].revents != 0 && attend(&clients[i])) || clients[i].until <= now) drop(i);
    }
    if (polled[1].revents != 0) able = take_clients(listener);
  }
}
