/* examples/loop.c - answers the lines of its input, one after the other, from one loop in which
 * nothing waits but poll.
 *
 *     loop < QUESTIONS
 *
 * Each step is begun in the callback of the one before it. A program with more to do (a window,
 * sockets) adds its descriptors to the loop; only gist_connect is done before.
 */
#include <gist.h>

#include <err.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct program {
    gist_conn *c;
    gist_session *s;
    int busy, eof; /* an answer is under way; there are no more questions */
    char lines[8192];
    size_t len;
};

static void check(const struct program *p, int err)
{
    if (err < 0)
        errx(1, "%s", gist_error(p->c));
}

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    (void)arg;
    (void)ids;
    (void)n_ids;
    fwrite(text, 1, len, stdout);
    return fflush(stdout);
}

static void on_answered(void *arg, int err, const struct gist_result *result)
{
    struct program *p = arg;

    check(p, err);
    printf("\n[%u tokens, %s]\n", result->usage.generated_tokens, gist_reason_name(result->reason));
    p->busy = 0;
}

static void on_read(void *arg, int err, const struct gist_result *result)
{
    const struct gist_sampling sampling = { .size = sizeof(sampling), .max_tokens = 60 };
    struct program *p = arg;

    (void)result;
    check(p, err);
    check(p, gist_generate_start(p->s, &sampling, on_text, on_answered, p, NULL));
}

static void on_session(void *arg, int err, gist_session *s)
{
    struct program *p = arg;

    check(p, err);
    p->s = s;
    p->busy = 0;
}

/* The first whole line, if there is one. What is given to libgist is ours again when it returns. */
static void ask(struct program *p)
{
    char *end = memchr(p->lines, '\n', p->len);
    struct gist_message m = { "user", p->lines };

    if (p->busy || !end)
        return;
    *end = '\0';
    check(p, gist_append_chat_start(p->s, &m, 1, GIST_OPEN_ANSWER, on_read, p, NULL));
    p->busy = 1;
    p->len -= (size_t)(end + 1 - p->lines);
    memmove(p->lines, end + 1, p->len);
}

static void read_lines(struct program *p)
{
    ssize_t n = read(STDIN_FILENO, p->lines + p->len, sizeof(p->lines) - p->len);

    if (n > 0)
        p->len += (size_t)n;
    else
        p->eof = 1;
    if (p->eof && p->len > 0 && p->lines[p->len - 1] != '\n') /* the last one may lack it */
        p->lines[p->len++] = '\n';
    if (p->len == sizeof(p->lines) && !memchr(p->lines, '\n', p->len))
        errx(1, "a line has more than %zu bytes", sizeof(p->lines) - 1);
}

int main(void)
{
    const struct gist_policy policy = { .size = sizeof(policy),
                                        .label = "loop",
                                        .flags = GIST_AUTO };
    struct program p = { .busy = 1 };

    if (gist_connect(NULL, "loop", &p.c) < 0)
        errx(1, "%s", gist_error(NULL));
    check(&p, gist_open_start(p.c, &policy, on_session, &p, NULL));
    while (p.busy || !p.eof || memchr(p.lines, '\n', p.len)) {
        int full = p.eof || p.len == sizeof(p.lines);
        struct pollfd fds[] = { { gist_fd(p.c), POLLIN, 0 },
                                { full ? -1 : STDIN_FILENO, POLLIN, 0 } };

        ask(&p);
        if (poll(fds, 2, -1) < 0)
            err(1, "poll");
        if (fds[1].revents)
            read_lines(&p);
        if (fds[0].revents)
            check(&p, gist_dispatch(p.c));
    }
    gist_disconnect(p.c);
    return 0;
}
