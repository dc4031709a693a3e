/* train/eval.c - what gists keep, in the words of held-out text: each measure with full attention,
 * with no more than a segment and the sinks before it, and with gists at each ratio, which lie
 * between the two.
 */
#include "train/eval.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* (n_tokens) of document d. */
static const uint32_t *document(const struct eval *e, uint32_t d)
{
    return e->ids + (size_t)d * e->n_tokens;
}

/* Before each sequence. -ECANCELED: somebody interrupts. A sequence is the longest that they wait.
 */
static int next(struct eval *e)
{
    if (e->tell)
        e->tell(e->arg, e->n_done, e->n_to_do);
    e->n_done++;
    return e->stop && *e->stop ? -ECANCELED : 0;
}

/* --- plain documents -------------------------------------------------------------------------- */

/* From the second segment on: the first has nothing before it, so all kinds say the same of it. */
static int mean_nll(struct eval *e, enum layout_kind kind, uint32_t ratio, double *ret)
{
    double sum = 0;
    uint64_t n = 0;

    for (uint32_t d = 0; d < e->n_docs; d++) {
        int r = next(e);

        if (r == 0)
            r = step_score(e->step, kind, ratio, document(e, d), e->seg_len, e->logp);
        if (r < 0)
            return r;
        for (uint32_t i = e->seg_len; i < e->n_tokens; i++, n++)
            sum -= e->logp[i];
    }
    *ret = sum / (double)n;
    return 0;
}

/* Each segment behind the first of each document, behind the beginning of the next document. A gist
 * that only said what kind of text it stands for would do as well behind another document. */
static int other_nll(struct eval *e, uint32_t ratio, double *ret)
{
    double sum = 0;
    uint64_t n = 0;

    for (uint32_t d = 0; d < e->n_docs; d++)
        for (uint32_t at = e->seg_len; at + e->seg_len <= e->n_tokens; at += e->seg_len) {
            int r = next(e);

            /* The document, then another one's beginning over what stands before the segment. */
            memcpy(e->mixed, document(e, d), e->n_tokens * sizeof(*e->mixed));
            memcpy(e->mixed, document(e, (d + 1) % e->n_docs), at * sizeof(*e->mixed));
            if (r == 0)
                r = step_score(e->step, LAYOUT_GISTS, ratio, e->mixed, at, e->logp);
            if (r < 0)
                return r;
            for (uint32_t i = at; i < at + e->seg_len; i++, n++)
                sum -= e->logp[i];
        }
    *ret = sum / (double)n;
    return 0;
}

/* --- recall ----------------------------------------------------------------------------------- */

/* Shares of tasks and of answers' tokens. A task counts when all of its answer is right. NaN: the
 * corpus has none. */
static int recalled(struct eval *e, enum layout_kind kind, uint32_t ratio, double *ret_tasks,
                    double *ret_tokens)
{
    uint32_t n_tasks = 0, n = 0, n_right = 0;

    *ret_tasks = *ret_tokens = NAN;
    for (uint32_t d = 0; d < e->n_recall; d++) {
        size_t at = (size_t)d * e->n_tokens;
        struct step_recalled one;
        int r = next(e);

        if (r == 0)
            r = step_recall(e->step, kind, ratio, e->recall_ids + at, e->recall_carries + at, &one);
        if (r < 0)
            return r;
        n_tasks += one.n > 0 && one.n_right == one.n;
        n_right += one.n_right;
        n += one.n;
    }
    if (n > 0) {
        *ret_tasks = (double)n_tasks / e->n_recall;
        *ret_tokens = (double)n_right / n;
    }
    return 0;
}

/* Of each gist, by the decoder of loss-ae. */
static int rebuilt(struct eval *e, uint32_t ratio, double *ret)
{
    double sum = 0;

    for (uint32_t d = 0; d < e->n_docs; d++) {
        double share;
        int r = next(e);

        if (r == 0)
            r = step_rebuild(e->step, ratio, document(e, d), &share);
        if (r < 0)
            return r;
        sum += share;
    }
    *ret = sum / e->n_docs;
    return 0;
}

/* --- open ------------------------------------------------------------------------------------- */

/* Room in a sequence: all but the begin-of-text token, where the model wants one. */
static uint32_t room(const struct eval *e, const struct corpus_info *info)
{
    return e->n_tokens - (info->bos != CORPUS_NONE);
}

/* n: room in a sequence. Text all of which carries loss, and enough of it. */
static bool is_plain(const struct corpus_document *doc, uint32_t n)
{
    return doc->n_loss == doc->n_tokens && doc->n_tokens >= n;
}

/* A prompt and its answer, whole, with more than two segments in all: else nothing of it is behind
 * gists. */
static bool is_recall(const struct eval *e, const struct corpus_document *doc, uint32_t n)
{
    return doc->n_loss < doc->n_tokens && doc->n_loss > 0 && doc->n_tokens <= n &&
           doc->n_tokens > 2 * e->seg_len;
}

/* As sequences that are trained on begin (train/data/corpus.h, S3). carries may be NULL; what is
 * behind the document's end is eos. */
static void take(struct eval *e, uint64_t d, const struct corpus_info *info, uint32_t *ids,
                 uint8_t *carries)
{
    uint32_t at = e->n_tokens - room(e, info), n = room(e, info);
    struct corpus_document doc;

    corpus_document(e->corpus, d, &doc);
    /* Recall tasks end where they end; plain text fills the sequence. */
    if (doc.n_tokens < n)
        n = (uint32_t)doc.n_tokens;
    if (at)
        ids[0] = info->bos;
    if (at && carries)
        carries[0] = 0;
    corpus_read(e->corpus, d, 0, n, ids + at, carries ? carries + at : NULL);
    for (uint32_t i = at + n; i < e->n_tokens; i++) {
        ids[i] = info->eos;
        if (carries)
            carries[i] = 0;
    }
}

/* At most n of those that fit, spread over the corpus: its order has kinds of text beside each
 * other. */
static uint32_t take_documents(struct eval *e, bool recall, uint32_t n)
{
    struct corpus_info info;
    uint64_t n_fit = 0, seen = 0;
    uint32_t taken = 0;

    corpus_info(e->corpus, &info);
    /* Counts those that fit, then takes them at even distances. */
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t d = 0; d < info.n_documents; d++) {
            size_t off = (size_t)taken * e->n_tokens;
            struct corpus_document doc;

            corpus_document(e->corpus, d, &doc);
            if (!(recall ? is_recall(e, &doc, room(e, &info)) : is_plain(&doc, room(e, &info))))
                continue;
            if (pass == 0) {
                n_fit++;
            } else if (seen++ * n / n_fit >= taken && taken < n) {
                take(e, d, &info, recall ? e->recall_ids + off : e->ids + off,
                     recall ? e->recall_carries + off : NULL);
                taken++;
            }
        }
    return taken;
}

/* What training does not change, and gists as they begin: once for a run, and not again when it
 * goes on. */
static int baselines(struct eval *e)
{
    struct run_log_eval *v = &e->last;
    int r;

    /* For the bar: sequences in all, of equal cost or nearly. */
    e->n_done = 0;
    e->n_to_do = (2 + e->n_ratios) * e->n_docs + 2 * e->n_recall;
    r = mean_nll(e, LAYOUT_FULL, 0, &v->full);
    if (r == 0)
        r = mean_nll(e, LAYOUT_NONE, 0, &v->none);
    if (r == 0)
        r = recalled(e, LAYOUT_FULL, 0, &v->recalled_full, &v->recalled_tokens_full);
    if (r == 0)
        r = recalled(e, LAYOUT_NONE, 0, &v->recalled_none, &v->recalled_tokens_none);
    for (uint32_t i = 0; r == 0 && i < e->n_ratios; i++)
        r = mean_nll(e, LAYOUT_GISTS, e->ratios[i], &v->untrained[i]);
    return r;
}

/* Of the log of the run that this one goes on from. */
static void copy_baselines(struct run_log_eval *v, const struct run_log_eval *known)
{
    v->full = known->full;
    v->none = known->none;
    v->recalled_full = known->recalled_full;
    v->recalled_none = known->recalled_none;
    v->recalled_tokens_full = known->recalled_tokens_full;
    v->recalled_tokens_none = known->recalled_tokens_none;
    memcpy(v->untrained, known->untrained, sizeof(v->untrained));
}

int eval_open(struct eval *e, const struct run_log_eval *known, struct why *why)
{
    int r;

    run_log_eval_init(&e->last);
    e->last.n_ratios = e->n_ratios;
    memcpy(e->last.ratios, e->ratios, e->n_ratios * sizeof(*e->ratios));
    e->ids = malloc((size_t)e->n_docs * e->n_tokens * sizeof(*e->ids));
    /* One more than there may be, so that none asked for is no NULL. */
    e->recall_ids = malloc(((size_t)e->n_recall + 1) * e->n_tokens * sizeof(*e->recall_ids));
    e->recall_carries = malloc(((size_t)e->n_recall + 1) * e->n_tokens);
    e->mixed = malloc(e->n_tokens * sizeof(*e->mixed));
    e->logp = malloc(e->n_tokens * sizeof(*e->logp));
    if (!e->ids || !e->recall_ids || !e->recall_carries || !e->mixed || !e->logp)
        return why_set(why, -ENOMEM, "no memory");
    /* The corpus may have fewer than are asked for. */
    e->n_docs = take_documents(e, false, e->n_docs);
    e->n_recall = take_documents(e, true, e->n_recall);
    if (e->n_docs == 0)
        return why_set(why, -EINVAL, "no held-out document is as long as a sequence, %u tokens",
                       e->n_tokens);
    if (known) {
        copy_baselines(&e->last, known);
        return 0;
    }
    r = baselines(e);
    if (r == -ECANCELED)
        return why_set(why, r, "interrupted before the first step");
    return r < 0 ? why_set(why, r, "the evaluation failed: %s", strerror(-r)) : 0;
}

void eval_close(struct eval *e)
{
    free(e->ids);
    free(e->recall_ids);
    free(e->recall_carries);
    free(e->mixed);
    free(e->logp);
    e->ids = e->recall_ids = e->mixed = NULL;
    e->recall_carries = NULL;
    e->logp = NULL;
}

int eval_run(struct eval *e, bool thorough)
{
    uint32_t n_each = e->n_docs * (1 + e->rebuilds) + e->n_recall;
    int r = 0;

    /* A document alone has no other one. */
    thorough = thorough && e->n_docs > 1;
    if (thorough)
        n_each += e->n_docs * (e->n_tokens / e->seg_len - 1);
    e->n_done = 0;
    e->n_to_do = e->n_ratios * n_each;
    for (uint32_t i = 0; r == 0 && i < e->n_ratios; i++) {
        r = mean_nll(e, LAYOUT_GISTS, e->ratios[i], &e->last.nll[i]);
        if (r == 0)
            r = recalled(e, LAYOUT_GISTS, e->ratios[i], &e->last.recalled[i],
                         &e->last.recalled_tokens[i]);
        if (r == 0 && e->rebuilds)
            r = rebuilt(e, e->ratios[i], &e->last.rebuilt[i]);
        if (r == 0 && thorough)
            r = other_nll(e, e->ratios[i], &e->last.other[i]);
    }
    return r;
}

/* Per cent of the way from nothing but the segment to full attention. */
static double closed(const struct run_log_eval *v, double nll)
{
    return v->none > v->full ? 100 * (v->none - nll) / (v->none - v->full) : 0;
}

void eval_print(const struct eval *e, char *ret, size_t cap)
{
    const struct run_log_eval *v = &e->last;
    /* What is too long is cut. */
    FILE *f = fmemopen(ret, cap, "w");

    if (!f)
        return;
    fprintf(f, "held out (%u): full %.3f, none %.3f", e->n_docs, v->full, v->none);
    for (uint32_t i = 0; i < v->n_ratios; i++) {
        fprintf(f, "; %u: %.3f, %.1f %%", v->ratios[i], v->nll[i], closed(v, v->nll[i]));
        if (!isnan(v->recalled[i]))
            fprintf(f, ", recall %.0f %% (tokens %.0f %%)", 100 * v->recalled[i],
                    100 * v->recalled_tokens[i]);
        if (!isnan(v->rebuilt[i]))
            fprintf(f, ", rebuilt %.0f %%", 100 * v->rebuilt[i]);
    }
    if (e->n_recall)
        fprintf(f, "; recall (%u): full %.0f %% (tokens %.0f %%), none %.0f %% (tokens %.0f %%)",
                e->n_recall, 100 * v->recalled_full, 100 * v->recalled_tokens_full,
                100 * v->recalled_none, 100 * v->recalled_tokens_none);
    fclose(f);
}
