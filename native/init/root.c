/* Stage 1: from an initramfs into the machine's root file system.
 *
 * The root file system is one disk that all machines of a host share, read-only; what a machine writes goes to a scratch
 * disk of its own, above it. The disks are known by their labels: the order of devices is the VMM's affair. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* Disks are found when their driver is loaded, so this is for a slow host. */
#define DISK_MILLIS 10000u
#define EXT4_SUPERBLOCK 1024
#define EXT4_MAGIC_AT 0x38
#define EXT4_LABEL_AT 0x78
#define EXT4_LABEL_SIZE 16

bool in_initramfs(void) {
  struct statfs root;
  if (statfs("/", &root) < 0) fatal("look at", "/");
  return root.f_type == RAMFS_MAGIC || root.f_type == TMPFS_MAGIC;
}

/* In the order of the list: what a module needs comes before it. One that does not load is told; whether the machine can
   do without shows soon enough. */
static void load_modules(void) {
  char path[256];
  FILE *list = fopen("/modules.list", "re");
  if (list == NULL) return; /* a kernel that has all built in */
  while (fgets(path, sizeof path, list) != NULL) {
    path[strcspn(path, "\n")] = 0;
    if (*path == 0) continue;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) say("load module", path);
    if (fd >= 0) close(fd);
    unlink(path);
  }
  fclose(list);
}

/* Fills in the device of the ext4 volume with this label. */
static bool find_disk(const char *label, char device[16]) {
  for (char letter = 'a'; letter <= 'h'; letter++) {
    char found[EXT4_LABEL_SIZE + 1] = {0};
    uint8_t magic[2];
    snprintf(device, 16, "/dev/vd%c", letter);
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    bool is = pread(fd, magic, 2, EXT4_SUPERBLOCK + EXT4_MAGIC_AT) == 2 && magic[0] == 0x53 && magic[1] == 0xef &&
      pread(fd, found, EXT4_LABEL_SIZE, EXT4_SUPERBLOCK + EXT4_LABEL_AT) == EXT4_LABEL_SIZE && strcmp(found, label) == 0;
    close(fd);
    if (is) return true;
  }
  return false;
}

static void made(const char *path, mode_t mode) {
  if (mkdir(path, mode) < 0 && errno != EEXIST) fatal("make", path);
  if (chmod(path, mode) < 0) fatal("chmod", path);
}

static void mounted(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
  if (mount(source, target, type, flags, data) < 0) fatal("mount", target);
}

static void copied(const char *from, const char *to) {
  int in = open(from, O_RDONLY | O_CLOEXEC);
  if (in < 0) return; /* not every machine has an agent */
  int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0500);
  if (out < 0) fatal("make", to);
  static char buffer[65536];
  ssize_t n;
  while ((n = read(in, buffer, sizeof buffer)) > 0) if (write(out, buffer, (size_t)n) != n) fatal("write", to);
  if (n < 0) fatal("read", from);
  close(in);
  close(out);
  unlink(from);
}

/* The scratch disk's folder in place of the root's: no detour over the overlay for what jobs write. */
static void placed(const char *from, const char *to) {
  made(to, 0755);
  mounted(from, to, NULL, MS_BIND, NULL);
  mounted(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL);
}

_Noreturn void enter_root(void) {
  char device[16];
  made("/dev", 0755);
  if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0 && errno != EBUSY) fatal("mount", "/dev");
  open_console();
  load_modules();
  made("/lower", 0755);
  made("/scratch", 0755);
  made("/next", 0755);
  uint64_t until = now_millis() + DISK_MILLIS;
  while (!find_disk("rootfs", device)) {
    errno = ENODEV;
    if (now_millis() > until) fatal("find the disk labelled", "rootfs");
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  mounted(device, "/lower", "ext4", MS_RDONLY, NULL);
  if (find_disk("scratch", device)) mounted(device, "/scratch", "ext4", MS_NOATIME, NULL);
  else mounted("scratch", "/scratch", "tmpfs", MS_NOATIME, "mode=755");
  made("/scratch/upper", 0755);
  made("/scratch/overlay", 0755);
  made("/scratch/tmp", 01777);
  made("/scratch/work", 0700);
  if (chown("/scratch/work", JOB_UID, JOB_GID) < 0) fatal("chown", "/scratch/work");
  const char *const parts = "lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/overlay,volatile";
  char plain[128];
  snprintf(plain, sizeof plain, "%.*s", (int)(strrchr(parts, ',') - parts), parts);
  /* Nobody reads the disk again after this machine: what a job syncs need not reach it. */
  if (mount("root", "/next", "overlay", 0, parts) < 0) mounted("root", "/next", "overlay", 0, plain);
  placed("/scratch/tmp", "/next/tmp");
  placed("/scratch/work", "/next/work");
  made("/next/run", 0755);
  mounted("run", "/next/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
  made("/next" OWN, 0711);
  copied("/init", "/next" OWN "/init");
  copied("/guest", "/next" OWN "/guest");
  copied("/agent", "/next" OWN "/agent");
  unlink("/modules.list");
  made("/next/dev", 0755);
  if (chdir("/next") < 0) fatal("enter", "/next");
  mounted("/dev", "dev", NULL, MS_MOVE, NULL);
  mounted(".", "/", NULL, MS_MOVE, NULL);
  if (chroot(".") < 0 || chdir("/") < 0) fatal("enter", "the root file system");
  execl(OWN "/init", "init", (char *)NULL);
  fatal("exec", OWN "/init");
}
