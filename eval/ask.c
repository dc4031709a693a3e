#include "eval/ask.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A question opens the answer: a chat model gets the head of the assistant's turn, another one
 * "Answer:". */
static int append(gist_conn *c, gist_session *s, const char *text, bool is_question,
                  struct gist_usage *ret)
{
    const struct gist_message msg = { "user", text };
    struct gist_info info;
    char *plain;
    int r;

    gist_info(c, &info);
    if (info.chat)
        return gist_append_chat(s, &msg, 1, is_question ? GIST_OPEN_ANSWER : 0, ret);
    if (!is_question)
        return gist_append_text(s, text, strlen(text), 0, ret);
    if (asprintf(&plain, "\n\nQuestion: %s\nAnswer:", text) < 0)
        return -ENOMEM;
    r = gist_append_text(s, plain, strlen(plain), 0, ret);
    free(plain);
    return r;
}

/* read_ns is this process's time, with everything that stands between: that is what a user waits.
 */
int ask_begin(gist_conn *c, const struct grid_cell *cell, const char *adapter,
              const struct ask_text *text, struct ask_session *ret)
{
    struct gist_memory memory = grid_memory(cell, adapter, text->n_tokens);
    const struct gist_policy policy = {
        .size = sizeof(policy), .segment = cell->segment, .label = "gist-eval", .memory = &memory
    };
    struct ask_session a = { .c = c };
    uint64_t start;
    int r = gist_open(c, &policy, &a.s);

    if (r < 0)
        return r;
    gist_on_progress(a.s, text->on_progress, text->arg);
    start = clock_ns();
    r = append(c, a.s, text->text, false, NULL);
    a.read_ns = clock_ns() - start;
    if (r < 0) {
        ask_end(&a);
        return r;
    }
    *ret = a;
    return 0;
}

void ask_end(struct ask_session *a)
{
    if (a->s)
        gist_close(a->s);
    a->s = NULL;
}

/* --- an answer -------------------------------------------------------------------------------- */

struct answer {
    FILE *out;
    uint64_t first_ns; /* 0: nothing came yet */
};

static int on_text(void *arg, const char *text, size_t len, const uint32_t *ids, size_t n_ids)
{
    struct answer *a = arg;

    (void)ids;
    (void)n_ids;
    if (!a->first_ns)
        a->first_ns = clock_ns();
    (void)fwrite(text, 1, len, a->out);
    return 0;
}

/* Temperature 0, so that two runs say the same. Without any token the time is that of the end. */
static int answer(struct ask_session *a, gist_session *s, const char *question, uint32_t max_tokens,
                  FILE *out, struct ask_answer *ret)
{
    const struct gist_sampling sampling = { .size = sizeof(sampling), .max_tokens = max_tokens };
    struct answer got = { .out = out };
    uint64_t start = clock_ns();
    int r = append(a->c, s, question, true, &ret->usage);

    if (r == 0)
        r = gist_generate(s, &sampling, on_text, &got, NULL);
    ret->first_token_ns = (got.first_ns ? got.first_ns : clock_ns()) - start;
    return r;
}

/* The fork ends with the question, so the next one finds the text as it was read. */
int ask_question(struct ask_session *a, const char *question, uint32_t max_tokens,
                 struct ask_answer *ret)
{
    struct ask_answer got = { 0 };
    gist_session *fork;
    size_t len;
    FILE *out;
    int r = gist_fork(a->s, NULL, &fork);

    if (r < 0)
        return r;
    out = open_memstream(&got.text, &len);
    r = out ? answer(a, fork, question, max_tokens, out, &got) : -ENOMEM;
    if (out && fclose(out) != 0 && r == 0)
        r = -ENOMEM;
    gist_close(fork);
    if (r < 0) {
        free(got.text);
        return r;
    }
    *ret = got;
    return 0;
}

/* --- counting --------------------------------------------------------------------------------- */

int ask_count(void *arg, const char *text, size_t len, size_t *ret_n)
{
    uint32_t *ids;
    int r = gist_tokenize(arg, text, len, 0, &ids, ret_n);

    if (r == 0)
        free(ids);
    return r;
}

/* By a text of one word, which is counted alone too. What a prompt has beyond its text: heads of
 * messages, dates, the question. */
int ask_overhead(gist_conn *c, const char *question, size_t *ret_n)
{
    static const char word[] = "one";
    const struct grid_cell full = { .compressor = GIST_FULL };
    const struct ask_text text = { .text = word };
    struct gist_usage usage;
    struct ask_session a;
    size_t n;
    int r = ask_count(c, word, sizeof(word) - 1, &n);

    if (r == 0)
        r = ask_begin(c, &full, NULL, &text, &a);
    if (r < 0)
        return r;
    r = append(c, a.s, question, true, &usage);
    if (r == 0)
        *ret_n = usage.prompt_tokens - n;
    ask_end(&a);
    return r;
}
