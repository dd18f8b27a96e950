/* A job like others: computes, allocates, writes and reads a file, starts processes, talks over pipe and loopback. */
#include "attack.h"
#include <arpa/inet.h>

static _Noreturn void unwell(const char *what) {
  say("unwell: %s: %s", what, error_name(errno));
  _exit(1);
}

static uint64_t compute(long rounds) {
  uint64_t x = 88172645463325252u, sum = 0;
  for (long i = 0; i < rounds; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    sum += x;
  }
  return sum;
}

static uint64_t use_memory(void) {
  size_t words = 4 * MIB / sizeof(uint64_t);
  uint64_t *at = malloc(words * sizeof *at), sum = 0;
  if (at == NULL) unwell("malloc");
  for (size_t i = 0; i < words; i++) at[i] = i * 2654435761u;
  for (size_t i = 0; i < words; i++) sum ^= at[(i * 40503u) % words];
  free(at);
  return sum;
}

static uint64_t use_file(void) {
  char block[65536];
  uint64_t sum = 0;
  memset(block, 'x', sizeof block);
  int fd = open("own", O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) unwell("open");
  for (int i = 0; i < 16; i++) if (write(fd, block, sizeof block) != sizeof block) unwell("write");
  lseek(fd, 0, SEEK_SET);
  for (ssize_t n; (n = read(fd, block, sizeof block)) > 0;) for (ssize_t i = 0; i < n; i++) sum += (uint64_t)block[i];
  close(fd);
  return sum;
}

static uint64_t use_processes(int count) {
  uint64_t sum = 0;
  for (int i = 0; i < count; i++) {
    int ends[2], status;
    if (pipe(ends) < 0) unwell("pipe");
    pid_t pid = fork();
    if (pid < 0) unwell("fork");
    if (pid == 0) {
      if (write(ends[1], &i, sizeof i) < 0) _exit(2);
      _exit(i);
    }
    int told = -1;
    if (read(ends[0], &told, sizeof told) != sizeof told || told != i) unwell("read");
    if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != i) unwell("wait");
    sum += (uint64_t)told;
    close(ends[0]);
    close(ends[1]);
  }
  return sum;
}

static uint64_t use_loopback(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  char got[6] = "";
  int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
  if (listener < 0 || client < 0) unwell("socket");
  if (bind(listener, (void *)&address, size) < 0 || listen(listener, 1) < 0) unwell("listen");
  if (getsockname(listener, (void *)&address, &size) < 0) unwell("getsockname");
  if (connect(client, (void *)&address, size) < 0) unwell("connect");
  int server = accept(listener, NULL, NULL);
  if (server < 0 || write(client, "hello", 5) != 5 || read(server, got, 5) != 5) unwell("loopback");
  close(listener);
  close(client);
  close(server);
  return (uint64_t)got[4];
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "quick") == 0) {
    use_processes(1);
    say("well");
    return 0;
  }
  uint64_t sum = 0;
  for (int i = 0; i < 8; i++) {
    sum += compute(3000000) + use_memory() + use_file() + use_processes(4) + use_loopback();
    doze(10);
  }
  say("%016llx", (unsigned long long)sum);
  return 0;
}
