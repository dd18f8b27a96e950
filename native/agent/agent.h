/* What the parts of the agent share: see ../agent.c for what it does. */
#ifndef STOKER_AGENT_H
#define STOKER_AGENT_H
#define _GNU_SOURCE

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A request: its head (request line and header fields), its body; how long either may take to come. */
#define HEAD_MAX (16u << 10)
#define BODY_MAX (1u << 20)
#define REQUEST_MILLIS 10000
/* How long an answer may take to go. */
#define ANSWER_MILLIS 60000
#define JSON_DEPTH 32

struct settings {
  uint16_t port;
  const char *work; /* the agent's own directory, in which each job has one */
  const char *guest;
  uid_t uid; /* the jobs' */
  gid_t gid;
  uint32_t compile_seconds, run_seconds, wait_seconds;
  uint32_t output_bytes; /* kept of stdout and of stderr each, from the beginning */
  bool local; /* whether connections from this machine itself are served: a job could make them */
};

/* Bytes, not ended by NUL. */
struct text {
  char *at;
  size_t size;
};

/* http.c */
struct head {
  char method[8];
  struct text target; /* without query */
  uint64_t length;    /* of the body */
  bool json;          /* Content-Type is application/json */
  bool waits;         /* for 100 Continue before it sends its body */
};
/* The number of bytes of a complete head at the beginning of `size` bytes, its empty line included; 0: not there yet. */
size_t head_size(const char *text, size_t size);
/* 0, or the status to refuse it with. Changes nothing of the text, into which `target` points. */
int parse_head(char *text, size_t size, struct head *head);

struct request {
  struct head head;
  char *body;
};
/* 0, a status to answer with, or -1: the client is gone or silent. The body has to be freed. */
int read_request(int fd, struct request *request, char room[HEAD_MAX]);

struct output {
  char *at;
  size_t size;
  uint64_t dropped; /* bytes that came after those that are kept */
};
struct answer {
  int status;
  const char *message;
  char error[256];
  struct output out[2]; /* stdout, stderr */
  uint64_t micros, rss_kib;
};
void send_answer(int fd, const struct answer *answer);
void send_message(int fd, int status, const char *message); /* {"message": …} as the old agent's framework wrote it */
void send_plain(int fd, const char *text);
void say_goodbye(int fd); /* closes so that the client can read what was sent, whatever it still sends */

/* json.c */
struct order {
  struct text id, code, language, variant;
};
/* NULL, or what is wrong. Strings are decoded in place. Absent and null fields are empty. */
const char *parse_order(char *text, size_t size, struct order *order);
/* Bytes of the well-formed UTF-8 character at `at`, or 0. */
size_t utf8_size(const char *at, size_t left);
/* Writes a JSON string's inside: what is not UTF-8 becomes U+FFFD, byte by byte. */
void escape(const char *at, size_t size, void (*put)(void *to, const char *at, size_t size), void *to);

/* runner.c */
/* The job's directory stays, with nobody in it any more: `place` is its path. */
void run_order(const struct settings *settings, const struct order *order, struct answer *answer, char *place, size_t size);
bool is_language(const struct text *name);

/* guest.c: one guest for one job */
struct guest {
  pid_t pid;
  int in, out; /* its fd 0 and 1 */
  size_t have;
  uint8_t *frames; /* what came and is not taken yet */
};
enum ending { ENDED, SIGNALLED, TIMED_OUT, REFUSED, BROKEN };
struct phase {
  const char *const *argv;
  const char *const *env;
  uint32_t seconds;
  struct output *out; /* stdout, stderr; NULL: nobody wants it */
  size_t output_max;
};
struct result {
  enum ending ending;
  int number; /* exit code, signal, or errno of REFUSED */
  uint64_t micros, rss_kib;
};
bool guest_start(const struct settings *settings, const char *place, struct guest *guest);
bool guest_put(struct guest *guest, const char *path, const struct text *content);
struct result guest_run(struct guest *guest, const struct phase *phase);
void guest_end(struct guest *guest);

/* place.c: the directory of one job, with `tmp` and `shm` in it, which belong to the job */
bool place_make(const struct settings *settings, char *path, size_t size);
bool place_remove(const char *path);
void places_clear(const char *work); /* those of an agent that died */

/* agent.c */
uint64_t now_millis(void);

#endif
