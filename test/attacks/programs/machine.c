/* The first process of a machine, as somebody's who broke its root: it owns the kernel and all devices. It says on the
 * console what it did, each line once, and then floods that for ever with all memory in use. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

static char page[1 << 20];

static void load(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) syscall(SYS_finit_module, fd, "", 0);
  close(fd);
}

static void say(const char *what, long did) {
  if (did < 0) printf("%s: %s\n", what, strerrorname_np(errno));
  else printf("%s: %ld\n", what, did);
}

static int wait_for(const char *disk) {
  int fd;
  for (int n = 0; (fd = open(disk, O_RDWR | O_SYNC | O_CLOEXEC)) < 0 && errno != EROFS && errno != EACCES && n < 3000; n++) usleep(10000);
  return fd;
}

int main(void) {
  char line[256];
  mkdir("/dev", 0755);
  mount("dev", "/dev", "devtmpfs", 0, "");
  int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(console, fd);
  setvbuf(stdout, NULL, _IONBF, 0);
  FILE *list = fopen("/modules.list", "r");
  while (list != NULL && fgets(line, sizeof line, list) != NULL) {
    line[strcspn(line, "\n")] = 0;
    load(line);
  }
  memset(page, 'x', sizeof page);

  /* The disk that all machines of the image share. */
  int root = wait_for("/dev/vda");
  say("open the root", root);
  if (root < 0) root = open("/dev/vda", O_RDONLY);
  int off = 0;
  say("unlock the root", ioctl(root, BLKROSET, &off));
  close(root);
  root = open("/dev/vda", O_RDWR | O_SYNC);
  say("open the unlocked root", root < 0 ? -1 : 0);
  say("write the root", pwrite(root, page, 4096, 0) == 4096 && fsync(root) == 0 ? 0 : -1);
  unsigned long long all[2] = {0, 1 << 20};
  say("discard the root", ioctl(root, BLKDISCARD, all));
  say("zero the root", ioctl(root, BLKZEROOUT, all));

  /* Its own, which ends somewhere. */
  int scratch = wait_for("/dev/vdb");
  unsigned long long size = 0;
  ioctl(scratch, BLKGETSIZE64, &size);
  unsigned long long written = 0;
  for (ssize_t wrote; (wrote = pwrite(scratch, page, sizeof page, (off_t)written)) > 0;) written += (unsigned long long)wrote;
  printf("scratch: %llu of %llu\n", written, size);
  errno = 0;
  say("write behind it", pwrite(scratch, page, 4096, (off_t)size));
  say("make it larger", ftruncate(scratch, (off_t)size * 2));

  /* Ports that no device is behind, and one that could switch the machine off or exit the monitor. */
  say("ports", iopl(3));
  for (unsigned port = 0x400; port < 0x600; port++) outb(0xff, (unsigned short)port);
  for (unsigned port = 0xcf8; port < 0xd00; port++) outl(0xffffffff, (unsigned short)(port & ~3u));

  /* All its memory, more than once. */
  struct sysinfo info;
  sysinfo(&info);
  size_t most = info.totalram * info.mem_unit / 10 * 6;
  char *memory = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  for (int round = 0; round < 2 && memory != MAP_FAILED; round++) memset(memory, round + 1, most);
  printf("memory: %zu\n", most);
  printf("all done\n");
  sleep(1);
  for (;;) {
    for (int n = 0; n < 100000; n++) outb('!', 0x3f8);
  }
}
