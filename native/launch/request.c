/* Reads a request of `--serve`. Whatever does not add up to the last byte is no request. */
#include "launch.h"

#include <string.h>

struct cursor {
  uint8_t *at, *end;
  bool bad;
};

static uint32_t number(struct cursor *c) {
  if (c->bad || c->end - c->at < 4) {
    c->bad = true;
    return 0;
  }
  uint32_t value = c->at[0] | (uint32_t)c->at[1] << 8 | (uint32_t)c->at[2] << 16 | (uint32_t)c->at[3] << 24;
  c->at += 4;
  return value;
}

/* Moved onto its own length, which leaves room for the NUL. */
static char *string(struct cursor *c) {
  uint32_t size = number(c);
  if (c->bad || size > (size_t)(c->end - c->at) || memchr(c->at, 0, size) != NULL) {
    c->bad = true;
    return NULL;
  }
  char *text = (char *)c->at - 4;
  memmove(text, c->at, size);
  text[size] = 0;
  c->at += size;
  return text;
}

bool parse_request(uint8_t *bytes, size_t size, struct request *request) {
  struct cursor c = {.at = bytes, .end = bytes + size};
  uint32_t groups = number(&c);
  if (groups > GROUPS_MAX) return false;
  for (uint32_t i = 0; i < groups && !c.bad; i++) request->launch.groups[i] = string(&c);
  request->said = string(&c);
  uint32_t sealed = number(&c);
  if (sealed > 1) return false;
  request->sealed = sealed == 1;
  uint32_t args = number(&c);
  if (args == 0 || args > ARGS_MAX) return false;
  for (uint32_t i = 0; i < args && !c.bad; i++) request->argv[i] = string(&c);
  request->argv[args] = NULL;
  request->launch.group_count = (int)groups;
  request->launch.argv = request->argv;
  return !c.bad && c.at == c.end && request->argv[0][0] != 0;
}
