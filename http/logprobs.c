/* http/logprobs.c - two queues that belong together: tokens as they are drawn, and pieces of text
 * that some of them make. A piece takes the tokens that came since the last one. */

#include "http/logprobs.h"

#include <stdlib.h>
#include <string.h>

/* JSON has no number for log 0; OpenAI's clients know this one. */
#define LOWEST (-9999.0)

struct logprobs_kept {
    struct logprobs_kept *next;
    size_t begin, end;
    struct json_object *list;
};

static void drop_kept(struct logprobs *l)
{
    struct logprobs_kept *k = l->kept;

    l->kept = k->next;
    json_free(k->list);
    free(k);
}

void logprobs_fini(struct logprobs *l)
{
    while (l->kept)
        drop_kept(l);
    text_fini(&l->texts);
    free(l->pieces);
    free(l->tokens);
    *l = (struct logprobs){ .n_pieces = 0 };
}

void logprobs_clear(struct logprobs *l)
{
    l->texts.len = 0;
    l->n_pieces = l->n_tokens = l->first = 0;
}

/* All of what is left moves: a piece or two, unless whoever reads is slow. */
void logprobs_told(struct logprobs *l)
{
    struct logprobs_piece p = l->pieces[0];

    l->texts.len -= p.len;
    l->n_tokens -= p.n_tokens;
    l->first -= p.n_tokens;
    l->n_pieces--;
    memmove(l->texts.bytes, l->texts.bytes + p.len, l->texts.len);
    if (l->tokens)
        memmove(l->tokens, l->tokens + p.n_tokens, l->n_tokens * sizeof(*l->tokens));
    memmove(l->pieces, l->pieces + 1, l->n_pieces * sizeof(*l->pieces));
}

/* Room for one more. */
static bool grow(void **mem, size_t n, size_t *cap, size_t size)
{
    size_t more = *cap ? 2 * *cap : 16;
    void *to;

    if (n < *cap)
        return true;
    to = reallocarray(*mem, more, size);
    if (!to)
        return false;
    *mem = to;
    *cap = more;
    return true;
}

/* A copy: the arrays are libgist's, for the time of the callback. */
void logprobs_token(struct logprobs *l, const struct gist_logprob *token)
{
    struct logprobs_token *to;

    if (!grow((void **)&l->tokens, l->n_tokens, &l->cap_tokens, sizeof(*l->tokens))) {
        l->lost = true;
        return;
    }
    to = &l->tokens[l->n_tokens++];
    to->id = token->id;
    to->logprob = token->logprob;
    to->n_top = token->n_top < LOGPROBS_TOP_MAX ? token->n_top : LOGPROBS_TOP_MAX;
    if (to->n_top > 0) {
        memcpy(to->top_ids, token->top_ids, to->n_top * sizeof(*to->top_ids));
        memcpy(to->top, token->top_logprobs, to->n_top * sizeof(*to->top));
    }
}

void logprobs_piece(struct logprobs *l, const char *text, size_t len)
{
    if (!grow((void **)&l->pieces, l->n_pieces, &l->cap_pieces, sizeof(*l->pieces))) {
        l->lost = true;
        return;
    }
    text_add(&l->texts, text, len);
    l->lost |= l->texts.lost;
    l->pieces[l->n_pieces++] = (struct logprobs_piece){ len, l->n_tokens - l->first };
    l->first = l->n_tokens;
}

/* --- telling ---------------------------------------------------------------------------------- */

int logprobs_keep(struct logprobs *l, size_t len, struct json_object *list)
{
    struct logprobs_kept *k = calloc(1, sizeof(*k));

    if (!k) {
        json_free(list);
        return -1;
    }
    *k = (struct logprobs_kept){ NULL, l->kept_len, l->kept_len + len, list };
    l->kept_len += len;
    if (l->kept)
        *l->kept_end = k;
    else
        l->kept = k;
    l->kept_end = &k->next;
    return 0;
}

/* A piece of which a part is a call's is told with the first text of it. */
struct json_object *logprobs_of(struct logprobs *l, size_t from, size_t to)
{
    struct json_object *all = json_make("[]");

    while (all && l->kept && l->kept->begin < to) {
        if ((l->kept->end > from || l->kept->begin >= from) &&
            json_join(all, json_share(l->kept->list)) < 0) {
            json_free(all);
            all = NULL;
        }
        drop_kept(l);
    }
    return all;
}

static struct json_object *bytes_of(const char *text)
{
    struct json_object *list = json_make("[]");
    int r = list ? 0 : -1;

    for (; r == 0 && *text; text++)
        r = json_add(list, json_make("i", (int)(unsigned char)*text));
    if (r == 0)
        return list;
    json_free(list);
    return NULL;
}

/* As JSON has numbers; one that is none is as unlikely. */
static double number(float logprob)
{
    return logprob > (float)LOWEST && logprob <= 0 ? (double)logprob : logprob > 0 ? 0 : LOWEST;
}

/* May ask the daemon for the token's text. */
static struct json_object *one(uint32_t id, float logprob, struct tokens *t, gist_conn *c)
{
    char *text = tokens_text(t, c, id);
    struct json_object *o = NULL;

    if (text)
        o = json_make("{s:s, s:f, s:n}", "token", text, "logprob", number(logprob), "bytes");
    /* They are null where a token is only part of a character. */
    if (o && !strstr(text, "\xef\xbf\xbd"))
        o = json_with(o, "bytes", bytes_of(text));
    free(text);
    return o;
}

struct json_object *logprobs_json(const struct logprobs_token *tokens, size_t n, struct tokens *t,
                                  gist_conn *c)
{
    struct json_object *list = json_make("[]");
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        struct json_object *o = one(tokens[i].id, tokens[i].logprob, t, c), *top = json_make("[]");

        for (uint32_t k = 0; k < tokens[i].n_top; k++)
            r |= json_add(top, one(tokens[i].top_ids[k], tokens[i].top[k], t, c));
        r |= json_set(o, "top_logprobs", top);
        r |= json_add(list, o);
    }
    if (r == 0)
        return list;
    json_free(list);
    return NULL;
}

/* An object by text; NULL: out of memory. */
static struct json_object *map_of(const struct json_object *list)
{
    struct json_object *map = json_make("{}");

    for (size_t i = 0; map && i < json_len(list); i++) {
        const struct json_object *o = json_at(list, i);

        map = json_with(map, json_text(json_get(o, "token")),
                        json_make("f", json_real(json_get(o, "logprob"))));
    }
    return map;
}

/* Four arrays side by side, of which top_logprobs holds an object by text: tokens of the same text
 * are one there, as in OpenAI's. */
struct json_object *logprobs_flat(const struct json_object *content, size_t offset)
{
    struct json_object *names = json_make("[]"), *own = json_make("[]"), *top = json_make("[]"),
                       *at = json_make("[]"), *all;
    int r = 0;

    for (size_t i = 0; i < json_len(content); i++) {
        const struct json_object *o = json_at(content, i);
        const char *name = json_text(json_get(o, "token"));

        r |= json_add(names, json_make("s", name));
        r |= json_add(own, json_make("f", json_real(json_get(o, "logprob"))));
        r |= json_add(at, json_make("I", (int64_t)offset));
        r |= json_add(top, map_of(json_get(o, "top_logprobs")));
        offset += strlen(name);
    }
    all = json_make("{s:o, s:o, s:o, s:o}", "tokens", names, "token_logprobs", own, "top_logprobs",
                    top, "text_offset", at);
    if (r == 0)
        return all;
    json_free(all);
    return NULL;
}
