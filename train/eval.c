#include "train/eval.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int mean_nll(struct eval *e, enum layout_kind kind, uint32_t ratio, double *ret)
{
    double sum = 0;
    uint64_t n = 0;

    for (uint32_t d = 0; d < e->n_docs; d++) {
        int r = step_score(e->step, kind, ratio, e->ids + (size_t)d * e->n_tokens, e->logp);

        if (r < 0)
            return r;
        for (uint32_t i = e->seg_len; i < e->n_tokens; i++, n++)
            sum -= e->logp[i];
    }
    *ret = sum / (double)n;
    return 0;
}

/* Documents that are long enough, spread over the corpus: its order has kinds of text beside each other. */
static uint32_t take_documents(struct eval *e)
{
    struct corpus_info info;
    uint64_t n_long = 0, seen = 0;
    uint32_t n = 0;

    corpus_info(e->corpus, &info);
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t d = 0; d < info.n_documents; d++) {
            struct corpus_document doc;

            corpus_document(e->corpus, d, &doc);
            if (doc.n_tokens < e->n_tokens || doc.n_loss < doc.n_tokens)
                continue;
            if (pass == 0)
                n_long++;
            else if (seen++ * e->n_docs / n_long >= n && n < e->n_docs)
                corpus_read(e->corpus, d, 0, e->n_tokens, e->ids + (size_t)n++ * e->n_tokens, NULL);
        }
    return n;
}

int eval_open(struct eval *e, struct why *why)
{
    int r;

    e->ids = malloc((size_t)e->n_docs * e->n_tokens * sizeof(*e->ids));
    e->logp = malloc(e->n_tokens * sizeof(*e->logp));
    if (!e->ids || !e->logp)
        return why_set(why, -ENOMEM, "no memory");
    e->n_docs = take_documents(e);
    if (e->n_docs == 0)
        return why_set(why, -EINVAL, "no held-out document has the %u tokens of a sequence",
                       e->n_tokens);
    r = mean_nll(e, LAYOUT_FULL, 0, &e->full);
    if (r == 0)
        r = mean_nll(e, LAYOUT_NONE, 0, &e->none);
    return r < 0 ? why_set(why, r, "the evaluation failed: %s", strerror(-r)) : 0;
}

void eval_close(struct eval *e)
{
    free(e->ids);
    free(e->logp);
    e->ids = NULL;
    e->logp = NULL;
}

int eval_run(struct eval *e)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < e->n_ratios; i++)
        r = mean_nll(e, LAYOUT_GISTS, e->ratios[i], &e->nll[i]);
    return r;
}

static double closed(const struct eval *e, uint32_t i)
{
    return e->none > e->full ? (e->none - e->nll[i]) / (e->none - e->full) : 0;
}

void eval_print(const struct eval *e, FILE *f)
{
    fprintf(f, "held out, %u documents: full %.4f, none %.4f;", e->n_docs, e->full, e->none);
    for (uint32_t i = 0; i < e->n_ratios; i++)
        fprintf(f, " %u: %.4f (%.1f %%)", e->ratios[i], e->nll[i], 100 * closed(e, i));
    fputc('\n', f);
}

void eval_print_json(const struct eval *e, uint64_t step, uint64_t tokens, FILE *f)
{
    fprintf(f, "{\"step\":%llu,\"tokens\":%llu,\"heldout\":{\"full\":%.6f,\"none\":%.6f",
            (unsigned long long)step, (unsigned long long)tokens, e->full, e->none);
    for (uint32_t i = 0; i < e->n_ratios; i++)
        fprintf(f, ",\"%u\":%.6f", e->ratios[i], e->nll[i]);
    fprintf(f, "}}\n");
}
