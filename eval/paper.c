/* Copied from the paper by hand, as text: they are shown and never computed with. */
#include "eval/paper.h"

#define COLUMNS_MAX 6u
#define ROWS_MAX    13u

static const struct table {
    const char *about;
    const char *rows[ROWS_MAX][COLUMNS_MAX]; /* the first: names of columns */
} tables[PAPER__N] = {
    [PAPER_SYNTHETIC] = { "synthetic recall (JSON KV, RULER's multi-key needle, UUID and "
                          "multi-value; SubEM, %), "
                          "Llama3.1-8B at 16K, its tables 2 and 5",
                          { { "ratio", "4", "8", "16", "32" },
                            { "full attention", "93.9", "93.9", "93.9", "93.9" },
                            { "Coarse-Rec", "11.2", "11.2", "11.2", "11.1" },
                            { "Coarse-KV", "14.2", "13.5", "13.1", "12.2" },
                            { "Fine-KV", "40.6", "26.9", "13.8", "11.9" },
                            { "Fine-KV, autoencoding and token importance", "62.1", "35.2", "14.8",
                              "13.1" } } },
    [PAPER_SURPRISE] = { "lost if surprise (recall, %), Fine-KV on Llama3.1-8B, its table 4",
                         { { "ratio", "4", "8", "16", "32" },
                           { "word, relevant subject", "89.8", "50.7", "26.0", "19.6" },
                           { "word, irrelevant", "89.6", "35.8", "18.0", "16.8" },
                           { "number, relevant subject", "84.5", "69.2", "26.3", "17.2" },
                           { "number, irrelevant", "84.4", "59.0", "20.9", "16.6" } } },
    [PAPER_PREFIX] = { "lost along the way (32-digit UUIDs, exact match, %), read from its figure "
                       "5",
                       { { "digits", "first 8", "first 16", "first 32" },
                         { "Fine-KV", "77.3", "52.5", "38.2" },
                         { "Yi-6B-200K, full attention", "97.5", "97.5", "97.5" },
                         { "Llama3.1-8B, full attention", "100", "100", "100" },
                         { "Qwen1.5-1.8B, full attention", "82.6", "82.6", "82.6" } } },
    [PAPER_BOUNDARY] = { "lost by the boundary (prompts cut to their last k tokens, segments of "
                         "2048, %), Fine-KV on "
                         "Llama3.1-8B, its table 6 and figure 4",
                         { { "prompt ends", "MMLU-Pro", "BBH", "GSM8K" },
                           { "at a segment's end (k = 2048)", "20.3", "41.3", "31.9" },
                           { "at a segment's end (k = 4096)", "19.7", "43.8", "31.8" },
                           { "in the middle, best (k = 1024, 3072 or 5120)", "32.9", "61.6",
                             "49.8" },
                           { "in the middle, worst", "31.2", "57.0", "49.1" },
                           { "k = 2048, trained with autoencoding", "23.4", "47.8", "34.3" },
                           { "k = 2048, trained with token importance", "22.9", "46.3",
                             "32.3" } } },
    [PAPER_RECONSTRUCTION] = { "reconstruction of a gist's own tokens (accuracy, %), Fine-KV on "
                               "PG19, its table 3",
                               { { "ratio", "4", "8", "16", "32" },
                                 { "weak decoder, one block", "53.9", "19.2", "9.6", "5.1" },
                                 { "strong decoder, 8B", "77.3", "39.9", "19.3", "10.0" } } },
};

void paper_write(struct page *p, enum paper_table which)
{
    const struct table *t = &tables[which];
    size_t n = 0;

    while (n < COLUMNS_MAX && t->rows[0][n])
        n++;
    page_text(p, "The paper's models, not ours: %s.", t->about);
    page_table(p, t->rows[0], n);
    for (size_t i = 1; i < ROWS_MAX && t->rows[i][0]; i++)
        for (size_t k = 0; k < n; k++)
            page_cell(p, "%s", t->rows[i][k]);
    page_table_end(p);
}
