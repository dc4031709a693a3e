/* ctl/ctl_json.h - writes JSON to a stream: commas, nesting and escaping are its business.
 *
 * Strings may hold any bytes: what is not UTF-8 becomes U+FFFD, so the output is always valid.
 * Numbers that JSON has no word for (NaN, infinities) become null.
 */
#ifndef CTL_CTL_JSON_H
#define CTL_CTL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct gist_result;
struct gist_usage;

struct ctl_json {
    FILE *out;
    bool comma; /* a value stands before the next one */
};

/* key NULL: an element of an array, or the outermost value. */
void ctl_json_open(struct ctl_json *j, const char *key, char bracket); /* '{' or '[' */
void ctl_json_close(struct ctl_json *j, char bracket);                 /* '}' or ']' */
void ctl_json_u64(struct ctl_json *j, const char *key, uint64_t v);
void ctl_json_bool(struct ctl_json *j, const char *key, bool v);
void ctl_json_double(struct ctl_json *j, const char *key, double v);
void ctl_json_float(struct ctl_json *j, const char *key, float v); /* reads back exactly */
void ctl_json_text(struct ctl_json *j, const char *key, const char *text, size_t len);
void ctl_json_string(struct ctl_json *j, const char *key, const char *s); /* NULL: null */
void ctl_json_usage(struct ctl_json *j, const char *key, const struct gist_usage *u);
/* Which of stops ended the answer; nothing where none did, or an older daemon does not say it. */
void ctl_json_stop(struct ctl_json *j, const char *key, const struct gist_result *r,
                   const char *const *stops);

#endif
