/* Two jobs that want to meet, or one that wants to know of the other; and hogs that want everything. */
#include "attack.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <mqueue.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define MARK 0x5704e4b
static const char abstract_name[] = "\0stoker-attack-mark";

static int bind_to(const char *path, size_t size, bool connecting) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  memcpy(name.sun_path, path, size);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connecting) return connect(fd, (void *)&name, length);
  return bind(fd, (void *)&name, length) < 0 ? -1 : listen(fd, 10);
}

static int meet_at(int port, bool connecting) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connecting) return connect(fd, (void *)&at, sizeof at);
  return bind(fd, (void *)&at, sizeof at) < 0 ? -1 : listen(fd, 10);
}

static long mq(bool making) {
#ifdef SYS_mq_open
  return syscall(SYS_mq_open, "stoker-attack-mark", making ? O_CREAT | O_RDWR : O_RDWR, 0666, NULL);
#else
  errno = ENOSYS;
  return -1;
#endif
}

/* Makes everything by which two could meet, and waits. */
static void offer(int argc, char **argv) {
  static const char *const files[] = {"/tmp/stoker-attack-mark", "/work/stoker-attack-mark", "/dev/shm/stoker-attack-mark"};
  say("abstract: %s", bind_to(abstract_name, sizeof abstract_name - 1, false) < 0 ? error_name(errno) : "there");
  say("socket: %s", bind_to("/tmp/stoker-attack-socket", 26, false) < 0 ? error_name(errno) : "there");
  say("port: %s", meet_at(40123, false) < 0 ? error_name(errno) : "there");
  say("shm: %s", shmget(MARK, 4096, IPC_CREAT | 0666) < 0 ? error_name(errno) : "there");
  say("sem: %s", semget(MARK, 1, IPC_CREAT | 0666) < 0 ? error_name(errno) : "there");
  say("msg: %s", msgget(MARK, IPC_CREAT | 0666) < 0 ? error_name(errno) : "there");
  say("mq: %s", mq(true) < 0 ? error_name(errno) : "there");
  for (int i = 0; i < 3; i++) {
    int fd = open(files[i], O_CREAT | O_WRONLY, 0666);
    fchmod(fd, 0666);
    say("%s: %s", files[i], fd < 0 || write(fd, "secret", 6) < 0 ? error_name(errno) : "there");
  }
  prctl(PR_SET_NAME, "attack-mark");
  doze(atoi(argv[0]));
}

/* Looks for each of them, again and again while the other is there. */
static void seek(int argc, char **argv) {
  static const char *const files[] = {"/tmp/stoker-attack-mark", "/work/stoker-attack-mark", "/dev/shm/stoker-attack-mark"};
  bool found[11] = {false};
  for (int round = 0; round < 20; round++) {
    found[0] |= bind_to(abstract_name, sizeof abstract_name - 1, true) == 0;
    found[1] |= bind_to("/tmp/stoker-attack-socket", 26, true) == 0;
    found[2] |= meet_at(40123, true) == 0;
    found[3] |= shmget(MARK, 0, 0) >= 0;
    found[4] |= semget(MARK, 0, 0) >= 0;
    found[5] |= msgget(MARK, 0) >= 0;
    found[6] |= mq(false) >= 0;
    for (int i = 0; i < 3; i++) found[7 + i] |= open(files[i], O_RDONLY) >= 0;
    DIR *dir = opendir("/proc");
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
      char path[300], text[64] = "";
      snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
      int fd = open(path, O_RDONLY);
      if (fd < 0) continue;
      if (read(fd, text, sizeof text - 1) > 0) found[10] |= strncmp(text, "attack-mark", 11) == 0;
      close(fd);
    }
    if (dir != NULL) closedir(dir);
    doze(atoi(argv[0]) / 20);
  }
  static const char *const names[] = {"abstract", "socket", "port", "shm", "sem", "msg", "mq", "/tmp", "/work", "/dev/shm", "process"};
  for (int i = 0; i < 11; i++) say("%s: %s", names[i], found[i] ? "DID IT" : "not found");
}

/* A lock on a file both can open. */
static void lock(int argc, char **argv) {
  int fd = open(argv[0], O_RDONLY);
  say("lock: %s", fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 ? "taken" : error_name(errno));
  doze(atoi(argv[1]));
}
static void try_lock(int argc, char **argv) {
  bool busy = false;
  int fd = open(argv[0], O_RDONLY);
  for (int i = 0; i < 20; i++) {
    if (flock(fd, LOCK_SH | LOCK_NB) < 0) busy |= errno == EWOULDBLOCK;
    else flock(fd, LOCK_UN);
    doze(atoi(argv[1]) / 20);
  }
  say("shared lock: %s", busy ? "DID IT" : "not seen");
}

static void *spin(void *ignored) {
  for (volatile uint64_t i = 0;; i++) continue;
  return NULL;
}
static void cpu(int argc, char **argv) {
  pthread_t thread;
  for (int i = 0; i < 40; i++) pthread_create(&thread, NULL, spin, NULL);
  spin(NULL);
}

/* Through more memory than any cache holds, by all cores. */
static void *sweep(void *ignored) {
  size_t size = 32 * MIB;
  volatile char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (;;) for (size_t i = 0; i < size; i += 64) at[i]++;
  return NULL;
}
static void bandwidth(int argc, char **argv) {
  pthread_t thread;
  for (int i = 0; i < 3; i++) pthread_create(&thread, NULL, sweep, NULL);
  sweep(NULL);
}

/* Throws out of memory what everybody reads, all the time. */
static void thrash(int argc, char **argv) {
  static char block[65536];
  for (;;) {
    DIR *dir = opendir("/usr/bin");
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
      char path[300];
      snprintf(path, sizeof path, "/usr/bin/%s", entry->d_name);
      int fd = open(path, O_RDONLY | O_NONBLOCK);
      if (fd < 0) continue;
      while (read(fd, block, sizeof block) > 0) continue;
      posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
      close(fd);
    }
    if (dir != NULL) closedir(dir);
  }
}

/* Time is used by children that are gone before anybody looks. */
static void slices(int argc, char **argv) {
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    if (fork() == 0) {
      struct timespec now;
      do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
      while (now.tv_nsec < 5000000);
      _exit(0);
    }
    doze(4);
  }
}

static void forks(int argc, char **argv) {
  signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < 8; i++) if (fork() == 0) break;
  for (;;) if (fork() == 0) _exit(0);
}

/* Calls that make the kernel work long in one piece. */
static void heavy(int argc, char **argv) {
  for (int i = 0; i < 8; i++) if (fork() == 0) break;
  for (;;) {
    char *at = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (at != MAP_FAILED) munmap(at, 8 * MIB);
    syscall(SYS_membarrier, 1 << 3, 0, 0);
    for (int i = 0; i < 100; i++) kill(-1, 0);
    mkdir("d", 0700);
    rename("d", "e");
    rmdir("e");
  }
}

int main(int argc, char **argv) {
  static const struct mode modes[] = {
    {"offer", offer}, {"seek", seek}, {"lock", lock}, {"try-lock", try_lock}, {"cpu", cpu}, {"bandwidth", bandwidth},
    {"thrash", thrash}, {"forks", forks}, {"heavy", heavy}, {"slices", slices}, {NULL, NULL}
  };
  return choose(modes, argc, argv);
}
