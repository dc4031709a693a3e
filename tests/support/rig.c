#include "tests/support/rig.h"
#include "tests/support/near.h"

#include "tests/support/backend_fenced.h"
#include "tests/support/backend_shim.h"
#include "tests/support/sanitized.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *rig_cpu(void)
{
    const char *cpu = getenv("GISTD_CPU");

    return cpu && *cpu ? cpu : "auto";
}

const struct backend_ops *rig_backend(void)
{
    const char *name = getenv("GISTD_TEST_BACKEND");

    if (!name || !*name || strcmp(name, "cpu") == 0)
        return &backend_cpu;
    if (strcmp(name, "cuda-shim") == 0)
        return backend_library("libgistd-cuda-shim.so");
    if (strcmp(name, "cuda") == 0)
        return backend_library("libgistd-cuda.so");
    if (strcmp(name, "fenced") == 0)
        return &backend_fenced;
    (void)fprintf(stderr, "GISTD_TEST_BACKEND: found %s, expected cpu, fenced, cuda-shim or cuda\n",
                  name);
    abort();
}

const char *rig_table(unsigned i)
{
    if (rig_backend() == &backend_cpu)
        return i < SANITIZED_TABLES ? kernels_name(i) : NULL;
    return i == 0 ? "auto" : NULL;
}

bool rig_slow(void)
{
    const char *name = getenv("GISTD_TEST_BACKEND");

    return name && strcmp(name, "cuda-shim") == 0;
}

bool rig_exact(const struct rig *r)
{
    struct backend_info info;

    r->backend->ops->info(r->backend, &info);
    return info.exact_rows;
}

int rig_open(struct rig *r, const struct rig_opts *opts, struct why *why)
{
    struct backend_options o = { .cpu = strcmp(opts->cpu, "auto") == 0 ? rig_cpu() : opts->cpu,
                                 .devices = opts->devices,
                                 .split = opts->split,
                                 .threads = opts->threads,
                                 .max_rows = opts->max_batch };
    struct model_options mo = { .images = opts->images,
                                .weight_bytes = opts->weight_bytes,
                                .io = opts->io };
    struct backend_info info;
    uint64_t pages;
    int err;

    *r = (struct rig){ .max_batch = opts->max_batch };
    err = backend_open(opts->backend ? opts->backend : rig_backend(), &o, &r->backend, why);
    if (err < 0)
        return err;
    r->backend->ops->info(r->backend, &info);
    err = kernels_pick(info.cpu, &r->kernels);
    if (err == 0)
        err = model_open_as(opts->model, r->backend, &mo, &r->model, why);
    if (err < 0)
        goto fail;
    err = r->backend->ops->set_model(r->backend, r->model, why);
    if (err < 0)
        goto fail;
    pages = (opts->max_tokens + POOL_PAGE_TOKENS - 1) / POOL_PAGE_TOKENS;
    err = pool_open(&r->pool, r->backend, r->model, opts->kv,
                    pages * pool_page_bytes(r->model, opts->kv), why);
    if (err < 0)
        goto fail;
    r->account.limit = r->pool.n_pages;
    err = forward_open(&r->forward, r->model, r->backend, opts->max_batch, r->pool.n_pages);
    if (err < 0)
        goto fail;
    return 0;

fail:
    rig_close(r);
    return why_set(why, err, "%s: can't be set up", opts->model);
}

void rig_close(struct rig *r)
{
    forward_close(&r->forward);
    pool_close(&r->pool);
    model_close(r->model);
    backend_close(r->backend);
    *r = (struct rig){ 0 };
}

int rig_seq(struct rig *r, uint32_t max_tokens, uint32_t seg_len, uint32_t pos0, struct seq *ret)
{
    return seq_open(ret, &r->pool, &r->account, max_tokens, seg_len, pos0);
}

int rig_feed(struct rig *r, struct seq *s, const uint32_t *ids, uint32_t n, uint32_t chunk,
             float *ret)
{
    for (uint32_t at = 0; at < n; at += chunk) {
        struct forward_run run = { .seq = s, .tokens = ids + at, .want = FORWARD_WANT_ALL };
        uint32_t n_out;
        int err;

        run.n_tokens = n - at < chunk ? n - at : chunk;
        err = seq_reserve(s, run.n_tokens);
        if (err < 0)
            return err;
        err = forward_step(&r->forward, &run, 1, NULL, &n_out);
        if (err < 0)
            return err;
        err = forward_logits(&r->forward, 0, n_out, ret + (size_t)at * r->model->n_vocab);
        if (err < 0)
            return err;
    }
    return 0;
}

double rig_logprob(const float *row, uint32_t n_vocab, uint32_t id)
{
    double max = row[0], sum = 0;

    for (uint32_t i = 1; i < n_vocab; i++)
        max = row[i] > max ? row[i] : max;
    for (uint32_t i = 0; i < n_vocab; i++)
        sum += exp(row[i] - max);
    return row[id] - max - log(sum);
}

double rig_distance(const struct ref *ref, const float *logits)
{
    uint32_t n_vocab = ref->n_vocab;
    double worst = 0;

    for (uint32_t i = 0; i + 1 < ref->n_tokens; i++) {
        double p = rig_logprob(logits + (size_t)i * n_vocab, n_vocab, ref->ids[i + 1]);

        worst = near_worse(worst, p, (double)ref->logprobs[i + 1]);
    }
    for (uint32_t r = 0; r < ref->n_rows; r++)
        worst = near_worst(worst, logits + (size_t)ref->row_pos[r] * n_vocab,
                           ref->rows + (size_t)r * n_vocab, n_vocab);
    return worst;
}
