/* Does what its arguments say, one after the other: the program of random bundles (Bundle.ts has the other side).
   out N, err N: bytes written. cpu MS: time used. sleep MS. mem KIB: memory touched and kept. file KIB: a file of that size.
   inodes N: empty files. forks N: children that sleep. daemon: one that left the session and its parent. deaf: ignores
   TERM. exit N, signal N: the end. What is refused (fork, disk) is passed over. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static char block[65536];

static long long used(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void put(int fd, long bytes) {
  memset(block, 'x', sizeof block);
  while (bytes > 0) {
    ssize_t n = write(fd, block, bytes < (long)sizeof block ? (size_t)bytes : sizeof block);
    if (n <= 0) return;
    bytes -= n;
  }
}

static void nap(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0) {}
}

int main(int count, char **words) {
  static int files;
  for (int i = 1; i < count; i++) {
    const char *word = words[i];
    long value = i + 1 < count ? atol(words[i + 1]) : 0;
    if (strcmp(word, "deaf") == 0) {
      signal(SIGTERM, SIG_IGN);
      continue;
    }
    if (strcmp(word, "daemon") == 0) {
      if (fork() == 0) {
        setsid();
        if (fork() == 0) for (;;) nap(1000);
        _exit(0);
      }
      continue;
    }
    i++;
    if (strcmp(word, "exit") == 0) exit((int)value);
    else if (strcmp(word, "signal") == 0) raise((int)value);
    else if (strcmp(word, "out") == 0) put(1, value);
    else if (strcmp(word, "err") == 0) put(2, value);
    else if (strcmp(word, "sleep") == 0) nap(value);
    else if (strcmp(word, "cpu") == 0) {
      for (long long end = used(CLOCK_PROCESS_CPUTIME_ID) + value * 1000000; used(CLOCK_PROCESS_CPUTIME_ID) < end;) {}
    } else if (strcmp(word, "mem") == 0) {
      char *memory = mmap(NULL, (size_t)value << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      for (long at = 0; memory != MAP_FAILED && at < value << 10; at += 4096) memory[at] = 1;
    } else if (strcmp(word, "file") == 0 || strcmp(word, "inodes") == 0) {
      long n = word[0] == 'i' ? value : 1;
      for (long k = 0; k < n; k++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", files++);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) break;
        if (word[0] == 'f') put(fd, value << 10);
        close(fd);
      }
    } else if (strcmp(word, "forks") == 0) {
      for (long k = 0; k < value; k++) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (pid == 0) for (;;) nap(1000);
      }
    } else return 99;
  }
  return 0;
}
