/* ctl/ctl_attach.c - gistctl attach: the rest of an answer that `gistctl ask --detachable` began.
 */
#include "ctl/ctl_attach.h"

#include "base/hex.h"
#include "ctl/ctl_opt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct ctl_opt_usage usage = {
    "attach [OPTIONS] TOKEN",
    "Goes on with an answer of `gistctl ask --detachable` whose program was killed, or lost its\n"
    "terminal: prints what was not printed yet, then the rest as it is written, and ends the\n"
    "session. Ctrl-C ends the answer.\n"
};

struct attach {
    gist_conn *conn;
    uint64_t wanted; /* tokens that were printed before; --all: 0 */
    uint32_t n_answers, last;
    bool some, line_open;
};

/* Said before anything is asked: when the program is killed it is too late. The token is a secret
 * of this user's, as good as the session. */
int ctl_attach_offer(gist_session *s, bool prints)
{
    struct gist_kept kept = { .size = sizeof(kept) };
    int r = gist_keep(s, 0, &kept);

    if (r < 0)
        return r;
    fprintf(stderr, "[if this ends early, within %u s: gistctl attach %s", kept.seconds,
            prints ? "" : "--all ");
    for (size_t i = 0; i < sizeof(kept.token); i++)
        fprintf(stderr, "%02x", kept.token[i]);
    fputs("]\n", stderr);
    return 0;
}

static bool read_token(const char *text, unsigned char token[GIST_TOKEN_BYTES])
{
    if (strlen(text) != (size_t)2 * GIST_TOKEN_BYTES)
        return false;
    for (size_t i = 0; i < GIST_TOKEN_BYTES; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        token[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static void on_resumed(void *arg, uint64_t first)
{
    const struct attach *a = arg;

    if (first > a->wanted)
        ctl_fail(0, "%llu tokens before this can't be had again.",
                 (unsigned long long)(first - a->wanted));
}

/* Of several answers pieces come in any order: each says whose it is when that changes. */
static int on_text(void *arg, uint32_t answer, const char *text, size_t len, const uint32_t *ids,
                   size_t n_ids)
{
    struct attach *a = arg;

    (void)ids;
    (void)n_ids;
    if (a->n_answers > 1 && (!a->some || answer != a->last))
        printf("%s--- answer %u of %u\n", a->line_open ? "\n" : "", answer + 1, a->n_answers);
    a->some = true;
    a->last = answer;
    ctl_text_print(text, len);
    fflush(stdout);
    if (len > 0)
        a->line_open = text[len - 1] != '\n';
    return ctl_interrupt_came() || ferror(stdout);
}

static int end(const struct attach *a, const struct gist_result *result, int r)
{
    if (a->line_open)
        fputc('\n', stdout);
    if (ferror(stdout))
        return CTL_FAILED; /* main says why */
    if (r < 0)
        return ctl_fail_gist(a->conn, r);
    fflush(stdout);
    if (a->n_answers == 1 && result->reason != GIST_END_OF_TEXT && result->reason != GIST_STOP)
        ctl_fail(0, "the answer was cut off after %u tokens: %s.", result->usage.generated_tokens,
                 gist_reason_name(result->reason));
    return CTL_OK;
}

static int go_on(struct attach *a, const unsigned char *token, bool all)
{
    struct gist_resume how = { .size = sizeof(how),
                               .flags = all ? GIST_SET_FROM : 0,
                               .on_resumed = on_resumed };
    struct gist_attached at = { .size = sizeof(at) };
    struct gist_result result = { 0 };
    gist_session *s;
    int r = gist_attach(a->conn, token, NULL, &s, &at);

    if (r < 0)
        return ctl_fail_gist(a->conn, r);
    a->n_answers = at.answers;
    a->wanted = all ? 0 : at.unread;
    if (at.answers == 0) {
        r = ctl_fail(CTL_FAILED, "the session has no answer: its program ended before it asked.");
    } else {
        r = gist_resume(s, &how, on_text, a, &result);
        r = end(a, &result, r);
    }
    gist_close(s);
    return r;
}

int ctl_attach(int argc, char **argv)
{
    unsigned char token[GIST_TOKEN_BYTES];
    struct attach a = { .conn = NULL };
    bool all = false;
    const struct ctl_opt opts[] = {
        { "all", 'a', CTL_OPT_FLAG, NULL, &all, 0, 0, "print the answer from its beginning" },
    };
    int first, r;

    first = ctl_opt_parse(&usage, opts, sizeof(opts) / sizeof(opts[0]), argc, argv, &r);
    if (first < 0)
        return r;
    if (argc - first != 1 || !read_token(argv[first], token))
        return ctl_fail(CTL_USAGE,
                        "attach needs the token that `gistctl ask --detachable` printed: "
                        "32 hexadecimal digits.");
    r = ctl_connect(&a.conn);
    if (r != CTL_OK)
        return r;
    ctl_interrupt_catch(a.conn, true);
    r = go_on(&a, token, all);
    ctl_interrupt_catch(NULL, false);
    gist_disconnect(a.conn);
    return r;
}
