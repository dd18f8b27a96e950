/* confine: the last step before a virtual machine monitor, taken in its own process.
 *
 *   confine --netns PATH --tap NAME --uid U --gid G [--ro PATH AT]... [--rw PATH AT]... [--dev PATH]... [--open PATH]...
 *           [--preload PATH] -- PROGRAM ARGS...
 *
 * As root: says its pid on fd 1, as a line of JSON; enters the network namespace and opens the tap, which must be there,
 * as fd 3, files to --open read-only as fd 4 and up; makes a mount namespace whose root holds the system's programs and
 * libraries, read-only, /dev/{null,zero,urandom} and what is named, and nothing else, not even /proc; becomes the user,
 * without groups, capabilities or a way to any; closes all other descriptors, and becomes PROGRAM, a path in the new root,
 * without environment. --preload is a library that PROGRAM is made to load. --dev is a device node, made anew for the user.
 * Everything is opened by its name outside before the first change of mounts, so it does not matter what is where.
 * Any failure is one line on fd 2 and exit 125, and PROGRAM does not run: never with less than what was asked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define EXIT_CONFINE 125
#define NAMED_MAX 64
#define TAP_FD 3
/* Above all that PROGRAM keeps. */
#define OWN_FD 100
/* Where the new root is put together: there on every system, for its programs are shown. */
#define STAGE "/usr"
#define PRELOADED "/preload.so"

#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#endif
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif

/* One that is shown in the new root. */
struct shown {
  const char *path, *at;
  bool writable;
  int fd;                /* a mount of it that is nowhere yet; -1: a symbolic link, or nothing */
  bool is_directory;
  char target[PATH_MAX]; /* of a link */
};

static struct shown shown[NAMED_MAX + 16];
static int shown_count;
static const char *devices[NAMED_MAX + 3] = {"/dev/null", "/dev/zero", "/dev/urandom"};
static int device_count = 3;
static const char *opened[16];
static int opened_count;
static const char *const system_folders[] = {"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin"};
static const char *const system_files[] = {"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"};

static _Noreturn void fail(const char *what, const char *which) {
  dprintf(STDERR_FILENO, "stoker-confine: %s %s: %s\n", what, which, strerror(errno));
  _exit(EXIT_CONFINE);
}

static _Noreturn void usage(const char *why) {
  dprintf(STDERR_FILENO,
          "stoker-confine: %s (confine --netns PATH --tap NAME --uid U --gid G [--ro PATH AT]... [--rw PATH AT]... [--dev PATH]... "
          "[--open PATH]... [--preload PATH] -- PROGRAM ARGS...)\n",
          why);
  _exit(EXIT_CONFINE);
}

/* Not root, nor the user that stands for "no user". */
static unsigned id_of(const char *text) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || *text < '0' || *text > '9' || *end != 0 || value == 0 || value >= UINT_MAX) usage("not an id to become");
  return (unsigned)value;
}

/* Below the root by plain names only. */
static bool is_plain(const char *at) {
  if (at[0] != '/' || at[1] == 0 || strlen(at) > 255) return false;
  for (const char *from = at; *from == '/'; from += strcspn(from, "/")) {
    size_t size = strcspn(++from, "/");
    if (size == 0 || (from[0] == '.' && (size == 1 || (size == 2 && from[1] == '.')))) return false;
  }
  return true;
}

static void show(const char *path, const char *at, bool writable) {
  if (shown_count == NAMED_MAX) usage("too many paths");
  if (!is_plain(at)) usage("not a path in the new root");
  shown[shown_count++] = (struct shown){.path = path, .at = at, .writable = writable, .fd = -1};
}

/* Out of the way of what PROGRAM keeps. */
static int aside(int fd) {
  int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, OWN_FD);
  int saved = errno;
  if (fd >= 0) close(fd);
  errno = saved;
  return moved;
}

static void keep(int from, int as) {
  if (dup2(from, as) != as) fail("keep", "a descriptor");
}

static void take(struct shown *it, bool is_needed) {
  struct stat of;
  ssize_t size;
  if (!is_needed && lstat(it->path, &of) < 0) return;
  if (!is_needed && S_ISLNK(of.st_mode)) {
    size = readlink(it->path, it->target, sizeof it->target - 1);
    if (size < 0) fail("read", it->path);
    return;
  }
  if (stat(it->path, &of) < 0) fail("find", it->path);
  it->is_directory = S_ISDIR(of.st_mode);
  it->fd = aside((int)syscall(SYS_open_tree, AT_FDCWD, it->path, OPEN_TREE_CLONE | O_CLOEXEC));
  if (it->fd < 0) fail("take", it->path);
}

static void make_parents(const char *path) {
  char part[PATH_MAX];
  for (const char *at = path + sizeof STAGE; (at = strchr(at, '/')) != NULL; at++) {
    snprintf(part, sizeof part, "%.*s", (int)(at - path), path);
    if (mkdir(part, 0755) < 0 && errno != EEXIST) fail("make", part);
  }
}

static void place(const struct shown *it) {
  char path[PATH_MAX];
  if (it->fd < 0 && it->target[0] == 0) return;
  snprintf(path, sizeof path, STAGE "%s", it->at);
  make_parents(path);
  if (it->fd < 0) {
    if (symlink(it->target, path) < 0) fail("link", it->at);
    return;
  }
  int made = it->is_directory ? mkdir(path, 0755) : mknod(path, S_IFREG | 0644, 0);
  if (made < 0) fail("make", it->at);
  if (syscall(SYS_move_mount, it->fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0) fail("show", it->path);
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | (it->writable ? 0 : MS_RDONLY);
  if (mount(NULL, path, NULL, flags, NULL) < 0) fail("protect", it->path);
}

static void place_device(const char *device, const struct stat *of, unsigned uid, unsigned gid) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, STAGE "%s", device);
  make_parents(path);
  if (mknod(path, of->st_mode & S_IFMT, of->st_rdev) < 0 || chown(path, uid, gid) < 0 || chmod(path, 0600) < 0) {
    fail("make", device);
  }
}

static int open_tap(const char *name) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  if (strlen(name) >= sizeof request.ifr_name) usage("not the name of a tap");
  strcpy(request.ifr_name, name);
  int tun = aside(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (tun < 0) fail("open", "/dev/net/tun");
  /* One that is not there would be made, and be connected to nothing. */
  if (if_nametoindex(name) == 0 || ioctl(tun, TUNSETIFF, &request) < 0) fail("attach to", name);
  return tun;
}

static void enter_network(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open", path);
  if (setns(fd, CLONE_NEWNET) < 0) fail("enter", path);
  close(fd);
}

static void make_root(unsigned uid, unsigned gid) {
  struct stat nodes[NAMED_MAX + 3];
  for (int i = 0; i < device_count; i++) {
    if (stat(devices[i], &nodes[i]) < 0) fail("find", devices[i]);
    if (!S_ISCHR(nodes[i].st_mode) && !S_ISBLK(nodes[i].st_mode)) usage("not a device");
  }
  for (int i = 0; i < shown_count; i++) take(&shown[i], true);
  int named = shown_count;
  for (size_t i = 0; i < sizeof system_folders / sizeof *system_folders; i++) {
    shown[shown_count++] = (struct shown){.path = system_folders[i], .at = system_folders[i], .fd = -1};
  }
  for (size_t i = 0; i < sizeof system_files / sizeof *system_files; i++) {
    shown[shown_count++] = (struct shown){.path = system_files[i], .at = system_files[i], .fd = -1};
  }
  for (int i = named; i < shown_count; i++) take(&shown[i], false);
  if (unshare(CLONE_NEWNS | CLONE_NEWIPC) < 0) fail("make", "a mount namespace");
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("separate", "the mounts");
  umask(0);
  if (mount("stoker", STAGE, "tmpfs", MS_NOSUID, "mode=755,size=64k,nr_inodes=256") < 0) fail("mount", "a root");
  for (int i = named; i < shown_count; i++) place(&shown[i]);
  for (int i = 0; i < named; i++) place(&shown[i]);
  for (int i = 0; i < device_count; i++) place_device(devices[i], &nodes[i], uid, gid);
  if (mount(NULL, STAGE, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0) fail("protect", "the root");
  if (chdir(STAGE) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) fail("enter", "the root");
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) fail("leave", "the host's root");
}

static void become(unsigned uid, unsigned gid) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  /* 1: no program of the host's is started for a core either (core(5)). */
  const struct rlimit core = {1, 1};
  if (setrlimit(RLIMIT_CORE, &core) < 0) fail("limit", "cores");
  for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++) {
    if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) fail("drop", "capabilities");
  }
  if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0) fail("become", "the user");
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 || syscall(SYS_capset, &header, none) < 0) {
    fail("drop", "capabilities");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail("set", "no_new_privs");
}

int main(int argc, char **argv) {
  const char *netns = NULL, *tap = NULL;
  char *environment[2] = {NULL, NULL};
  unsigned uid = 0, gid = 0;
  int at = 1;
  for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
    const char *option = argv[at];
    bool has_two = strcmp(option, "--ro") == 0 || strcmp(option, "--rw") == 0;
    if (at + (has_two ? 2 : 1) >= argc) usage("an option without its value");
    const char *value = argv[++at];
    if (has_two) show(value, argv[++at], option[3] == 'w');
    else if (strcmp(option, "--netns") == 0) netns = value;
    else if (strcmp(option, "--tap") == 0) tap = value;
    else if (strcmp(option, "--uid") == 0) uid = id_of(value);
    else if (strcmp(option, "--gid") == 0) gid = id_of(value);
    else if (strcmp(option, "--dev") == 0 && strncmp(value, "/dev/", 5) == 0 && is_plain(value) && device_count < NAMED_MAX) {
      devices[device_count++] = value;
    } else if (strcmp(option, "--open") == 0 && opened_count < 16) opened[opened_count++] = value;
    else if (strcmp(option, "--preload") == 0 && environment[0] == NULL) {
      show(value, PRELOADED, false);
      environment[0] = "LD_PRELOAD=" PRELOADED;
    } else usage("a wrong option");
  }
  if (++at >= argc) usage("no program");
  if (netns == NULL || tap == NULL || uid == 0 || gid == 0) usage("--netns, --tap, --uid and --gid are needed");
  argv += at;

  if (dprintf(STDOUT_FILENO, "{\"pid\":%d}\n", (int)getpid()) < 0) fail("tell", "the pid");
  int opens[16];
  for (int i = 0; i < opened_count; i++) {
    opens[i] = aside(open(opened[i], O_RDONLY | O_CLOEXEC));
    if (opens[i] < 0) fail("open", opened[i]);
  }
  enter_network(netns);
  int tun = open_tap(tap);
  make_root(uid, gid);
  become(uid, gid);
  keep(tun, TAP_FD);
  for (int i = 0; i < opened_count; i++) keep(opens[i], TAP_FD + 1 + i);
  if (syscall(SYS_close_range, TAP_FD + 1 + opened_count, ~0u, 0) < 0) fail("close", "descriptors");
  execve(argv[0], argv, environment);
  fail("exec", argv[0]);
}
