/* http/tokens.c - a table by id. Two threads may ask for the same token at the same time: the one
 * that comes second finds it there, and both have the same text. */

#include "http/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tokens_init(struct tokens *t)
{
    *t = (struct tokens){ .n = 0 };
    (void)pthread_mutex_init(&t->lock, NULL);
}

static void clear(struct tokens *t)
{
    for (uint32_t i = 0; i < t->n; i++)
        free(t->texts[i]);
    free(t->texts);
    t->texts = NULL;
    t->n = 0;
}

void tokens_fini(struct tokens *t)
{
    clear(t);
    (void)pthread_mutex_destroy(&t->lock);
}

/* With the lock held: the table of this model, or none. */
static void choose_model(struct tokens *t, const struct gist_info *info)
{
    if (t->n == info->n_vocab && strcmp(t->digest, info->model_digest) == 0)
        return;
    clear(t);
    t->texts = calloc(info->n_vocab, sizeof(*t->texts));
    t->n = t->texts ? info->n_vocab : 0;
    (void)snprintf(t->digest, sizeof(t->digest), "%s", info->model_digest);
}

/* A copy: another model may take the table away at any time. */
static char *find(struct tokens *t, const struct gist_info *info, uint32_t id)
{
    char *text = NULL;

    (void)pthread_mutex_lock(&t->lock);
    choose_model(t, info);
    if (id < t->n && t->texts[id])
        text = strdup(t->texts[id]);
    (void)pthread_mutex_unlock(&t->lock);
    return text;
}

static void keep(struct tokens *t, const struct gist_info *info, uint32_t id, const char *text)
{
    (void)pthread_mutex_lock(&t->lock);
    choose_model(t, info);
    if (id < t->n && !t->texts[id])
        t->texts[id] = strdup(text);
    (void)pthread_mutex_unlock(&t->lock);
}

/* Where there was no memory for a table each is asked for again. */
char *tokens_text(struct tokens *t, gist_conn *c, uint32_t id)
{
    struct gist_info info;
    size_t len;
    char *text;

    gist_info(c, &info);
    text = find(t, &info, id);
    if (text || gist_detokenize(c, &id, 1, &text, &len) < 0)
        return text;
    keep(t, &info, id, text);
    return text;
}
