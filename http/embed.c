/* http/embed.c - embeddings: read, asked for, said. All in one call, without a job: there is one
 * answer, and nothing of it before it is whole. */

#include "http/embed.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* What a request of any of the three asks for, and what became of it. */
struct embed {
    const struct embed_call *call;
    const char *model; /* NULL: none was named */
    bool base64;
    uint32_t dimensions; /* 0: not said */
    struct gist_embed_opts opts;
    struct gist_span *spans; /* (n) */
    size_t n;
    struct mem mem;

    gist_conn *conn;
    bool done;
    uint64_t began_ns;
    struct problem *problem;
    struct text *body;
    void (*say)(struct embed *e, const struct gist_embeddings *all, const char *model);
};

/* --- reading ---------------------------------------------------------------------------------- */

/* Spans point into the parsed body, which outlives the call. */
static int add_text(struct embed *e, const struct json_object *v, const char *name)
{
    if (json_kind(v) != JSON_STRING)
        return problem_set(e->problem, PROBLEM_INVALID, name,
                           "`%s` holds %s: a string or an array of strings is expected", name,
                           field_type(v));
    e->spans[e->n++] = (struct gist_span){ json_text(v), json_len(v) };
    return 0;
}

static int add_ids(struct embed *e, const struct json_object *list, const char *name)
{
    const uint32_t *ids;

    if (field_ids(list, name, &e->mem, &ids, e->problem) < 0)
        return -1;
    e->spans[e->n++] = (struct gist_span){ ids, json_len(list) };
    return 0;
}

/* A text, texts, ids, lists of ids: of an array its first element says which. */
static int read_input(struct embed *e, const struct json_object *root, const char *name,
                      bool takes_ids)
{
    const struct json_object *v = json_get(root, name), *first;
    bool list = json_kind(v) == JSON_ARRAY, lists;
    size_t n = list ? json_len(v) : 1;
    int r = 0;

    if (!v || (list && n == 0))
        return problem_set(e->problem, PROBLEM_INVALID, name,
                           "there is no `%s`: a text, or an array of them, is expected", name);
    e->spans = mem_new(&e->mem, n, sizeof(*e->spans));
    if (!e->spans)
        return problem_no_memory(e->problem);
    first = list ? json_at(v, 0) : v;
    lists = takes_ids && list && json_kind(first) == JSON_ARRAY;
    if (lists || (takes_ids && list && json_kind(first) == JSON_INTEGER))
        e->opts.flags |= GIST_TOKENS;
    if (e->opts.flags & GIST_TOKENS && !lists)
        return add_ids(e, v, name);
    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct json_object *x = list ? json_at(v, i) : v;

        if (lists && json_kind(x) != JSON_ARRAY)
            r = problem_set(e->problem, PROBLEM_INVALID, name,
                            "`%s` has lists of token ids and something else", name);
        else
            r = lists ? add_ids(e, x, name) : add_text(e, x, name);
    }
    return r;
}

/* normalise: what the API does where nothing is said. */
static int read_extension(struct embed *e, const struct json_object *root, bool normalise)
{
    const char *pooling = "mean", *priority = "interactive";
    const struct json_object *x = NULL;

    if (field_object(root, "gistd", &x, e->problem) < 0)
        return -1;
    if (x && (field_text(x, "pooling", &pooling, e->problem) < 0 ||
              field_bool(x, "normalise", &normalise, e->problem) < 0 ||
              field_text(x, "priority", &priority, e->problem) < 0))
        return -1;
    e->opts.flags |= normalise ? GIST_NORMALISE : 0;
    if (strcmp(pooling, "last") == 0)
        e->opts.pooling = GIST_POOL_LAST;
    else if (strcmp(pooling, "mean") != 0)
        return problem_set(e->problem, PROBLEM_INVALID, "pooling",
                           "`pooling` is \"%s\": \"mean\" or \"last\" is expected", pooling);
    if (strcmp(priority, "background") == 0)
        e->opts.priority = GIST_BACKGROUND;
    else if (strcmp(priority, "interactive") != 0)
        return problem_set(e->problem, PROBLEM_INVALID, "priority",
                           "`priority` is \"%s\": \"interactive\" or \"background\" is expected",
                           priority);
    return 0;
}

static int read_common(struct embed *e, const struct json_object *root, const char *input,
                       bool takes_ids, bool normalise)
{
    e->opts.size = sizeof(e->opts);
    if (field_text(root, "model", &e->model, e->problem) < 0 ||
        field_count(root, "dimensions", 1, UINT32_MAX, &e->dimensions, e->problem) < 0 ||
        read_extension(e, root, normalise) < 0)
        return -1;
    return read_input(e, root, input, takes_ids);
}

/* OpenAI's own clients ask for base64 unless they are told otherwise. */
static int read_encoding(struct embed *e, const struct json_object *root)
{
    const char *format = "float";

    if (field_text(root, "encoding_format", &format, e->problem) < 0)
        return -1;
    e->base64 = strcmp(format, "base64") == 0;
    if (e->base64 || strcmp(format, "float") == 0)
        return 0;
    return problem_set(e->problem, PROBLEM_INVALID, "encoding_format",
                       "`encoding_format` is \"%s\": \"float\" or \"base64\" is expected", format);
}

/* --- saying ----------------------------------------------------------------------------------- */

/* JSON has no NaN and no infinity, and nobody computes with a row that has one. -1: it has. */
static int check_rows(const struct gist_embeddings *all, struct problem *p)
{
    for (size_t i = 0; i < all->n; i++)
        for (uint32_t k = 0; k < all->n_embd; k++)
            if (!isfinite(all->vectors[i * all->n_embd + k]))
                return problem_set(p, PROBLEM_INTERNAL, NULL,
                                   "the embedding of text %zu has %g as number %u: finite numbers "
                                   "are expected of the model, whose values overflow there",
                                   i, (double)all->vectors[i * all->n_embd + k], k);
    return 0;
}

/* By hand: a million numbers as values of JSON would take a hundred bytes each. */
static void say_numbers(struct text *t, const float *x, uint32_t n)
{
    text_add(t, "[", 1);
    for (uint32_t i = 0; i < n; i++)
        text_print(t, "%s%.9g", i ? "," : "", (double)x[i]);
    text_add(t, "]", 1);
}

/* Of the floats as they lie in memory, little-endian, three bytes to four digits. */
static void say_base64(struct text *t, const float *x, uint32_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *bytes = (const uint8_t *)x;
    size_t len = n * sizeof(*x);

    text_add(t, "\"", 1);
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t v = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                     (left > 2 ? bytes[i + 2] : 0);
        char four[4] = { digits[v >> 18], digits[v >> 12 & 63],
                         left > 1 ? digits[v >> 6 & 63] : '=', left > 2 ? digits[v & 63] : '=' };

        text_add(t, four, 4);
    }
    text_add(t, "\"", 1);
}

static void say_openai(struct embed *e, const struct gist_embeddings *all, const char *model)
{
    struct text *t = e->body;

    text_print(t, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < all->n; i++) {
        const float *x = all->vectors + i * all->n_embd;

        text_print(t, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i ? "," : "", i);
        (e->base64 ? say_base64 : say_numbers)(t, x, all->n_embd);
        text_add(t, "}", 1);
    }
    text_print(t, "],\"model\":");
    json_write_text(t, model);
    text_print(t, ",\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u}}",
               all->usage.prompt_tokens, all->usage.prompt_tokens);
}

static void say_ollama(struct embed *e, const struct gist_embeddings *all, const char *model)
{
    struct text *t = e->body;

    text_print(t, "{\"model\":");
    json_write_text(t, model);
    text_print(t, ",\"embeddings\":[");
    for (size_t i = 0; i < all->n; i++) {
        text_print(t, "%s", i ? "," : "");
        say_numbers(t, all->vectors + i * all->n_embd, all->n_embd);
    }
    text_print(t, "],\"total_duration\":%llu,\"load_duration\":0,\"prompt_eval_count\":%u}",
               (unsigned long long)(clock_ns() - e->began_ns), all->usage.prompt_tokens);
}

static void say_ollama_one(struct embed *e, const struct gist_embeddings *all, const char *model)
{
    (void)model;
    text_print(e->body, "{\"embedding\":");
    say_numbers(e->body, all->vectors, all->n_embd);
    text_add(e->body, "}", 1);
}

/* --- asking ----------------------------------------------------------------------------------- */

/* The vectors are libgist's and gone behind the callback: the body is written here. */
static void on_done(void *arg, int err, const struct gist_embeddings *all)
{
    struct embed *e = arg;
    struct gist_info info;

    if (!e->conn) /* it was given up */
        return;
    e->done = true;
    gist_info(e->conn, &info);
    if (err < 0)
        (void)problem_of_gist(e->problem, e->conn);
    else if (e->dimensions && e->dimensions != all->n_embd)
        (void)problem_set(e->problem, PROBLEM_UNSUPPORTED, "dimensions",
                          "`dimensions` is %u: this model's embeddings have %u, and are not cut",
                          e->dimensions, all->n_embd);
    else if (check_rows(all, e->problem) == 0)
        e->say(e, all, info.model);
}

/* Until it is done. 1: the client is gone. */
static int wait_done(struct embed *e)
{
    while (!e->done && !e->problem->kind) {
        struct pollfd p[] = { { gist_fd(e->conn), POLLIN, 0 },
                              { e->call->client_fd, POLLRDHUP, 0 },
                              { e->call->stop_fd, POLLIN, 0 } };

        if (p[0].fd < 0 || (poll(p, 3, -1) < 0 && errno != EINTR))
            return problem_set(e->problem, PROBLEM_INTERNAL, NULL, "waiting for gistd: %s",
                               strerror(errno));
        if (p[1].revents)
            return 1;
        if (p[2].revents)
            return problem_set(e->problem, PROBLEM_NO_DAEMON, NULL, "gist-http is being stopped");
        if (p[0].revents && gist_dispatch(e->conn) < 0 && !e->done)
            return problem_of_gist(e->problem, e->conn);
    }
    return e->problem->kind ? -1 : 0;
}

/* What finds its daemon gone finds out here: a ping more is cheap beside the texts. */
static int connect_embed(struct embed *e)
{
    bool fresh;

    if (pool_take(e->call->pool, &e->conn, &fresh, e->problem) < 0)
        return -1;
    if (!fresh && gist_ping(e->conn) < 0 &&
        pool_renew(e->call->pool, e->conn, &e->conn, e->problem) < 0) {
        e->conn = NULL;
        return -1;
    }
    return e->call->strict_model ? pool_check_model(e->conn, e->model, e->problem) : 0;
}

static int run(struct embed *e)
{
    gist_conn *c;
    int r = connect_embed(e);

    if (r == 0 && gist_embed_start(e->conn, e->spans, e->n, &e->opts, on_done, e, NULL) < 0)
        r = problem_of_gist(e->problem, e->conn);
    else if (r == 0)
        r = wait_done(e);
    /* The callback comes once more when a connection is dropped with its request open, and is to
     * see that nobody waits. */
    c = e->conn;
    e->conn = NULL;
    if (c && e->done && gist_error_code(c) != GIST_E_TRANSPORT)
        pool_put(e->call->pool, c);
    else if (c)
        pool_drop(e->call->pool, c); /* and with it what is still open there */
    if (r == 0 && e->body->lost)
        r = problem_unbuilt(e->problem);
    return r;
}

/* A body that was begun and is not whole goes nowhere. */
static int answer(struct embed *e, int read)
{
    int r = read < 0 ? -1 : run(e);

    mem_fini(&e->mem);
    if (r != 0)
        text_fini(e->body);
    return r;
}

static struct embed begin(const struct embed_call *call, struct text *body, struct problem *p)
{
    return (struct embed){ .call = call, .body = body, .problem = p, .began_ns = clock_ns() };
}

int embed_openai(const struct embed_call *call, const struct json_object *root,
                 struct text *ret_body, struct problem *p)
{
    struct embed e = begin(call, ret_body, p);
    int r = read_encoding(&e, root);

    e.say = say_openai;
    return answer(&e, r < 0 ? r : read_common(&e, root, "input", true, true));
}

/* Ollama cuts texts that are too long unless it is told not to; here they are refused. */
int embed_ollama(const struct embed_call *call, const struct json_object *root,
                 struct text *ret_body, struct problem *p)
{
    struct embed e = begin(call, ret_body, p);

    e.say = say_ollama;
    return answer(&e, read_common(&e, root, "input", false, true));
}

int embed_ollama_one(const struct embed_call *call, const struct json_object *root,
                     struct text *ret_body, struct problem *p)
{
    struct embed e = begin(call, ret_body, p);

    e.say = say_ollama_one;
    return answer(&e, read_common(&e, root, "prompt", false, false));
}
