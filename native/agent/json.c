/* JSON as RFC 8259 has it and nothing else: UTF-8, one value, no more than JSON_DEPTH deep. No memory is allocated. */
#include "agent.h"

#include <string.h>

struct reader {
  char *at, *end;
  const char *wrong; /* the first thing */
};

size_t utf8_size(const char *text, size_t left) {
  const unsigned char *at = (const unsigned char *)text;
  if (left == 0) return 0;
  if (at[0] < 0x80) return 1;
  size_t size = at[0] >= 0xc2 && at[0] <= 0xdf ? 2 : (at[0] & 0xf0) == 0xe0 ? 3 : at[0] >= 0xf0 && at[0] <= 0xf4 ? 4 : 0;
  if (size == 0 || left < size) return 0;
  for (size_t i = 1; i < size; i++) if ((at[i] & 0xc0) != 0x80) return 0;
  bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
  bool surrogate = at[0] == 0xed && at[1] > 0x9f, beyond = at[0] == 0xf4 && at[1] > 0x8f;
  return overlong || surrogate || beyond ? 0 : size;
}

void escape(const char *at, size_t size, void (*put)(void *to, const char *at, size_t size), void *to) {
  static const char hex[] = "0123456789abcdef";
  const char *const end = at + size, *plain = at;
  while (at < end) {
    unsigned char byte = (unsigned char)*at;
    size_t whole = byte < 0x20 || byte == '"' || byte == '\\' || byte == 0x7f ? 0 : utf8_size(at, (size_t)(end - at));
    if (whole > 0) {
      at += whole;
      continue;
    }
    if (at > plain) put(to, plain, (size_t)(at - plain));
    char escaped[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};
    static const char short_forms[] = "\"\"\\\\\nn\rr\tt";
    const char *known = byte == 0 ? NULL : strchr(short_forms, byte);
    if (byte >= 0x80) put(to, "\xef\xbf\xbd", 3);
    else if (known != NULL) put(to, (char[]){'\\', known[1]}, 2);
    else put(to, escaped, sizeof escaped);
    plain = ++at;
  }
  if (at > plain) put(to, plain, (size_t)(at - plain));
}

static bool fail(struct reader *r, const char *what) {
  if (r->wrong == NULL) r->wrong = what;
  return false;
}

static void skip_space(struct reader *r) {
  while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) r->at++;
}

static bool take(struct reader *r, char byte) {
  if (r->at == r->end || *r->at != byte) return false;
  r->at++;
  return true;
}

static bool take_word(struct reader *r, const char *word) {
  size_t size = strlen(word);
  if ((size_t)(r->end - r->at) < size || memcmp(r->at, word, size) != 0) return false;
  r->at += size;
  return true;
}

/* Four hexadecimal digits, or -1. */
static int32_t take_hex(struct reader *r) {
  int32_t value = 0;
  if (r->end - r->at < 4) return -1;
  for (int i = 0; i < 4; i++) {
    char digit = *r->at++;
    int part = digit >= '0' && digit <= '9' ? digit - '0'
      : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
      : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
    if (part < 0) return -1;
    value = value << 4 | part;
  }
  return value;
}

static char *put_utf8(char *to, uint32_t code) {
  if (code < 0x80) *to++ = (char)code;
  else if (code < 0x800) {
    *to++ = (char)(0xc0 | code >> 6);
    *to++ = (char)(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    *to++ = (char)(0xe0 | code >> 12);
    *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    *to++ = (char)(0x80 | (code & 0x3f));
  } else {
    *to++ = (char)(0xf0 | code >> 18);
    *to++ = (char)(0x80 | (code >> 12 & 0x3f));
    *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    *to++ = (char)(0x80 | (code & 0x3f));
  }
  return to;
}

/* After `\u`. Half a pair alone becomes U+FFFD. What is written is never longer than what was read. */
static char *take_unicode(struct reader *r, char *to) {
  int32_t code = take_hex(r);
  if (code < 0) {
    fail(r, "a \\u without four hexadecimal digits");
    return to;
  }
  if (code < 0xd800 || code > 0xdfff) return put_utf8(to, (uint32_t)code);
  char *behind = r->at;
  if (code < 0xdc00 && take_word(r, "\\u")) {
    int32_t low = take_hex(r);
    if (low >= 0xdc00 && low <= 0xdfff) {
      return put_utf8(to, 0x10000 + ((uint32_t)(code - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
    }
    r->at = behind;
  }
  return put_utf8(to, 0xfffd);
}

static bool take_string(struct reader *r, struct text *text) {
  if (!take(r, '"')) return fail(r, "a string is expected");
  char *to = r->at;
  text->at = to;
  while (r->wrong == NULL && r->at < r->end) {
    unsigned char byte = (unsigned char)*r->at;
    if (byte == '"') {
      r->at++;
      text->size = (size_t)(to - text->at);
      return true;
    }
    if (byte < 0x20) return fail(r, "a control character in a string");
    if (byte != '\\') {
      size_t size = utf8_size(r->at, (size_t)(r->end - r->at));
      if (size == 0) return fail(r, "a string that is not UTF-8");
      memmove(to, r->at, size);
      to += size;
      r->at += size;
      continue;
    }
    r->at++;
    char kind = r->at < r->end ? *r->at++ : 0;
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    const char *known = kind == 0 ? NULL : strchr(from, kind);
    if (known != NULL) *to++ = into[known - from];
    else if (kind == 'u') to = take_unicode(r, to);
    else return fail(r, "an unknown escape in a string");
  }
  return fail(r, "a string without an end");
}

static size_t take_digits(struct reader *r) {
  char *from = r->at;
  while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
  return (size_t)(r->at - from);
}

static bool skip_number(struct reader *r) {
  take(r, '-');
  if (!take(r, '0') && take_digits(r) == 0) return fail(r, "a value is expected");
  if (take(r, '.') && take_digits(r) == 0) return fail(r, "a number without digits after its point");
  if (take(r, 'e') || take(r, 'E')) {
    if (!take(r, '+')) take(r, '-');
    if (take_digits(r) == 0) return fail(r, "a number without digits in its exponent");
  }
  return true;
}

static bool skip_value(struct reader *r, int depth);

static bool skip_list(struct reader *r, int depth, bool members, char end) {
  if (depth == 0) return fail(r, "it is nested too deep");
  skip_space(r);
  if (take(r, end)) return true;
  do {
    struct text name;
    skip_space(r);
    if (members) {
      if (!take_string(r, &name)) return false;
      skip_space(r);
      if (!take(r, ':')) return fail(r, "a colon is expected");
    }
    if (!skip_value(r, depth - 1)) return false;
    skip_space(r);
  } while (take(r, ','));
  return take(r, end) || fail(r, "a comma or an end is expected");
}

static bool skip_value(struct reader *r, int depth) {
  struct text ignored;
  skip_space(r);
  if (r->at < r->end && *r->at == '"') return take_string(r, &ignored);
  if (take(r, '{')) return skip_list(r, depth, true, '}');
  if (take(r, '[')) return skip_list(r, depth, false, ']');
  return take_word(r, "null") || take_word(r, "true") || take_word(r, "false") || skip_number(r);
}

static bool is(const struct text *text, const char *word) {
  return text->size == strlen(word) && memcmp(text->at, word, text->size) == 0;
}

static bool take_field(struct reader *r, struct order *order) {
  struct text name;
  skip_space(r);
  if (!take_string(r, &name)) return false;
  skip_space(r);
  if (!take(r, ':')) return fail(r, "a colon is expected");
  skip_space(r);
  struct text *field = is(&name, "id") ? &order->id : is(&name, "code") ? &order->code
    : is(&name, "language") ? &order->language : is(&name, "variant") ? &order->variant : NULL;
  if (field == NULL) return skip_value(r, JSON_DEPTH - 1);
  if (field->at != NULL) return fail(r, "a field is there twice");
  field->at = r->at;
  if (take_word(r, "null")) return true;
  return r->at < r->end && *r->at == '"' ? take_string(r, field) : fail(r, "id, code, language and variant are strings");
}

const char *parse_order(char *text, size_t size, struct order *order) {
  struct reader r = {.at = text, .end = text + size};
  *order = (struct order){0};
  skip_space(&r);
  if (!take(&r, '{')) return "a JSON object is expected";
  skip_space(&r);
  if (!take(&r, '}')) {
    do if (!take_field(&r, order)) return r.wrong;
    while (skip_space(&r), take(&r, ','));
    if (!take(&r, '}')) return "a comma or an end is expected";
  }
  skip_space(&r);
  return r.at == r.end ? NULL : "something comes after the JSON object";
}
