/* HTTP/1.1 for one request and one answer on a connection, which then ends. Bounded in size and in time. */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

size_t head_size(const char *text, size_t size) {
  const char *end = size == 0 ? NULL : memmem(text, size, "\r\n\r\n", 4);
  return end == NULL ? 0 : (size_t)(end - text) + 4;
}

static bool is_token(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
    (byte != 0 && strchr("!#$%&'*+-.^_`|~", byte) != NULL);
}

static bool equals(const struct text *text, const char *word) {
  return text->size == strlen(word) && strncasecmp(text->at, word, text->size) == 0;
}

static bool parse_length(const struct text *value, uint64_t *length) {
  *length = 0;
  if (value->size == 0 || value->size > 18) return false;
  for (size_t i = 0; i < value->size; i++) {
    if (value->at[i] < '0' || value->at[i] > '9') return false;
    *length = *length * 10 + (uint64_t)(value->at[i] - '0');
  }
  return true;
}

static int parse_request_line(const struct text *line, struct head *head) {
  char *at = line->at, *const end = line->at + line->size;
  size_t method = 0;
  while (at < end && is_token(*at) && method < sizeof head->method - 1) head->method[method++] = *at++;
  head->method[method] = 0;
  if (method == 0 || at == end || *at++ != ' ') return 400;
  head->target.at = at;
  while (at < end && *at > ' ' && *at < 0x7f) at++;
  head->target.size = (size_t)(at - head->target.at);
  if (head->target.size == 0 || *head->target.at != '/' || at == end || *at++ != ' ') return 400;
  char *query = memchr(head->target.at, '?', head->target.size);
  if (query != NULL) head->target.size = (size_t)(query - head->target.at);
  if (end - at != 8 || memcmp(at, "HTTP/", 5) != 0) return 400;
  return memcmp(at + 5, "1.1", 3) == 0 || memcmp(at + 5, "1.0", 3) == 0 ? 0 : 505;
}

/* A media type with or without parameters. */
static bool is_json(const struct text *value) {
  struct text type = *value;
  char *end = memchr(type.at, ';', type.size);
  if (end != NULL) type.size = (size_t)(end - type.at);
  while (type.size > 0 && (type.at[type.size - 1] == ' ' || type.at[type.size - 1] == '\t')) type.size--;
  return equals(&type, "application/json");
}

int parse_head(char *text, size_t size, struct head *head) {
  *head = (struct head){0};
  bool first = true, lengthy = false;
  for (char *at = text, *const end = text + size - 2; at < end; first = false) {
    char *stop = memmem(at, (size_t)(end + 2 - at), "\r\n", 2);
    struct text line = {at, (size_t)(stop - at)};
    at = stop + 2;
    for (size_t i = 0; i < line.size; i++) {
      unsigned char byte = (unsigned char)line.at[i];
      if ((byte < ' ' && byte != '\t') || byte == 0x7f) return 400;
    }
    if (first) {
      int refused = parse_request_line(&line, head);
      if (refused != 0) return refused;
      continue;
    }
    struct text name = {line.at, 0};
    while (name.size < line.size && is_token(name.at[name.size])) name.size++;
    if (name.size == 0 || name.size == line.size || name.at[name.size] != ':') return 400;
    struct text value = {name.at + name.size + 1, line.size - name.size - 1};
    while (value.size > 0 && (*value.at == ' ' || *value.at == '\t')) value.at++, value.size--;
    while (value.size > 0 && (value.at[value.size - 1] == ' ' || value.at[value.size - 1] == '\t')) value.size--;
    if (equals(&name, "Content-Length")) {
      if (lengthy || !parse_length(&value, &head->length)) return 400;
      lengthy = true;
    } else if (equals(&name, "Transfer-Encoding")) return 411;
    else if (equals(&name, "Content-Type")) head->json = is_json(&value);
    else if (equals(&name, "Expect")) {
      if (!equals(&value, "100-continue")) return 417;
      head->waits = true;
    }
  }
  return first ? 400 : 0;
}

/* What there is to read within the time, up to `size`; 0: nothing more comes. */
static size_t read_some(int fd, char *at, size_t size, uint64_t until) {
  for (;;) {
    uint64_t now = now_millis();
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (now >= until || (poll(&p, 1, (int)(until - now)) < 0 && errno != EINTR)) return 0;
    if (p.revents == 0) continue;
    ssize_t n = recv(fd, at, size, MSG_DONTWAIT);
    if (n > 0) return (size_t)n;
    if (n == 0 || (errno != EINTR && errno != EAGAIN)) return 0;
  }
}

static bool write_all(int fd, const char *at, size_t size, uint64_t until) {
  while (size > 0) {
    ssize_t n = send(fd, at, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      at += n;
      size -= (size_t)n;
      continue;
    }
    if (n == 0 || (errno != EINTR && errno != EAGAIN)) return false;
    uint64_t now = now_millis();
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (now >= until || (poll(&p, 1, (int)(until - now)) < 0 && errno != EINTR)) return false;
  }
  return true;
}

int read_request(int fd, struct request *request, char room[HEAD_MAX]) {
  uint64_t until = now_millis() + REQUEST_MILLIS;
  size_t have = 0, head = 0;
  request->body = NULL;
  while (head == 0) {
    size_t n = read_some(fd, room + have, HEAD_MAX - have, until);
    if (n == 0) return have == 0 ? -1 : 408;
    have += n;
    head = head_size(room, have);
    if (head == 0 && have == HEAD_MAX) return 431;
  }
  int refused = parse_head(room, head, &request->head);
  if (refused != 0) return refused;
  uint64_t length = request->head.length;
  if (length > BODY_MAX) return 413;
  if ((request->body = malloc(length + 1)) == NULL) return 503;
  size_t got = have - head < length ? have - head : length;
  memcpy(request->body, room + head, got);
  static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
  if (got < length && request->head.waits && !write_all(fd, go_on, sizeof go_on - 1, until)) return -1;
  while (got < length) {
    size_t n = read_some(fd, request->body + got, length - got, until);
    if (n == 0) return 408;
    got += n;
  }
  return 0;
}

/* Counts what is put into it, or sends it. */
struct sink {
  int fd;
  bool counts, broken;
  uint64_t total, until;
  size_t have;
  char buffer[16 << 10];
};

static void flush(struct sink *sink) {
  if (!sink->broken && !sink->counts && sink->have > 0) {
    sink->broken = !write_all(sink->fd, sink->buffer, sink->have, sink->until);
  }
  sink->have = 0;
}

static void put(void *to, const char *at, size_t size) {
  struct sink *sink = to;
  sink->total += size;
  if (sink->counts) return;
  while (size > 0 && !sink->broken) {
    if (sink->have == sizeof sink->buffer) flush(sink);
    size_t n = sizeof sink->buffer - sink->have;
    if (n > size) n = size;
    memcpy(sink->buffer + sink->have, at, n);
    sink->have += n;
    at += n;
    size -= n;
  }
}

static void say(struct sink *sink, const char *text) { put(sink, text, strlen(text)); }

static void put_field(struct sink *sink, const char *before, const char *text) {
  say(sink, before);
  escape(text, strlen(text), put, sink);
}

static void put_output(struct sink *sink, const char *before, const struct output *output) {
  say(sink, before);
  escape(output->at == NULL ? "" : output->at, output->size, put, sink);
  if (output->dropped == 0) return;
  char note[64];
  snprintf(note, sizeof note, "\\n[%llu bytes left out here]\\n", (unsigned long long)output->dropped);
  say(sink, note);
}

static void put_answer(struct sink *sink, const struct answer *answer) {
  char numbers[96];
  snprintf(numbers, sizeof numbers, "\",\"exec_duration\":%llu,\"mem_usage\":%llu}\n",
    (unsigned long long)answer->micros, (unsigned long long)answer->rss_kib);
  put_field(sink, "{\"message\":\"", answer->message);
  put_field(sink, "\",\"error\":\"", answer->error);
  put_output(sink, "\",\"stdout\":\"", &answer->out[0]);
  put_output(sink, "\",\"stderr\":\"", &answer->out[1]);
  say(sink, numbers);
}

static const char *reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 411: return "Length Required";
    case 413: return "Request Entity Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Internal Server Error";
  }
}

static struct sink *begin(struct sink *sink, int fd, int status, const char *type, uint64_t length) {
  char head[256];
  *sink = (struct sink){.fd = fd, .until = now_millis() + ANSWER_MILLIS};
  snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: %s; charset=UTF-8\r\nContent-Length: %llu\r\n%sConnection: close\r\n\r\n",
    status, reason(status), type, (unsigned long long)length, status == 503 ? "Retry-After: 1\r\n" : "");
  say(sink, head);
  return sink;
}

static struct sink going;

void send_answer(int fd, const struct answer *answer) {
  going = (struct sink){.counts = true};
  put_answer(&going, answer);
  put_answer(begin(&going, fd, answer->status, "application/json", going.total), answer);
  flush(&going);
}

void send_message(int fd, int status, const char *message) {
  const char *text = message == NULL ? reason(status) : message;
  for (int pass = 0; pass < 2; pass++) {
    if (pass == 0) going = (struct sink){.counts = true};
    else begin(&going, fd, status, "application/json", going.total);
    put_field(&going, "{\"message\":\"", text);
    say(&going, "\"}\n");
  }
  flush(&going);
}

void send_plain(int fd, const char *text) {
  say(begin(&going, fd, 200, "text/plain", strlen(text)), text);
  flush(&going);
}

/* A close with bytes unread would be a reset, and that may take the answer from the client. */
void say_goodbye(int fd) {
  uint64_t until = now_millis() + 1000;
  shutdown(fd, SHUT_WR);
  while (read_some(fd, going.buffer, sizeof going.buffer, until) > 0) continue;
  close(fd);
}
