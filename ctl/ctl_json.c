/* ctl/ctl_json.c - a JSON writer. */
#include "ctl/ctl_json.h"

#include "base/utf8.h"
#include "client/gist.h"

#include <math.h>
#include <string.h>

static void put_control(FILE *out, uint32_t c)
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

/* JSON escapes C0 alone. C1 controls are obeyed by terminals too, and so is what turns the writing
 * or ends a line by Unicode: the same set as base/shown.h has. */
static void put_character(FILE *out, const uint8_t *p, size_t len)
{
    uint32_t c = utf8_get(p, len);

    if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
        (c >= 0x2066 && c <= 0x2069)) {
        put_control(out, c);
        return;
    }
    if (c == '"' || c == '\\')
        fputc('\\', out);
    fwrite(p, 1, len, out);
}

/* A byte that is no UTF-8 becomes one U+FFFD, and reading goes on behind it. */
static void put_string(FILE *out, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0, n;

    fputc('"', out);
    for (; at < len; at += n) {
        if (utf8_check(p + at, len - at, &n) == UTF8_OK)
            put_character(out, p + at, n);
        else
            fputs("\xef\xbf\xbd", out);
    }
    fputc('"', out);
}

/* Also the comma before the value: each value is asked for by one call, so this is the one place
 * for it. */
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
    put_number(j, key, v, 17); /* reads back as the same double */
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
    ctl_json_u64(j, "restored_tokens", u->restored_tokens);
    ctl_json_u64(j, "approximate_tokens", u->approximate_tokens);
    ctl_json_u64(j, "hydrated_tokens", u->hydrated_tokens);
    ctl_json_u64(j, "hydrated_disk_tokens", u->hydrated_disk_tokens);
    ctl_json_u64(j, "recomputed_tokens", u->recomputed_tokens);
    ctl_json_u64(j, "missed_tokens", u->missed_tokens);
    ctl_json_u64(j, "drafted_tokens", u->drafted_tokens);
    ctl_json_u64(j, "accepted_tokens", u->accepted_tokens);
    ctl_json_open(j, "at_ratio", '{');
    for (unsigned i = 0; i < GIST_RATIOS; i++) {
        char ratio[16];

        (void)snprintf(ratio, sizeof(ratio), "%u", u->ratio << i);
        if (u->at_ratio[i] > 0)
            ctl_json_u64(j, ratio, u->at_ratio[i]);
    }
    ctl_json_close(j, '}');
    ctl_json_close(j, '}');
}

void ctl_json_stop(struct ctl_json *j, const char *key, const struct gist_result *r,
                   const char *const *stops)
{
    if (r->reason == GIST_STOP && r->stop > 0)
        ctl_json_string(j, key, stops[r->stop - 1]);
}
