/* Ways out by the kernel's own doors: each is tried, and told. */
#include "attack.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>

#define CALL(name, ...) attempt(#name, syscall(SYS_##name, ##__VA_ARGS__))

static void *zeroed(void) {
  static char space[4096];
  memset(space, 0, sizeof space);
  return space;
}

static void namespaces(int argc, char **argv) {
  static const struct { const char *name; unsigned long flag; } kinds[] = {
    {"user", 0x10000000}, {"mount", 0x20000}, {"pid", 0x20000000}, {"net", 0x40000000}, {"ipc", 0x8000000},
    {"uts", 0x4000000}, {"cgroup", 0x2000000}, {"time", 0x80}
  };
  char name[64];
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    snprintf(name, sizeof name, "unshare %s", kinds[i].name);
    attempt(name, syscall(SYS_unshare, kinds[i].flag));
    if (kinds[i].flag == 0x80) continue; /* part of clone's signal number */
    snprintf(name, sizeof name, "clone %s", kinds[i].name);
    long pid = syscall(SYS_clone, kinds[i].flag | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    attempt(name, pid);
  }
  uint64_t args[11] = {0x10000000, 0, 0, 0, SIGCHLD};
  long pid = syscall(SYS_clone3, args, 64);
  if (pid == 0) _exit(0);
  attempt("clone3 user", pid);
  int fd = open("/proc/1/ns/mnt", O_RDONLY);
  attempt("open /proc/1/ns/mnt", fd);
  fd = open("/proc/self/ns/net", O_RDONLY);
  CALL(setns, fd, 0);
  fd = (int)syscall(SYS_pidfd_open, 1, 0);
  attempt("setns of pid 1", syscall(SYS_setns, fd, 0x20000));
}

static void mounts(int argc, char **argv) {
  mkdir("place", 0700);
  attempt("mount tmpfs", mount("x", "place", "tmpfs", 0, NULL));
  attempt("mount proc", mount("x", "place", "proc", 0, NULL));
  attempt("mount cgroup2", mount("x", "place", "cgroup2", 0, NULL));
  attempt("bind", mount("/", "place", NULL, MS_BIND, NULL));
  attempt("remount", mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL));
  attempt("umount", umount2("/proc/sys", MNT_DETACH));
  CALL(pivot_root, "place", "place");
  CALL(chroot, "place");
  attempt("fsopen", syscall(430, "tmpfs", 0));
  attempt("open_tree", syscall(428, AT_FDCWD, "/", 1));
  attempt("move_mount", syscall(429, -1, "", -1, "", 0));
  attempt("mount_setattr", syscall(442, AT_FDCWD, "/", 0, zeroed(), 32));
  CALL(open_by_handle_at, AT_FDCWD, zeroed(), O_RDONLY);
  CALL(swapon, "place", 0);
  CALL(quotactl, 0, "", 0, zeroed());
}

static void powers(int argc, char **argv) {
  static const char *const unknown = "none";
  CALL(keyctl, 0, -3, 1);
  CALL(add_key, "user", "x", "y", 1, -3);
  CALL(request_key, "user", "x", "y", -3);
  union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
  CALL(bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
  struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .exclude_kernel = 1};
  CALL(perf_event_open, &event, 0, -1, -1, 0);
  attempt("io_uring_setup", syscall(425, 8, zeroed()));
  attempt("io_uring_register", syscall(427, -1, 0, NULL, 0));
  CALL(userfaultfd, 1);
  attempt("personality", personality(0x0000008)); /* PER_LINUX32's */
  CALL(kexec_load, 0, 0, NULL, 0);
  CALL(finit_module, 0, "", 0);
  CALL(init_module, zeroed(), 16, "");
  CALL(delete_module, unknown, 0);
  CALL(reboot, 0xfee1dead, 672274793, 0, NULL);
  CALL(acct, "/work/acct");
  CALL(syslog, 3, zeroed(), 4096);
  CALL(fanotify_init, 0, 0);
  CALL(lookup_dcookie, 1l, zeroed(), 4096);
  CALL(kcmp, getpid(), 1, 0, 0, 0);
  struct iovec here = {zeroed(), 64}, there = {(void *)0x400000, 64};
  CALL(process_vm_readv, 1, &here, 1, &there, 1, 0);
  CALL(process_vm_writev, 1, &here, 1, &there, 1, 0);
  attempt("pidfd_getfd", syscall(438, syscall(SYS_pidfd_open, 1, 0), 0, 0));
  attempt("pidfd_send_signal", syscall(424, syscall(SYS_pidfd_open, 1, 0), SIGKILL, NULL, 0));
  attempt("memfd_secret", syscall(447, 0));
  struct sched_param top = {.sched_priority = 1};
  attempt("realtime", syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &top));
  uint64_t deadline[6] = {48 | (uint64_t)SCHED_DEADLINE << 32, 0, 0, 10000000, 20000000, 20000000};
  attempt("deadline", syscall(SYS_sched_setattr, 0, deadline, 0));
  attempt("nice -20", setpriority(PRIO_PROCESS, 0, -20));
  attempt("ioprio realtime", syscall(SYS_ioprio_set, 1, 0, 1 << 13));
  attempt("core scheduling", prctl(62, 1, 0, 0, 0));
  attempt("core scheduling, upper half", syscall(SYS_prctl, 62 + (1l << 32), 1, 0, 0, 0));
  say("set a name: %s", prctl(PR_SET_NAME, "own") == 0 ? "fine" : error_name(errno)); /* what is allowed stays so */
  struct timeval when = {.tv_sec = 1};
  attempt("settimeofday", settimeofday(&when, NULL));
  attempt("clock_settime", syscall(SYS_clock_settime, CLOCK_REALTIME, &(struct timespec){.tv_sec = 1}));
  struct timex adjust = {.modes = ADJ_OFFSET, .offset = 1000000};
  attempt("adjtimex", syscall(SYS_adjtimex, &adjust));
  attempt("sethostname", sethostname("stoker-attack", 13));
  attempt("setdomainname", setdomainname("stoker-attack", 13));
  attempt("setuid 0", setuid(0));
  attempt("setgid 0", setgid(0));
  attempt("setgroups", syscall(SYS_setgroups, 0, NULL));
  attempt("TIOCSTI", ioctl(0, 0x5412, "x"));
  attempt("terminal", open("/dev/tty", O_RDWR));
  attempt("ptmx", open("/dev/ptmx", O_RDWR));
  attempt("vhangup", syscall(SYS_vhangup));
#ifdef __x86_64__
  CALL(ioperm, 0x80, 1, 1);
  CALL(iopl, 3);
  CALL(modify_ldt, 0, zeroed(), 16);
#endif
}

static void devices(int argc, char **argv) {
  attempt("mknod mem", mknod("mem", S_IFCHR | 0600, 1 << 8 | 1));
  attempt("mknod disk", mknod("disk", S_IFBLK | 0600, 254 << 8));
  attempt("mknod kmsg", mknod("/tmp/kmsg", S_IFCHR | 0600, 1 << 8 | 11));
  DIR *dir = opendir("/dev");
  for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
    if (entry->d_name[0] != '.') say("device %s", entry->d_name);
  }
  static const char *const writable[] = {
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/drop_caches", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/file-max", "/proc/sysrq-trigger",
    "/proc/irq/0/smp_affinity", "/proc/self/uid_map", "/proc/self/setgroups", "/proc/1/oom_score_adj",
    "/proc/self/attr/current", "/dev/mem", "/dev/kmsg", "/etc/passwd", "/usr/stoker-attack-mark", "/stoker-attack-mark",
    "/proc/kcore", "/proc/kmsg", "/proc/1/mem", "/proc/1/maps", "/proc/1/environ", "/proc/1/auxv", "/proc/1/stack",
    "/proc/1/fd", "/proc/1/cwd", "/proc/1/root", "/proc/1/exe", "/proc/1/map_files", "/proc/1/io", "/.stoker/guest",
    "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug", "/sys/kernel", "/sys/fs/cgroup",
    "/run/stoker", "/mnt", "/home", "/var", "/boot", "/etc/shadow", "/proc/vmallocinfo",
    "/proc/slabinfo", "/proc/self/pagemap/x"
  };
  char name[128], text[4];
  for (size_t i = 0; i < sizeof writable / sizeof *writable; i++) {
    snprintf(name, sizeof name, "write %s", writable[i]);
    int fd = open(writable[i], O_WRONLY | O_CREAT, 0600);
    attempt(name, fd < 0 ? -1 : write(fd, "1", 1));
    snprintf(name, sizeof name, "read %s", writable[i]);
    fd = open(writable[i], O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (n == 0) say("%s: nothing", name);
    else attempt(name, n);
  }
}

static void guest(int argc, char **argv) {
  attempt("kill 1", kill(1, SIGKILL));
  attempt("stop 1", kill(1, SIGSTOP));
  attempt("attach 1", ptrace(PTRACE_ATTACH, 1, 0, 0));
  attempt("seize 1", ptrace(PTRACE_SEIZE, 1, 0, 0));
  attempt("limit 1", syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, &(struct rlimit){1, 1}, NULL));
  attempt("nice 1", setpriority(PRIO_PROCESS, 1, 19));
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  attempt("affinity 1", sched_setaffinity(1, sizeof one, &one));
  attempt("group 1", setpgid(0, 1));
  /* Frames as the guest writes them: an exit, output, an answer. They are output, and nothing else. */
  static const unsigned char forged[] = {
    37, 0, 0, 0, 0x87, 1, 0, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x82, 9, 0, 0, 0, 4, 0, 0, 0, 0x81, 0, 0, 0, 0, 9, 9, 9, 9
  };
  say("forged: %zu", sizeof forged);
  for (int fd = 1; fd <= 2; fd++) if (write(fd, forged, sizeof forged) < 0) _exit(3);
  say(" ");
  for (int fd = 3; fd < 1024; fd++) {
    if (fcntl(fd, F_GETFD) >= 0) say("leaked: %d", fd);
    char path[64];
    snprintf(path, sizeof path, "/proc/1/fd/%d", fd - 3);
    int link = open(path, O_WRONLY);
    if (link >= 0) say("link: DID IT");
  }
  struct stat own;
  if (fstat(0, &own) == 0) say("input: %s", S_ISREG(own.st_mode) ? "a file" : S_ISSOCK(own.st_mode) ? "a socket" : "other");
  attempt("write input", write(0, "x", 1));
  attempt("grow input", ftruncate(0, 4096));
  for (int fd = 1; fd <= 2; fd++) {
    if (fstat(fd, &own) == 0) say("output %d: %s", fd, S_ISFIFO(own.st_mode) ? "a pipe" : "other");
  }
}

/* The program that started us, through what /proc shows of it (CVE-2019-5736); and ourselves. */
static void overwrite(int argc, char **argv) {
  pid_t pid = fork();
  if (pid == 0) {
    doze(20);
    _exit(0);
  }
  for (int i = 0; i < 2000; i++) {
    static const char *const victims[] = {"/proc/1/exe", "/proc/self/exe", "/.stoker/guest"};
    for (int j = 0; j < 3; j++) {
      int fd = open(victims[j], O_WRONLY | O_TRUNC);
      if (fd >= 0) say("%s: DID IT", victims[j]);
    }
  }
  attempt("exec /proc/1/exe", execl("/proc/1/exe", "guest", "--work", "/work", NULL));
}

static void network(int argc, char **argv) {
  static const struct { const char *name; int family, type, protocol; } sockets[] = {
    {"raw", AF_INET, SOCK_RAW, 255}, {"icmp", AF_INET, SOCK_DGRAM, 1}, {"packet", 17, SOCK_RAW, 0x300},
    {"vsock", 40, SOCK_STREAM, 0}, {"alg", 38, SOCK_SEQPACKET, 0}, {"netlink", 16, SOCK_RAW, 0},
    {"tipc", 30, SOCK_RDM, 0}, {"bluetooth", 31, SOCK_RAW, 1}, {"can", 29, SOCK_RAW, 1}, {"xdp", 44, SOCK_RAW, 0},
    {"sctp", AF_INET, SOCK_STREAM, 132}, {"dccp", AF_INET, 6, 33}, {"mptcp", AF_INET, SOCK_STREAM, 262},
    {"udplite", AF_INET, SOCK_DGRAM, 136}, {"rds", 21, SOCK_SEQPACKET, 0}, {"key", 15, SOCK_RAW, 2}
  };
  char name[64];
  for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++) {
    snprintf(name, sizeof name, "socket %s", sockets[i].name);
    attempt(name, socket(sockets[i].family, sockets[i].type, sockets[i].protocol));
  }
  int pair[2];
  attempt("socketpair tipc", socketpair(30, SOCK_SEQPACKET, 0, pair));
  attempt("socket vsock, upper half", syscall(SYS_socket, 40 + (1l << 32), SOCK_STREAM, 0));
  /* 192.0.2.1 is nobody's; argv[0] is where the host listens on its own loopback. */
  static const char *const hosts[] = {"192.0.2.1", "169.254.169.254", "8.8.8.8"};
  for (int i = 0; i < 3; i++) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = inet_addr(hosts[i])};
    snprintf(name, sizeof name, "connect %s", hosts[i]);
    attempt(name, connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to));
    snprintf(name, sizeof name, "send %s", hosts[i]);
    attempt(name, sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&to, sizeof to));
  }
  struct sockaddr_in to = {
    .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[0])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
  };
  attempt("connect the host's loopback", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&to, sizeof to));
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  size_t length = strlen(argv[1]);
  memcpy(local.sun_path + 1, argv[1], length);
  attempt("connect the host's abstract socket",
          connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&local, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)));
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  attempt("own address", ioctl(fd, 0x8916, zeroed()));
}

static void foreign(int argc, char **argv) {
  pid_t pid = fork();
  int status = 0;
#ifdef __x86_64__
  if (pid == 0) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20l) : "memory"); /* getpid of i386 */
    _exit(result > 0 ? 1 : 2);
  }
  waitpid(pid, &status, 0);
  say("int 0x80: %s", WIFSIGNALED(status) ? "killed" : WEXITSTATUS(status) == 1 ? "DID IT" : "refused");
  pid = fork();
  if (pid == 0) _exit(syscall(0x40000000 + SYS_getpid) > 0 ? 1 : 2);
  waitpid(pid, &status, 0);
  say("x32: %s", WIFSIGNALED(status) ? "killed" : WEXITSTATUS(status) == 1 ? "DID IT" : "refused");
#else
  if (pid == 0) _exit(0);
  waitpid(pid, &status, 0);
#endif
}

static const char *limit_text(rlim_t value) {
  static char text[2][32];
  static int which;
  which = !which;
  snprintf(text[which], sizeof text[which], value == RLIM_INFINITY ? "none" : "%llu", (unsigned long long)value);
  return text[which];
}

static void limits(int argc, char **argv) {
  static const struct { const char *name; int resource; } kinds[] = {
    {"files", RLIMIT_NOFILE}, {"size", RLIMIT_FSIZE}, {"stack", RLIMIT_STACK}, {"cpu", RLIMIT_CPU}, {"core", RLIMIT_CORE},
    {"rtprio", RLIMIT_RTPRIO}, {"nice", RLIMIT_NICE}, {"lock", RLIMIT_MEMLOCK}
  };
  char name[64];
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    struct rlimit is, more;
    getrlimit(kinds[i].resource, &is);
    say("%s limit: %s", kinds[i].name, limit_text(is.rlim_max));
    more = (struct rlimit){is.rlim_max + 1, is.rlim_max + 1};
    int result = setrlimit(kinds[i].resource, &more);
    struct rlimit now;
    getrlimit(kinds[i].resource, &now);
    snprintf(name, sizeof name, "raise %s", kinds[i].name);
    attempt(name, result == 0 && now.rlim_max != is.rlim_max ? 0 : (errno = result == 0 ? EPERM : errno, -1));
  }
  /* A core limit of 0 would let a crash start the host's handler. */
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
  syscall(SYS_prlimit64, 0, RLIMIT_CORE + (1l << 32), &(struct rlimit){0, 0}, NULL);
  struct rlimit core;
  getrlimit(RLIMIT_CORE, &core);
  say("core limit after lowering it: %s", limit_text(core.rlim_cur));
  prctl(PR_SET_DUMPABLE, 1);
  char *beyond = mmap(NULL, 16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(beyond, 1, 16 * MIB);
  pid_t pid = fork();
  if (pid == 0) abort();
  int status;
  waitpid(pid, &status, 0);
  say("core dump: %s", WCOREDUMP(status) ? "DID IT" : "none");
}

int main(int argc, char **argv) {
  static const struct mode modes[] = {
    {"namespaces", namespaces}, {"mounts", mounts}, {"powers", powers}, {"devices", devices}, {"guest", guest},
    {"overwrite", overwrite}, {"network", network}, {"foreign", foreign}, {"limits", limits}, {NULL, NULL}
  };
  return choose(modes, argc, argv);
}
