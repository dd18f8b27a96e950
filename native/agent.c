/* The CodeBench agent: source code over HTTP, compiled and run, for workers that know nothing else.
 *
 *   agent [--port 8080] [--work /work] [--guest PATH] [--uid 1000 --gid 1000] [--compile-seconds 120] [--run-seconds 60]
 *         [--wait-seconds 60] [--output-bytes 1048576] [--local]
 *
 *   GET /health  200 "OK"
 *   POST /run    {id, code, language, variant}, all strings and none empty; language is python, c, cpp or go
 *                200 "Success", 400 "Failed to compile" or "Failed to run" with
 *                {message, error, stdout, stderr, exec_duration (microseconds), mem_usage (KiB)}; else {message}
 *
 * Each connection is a process of its own: it reads one request, waits for its turn, has a guest (native/guest.c) run the
 * job, and answers. Nothing a job or a client does can take more than that process's share: requests and outputs are bounded,
 * all waiting ends. Programs run under another uid, in pid and mount namespaces of their own, so that they neither see nor
 * reach the agent; and without --local it does not listen to this machine's own addresses, which is all that is left to them.
 * Exit codes: 64 usage, 71 it cannot start. */
#include "agent/agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* So many wait for their turn or have it; as many more are told that it is busy; what comes beyond is not heard. */
#define WAITING_MAX 16
#define CONNECTIONS_MAX (2 * WAITING_MAX)

static struct settings settings = {
  .port = 8080, .work = "/work", .uid = 1000, .gid = 1000, .compile_seconds = 120, .run_seconds = 60, .wait_seconds = 60,
  .output_bytes = 1 << 20
};

uint64_t now_millis(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static _Noreturn void usage(void) {
  dprintf(2, "usage: agent [--port N] [--work DIR] [--guest PATH] [--uid N --gid N] [--compile-seconds N] [--run-seconds N] "
    "[--wait-seconds N] [--output-bytes N] [--local]\n");
  _exit(64);
}

static _Noreturn void no_start(const char *what) {
  dprintf(2, "stoker-agent: %s: %s\n", what, strerror(errno));
  _exit(71);
}

static uint32_t number(const char *text, uint32_t least, uint32_t most) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != 0 || errno != 0 || value < least || value > most) usage();
  return (uint32_t)value;
}

static void arguments(int argc, char **argv) {
  static const struct option options[] = {
    {"port", required_argument, NULL, 'p'}, {"work", required_argument, NULL, 'w'}, {"guest", required_argument, NULL, 'G'},
    {"uid", required_argument, NULL, 'u'}, {"gid", required_argument, NULL, 'g'},
    {"compile-seconds", required_argument, NULL, 'c'}, {"run-seconds", required_argument, NULL, 'r'},
    {"wait-seconds", required_argument, NULL, 'W'}, {"output-bytes", required_argument, NULL, 'o'},
    {"local", no_argument, NULL, 'l'}, {0}
  };
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 'p': settings.port = (uint16_t)number(optarg, 0, 65535); break;
      case 'w': settings.work = optarg; break;
      case 'G': settings.guest = optarg; break;
      case 'u': settings.uid = number(optarg, 1, INT32_MAX); break;
      case 'g': settings.gid = number(optarg, 1, INT32_MAX); break;
      case 'c': settings.compile_seconds = number(optarg, 1, 86400); break;
      case 'r': settings.run_seconds = number(optarg, 1, 86400); break;
      case 'W': settings.wait_seconds = number(optarg, 0, 86400); break;
      case 'o': settings.output_bytes = number(optarg, 0, 64u << 20); break;
      case 'l': settings.local = true; break;
      default: usage();
    }
  }
  if (optind != argc) usage();
}

/* The one that lies beside this program, unless it was named. */
static const char *find_guest(void) {
  static char path[4096];
  if (settings.guest != NULL) return settings.guest;
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof "guest");
  if (n <= 0) no_start("find the guest beside this program");
  path[n] = 0;
  strcpy(strrchr(path, '/') + 1, "guest");
  return path;
}

/* Best effort, where it is allowed: when memory runs out the job goes first. */
static void outlive_jobs(void) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t ignored = write(fd, "-1000", 5);
  (void)ignored;
  close(fd);
}

static int set_up(void) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);
  for (int fd = 0; fd < 3; fd++) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) no_start("fds 0 to 2");
  }
  settings.guest = find_guest();
  if (access(settings.guest, X_OK) < 0) no_start(settings.guest);
  if (geteuid() != 0) {
    errno = EPERM;
    no_start("it keeps jobs apart from itself, and that takes root");
  }
  if (mkdir(settings.work, 0711) < 0 && errno != EEXIST) no_start(settings.work);
  if (chown(settings.work, 0, 0) < 0 || chmod(settings.work, 0711) < 0) no_start(settings.work);
  places_clear(settings.work);
  outlive_jobs();
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) no_start("dumpable");
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(settings.port)};
  socklen_t size = sizeof address;
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
      bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 64) < 0 ||
      getsockname(listener, (struct sockaddr *)&address, &size) < 0) no_start("listen");
  dprintf(2, "stoker-agent: listens on port %u\n", ntohs(address.sin_port));
  return listener;
}

/* From an address of this very machine, where only jobs could be. */
static bool is_from_here(int fd) {
  struct sockaddr_in own = {0}, peer = {0};
  socklen_t own_size = sizeof own, peer_size = sizeof peer;
  return getsockname(fd, (struct sockaddr *)&own, &own_size) < 0 ||
    getpeername(fd, (struct sockaddr *)&peer, &peer_size) < 0 || own.sin_addr.s_addr == peer.sin_addr.s_addr ||
    ntohl(peer.sin_addr.s_addr) >> 24 == 127;
}

/* One job at a time; the lock goes with the descriptor, which is -1 if it did not come. */
static int take_turn(void) {
  int fd = open(settings.work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  uint64_t until = now_millis() + settings.wait_seconds * 1000ull;
  while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
    if (now_millis() >= until) return -1;
    poll(NULL, 0, 10);
  }
  return fd;
}

/* The words of the old agent's framework for absent or empty fields. */
static bool is_complete(const struct order *order, char *message, size_t size) {
  const struct { const char *name; const struct text *text; } fields[] = {
    {"ID", &order->id}, {"Code", &order->code}, {"Language", &order->language}, {"Variant", &order->variant}
  };
  size_t used = 0;
  for (size_t i = 0; i < 4; i++) {
    if (fields[i].text->size > 0) continue;
    used += (size_t)snprintf(message + used, size - used,
      "%sKey: 'runReq.%s' Error:Field validation for '%s' failed on the 'required' tag",
      used == 0 ? "code=400, message=" : "\n", fields[i].name, fields[i].name);
  }
  return used == 0;
}

static void handle_run(int fd, struct request *request) {
  struct order order;
  char message[512];
  if (request->head.length > 0 && !request->head.json) return send_message(fd, 415, NULL);
  const char *wrong = request->head.length == 0
    ? (order = (struct order){0}, NULL)
    : parse_order(request->body, request->head.length, &order);
  if (wrong != NULL) {
    snprintf(message, sizeof message, "the request is not usable: %s", wrong);
    return send_message(fd, 400, message);
  }
  if (!is_complete(&order, message, sizeof message)) return send_message(fd, 400, message);
  if (!is_language(&order.language)) return send_message(fd, 400, "Invalid language");
  int turn = take_turn();
  if (turn < 0) return send_message(fd, 503, NULL);
  struct answer answer;
  char place[4096];
  run_order(&settings, &order, &answer, place, sizeof place);
  send_answer(fd, &answer);
  if (!place_remove(place)) dprintf(2, "stoker-agent: %s cannot be removed: %s\n", place, strerror(errno));
  close(turn);
}

static bool is(const struct text *text, const char *word) {
  return text->size == strlen(word) && memcmp(text->at, word, text->size) == 0;
}

static _Noreturn void serve(int fd, bool busy) {
  static char room[HEAD_MAX];
  static struct request request;
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  int refused = read_request(fd, &request, room);
  const struct head *head = &request.head;
  bool health = is(&head->target, "/health"), run = is(&head->target, "/run");
  if (refused > 0) send_message(fd, refused, NULL);
  else if (refused < 0) _exit(0);
  else if (!health && !run) send_message(fd, 404, NULL);
  else if (strcmp(head->method, health ? "GET" : "POST") != 0) send_message(fd, 405, NULL);
  else if (health) send_plain(fd, "OK");
  else if (busy) send_message(fd, 503, NULL);
  else handle_run(fd, &request);
  say_goodbye(fd);
  _exit(0);
}

int main(int argc, char **argv) {
  arguments(argc, argv);
  int listener = set_up(), busy = 0;
  for (;;) {
    struct pollfd p = {.fd = listener, .events = POLLIN};
    poll(&p, 1, busy > 0 ? 1000 : -1);
    while (busy > 0 && waitpid(-1, NULL, WNOHANG) > 0) busy--;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) poll(NULL, 0, 100);
      continue;
    }
    if (!settings.local && is_from_here(fd)) {
      close(fd);
      continue;
    }
    pid_t pid = busy < CONNECTIONS_MAX ? fork() : -1;
    if (pid == 0) serve(fd, busy >= WAITING_MAX);
    if (pid > 0) busy++;
    close(fd);
  }
}
