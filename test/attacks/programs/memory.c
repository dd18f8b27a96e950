/* Memory that is somebody else's: of every kind the kernel has, as much as it gives. "held: N MiB" is what was had at once. */
#include "attack.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/shm.h>
#include <sys/timerfd.h>

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4u
#endif
#ifndef MAP_HUGETLB
#define MAP_HUGETLB 0x40000
#endif

static char block[MIB];

/* Several processes, because what one may have open is limited. Their sums meet here. */
struct total {
  volatile long bytes, count;
  volatile int error;
};
static struct total *total;

static void share(void) {
  total = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memset(block, 'x', sizeof block);
}

static void in_processes(int count, void (*grab)(void)) {
  share();
  for (int i = 0; i < count; i++) {
    if (fork() == 0) {
      grab();
      for (;;) pause();
    }
  }
  long before = -1;
  while (total->bytes + total->count != before) {
    before = total->bytes + total->count;
    doze(slowly(150));
  }
  say("held: %ld MiB", total->bytes / MIB);
  say("count: %ld", total->count);
  say("refused: %s", total->error == 0 ? "nothing" : error_name(total->error));
}

static void anonymous(int argc, char **argv) {
  for (long held = 0;; held++) {
    char *at = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
      attempt("mmap", -1);
      return;
    }
    memset(at, 1, MIB);
    mlock(at, MIB);
  }
}

static void fill(const char *directory) {
  char path[256];
  long written = 0;
  for (int i = 0; i < 100; i++) {
    snprintf(path, sizeof path, "%s/fill%d", directory, i);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) break;
    ssize_t n;
    for (int j = 0; j < 32 && (n = write(fd, block, sizeof block)) > 0; j++) written += n;
    if (n <= 0) break;
    close(fd);
  }
  say("%s: %ld MiB, then %s", directory, written / MIB, error_name(errno));
}

static void tmpfs(int argc, char **argv) {
  memset(block, 'x', sizeof block);
  for (int i = 0; i < argc; i++) fill(argv[i]);
}

/* Reads whatever /usr has, until it was more than the limit several times over. */
static long cached;
static void read_all(const char *directory, int depth) {
  DIR *dir = opendir(directory);
  if (dir == NULL) return;
  for (struct dirent *entry; cached < 600 * MIB && (entry = readdir(dir)) != NULL;) {
    char path[1024];
    struct stat st;
    if (entry->d_name[0] == '.') continue;
    if (snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) >= (int)sizeof path) continue;
    if (lstat(path, &st) < 0) continue;
    if (S_ISDIR(st.st_mode) && depth < 6) read_all(path, depth + 1);
    if (!S_ISREG(st.st_mode)) continue;
    int fd = open(path, O_RDONLY);
    if (fd < 0) continue;
    posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
    for (ssize_t n; (n = read(fd, block, sizeof block)) > 0;) cached += n;
    close(fd);
  }
  closedir(dir);
}
static void cache(int argc, char **argv) {
  read_all("/usr/lib", 0);
  read_all("/usr/share", 0);
  say("read: %s", cached > 128 * MIB ? "plenty" : "little");
}

static void grab_pipes(void) {
  for (;;) {
    int ends[2];
    if (pipe2(ends, O_NONBLOCK) < 0) break;
    fcntl(ends[1], F_SETPIPE_SZ, MIB);
    for (ssize_t n; (n = write(ends[1], block, 65536)) > 0;) __sync_fetch_and_add(&total->bytes, n);
  }
  total->error = errno;
}
static void pipes(int argc, char **argv) { in_processes(24, grab_pipes); }

static void grab_unix(void) {
  for (;;) {
    int ends[2], size = 4 * MIB;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) < 0) break;
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    for (ssize_t n; (n = write(ends[0], block, 65536)) > 0;) __sync_fetch_and_add(&total->bytes, n);
  }
  total->error = errno;
}
static void unix_queues(int argc, char **argv) { in_processes(24, grab_unix); }

/* Descriptors that only messages hold, messages that only such descriptors hold. */
static void grab_flight(void) {
  for (;;) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) < 0) break;
    for (int i = 0; i < 16; i++) {
      char space[CMSG_SPACE(sizeof(int) * 200)] = {0};
      struct iovec part = {.iov_base = block, .iov_len = 1};
      struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
      struct cmsghdr *head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(sizeof(int) * 200);
      for (int j = 0; j < 200; j++) ((int *)CMSG_DATA(head))[j] = ends[j % 2];
      if (sendmsg(ends[0], &message, 0) < 0) {
        total->error = errno;
        break;
      }
      __sync_fetch_and_add(&total->count, 200);
    }
    close(ends[0]);
    close(ends[1]);
    if (total->error == ETOOMANYREFS) break;
  }
}
static void flight(int argc, char **argv) { in_processes(8, grab_flight); }

static void grab_memfd(void) {
  for (;;) {
    int fd = memfd_create("held", 0);
    if (fd < 0) break;
    for (ssize_t n, sum = 0; sum < 16 * MIB && (n = write(fd, block, sizeof block)) > 0; sum += n) {
      __sync_fetch_and_add(&total->bytes, n);
    }
  }
  total->error = errno;
}
static void memfd(int argc, char **argv) { in_processes(2, grab_memfd); }

static void grab_sysv(void) {
  for (;;) {
    int id = shmget(IPC_PRIVATE, 8 * MIB, IPC_CREAT | 0600);
    if (id < 0) break;
    char *at = shmat(id, NULL, 0);
    if (at == (void *)-1) break;
    memset(at, 1, 8 * MIB);
    shmdt(at);
    __sync_fetch_and_add(&total->bytes, 8 * MIB);
  }
  total->error = errno;
}
static void sysv(int argc, char **argv) { in_processes(1, grab_sysv); }

static void grab_messages(void) {
  struct { long type; char text[8000]; } message = {.type = 1};
  for (;;) {
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    if (id < 0) break;
    while (msgsnd(id, &message, sizeof message.text, IPC_NOWAIT) == 0) {
      __sync_fetch_and_add(&total->bytes, (long)sizeof message.text);
    }
  }
  total->error = errno;
}
static void messages(int argc, char **argv) { in_processes(2, grab_messages); }

/* To themselves: what nobody reads stays in the kernel. */
static void grab_netlink(void) {
  for (;;) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_USERSOCK), size = 4 * MIB;
    if (fd < 0) break;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    struct sockaddr_nl self = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof self;
    if (bind(fd, (void *)&self, sizeof self) < 0) break;
    getsockname(fd, (void *)&self, &length);
    for (ssize_t n; (n = sendto(fd, block, 65536, 0, (void *)&self, sizeof self)) > 0;) {
      __sync_fetch_and_add(&total->bytes, n);
    }
  }
  total->error = errno;
}
static void netlink(int argc, char **argv) { in_processes(4, grab_netlink); }

/* Answers nobody reads, of the one kind that C libraries ask for. */
static void grab_route(void) {
  for (;;) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_ROUTE), size = 4 * MIB;
    if (fd < 0) break;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    struct { struct nlmsghdr head; char rest[32]; } ask = {
      .head = {.nlmsg_len = sizeof ask, .nlmsg_type = 18, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1}
    };
    *(int *)(ask.rest + 4) = 1; /* of interface 1 */
    for (int i = 0; i < 5000; i++) if (send(fd, &ask, sizeof ask, 0) < 0) break;
    char answer[8192];
    ssize_t n = recv(fd, answer, sizeof answer, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0) __sync_fetch_and_add(&total->bytes, n * 1000);
  }
  total->error = errno;
}
static void route(int argc, char **argv) { in_processes(4, grab_route); }

/* Over the loopback to a receiver who does not read. Counted is what lies there in the end. */
static void grab_udp(void) {
  int sender = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), size = 4 * MIB;
  setsockopt(sender, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  for (;;) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (fd < 0) break;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof to;
    if (bind(fd, (void *)&to, sizeof to) < 0) break;
    getsockname(fd, (void *)&to, &length);
    for (int i = 0; i < 200; i++) if (sendto(sender, block, 60000, 0, (void *)&to, sizeof to) < 0) break;
    uint32_t info[9] = {0}; /* SO_MEMINFO: what is allocated for receiving */
    socklen_t info_size = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, 55, info, &info_size) == 0) __sync_fetch_and_add(&total->bytes, info[0]);
  }
  total->error = errno;
}
static void udp(int argc, char **argv) { in_processes(2, grab_udp); }

static void grab_tcp(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof at;
  int listener = socket(AF_INET, SOCK_STREAM, 0), size = 4 * MIB;
  if (bind(listener, (void *)&at, sizeof at) < 0 || listen(listener, 1000) < 0) return;
  getsockname(listener, (void *)&at, &length);
  setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  for (;;) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) break;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (connect(fd, (void *)&at, sizeof at) < 0) break;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    __sync_fetch_and_add(&total->count, 1);
    for (ssize_t n; (n = write(fd, block, 65536)) > 0;) __sync_fetch_and_add(&total->bytes, n);
  }
  total->error = errno;
}
static void tcp(int argc, char **argv) { in_processes(2, grab_tcp); }

/* Each socket may have options and filters of its own. */
static void grab_filters(void) {
  static struct sock_filter code[4096];
  for (int i = 0; i < 4096; i++) code[i] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, (unsigned)i);
  code[4095] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
  for (;;) {
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0) break;
    for (unsigned short length = 4096; length > 64; length /= 2) {
      struct sock_fprog program = {.len = length, .filter = code + 4096 - length};
      if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0) {
        __sync_fetch_and_add(&total->bytes, 3 * 8 * length);
        break;
      }
      total->error = errno;
    }
  }
  if (total->error == 0) total->error = errno;
}
static void filters(int argc, char **argv) { in_processes(8, grab_filters); }

/* Completion rings: all of the host's contexts together may have /proc/sys/fs/aio-max-nr events. */
static void aio(int argc, char **argv) {
  long contexts = 0, result;
  aio_context_t context;
  while (context = 0, (result = syscall(SYS_io_setup, 1000, &context)) == 0 && contexts < 1000) contexts++;
  if (contexts == 0) attempt("io_setup", result);
  else say("io_setup: DID IT %ld times, then %s", contexts, error_name(errno));
}

/* Pages that the operator has set aside for somebody else, and that no memory limit counts. */
static void huge(int argc, char **argv) {
  long at_huge = syscall(SYS_mmap, NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  attempt("mmap huge", at_huge); /* musl would say ENOMEM for EPERM */
  attempt("memfd huge", memfd_create("huge", MFD_HUGETLB));
  attempt("shm huge", shmget(IPC_PRIVATE, 2 * MIB, IPC_CREAT | 04000 | 0600));
  void *at = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  say("mmap small: %s", at == MAP_FAILED ? error_name(errno) : "fine");
  say("memfd small: %s", memfd_create("small", 0) < 0 ? error_name(errno) : "fine");
  say("shm small: %s", shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600) < 0 ? error_name(errno) : "fine");
}

/* Small things of the kernel's, each of which is somewhere a list. */
static void grab_objects(void) {
  int poller = epoll_create1(0), file = open("locks", O_RDWR | O_CREAT, 0600);
  if (file < 0) file = open("/tmp/locks", O_RDWR | O_CREAT, 0600);
  for (int i = 0; i < 40; i++) {
    struct epoll_event event = {.events = EPOLLIN};
    if (i % 2 == 0) epoll_ctl(poller, EPOLL_CTL_ADD, eventfd(0, 0), &event);
    else epoll_ctl(poller, EPOLL_CTL_ADD, timerfd_create(CLOCK_MONOTONIC, 0), &event);
  }
  for (long i = 0; i < 20000; i++) {
    timer_t timer;
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    if (timer_create(CLOCK_MONOTONIC, &none, &timer) < 0) break;
    __sync_fetch_and_add(&total->count, 1);
  }
  for (long i = 0; i < 2000; i++) {
    struct flock lock = {.l_type = F_WRLCK, .l_start = i * 2, .l_len = 1};
    if (fcntl(file, F_SETLK, &lock) < 0) break;
    __sync_fetch_and_add(&total->count, 1);
  }
  total->error = errno;
}
static void objects(int argc, char **argv) { in_processes(4, grab_objects); }

/* Whoever is killed first when memory is short is to be somebody else. */
static void score(int argc, char **argv) {
  static const char *const wanted[] = {"-1000", "-500", "0", "300"};
  for (int i = 0; i < 4; i++) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    ssize_t n = fd < 0 ? -1 : write(fd, wanted[i], strlen(wanted[i]));
    if (n < 0) say("score %s: %s", wanted[i], error_name(errno));
    else say("score %s: DID IT", wanted[i]);
    close(fd);
  }
  anonymous(argc, argv);
}

static void page_cache_of_others(int argc, char **argv) {
  int fd = open(argv[0], O_RDONLY);
  struct { uint64_t at, length; } range = {0, 4096};
  uint64_t result[5];
  attempt("cachestat", syscall(451, fd, &range, result, 0));
}

int main(int argc, char **argv) {
  static const struct mode modes[] = {
    {"anonymous", anonymous}, {"tmpfs", tmpfs}, {"cache", cache}, {"pipes", pipes}, {"unix", unix_queues},
    {"flight", flight}, {"memfd", memfd}, {"sysv", sysv}, {"messages", messages}, {"netlink", netlink},
    {"route", route}, {"udp", udp}, {"tcp", tcp}, {"filters", filters}, {"aio", aio}, {"huge", huge},
    {"objects", objects}, {"score", score}, {"cachestat", page_cache_of_others}, {NULL, NULL}
  };
  return choose(modes, argc, argv);
}
