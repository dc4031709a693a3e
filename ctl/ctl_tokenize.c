/* ctl/ctl_tokenize.c - gistctl tokenize and gistctl detokenize: text to token ids, and back. */
#include "ctl/ctl.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ctl_opt_usage tokenize_usage = {
    "tokenize [OPTIONS] [FILE]", "Prints the token ids of FILE (or standard input) on one line.\n"
};
static const struct ctl_opt_usage detokenize_usage = {
    "detokenize [OPTIONS] [ID]...",
    "Prints the text of token ids, given as arguments or else on standard input, where spaces,\n"
    "commas, brackets or newlines separate them.\n"
};

static void print_ids(const uint32_t *ids, size_t n, bool json)
{
    struct ctl_json j = { .out = stdout };

    if (!json) {
        for (size_t i = 0; i < n; i++)
            printf("%s%u", i ? " " : "", ids[i]);
        fputc('\n', stdout);
        return;
    }
    ctl_json_open(&j, NULL, '{');
    ctl_json_open(&j, "tokens", '[');
    for (size_t i = 0; i < n; i++)
        ctl_json_u64(&j, NULL, ids[i]);
    ctl_json_close(&j, ']');
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
}

int ctl_tokenize(int argc, char **argv)
{
    bool json = false, special = false;
    const struct ctl_opt opts[] = {
        { "special", 0, CTL_OPT_FLAG, NULL, &special, 0, 0,
          "treat special tokens written in the text as such" },
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one object: tokens" },
    };
    struct ctl_text text = { 0 };
    uint32_t *ids = NULL;
    size_t n = 0;
    gist_conn *c;
    int r, first = ctl_opt_parse(&tokenize_usage, opts, 2, argc, argv, &r);

    if (first < 0)
        return r;
    if (argc - first > 1)
        return ctl_fail(CTL_USAGE, "tokenize takes one FILE, not %d.", argc - first);
    r = ctl_text_read(&text, first < argc ? argv[first] : "-");
    if (r == 0)
        r = ctl_connect(&c);
    if (r == 0) {
        r = gist_tokenize(c, text.bytes, text.len, special ? GIST_SPECIAL : 0, &ids, &n);
        if (r < 0)
            r = ctl_fail_gist(c, r);
        else
            print_ids(ids, n, json);
        gist_disconnect(c);
    }
    free(ids);
    ctl_text_fini(&text);
    return r;
}

/* Ids of a text, in place of it: an id needs at least as many bytes of text as "0 ". A NUL would
 * end the reading early, without a word, so it is an error. */
static int read_ids(const struct ctl_text *t, uint32_t **ret_ids, size_t *ret_n)
{
    static const char between[] = " \t\r\n,[]";
    uint32_t *ids = malloc((t->len / 2 + 1) * sizeof(*ids));
    const char *p = t->bytes, *end = t->bytes + t->len;
    size_t n = 0;

    if (!ids)
        return ctl_fail(CTL_FAILED, "out of memory.");
    for (;;) {
        unsigned long long v;
        char *after;

        p += strspn(p, between);
        if (p == end)
            break;
        if (*p == '\0') {
            free(ids);
            return ctl_fail(CTL_USAGE, "not token ids: there is a NUL byte among them.");
        }
        errno = 0;
        v = *p >= '0' && *p <= '9' ? strtoull(p, &after, 10) : UINT64_MAX;
        if (errno || v > UINT32_MAX || (*after && !strchr(between, *after))) {
            free(ids);
            return ctl_fail(CTL_USAGE, "not a token id: '%.*s'", (int)strcspn(p, between), p);
        }
        ids[n++] = (uint32_t)v;
        p = after;
    }
    *ret_ids = ids;
    *ret_n = n;
    return 0;
}

static int print_detokenized(gist_conn *c, const uint32_t *ids, size_t n, bool json)
{
    struct ctl_json j = { .out = stdout };
    char *text;
    size_t len;
    int r = gist_detokenize(c, ids, n, &text, &len);

    if (r < 0)
        return ctl_fail_gist(c, r);
    if (json) {
        ctl_json_open(&j, NULL, '{');
        ctl_json_text(&j, "text", text, len);
        ctl_json_close(&j, '}');
        fputc('\n', stdout);
    } else {
        ctl_text_print(text, len); /* no newline of ours */
    }
    free(text);
    return 0;
}

int ctl_detokenize(int argc, char **argv)
{
    bool json = false;
    const struct ctl_opt opts[] = {
        { "json", 'j', CTL_OPT_FLAG, NULL, &json, 0, 0, "one object: text" },
    };
    struct ctl_text text = { 0 };
    uint32_t *ids = NULL;
    size_t n = 0;
    gist_conn *c;
    int r, first = ctl_opt_parse(&detokenize_usage, opts, 1, argc, argv, &r);

    if (first < 0)
        return r;
    for (int i = first; r == 0 && i < argc; i++)
        if (ctl_text_add(&text, argv[i], strlen(argv[i])) < 0 || ctl_text_add(&text, " ", 1) < 0)
            r = ctl_fail(CTL_FAILED, "out of memory.");
    if (first == argc)
        r = ctl_text_read(&text, "-");
    if (r == 0)
        r = read_ids(&text, &ids, &n);
    if (r == 0)
        r = ctl_connect(&c);
    if (r == 0) {
        r = print_detokenized(c, ids, n, json);
        gist_disconnect(c);
    }
    free(ids);
    ctl_text_fini(&text);
    return r;
}
