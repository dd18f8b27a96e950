/* A job's directory: made before its guest, removed after it, whatever the job has put there. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "job-"
/* Removing goes on as long as it comes along, but not longer than this. */
#define REMOVE_MILLIS 60000

static bool make_below(const char *path, const char *name, const struct settings *settings) {
  char whole[4096];
  int n = snprintf(whole, sizeof whole, "%s/%s", path, name);
  return n > 0 && (size_t)n < sizeof whole && mkdir(whole, 0700) == 0 &&
    chown(whole, settings->uid, settings->gid) == 0 && chmod(whole, 01777) == 0;
}

bool place_make(const struct settings *settings, char *path, size_t size) {
  int n = snprintf(path, size, "%s/" PREFIX "XXXXXX", settings->work);
  if (n < 0 || (size_t)n >= size || mkdtemp(path) == NULL) return false;
  if (make_below(path, "tmp", settings) && make_below(path, "shm", settings)) return true;
  place_remove(path);
  return false;
}

/* The next name in a directory, or NULL. */
static const char *next_name(DIR *dir) {
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) return entry->d_name;
  }
  return NULL;
}

static DIR *open_below(int dir, const char *name) {
  int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *opened = fd < 0 ? NULL : fdopendir(fd);
  if (opened == NULL && fd >= 0) close(fd);
  return opened;
}

static bool unlink_any(int dir, const char *name) {
  return unlinkat(dir, name, 0) == 0 || unlinkat(dir, name, AT_REMOVEDIR) == 0;
}

/* Empties a directory in the top one. Directories in it that are not empty move up into the top one, so that no depth a
   job has made costs us more than this. */
static bool empty(int top, const char *name, unsigned long *moved) {
  DIR *dir = open_below(top, name);
  if (dir == NULL) return false;
  bool well = true;
  for (const char *entry; (entry = next_name(dir)) != NULL;) {
    char other[32];
    if (unlink_any(dirfd(dir), entry)) continue;
    snprintf(other, sizeof other, "moved-%lu", (*moved)++);
    if (renameat(dirfd(dir), entry, top, other) < 0) well = false;
  }
  closedir(dir);
  return well;
}

bool place_remove(const char *path) {
  unsigned long moved = 0;
  const uint64_t until = now_millis() + REMOVE_MILLIS;
  while (rmdir(path) < 0) {
    DIR *top = open_below(AT_FDCWD, path);
    if (top == NULL) return errno == ENOENT;
    bool well = true;
    for (const char *name; well && (name = next_name(top)) != NULL;) {
      well = unlink_any(dirfd(top), name) ||
        (empty(dirfd(top), name, &moved) && unlinkat(dirfd(top), name, AT_REMOVEDIR) == 0);
      if (now_millis() > until) well = false;
    }
    closedir(top);
    if (!well) return false;
  }
  return true;
}

void places_clear(const char *work) {
  DIR *dir = opendir(work);
  if (dir == NULL) return;
  for (const char *name; (name = next_name(dir)) != NULL;) {
    char path[4096];
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0) continue;
    if (snprintf(path, sizeof path, "%s/%s", work, name) < (int)sizeof path) place_remove(path);
  }
  closedir(dir);
}
