/* tests/support/ref.h - reads recorded reference vectors (the .ref files of tests/data).
 *
 *     0          8          12        16       20       24
 *     +----------+----------+---------+--------+--------+-------+----------+---------+------+
 *     | GISTREF1 | n_tokens | n_vocab | window | n_rows |  ids  | logprobs | row_pos | rows |
 *     +----------+----------+---------+--------+--------+-------+----------+---------+------+
 *                                                        u32     f32        u32       f32
 *
 * Little-endian. tests/reference/reffile.py writes them and says what each field means.
 */
#ifndef TESTS_SUPPORT_REF_H
#define TESTS_SUPPORT_REF_H

#include <stddef.h>
#include <stdint.h>

struct ref {
    uint32_t n_tokens, n_vocab;
    uint32_t window; /* each is read from nothing */
    uint32_t n_rows;
    const uint32_t *ids;     /* (n_tokens) */
    const float *logprobs;   /* (n_tokens); the first of a window is NaN */
    const uint32_t *row_pos; /* (n_rows): a row is the logits after this token */
    const float *rows;       /* (n_rows, n_vocab) */
    void *mem;
};

/* -EINVAL: not such a file; or the errno. */
int ref_open(const char *path, struct ref *ret);
void ref_close(struct ref *r);

#endif
