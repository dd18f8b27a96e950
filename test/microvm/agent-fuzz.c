/* The agent's parsers, fed with what nobody would send. Built by AgentFuzz.test.ts, with the compiler's sanitizers.
 *
 *   agent-fuzz random SEED ROUNDS   random and spoiled requests; aborts when a promise is broken
 *   agent-fuzz judge                reads u32 length and bytes, again and again; says of each JSON text "ok " and its code
 *                                   in hexadecimal, or why not */
#include "../../native/agent/agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 400

uint64_t now_millis(void) { return 0; }

static uint64_t state;

static uint32_t chance(uint32_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 33) % below;
}

static _Noreturn void broken(const char *promise) {
  fprintf(stderr, "broken: %s\n", promise);
  abort();
}

/* One of the seeds with some bytes changed, taken out, doubled, or cut short: in memory of exactly its size. */
static char *spoil(const char *const *seeds, size_t count, size_t *size) {
  char work[2 * MOST];
  const char *seed = seeds[chance((uint32_t)count)];
  *size = strlen(seed);
  memcpy(work, seed, *size);
  for (uint32_t left = chance(6); left > 0; left--) {
    size_t at = *size == 0 ? 0 : chance((uint32_t)*size), behind = *size - at;
    switch (chance(5)) {
      case 0: if (behind > 0) work[at] = (char)chance(256); break;
      case 1: if (behind > 0) memmove(work + at, work + at + 1, --*size - at); break;
      case 2: if (*size < MOST) { memmove(work + at + 1, work + at, behind); work[at] = "\"\\{}[]:,\r\n u\0"[chance(13)]; ++*size; } break;
      case 3: if (behind > 0 && *size + behind < MOST) { memmove(work + *size, work + at, behind); *size += behind; } break;
      default: *size = chance(20) == 0 ? at : *size;
    }
  }
  char *exact = malloc(*size == 0 ? 1 : *size);
  memcpy(exact, work, *size);
  return exact;
}

static void inside(const struct text *text, const char *from, size_t size, const char *promise) {
  if (text->at == NULL ? text->size != 0 : text->at < from || text->at + text->size > from + size) broken(promise);
}

static void head_round(void) {
  static const char *const seeds[] = {
    "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /run?x=y HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    "POST /run HTTP/1.0\r\nContent-Length:\t7 \r\nX: \r\n\r\nbody", "\r\n\r\n", ""
  };
  size_t size;
  char *text = spoil(seeds, sizeof seeds / sizeof *seeds, &size);
  size_t whole = head_size(text, size);
  struct head head;
  if (whole > size) broken("a head is within what came");
  int status = whole == 0 ? -1 : parse_head(text, whole, &head);
  if (status == 0) {
    inside(&head.target, text, whole, "the target is within the head");
    if (*head.target.at != '/' || head.method[0] == 0 || memchr(head.method, 0, sizeof head.method) == NULL) broken("a head is one");
    if (head.length >= 1000000000000000000u) broken("a length is of 18 digits at most");
  } else if (status > 0 && (status < 400 || status > 505)) broken("a refusal is a status");
  free(text);
}

static const char *const jsons[] = {
  "{\"id\":\"1\",\"code\":\"int main() { return 0; }\",\"language\":\"c\",\"variant\":\"TODO\"}",
  "{\"code\":\"a\\n\\u00e4\\ud83d\\ude00\\\\\\\"\\/\",\"more\":[1,-2.5e+3,{\"a\":null},true,false,[]],\"id\":null}",
  " { \"x\" : { \"y\" : [ { } ] } , \"code\" : \"\xc3\xa4\xf0\x9f\x98\x80\" } ", "{}", "[[[[[[", "{\"code\":\"\\ud83d\\udc\"}"
};

static void order_round(void) {
  size_t size;
  char *text = spoil(jsons, sizeof jsons / sizeof *jsons, &size);
  struct order order;
  if (parse_order(text, size, &order) == NULL) {
    inside(&order.id, text, size, "the id is within the text");
    inside(&order.code, text, size, "the code is within the text");
    inside(&order.language, text, size, "the language is within the text");
    inside(&order.variant, text, size, "the variant is within the text");
  }
  free(text);
}

struct written {
  char at[8 * MOST];
  size_t size;
};

static void write_to(void *to, const char *at, size_t size) {
  struct written *written = to;
  if (size > sizeof written->at - written->size) broken("an escaped byte takes 6 at most");
  memcpy(written->at + written->size, at, size);
  written->size += size;
}

/* Whatever is escaped is a JSON string, and the same again if it was UTF-8. */
static void escape_round(void) {
  static struct written written;
  size_t size = chance(100);
  char *bytes = malloc(size == 0 ? 1 : size);
  bool whole = true;
  for (size_t i = 0; i < size; i++) bytes[i] = (char)(chance(3) == 0 ? chance(256) : chance(2) ? 0x80 + chance(64) : chance(128));
  for (size_t i = 0; i < size && whole;) {
    size_t n = utf8_size(bytes + i, size - i);
    whole = n > 0;
    i += n;
  }
  written.size = 0;
  write_to(&written, "{\"code\":\"", 9);
  escape(bytes, size, write_to, &written);
  write_to(&written, "\"}", 2);
  struct order order;
  if (parse_order(written.at, written.size, &order) != NULL) broken("what is escaped is JSON");
  if (whole && (order.code.size != size || memcmp(order.code.at, bytes, size) != 0)) broken("text is the same again");
  free(bytes);
}

static int judge(void) {
  uint32_t size;
  while (fread(&size, sizeof size, 1, stdin) == 1) {
    char *text = malloc(size == 0 ? 1 : size);
    struct order order;
    if (fread(text, 1, size, stdin) != size) return 1;
    const char *wrong = parse_order(text, size, &order);
    if (wrong != NULL) puts(wrong);
    else {
      fputs("ok ", stdout);
      for (size_t i = 0; i < order.code.size; i++) printf("%02x", (unsigned char)order.code.at[i]);
      puts("");
    }
    free(text);
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "judge") == 0) return judge();
  if (argc != 4 || strcmp(argv[1], "random") != 0) return 64;
  state = strtoull(argv[2], NULL, 10) * 2 + 0x9e3779b97f4a7c15u;
  for (unsigned long left = strtoul(argv[3], NULL, 10); left > 0; left--) {
    head_round();
    order_round();
    escape_round();
  }
  puts("well");
  return 0;
}
