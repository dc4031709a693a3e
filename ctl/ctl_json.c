/* ctl/ctl_json.c - a JSON writer. */
#include "ctl/ctl_json.h"

#include "client/gist.h"

#include <math.h>
#include <string.h>

/* Length of the UTF-8 character at p (1 to 4), 0 when the bytes there are none: continuation bytes
 * missing, overlong, a surrogate, or above U+10FFFF. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    uint32_t c;

    if (n <= 1)
        return n;
    if (n > left)
        return 0;
    c = p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

static void put_control(FILE *out, unsigned char c)
{
    switch (c) {
    case '\n':
        fputs("\\n", out);
        break;
    case '\t':
        fputs("\\t", out);
        break;
    case '\r':
        fputs("\\r", out);
        break;
    default:
        fprintf(out, "\\u%04x", c);
    }
}

static void put_string(FILE *out, const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + len;

    fputc('"', out);
    while (p < end) {
        size_t n = utf8_len(p, (size_t)(end - p));

        if (n == 0) {
            fputs("\xef\xbf\xbd", out);
            n = 1;
        } else if (*p < 0x20 || *p == 0x7f) {
            put_control(out, *p);
        } else {
            if (*p == '"' || *p == '\\')
                fputc('\\', out);
            fwrite(p, 1, n, out);
        }
        p += n;
    }
    fputc('"', out);
}

static void put_key(struct ctl_json *j, const char *key)
{
    if (j->comma)
        fputs(", ", j->out);
    j->comma = true;
    if (key) {
        put_string(j->out, key, strlen(key));
        fputs(": ", j->out);
    }
}

void ctl_json_open(struct ctl_json *j, const char *key, char bracket)
{
    put_key(j, key);
    fputc(bracket, j->out);
    j->comma = false;
}

void ctl_json_close(struct ctl_json *j, char bracket)
{
    fputc(bracket, j->out);
    j->comma = true;
}

void ctl_json_u64(struct ctl_json *j, const char *key, uint64_t v)
{
    put_key(j, key);
    fprintf(j->out, "%llu", (unsigned long long)v);
}

void ctl_json_bool(struct ctl_json *j, const char *key, bool v)
{
    put_key(j, key);
    fputs(v ? "true" : "false", j->out);
}

static void put_number(struct ctl_json *j, const char *key, double v, int digits)
{
    put_key(j, key);
    if (isfinite(v))
        fprintf(j->out, "%.*g", digits, v);
    else
        fputs("null", j->out);
}

void ctl_json_double(struct ctl_json *j, const char *key, double v)
{
    put_number(j, key, v, 17);
}

void ctl_json_float(struct ctl_json *j, const char *key, float v)
{
    put_number(j, key, v, 9);
}

void ctl_json_text(struct ctl_json *j, const char *key, const char *text, size_t len)
{
    put_key(j, key);
    put_string(j->out, text, len);
}

void ctl_json_string(struct ctl_json *j, const char *key, const char *s)
{
    put_key(j, key);
    if (s)
        put_string(j->out, s, strlen(s));
    else
        fputs("null", j->out);
}

void ctl_json_usage(struct ctl_json *j, const char *key, const struct gist_usage *u)
{
    ctl_json_open(j, key, '{');
    ctl_json_u64(j, "prompt_tokens", u->prompt_tokens);
    ctl_json_u64(j, "computed_tokens", u->computed_tokens);
    ctl_json_u64(j, "generated_tokens", u->generated_tokens);
    ctl_json_u64(j, "prompt_ns", u->prompt_ns);
    ctl_json_u64(j, "first_token_ns", u->first_token_ns);
    ctl_json_u64(j, "generate_ns", u->generate_ns);
    ctl_json_u64(j, "raw_tokens", u->raw_tokens);
    ctl_json_u64(j, "gist_tokens", u->gist_tokens);
    ctl_json_u64(j, "gists", u->gists);
    ctl_json_u64(j, "shared_tokens", u->shared_tokens);
    ctl_json_close(j, '}');
}
