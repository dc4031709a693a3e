#include "daemon/served.h"

#include "daemon/log.h"
#include "daemon/prefix.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* The names that this CPU has, with commas between them. */
static const char *kernels_here(char *ret, size_t cap)
{
    size_t n = 0;

    ret[0] = '\0';
    for (unsigned i = 0; kernels_name(i) && n < cap; i++)
        n += (size_t)snprintf(ret + n, cap - n, "%s%s", i ? ", " : "", kernels_name(i));
    return ret;
}

static int pick_kernels(struct served *b, const struct config *c, struct why *why)
{
    char name[16], here[64];
    int r = kernels_pick(config_choice("cpu", c->cpu, name, sizeof(name)), &b->kernels);

    if (r == -ENOTSUP)
        return why_set(why, r, "option cpu: this CPU has no %s; it has %s", name,
                       kernels_here(here, sizeof(here)));
    return r < 0 ? why_set(why, r, "option cpu: there are no kernels %s", name) : 0;
}

static int open_workers(struct served *b, const struct config *c, struct why *why)
{
    uint32_t n = c->threads ? c->threads : place_n_cpus();
    int r;

    if (n > WORKERS_MAX)
        n = WORKERS_MAX;
    r = workers_open(n, c->pin, &b->workers);
    return r < 0 ? why_set(why, r, "%u computing threads: %s", n, strerror(-r)) : 0;
}

static int choose_context(struct served *b, const struct config *c, struct why *why)
{
    uint32_t window = b->model->n_ctx_train;

    if (c->context > window)
        return why_set(why, -EINVAL,
                       "option context: found %u, allowed is up to %u, the window of this model",
                       c->context, window);
    b->context_max = c->context ? c->context : window;
    if (b->context_max > SEQ_TOKENS_MAX)
        b->context_max = SEQ_TOKENS_MAX;
    return 0;
}

static size_t longest_token(const struct vocab *v)
{
    size_t most = 0, len;

    for (uint32_t i = 0; i < vocab_size(v); i++) {
        (void)vocab_bytes(v, i, &len);
        if (len > most)
            most = len;
    }
    return most;
}

uint32_t served_pages_free(const struct served *b)
{
    return b->pool.n_free + b->pool.n_cached;
}

const struct adapter *served_adapter(const struct served *b, const char *name)
{
    for (uint32_t i = 0; i < b->n_adapters; i++)
        if (strcmp(b->adapters[i]->name, name) == 0)
            return b->adapters[i];
    return NULL;
}

size_t served_adapter_bytes(const struct served *b)
{
    size_t n = 0;

    for (uint32_t i = 0; i < b->n_adapters; i++)
        n += b->adapters[i]->mem_len;
    return n;
}

static int open_adapter(struct served *b, const char *path, struct why *why)
{
    struct adapter *a;
    int r;

    if (b->n_adapters == SERVED_ADAPTERS_MAX)
        return why_set(why, -EINVAL, "option adapter: found more than %u files",
                       SERVED_ADAPTERS_MAX);
    r = adapter_open(path, b->model, &a, why);
    if (r < 0)
        return r;
    if (served_adapter(b, a->name) || strchr(a->name, ' '))
        r = why_set(why, -EINVAL,
                    "%s: found the name \"%s\", expected one without spaces that no other "
                    "adapter has",
                    path, a->name);
    if (r < 0) {
        adapter_close(a);
        return r;
    }
    (void)snprintf(b->adapter_names + strlen(b->adapter_names),
                   sizeof(b->adapter_names) - strlen(b->adapter_names), "%s%s",
                   b->n_adapters ? " " : "", a->name);
    b->adapters[b->n_adapters++] = a;
    return 0;
}

static int open_adapters(struct served *b, const char *paths, struct why *why)
{
    char path[PATH_MAX];
    int r = 0;

    while (r == 0 && *paths) {
        size_t n = strcspn(paths, ":");

        if (n >= sizeof(path))
            return why_set(why, -ENAMETOOLONG, "option adapter: found a path of %zu bytes", n);
        memcpy(path, paths, n);
        path[n] = '\0';
        r = n ? open_adapter(b, path, why) : 0;
        paths += n + (paths[n] == ':');
    }
    return r;
}

int served_load(struct served *b, const struct config *c, const struct model_progress *progress,
                struct why *why)
{
    int r;

    *b = (struct served){ .model = NULL };
    r = pick_kernels(b, c, why);
    if (r == 0)
        r = open_workers(b, c, why);
    if (r == 0)
        r = model_open(c->model, b->workers, progress, &b->model, why);
    if (r == 0)
        r = open_adapters(b, c->adapters, why);
    if (r == 0)
        r = vocab_open(b->model->file, &b->vocab, why);
    if (r == 0 && vocab_size(b->vocab) != b->model->n_vocab)
        r = why_set(why, -EINVAL,
                    "%s: found %u tokens in the vocabulary, expected the %u of the embedding",
                    c->model, vocab_size(b->vocab), b->model->n_vocab);
    if (r == 0)
        r = choose_context(b, c, why);
    if (r < 0) {
        served_close(b);
        return r;
    }
    b->token_max = longest_token(b->vocab);
    r = chat_open(b->model->file, &b->chat, &b->chat_why);
    if (r == -ENOENT)
        (void)why_set(&b->chat_why, r, "the model has no chat template");
    if (c->mlock && mlock(b->model->mem, b->model->mem_len) < 0)
        log_warning("weights are not locked in memory: %s", strerror(errno));
    return 0;
}

static int open_compressor(struct served *b)
{
    int r = move_open(b->model, b->kernels, b->workers, forward_rotary(b->forward), &b->move);
    struct mover mover;

    if (r < 0)
        return r;
    mover = move_mover(b->move);
    return compress_open(b->model, &mover, &b->compressor);
}

int served_start(struct served *b, const struct config *c, struct why *why)
{
    static const enum kv_type kinds[] = {
        [CONFIG_KV_F16] = KV_F16, [CONFIG_KV_F32] = KV_F32, [CONFIG_KV_Q8_0] = KV_Q8_0
    };
    enum kv_type kv = kinds[c->kv_type];
    uint64_t pages;
    int r;

    r = forward_open(b->model, b->kernels, b->workers, c->batch_tokens, &b->forward, why);
    if (r == 0) {
        r = open_compressor(b);
        if (r < 0)
            (void)why_set(why, r, "no memory for compressing");
    }
    if (r == 0)
        r = pool_open(&b->pool, b->model, kv, c->kv_bytes, c->mlock, why);
    if (r == 0 && c->prefix_cache && prefix_open(&b->pool, &b->prefix) < 0)
        r = why_set(why, -ENOMEM, "no memory for the prefixes of %u pages", b->pool.n_pages);
    if (r < 0)
        return r;
    if (c->mlock && !b->pool.place.locked)
        log_warning("context memory is not locked: the limit of locked memory is too low");
    pages = c->client_kv_bytes ? c->client_kv_bytes / b->pool.page_bytes : b->pool.n_pages;
    b->client_pages = pages < b->pool.n_pages ? (uint32_t)pages : b->pool.n_pages;
    return 0;
}

void served_close(struct served *b)
{
    prefix_close(b->prefix);
    pool_close(&b->pool);
    compress_close(b->compressor);
    move_close(b->move);
    forward_close(b->forward);
    workers_close(b->workers);
    chat_close(b->chat);
    vocab_close(b->vocab);
    for (uint32_t i = 0; i < b->n_adapters; i++)
        adapter_close(b->adapters[i]);
    model_close(b->model);
    *b = (struct served){ .model = NULL };
}
