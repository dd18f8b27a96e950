/* What the parts of the guest share: see ../guest.c for the promise they keep together. */
#ifndef STOKER_GUEST_H
#define STOKER_GUEST_H
#define _GNU_SOURCE

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

/* The wire (src/guest/Protocol.ts is the other side): u32 payload length, u8 type, u32 seq, payload; little endian. */
#define PROTOCOL_VERSION 3u
#define HEADER 9u
#define MAX_PAYLOAD (1u << 20)

enum from_host {
  PUT = 0x01, STDIN = 0x02, RUN = 0x03, SIGNAL = 0x04, GET = 0x05, SHUTDOWN = 0x06,
  WAIT = 0x07, /* a RUN whose standard input comes later, with FEED */
  FEED = 0x08,
  LIMIT = 0x09, /* with --cgroup only, as MEASURE */
  MEASURE = 0x0a
};
enum to_host {
  READY = 0x81, OK = 0x82, FAIL = 0x83, STARTED = 0x84, STDOUT = 0x85, STDERR = 0x86, EXITED = 0x87, DATA = 0x88,
  MEASURED = 0x89
};

/* One read of a job's pipe, and the most one GET gives back. */
#define CHUNK (64u << 10)
#define GET_MAX (128u << 10)
/* Above OUT_HALF the job's pipes are left alone (so the job blocks). What is then still free is for answers:
   OUT_HALF + one CHUNK + one DATA fit, so a host that reads nothing can still stop a job. */
#define OUT_CAP (512u << 10)
#define OUT_HALF (256u << 10)
#define REPLY_ROOM (GET_MAX + 64u)

/* Exit codes: 0 = the host is gone or said SHUTDOWN. */
#define EXIT_USAGE 64
#define EXIT_MALFORMED 70
#define EXIT_SETUP 71

struct job_identity {
  bool set; /* without --uid the job runs as the guest does: the unisolated process driver */
  uid_t uid;
  gid_t gid;
};

struct frame {
  uint8_t type;
  uint32_t seq;
  uint8_t *at, *end; /* payload not yet taken */
  bool bad;          /* something was taken that is not there */
};

extern struct job_identity job;
extern int work_fd;    /* the job's directory */
extern pid_t self_pid; /* 1 = own pid namespace, else subreaper */

/* guest.c */
uint64_t now_micros(void);
void close_from(int first);
_Noreturn void leave(int code); /* kills every process of the job, then exits */
_Noreturn void malformed(const char *what);

/* wire.c */
bool out_flush(void); /* false: the host is gone */
size_t out_pending(void);
size_t out_room(void);
void out_release(void); /* gives the pages of a big, now empty buffer back to the kernel */
void reply(uint8_t type, uint32_t seq, const void *payload, size_t size);
void reply_ok(uint32_t seq);
void reply_fail(uint32_t seq, int error, const char *what, const char *which);
uint8_t *reply_begin(size_t payload_max); /* where to put a payload, then reply_end */
void reply_end(uint8_t type, uint32_t seq, size_t payload_size);
bool in_fill(void); /* one read of fd 0; false: the host is gone */
bool in_next(struct frame *frame);
void in_done(void); /* the frame of in_next is no longer needed */
uint8_t take_u8(struct frame *f);
uint32_t take_u32(struct frame *f);
uint64_t take_u64(struct frame *f);
char *take_string(struct frame *f); /* NUL-terminated in place; NULL if it holds a NUL itself */
void put_u32(uint8_t *at, uint32_t value);
void put_u64(uint8_t *at, uint64_t value);

/* files.c */
void files_init(void);
int open_beneath(const char *path, int flags, mode_t mode, bool make_parents);
void handle_put(struct frame *f);
void handle_get(struct frame *f);

/* phase.c */
bool phase_active(void);
void handle_stdin(struct frame *f);
void handle_run(struct frame *f, bool waits);
void handle_feed(struct frame *f);
void handle_signal(struct frame *f);
int phase_pipe(int which); /* fd of the job's stdout (0) or stderr (1) to poll, or -1 */
void phase_read(int which);
int phase_feeds(void); /* fd to write to while there is something for the phase's standard input, or -1 */
void phase_feed(void);
void phase_step(bool children_died); /* reaps, and carries an ended phase on to its EXIT */
bool phase_draining(void);           /* the pipes are to be read to their end now, readable or not */
int phase_timeout(bool full);        /* milliseconds until the phase wants another turn, -1 = not before an event */

/* spawn.c */
struct run {
  int cwd_fd, stdin_fd, stdout_fd, stderr_fd;
  uint64_t fsize, nofile, stack, cpu_seconds;
  char **argv, **envp;
};
/* Starts the main process of a phase. -1 = errno says why, *what at which step (the program's name not included). */
pid_t spawn(const struct run *run, const char **what);
/* Lowers the limits of a process of the job that runs; those that are 0 stay. 0, or errno. */
int lower_limits(pid_t pid, const struct run *run);

/* groups.c */
extern int group_procs; /* where a phase writes 0 to enter its group, or -1 */
void groups_init(const char *dir);
bool groups_ready(void);
void handle_limit(struct frame *f);
void handle_measure(struct frame *f);

/* tree.c */
void signal_all(int signo); /* every process of the job; SIGKILL leaves a fork bomb no way to outrun it */

#endif
