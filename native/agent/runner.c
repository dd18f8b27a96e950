/* One order: its source into a fresh directory, compiled where the language has it so, run, and the words for how it ended. */
#include "agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct language {
  const char *name, *file;
  const char *const *compile; /* NULL: there is nothing to compile */
  const char *const *run[2];  /* the second, where the first is not installed */
};

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
static const struct language languages[] = {
  {"python", "main.py", NULL, {WORDS("python3", "main.py"), WORDS("python", "main.py")}},
  {"c", "main.c", WORDS("gcc", "-x", "c", "main.c", "-o", "main.out"), {WORDS("./main.out")}},
  {"cpp", "main.cpp", WORDS("g++", "-x", "c++", "main.cpp", "-o", "main.out"), {WORDS("./main.out")}},
  {"go", "main.go", WORDS("go", "build", "-o", "main.out", "main.go"), {WORDS("./main.out")}}
};

static const char *const environment[] = {
  "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/go/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8",
  /* Nothing is fetched, and what is cached goes with the job. */
  "GOCACHE=/tmp/.cache/go", "GOPATH=/tmp/.cache/path", "GOPROXY=off", "GOSUMDB=off", "GOTOOLCHAIN=local", "GOENV=off",
  "CGO_ENABLED=0", NULL
};

static const struct language *find(const struct text *name) {
  for (size_t i = 0; i < sizeof languages / sizeof *languages; i++) {
    size_t size = strlen(languages[i].name);
    if (name->size == size && memcmp(name->at, languages[i].name, size) == 0) return &languages[i];
  }
  return NULL;
}

bool is_language(const struct text *name) { return find(name) != NULL; }

/* As Go's package syscall calls them: the old agent was written in Go. */
static const char *signal_name(int signo) {
  static const char *const names[] = {
    NULL, "hangup", "interrupt", "quit", "illegal instruction", "trace/breakpoint trap", "aborted", "bus error",
    "floating point exception", "killed", "user defined signal 1", "segmentation fault", "user defined signal 2",
    "broken pipe", "alarm clock", "terminated", "stack fault", "child exited", "continued", "stopped (signal)", "stopped",
    "stopped (tty input)", "stopped (tty output)", "urgent I/O condition", "CPU time limit exceeded",
    "file size limit exceeded", "virtual timer expired", "profiling timer expired", "window changed", "I/O possible",
    "power failure", "bad system call"
  };
  return signo > 0 && (size_t)signo < sizeof names / sizeof *names ? names[signo] : NULL;
}

static void describe(const struct result *result, const struct phase *phase, char *error, size_t size) {
  const char *name = signal_name(result->number);
  switch (result->ending) {
    case ENDED:
      if (result->number != 0) snprintf(error, size, "exit status %d", result->number);
      return;
    case SIGNALLED:
      if (name != NULL) snprintf(error, size, "signal: %s", name);
      else snprintf(error, size, "signal: signal %d", result->number);
      return;
    case TIMED_OUT:
      snprintf(error, size, "signal: killed (it did not end within %u seconds)", phase->seconds);
      return;
    case REFUSED:
      if (result->number == ENOENT) snprintf(error, size, "exec: \"%s\": executable file not found in $PATH", phase->argv[0]);
      else snprintf(error, size, "fork/exec %s: %s", phase->argv[0], strerror(result->number));
      return;
    case BROKEN:
      snprintf(error, size, "the guest that runs programs ended");
  }
}

static void forget(struct output *out) {
  free(out->at);
  *out = (struct output){0};
}

/* True: the program may run. */
static bool compile(struct guest *guest, const struct phase *phase, struct answer *answer) {
  struct result result = guest_run(guest, phase);
  if (result.ending == ENDED && result.number == 0) {
    forget(&answer->out[0]);
    forget(&answer->out[1]);
    return true;
  }
  answer->status = result.ending == BROKEN ? 500 : 400;
  answer->message = "Failed to compile";
  describe(&result, phase, answer->error, sizeof answer->error);
  return false;
}

static void run(struct guest *guest, const struct language *language, struct phase *phase, struct answer *answer) {
  struct result result;
  phase->argv = language->run[0];
  result = guest_run(guest, phase);
  if (result.ending == REFUSED && result.number == ENOENT && language->run[1] != NULL) {
    phase->argv = language->run[1];
    result = guest_run(guest, phase);
  }
  bool well = result.ending == ENDED && result.number == 0;
  answer->status = well ? 200 : result.ending == BROKEN ? 500 : 400;
  answer->message = well ? "Success" : "Failed to run";
  describe(&result, phase, answer->error, sizeof answer->error);
  answer->micros = result.micros;
  answer->rss_kib = result.rss_kib;
}

void run_order(const struct settings *settings, const struct order *order, struct answer *answer, char *place, size_t size) {
  struct guest guest;
  const struct language *language = find(&order->language);
  *answer = (struct answer){.status = 500, .message = "Failed to run"};
  if (!place_make(settings, place, size)) {
    snprintf(answer->error, sizeof answer->error, "no directory for the job: %s", strerror(errno));
    return;
  }
  if (!guest_start(settings, place, &guest)) {
    snprintf(answer->error, sizeof answer->error, "the guest that runs programs did not start");
  } else if (!guest_put(&guest, language->file, &order->code)) {
    snprintf(answer->error, sizeof answer->error, "the source cannot be written");
  } else {
    struct phase phase = {
      .argv = language->compile, .env = environment, .seconds = settings->compile_seconds, .out = answer->out,
      .output_max = settings->output_bytes
    };
    if (language->compile == NULL || compile(&guest, &phase, answer)) {
      phase.seconds = settings->run_seconds;
      run(&guest, language, &phase, answer);
    }
  }
  guest_end(&guest);
}
