#include "engine/text/chat_put.h"

#include "base/json_escape.h"
#include "base/utf8.h"

#include <string.h>

/* Empty pieces are not passed on: a caller may take a piece for a change of what it reads. After a
 * failure all that follows is dropped, so no caller in here has to look at o->r. */
void chat_put_piece(struct chat_out *o, const char *text, size_t len, bool special)
{
    struct chat_piece p = { .text = text, .len = len, .special = special };

    if (o->r == 0 && len > 0)
        o->r = o->emit(o->arg, &p);
}

void chat_put_special(struct chat_out *o, const char *text)
{
    chat_put_piece(o, text, strlen(text), true);
}

void chat_put_text(struct chat_out *o, const char *text)
{
    chat_put_piece(o, text, strlen(text), false);
}

/* What Python's str.strip() takes away: White_Space and the four separators U+001C to U+001F. */
static bool is_python_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

/* The length of the space character at p[0..n), or 0. */
static size_t space_len(const uint8_t *p, size_t n)
{
    size_t len;

    if (utf8_check(p, n, &len) != UTF8_OK || !is_python_space(utf8_get(p, len)))
        return 0;
    return len;
}

/* The same for the one that ends there. A space is at most 3 bytes long. The bytes of a longer
 * character can't be mistaken for one: its last bytes alone are no UTF-8. */
static size_t last_space_len(const uint8_t *p, size_t n)
{
    size_t len;

    for (len = 1; len <= 3 && len <= n; len++)
        if (space_len(p + n - len, len) == len)
            return len;
    return 0;
}

/* Jinja's `trim`, which is Python's str.strip(): Llama 3's template does this to each message. */
void chat_put_trimmed(struct chat_out *o, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n;

    while (len > 0 && (n = space_len(p, len)) > 0) {
        p += n;
        len -= n;
    }
    while (len > 0 && (n = last_space_len(p, len)) > 0)
        len -= n;
    chat_put_piece(o, (const char *)p, len, false);
}

/* A JSON string, as json.dumps(text, ensure_ascii=False) writes it. Text that needs no escape is
 * passed on in stretches, as it is. */
void chat_put_json(struct chat_out *o, const char *text, size_t len)
{
    char escape[JSON_ESCAPE_MAX];
    size_t i, from = 0;

    chat_put_text(o, "\"");
    for (i = 0; i < len; i++) {
        if (!json_escape((unsigned char)text[i], escape))
            continue;
        chat_put_piece(o, text + from, i - from, false);
        from = i + 1;
        chat_put_text(o, escape);
    }
    chat_put_piece(o, text + from, len - from, false);
    chat_put_text(o, "\"");
}
