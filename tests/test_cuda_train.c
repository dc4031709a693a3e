/* tests/test_cuda_train.c - would catch: an operation of a training step on the GPU that is not
 * what its formula gives in double precision (casts, norms, sums, gates, tables, products, losses,
 * the largest ids, AdamW); one that reads past an end or what nobody wrote; host memory that is
 * still read when it is the caller's again; a sum that depends on the order of blocks: everything
 * is computed in both orders, and bits compared.
 *
 * f32 within 2e-5 of what is largest, bf16 within 2 % of it. A whole step on a device is held to
 * the trainer's references by tests/test_train_step.c. */
#include "tests/support/tensors_rig.h"

/* --- rows ------------------------------------------------------------------------------------- */

static void casts(void **state)
{
    enum { N = 4099 };
    float *x = randoms(TENSORS_F32, N, 3), *f = to_device(x, N), *back;
    uint16_t got[N];
    void *b = device(N * 2), *w = device(N * 4);

    (void)state;
    ops->narrow(on, TENSORS_BF16, b, f, N);
    ops->widen(on, TENSORS_BF16, w, b, N);
    ops->get(on, got, b, sizeof(got));
    back = from_device(TENSORS_F32, w, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(got[i], bf16(x[i]));
        assert_true(back[i] == of_bf16(got[i]));
    }
    ops->narrow(on, TENSORS_F32, w, f, N);
    free(back);
    back = from_device(TENSORS_F32, w, N);
    assert_memory_equal(back, x, N * sizeof(*x));
    free(back);
    free(x);
    ops->free(on, f);
    ops->free(on, b);
    ops->free(on, w);
}

/* Host memory is the caller's again when put has returned, and so are lists. What is copied is more
 * than there are slots for. */
static void host_memory(void **state)
{
    enum { N = 20 << 20, ROWS = 3, COLS = 8 };
    unsigned char *x = malloc(N), *back = malloc(N), *p = device(N);
    uint32_t index[ROWS] = { 2, 0, 1 };
    float table[ROWS * COLS], *on_table, *y = device(sizeof(table)), *got;

    (void)state;
    for (size_t i = 0; i < N; i++)
        x[i] = (unsigned char)(i * 7 + i / 999);
    ops->put(on, p, x, N);
    memset(x, 0xee, N);
    ops->get(on, back, p, N);
    for (size_t i = 0; i < N; i++)
        if (back[i] != (unsigned char)(i * 7 + i / 999))
            fail_msg("byte %zu is %u", i, back[i]);
    for (size_t i = 0; i < ROWS * COLS; i++)
        table[i] = (float)i;
    on_table = to_device(table, ROWS * COLS);
    ops->take(on, &(struct tensors_take){ on_table, index, ROWS, COLS, false, y, 0, 0 });
    memset(index, 0, sizeof(index));
    got = from_device(TENSORS_F32, y, ROWS * COLS);
    for (unsigned i = 0; i < COLS; i++) {
        assert_true(got[i] == (float)(2 * COLS + i));
        assert_true(got[COLS + i] == (float)i);
    }
    free(got);
    free(x);
    free(back);
    ops->free(on, p);
    ops->free(on, y);
    ops->free(on, on_table);
}

static void norm_of(enum tensors_type type, uint32_t n, bool listed)
{
    enum { ROWS = 5, ALL = 9 };
    static const uint32_t list[ROWS] = { 7, 0, 3, 8, 2 };
    float *x = randoms(TENSORS_F32, (size_t)ALL * n, 2), *w = randoms(TENSORS_F32, n, 1),
          *dy = randoms(TENSORS_F32, (size_t)ROWS * n, 1), *on_x = to_device(x, (size_t)ALL * n),
          *on_w = to_device(w, n), *r = device(ROWS * sizeof(*r));
    double *y = doubles((size_t)ROWS * n), *dx = doubles((size_t)ALL * n), rs[ROWS];
    float *on_dy = to_device(dy, (size_t)ROWS * n), *on_dx;
    void *on_y = device((size_t)ROWS * n * tensors_size(type));
    struct tensors_norm a = { on_x, on_w, listed ? list : NULL, ROWS, n, 1e-5f, on_y, type, r };
    struct tensors_norm_back back = { on_x, on_w, r, listed ? list : NULL, ROWS, n, on_dy, NULL };

    for (uint32_t i = 0; i < ROWS; i++) {
        size_t at = (size_t)(listed ? list[i] : i) * n;
        double sum = 0, dot = 0;

        for (uint32_t j = 0; j < n; j++)
            sum += (double)x[at + j] * x[at + j];
        rs[i] = 1 / sqrt(sum / n + 1e-5);
        for (uint32_t j = 0; j < n; j++) {
            y[i * n + j] = x[at + j] * rs[i] * w[j];
            dot += (double)dy[i * n + j] * w[j] * x[at + j];
        }
        for (uint32_t j = 0; j < n; j++)
            dx[at + j] = (double)x[at + j] + (double)dy[i * n + j] * w[j] * rs[i] -
                         x[at + j] * dot * rs[i] * rs[i] * rs[i] / n;
    }
    for (size_t i = 0; i < (size_t)ALL * n; i++) /* derivatives are added to what is there */
        dx[i] = dx[i] != 0 ? dx[i] : (double)x[i];
    on_dx = to_device(x, (size_t)ALL * n);
    back.dx = on_dx;
    ops->norm(on, &a);
    ops->norm_back(on, &back);
    check("norm", type, on_y, y, (size_t)ROWS * n);
    check("1 / rms", TENSORS_F32, r, rs, ROWS);
    check("norm back", TENSORS_F32, on_dx, dx, (size_t)ALL * n);
    ops->free(on, on_x);
    ops->free(on, on_w);
    ops->free(on, on_dy);
    free(x);
    free(w);
    free(dy);
    free(y);
    free(dx);
}

static void norms(void **state)
{
    (void)state;
    norm_of(TENSORS_F32, 7, false);
    norm_of(TENSORS_F32, 300, true);
    norm_of(TENSORS_BF16, 130, true);
}

static void gate_of(enum tensors_type type, uint32_t rows, uint32_t n)
{
    size_t all = (size_t)rows * n;
    float *gu = randoms(type, 2 * all, 2), *dy = randoms(type, all, 1);
    void *on_gu = typed_to_device(type, gu, 2 * all), *on_dy = typed_to_device(type, dy, all),
         *on_y = device(all * tensors_size(type));
    double *y = doubles(all), *d = doubles(2 * all);

    for (size_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < n; j++) {
            size_t at = 2 * i * n + j;
            double g = gu[at], u = gu[at + n], s = 1 / (1 + exp(-g)), by = dy[i * n + j];

            y[i * n + j] = g * s * u;
            d[at] = by * u * (s + g * s * (1 - s));
            d[at + n] = by * g * s;
        }
    ops->swiglu(on, type, on_y, on_gu, rows, n);
    ops->swiglu_back(on, type, on_gu, on_dy, rows, n);
    check("swiglu", type, on_y, y, all);
    check("swiglu back", type, on_gu, d, 2 * all);
    ops->free(on, on_dy);
    free(gu);
    free(dy);
    free(y);
    free(d);
}

static void gates(void **state)
{
    (void)state;
    gate_of(TENSORS_F32, 3, 259);
    gate_of(TENSORS_BF16, 2, 33);
}

/* Of more rows than there are pieces, with and without each of what may be missing. */
static void sum_of(uint32_t rows, uint32_t n, bool listed, bool by, bool x)
{
    const uint32_t ld = n + 5, all = rows + 3;
    float *d = randoms(TENSORS_F32, (size_t)rows * ld, 1), *r = randoms(TENSORS_F32, rows, 1),
          *xs = randoms(TENSORS_F32, (size_t)all * n, 2), *y = randoms(TENSORS_F32, n, 1),
          *on_d = to_device(d, (size_t)rows * ld), *on_r = to_device(r, rows),
          *on_x = to_device(xs, (size_t)all * n);
    uint32_t *list = malloc(rows * sizeof(*list));
    double *want = doubles(n);
    struct tensors_sum a = { on_d, by ? on_r : NULL, x ? on_x : NULL, listed ? list : NULL, rows, n,
                             ld,   to_device(y, n) };

    for (uint32_t i = 0; i < rows; i++)
        list[i] = (i * 7 + 3) % all;
    for (uint32_t j = 0; j < n; j++) {
        want[j] = y[j];
        for (uint32_t i = 0; i < rows; i++)
            want[j] += (double)d[i * ld + j] * (by ? r[i] : 1) *
                       (x ? xs[(size_t)(listed ? list[i] : i) * n + j] : 1);
    }
    ops->sum_rows(on, &a);
    memset(list, 0, rows * sizeof(*list)); /* the caller's again */
    check("sum of rows", TENSORS_F32, a.y, want, n);
    ops->free(on, on_d);
    ops->free(on, on_r);
    ops->free(on, on_x);
    free(d);
    free(r);
    free(xs);
    free(y);
    free(list);
    free(want);
}

static void sums(void **state)
{
    (void)state;
    sum_of(1, 7, false, false, false);
    sum_of(5, 260, false, true, false);
    sum_of(9, 33, false, true, true);
    sum_of(150, 40, true, true, true); /* more rows than pieces */
}

/* Columns of wider rows. */
static void wide_tables(void **state)
{
    enum { N = 33, LD = 40, LD_Y = 50, ROWS = 3, TABLE = 4 };
    static const uint32_t index[ROWS] = { 3, SIGHT_NO_ROW, 1 };
    float *t = randoms(TENSORS_F32, TABLE * LD, 1), *y = randoms(TENSORS_F32, ROWS * LD_Y, 1),
          *on_t = to_device(t, TABLE * LD), *on_y = to_device(y, ROWS * LD_Y);
    double *want = doubles(ROWS * LD_Y);

    (void)state;
    for (uint32_t i = 0; i < ROWS * LD_Y; i++)
        want[i] = y[i];
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t j = 0; j < N && index[i] != SIGHT_NO_ROW; j++)
            want[i * LD_Y + 2 + j] += t[index[i] * LD + 7 + j];
    ops->take(on, &(struct tensors_take){ on_t + 7, index, ROWS, N, true, on_y + 2, LD, LD_Y });
    check("columns", TENSORS_F32, on_y, want, ROWS * LD_Y);
    ops->free(on, on_t);
    free(t);
    free(y);
    free(want);
}

/* Long tables of which few rows are given to, some of them often. */
static void gives(void **state)
{
    enum { N = 9, TABLE = 70000, ROWS = 300 };
    uint32_t to[ROWS], from[ROWS];
    float *x = randoms(TENSORS_F32, ROWS * N, 1), *t = randoms(TENSORS_F32, TABLE * N, 1),
          *on_x = to_device(x, ROWS * N);
    double *want = doubles((size_t)TABLE * N);
    struct tensors_give a = { on_x, to, from, ROWS, TABLE, N, to_device(t, (size_t)TABLE * N) };

    (void)state;
    for (uint32_t i = 0; i < TABLE * N; i++)
        want[i] = t[i];
    for (uint32_t i = 0; i < ROWS; i++) {
        to[i] = i % 3 ? (i * 2654435761u) % TABLE : TABLE - 1;
        from[i] = ROWS - 1 - i;
        for (uint32_t j = 0; j < N; j++)
            want[(size_t)to[i] * N + j] += x[from[i] * N + j];
    }
    ops->give(on, &a);
    memset(to, 0, sizeof(to));
    memset(from, 0, sizeof(from));
    check("give to a long table", TENSORS_F32, a.table, want, (size_t)TABLE * N);
    a.n_pairs = 0;
    ops->give(on, &a);
    assert_int_equal(ops->error(on), 0);
    ops->free(on, on_x);
    free(x);
    free(t);
    free(want);
}

static void tables(void **state)
{
    enum { N = 261, ROWS = 4, TABLE = 3, PAIRS = 5 };
    static const uint32_t index[ROWS] = { 2, SIGHT_NO_ROW, 0, 2 };
    static const uint32_t to[PAIRS] = { 1, 0, 1, 1, 0 }, from[PAIRS] = { 3, 3, 0, 2, 1 };
    float *t = randoms(TENSORS_F32, TABLE * N, 1), *y = randoms(TENSORS_F32, ROWS * N, 1),
          *on_t = to_device(t, TABLE * N), *on_y = to_device(y, ROWS * N),
          *on_z = to_device(y, ROWS * N), *bias = to_device(t, N), *on_b = to_device(y, ROWS * N);
    double *set = doubles(ROWS * N), *added = doubles(ROWS * N), *given = doubles(TABLE * N),
           *biased = doubles(ROWS * N);
    struct tensors_take a = { on_t, index, ROWS, N, false, on_y, 0, 0 };
    struct tensors_give g = { NULL, to, from, PAIRS, TABLE, N, NULL };

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t j = 0; j < N; j++) {
            double row = index[i] == SIGHT_NO_ROW ? 0 : t[index[i] * N + j];

            set[i * N + j] = index[i] == SIGHT_NO_ROW ? (double)y[i * N + j] : row;
            added[i * N + j] = y[i * N + j] + row;
            biased[i * N + j] = (double)y[i * N + j] + t[j];
        }
    for (uint32_t i = 0; i < TABLE * N; i++)
        given[i] = t[i];
    for (uint32_t i = 0; i < PAIRS; i++)
        for (uint32_t j = 0; j < N; j++)
            given[to[i] * N + j] += y[from[i] * N + j];
    ops->take(on, &a);
    a.add = true;
    a.y = on_z;
    ops->take(on, &a);
    ops->add(on, on_b, bias, ROWS, N);
    g.x = to_device(y, ROWS * N);
    g.table = on_t;
    ops->give(on, &g);
    check("take", TENSORS_F32, on_y, set, ROWS * N);
    check("take and add", TENSORS_F32, on_z, added, ROWS * N);
    check("add", TENSORS_F32, on_b, biased, ROWS * N);
    check("give", TENSORS_F32, on_t, given, TABLE * N);
    ops->free(on, bias);
    ops->free(on, (void *)g.x);
    free(t);
    free(y);
    free(set);
    free(added);
    free(given);
    free(biased);
}

/* --- products --------------------------------------------------------------------------------- */

/* Of all ways to lie, with rows further apart than they are long. */
static void product_of(enum tensors_type type, unsigned how)
{
    const uint32_t m = 5, n = 7, k = 19;
    bool at = how & 1, bt = how & 2, add = how & 4;
    uint32_t lda = (at ? m : k) + 2, ldb = (bt ? k : n) + 1, ldc = n + 3;
    size_t n_a = (size_t)(at ? k : m) * lda, n_b = (size_t)(bt ? n : k) * ldb, n_c = m * ldc;
    float *a = randoms(type, n_a, 1), *b = randoms(type, n_b, 1), *c = randoms(TENSORS_F32, n_c, 1);
    void *on_a = typed_to_device(type, a, n_a), *on_b = typed_to_device(type, b, n_b);
    float *on_c = to_device(c, n_c);
    double *want = doubles(n_c);
    struct tensors_product p = { m,
                                 n,
                                 k,
                                 { on_a, lda, type, at },
                                 { on_b, ldb, type, bt },
                                 { on_c, ldc, TENSORS_F32, false },
                                 add };

    for (size_t i = 0; i < n_c; i++)
        want[i] = c[i];
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < n; j++) {
            double sum = add ? c[i * ldc + j] : 0;

            for (uint32_t l = 0; l < k; l++)
                sum +=
                    (double)a[at ? l * lda + i : i * lda + l] * b[bt ? j * ldb + l : l * ldb + j];
            want[i * ldc + j] = sum;
        }
    ops->product(on, &p);
    check("product", TENSORS_F32, on_c, want, n_c);
    ops->free(on, on_a);
    ops->free(on, on_b);
    free(a);
    free(b);
    free(c);
    free(want);
}

static void products(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 8; how++) {
        product_of(TENSORS_F32, how);
        product_of(TENSORS_BF16, how);
    }
}

/* --- losses and parameters -------------------------------------------------------------------- */

enum { VOCAB = 517, ASKED = 4, TOP = 7 };

/* A row's loss and derivative by its logits, as train/net/head.h has it. */
static void loss_by_hand(const float *z, const struct tensors_ask *a, double *ret_d, double *ret_lm,
                         double *ret_teacher)
{
    double sum = 0, q_rest = 1, p_rest = 1, q[VOCAB];

    for (int i = 0; i < VOCAB; i++)
        sum += exp(z[i]);
    for (int i = 0; i < VOCAB; i++)
        q[i] = exp(z[i]) / sum;
    *ret_lm = -log(q[a->target]) * a->weight;
    *ret_teacher = 0;
    for (int i = 0; i < VOCAB; i++)
        ret_d[i] = a->weight * q[i];
    ret_d[a->target] -= a->weight;
    if (!a->teacher_ids)
        return;
    for (int k = 0; k < TOP; k++) {
        *ret_teacher += a->teacher_p[k] * log(a->teacher_p[k] / q[a->teacher_ids[k]]);
        q_rest -= q[a->teacher_ids[k]];
        p_rest -= a->teacher_p[k];
    }
    *ret_teacher = a->teacher_weight * (*ret_teacher + p_rest * log(p_rest / q_rest));
    for (int i = 0; i < VOCAB; i++) {
        bool listed = false;

        for (int k = 0; k < TOP; k++)
            if (a->teacher_ids[k] == (uint32_t)i) {
                ret_d[i] += a->teacher_weight * (q[i] - a->teacher_p[k]);
                listed = true;
            }
        if (!listed)
            ret_d[i] += a->teacher_weight * q[i] * (1 - p_rest / q_rest);
    }
}

static void loss_of(enum tensors_type type, bool taught)
{
    static const uint32_t ids[ASKED * TOP] = { 1,  7,  500, 3,  44, 45, 516, 0,  1,  2,
                                               3,  4,  5,   6,  9,  8,  7,   60, 50, 40,
                                               30, 11, 12,  13, 14, 15, 16,  17 };
    float ps[ASKED * TOP], *z = randoms(TENSORS_F32, ASKED * VOCAB, 4);
    struct tensors_ask asks[ASKED];
    struct tensors_told told[ASKED];
    double *d = doubles(ASKED * VOCAB), lm, teacher;
    struct tensors_loss a = { to_device(z, ASKED * VOCAB),
                              asks,
                              ASKED,
                              VOCAB,
                              taught ? TOP : 0,
                              device(ASKED * VOCAB * tensors_size(type)),
                              type,
                              told };

    z[2 * VOCAB + 9] = 5; /* the target is the largest */
    ops->put(on, a.z, z, ASKED * VOCAB * sizeof(*z));
    for (int i = 0; i < ASKED * TOP; i++)
        ps[i] = 0.01f + 0.11f * (float)(i % TOP) / TOP;
    for (int i = 0; i < ASKED; i++) {
        asks[i] = (struct tensors_ask){ i == 2 ? 9u : 516u, 0.5f + (float)i, 0.25f, NULL, NULL };
        if (taught && i != 1) {
            asks[i].teacher_ids = ids + (size_t)i * TOP;
            asks[i].teacher_p = ps + (size_t)i * TOP;
        }
    }
    ops->loss(on, &a);
    for (int i = 0; i < ASKED; i++) {
        loss_by_hand(z + (size_t)i * VOCAB, &asks[i], d + (size_t)i * VOCAB, &lm, &teacher);
        assert_true(near_within(told[i].targets, lm, 1e-5 * fabs(lm)));
        assert_true(near_within(told[i].teacher, teacher, 1e-5 * fabs(teacher) + 1e-7));
        assert_true(near_within(told[i].logp, -lm / asks[i].weight, 1e-4));
        assert_int_equal(told[i].right, i == 2);
    }
    check("derivative by logits", type, a.dz, d, ASKED * VOCAB);
    ops->free(on, a.z);
    free(z);
    free(d);
}

static void losses(void **state)
{
    (void)state;
    loss_of(TENSORS_F32, false);
    loss_of(TENSORS_F32, true);
    loss_of(TENSORS_BF16, true);
}

/* A logit that is no number is a loss that is none. */
static void bad_logits(void **state)
{
    float z[2 * VOCAB] = { 0 };
    struct tensors_ask asks[2] = { { .target = 1, .weight = 1 }, { .target = 1, .weight = 1 } };
    struct tensors_told told[2];
    struct tensors_loss a = { NULL, asks, 2, VOCAB, 0, NULL, TENSORS_F32, told };

    (void)state;
    z[VOCAB + 300] = NAN;
    a.z = to_device(z, 2 * VOCAB);
    ops->loss(on, &a);
    assert_true(isfinite(told[0].targets));
    assert_true(isnan(told[1].targets));
    ops->free(on, a.z);
}

static void largest(void **state)
{
    enum { K = 9 };
    float *z = randoms(TENSORS_F32, 2 * VOCAB, 3), p[2 * K];
    uint32_t ids[2 * K];
    struct tensors_top a = { NULL, 2, VOCAB, K, ids, p };

    (void)state;
    z[5] = z[400] = z[77] = 3.5f; /* the first of equals first */
    a.z = to_device(z, 2 * VOCAB);
    ops->top(on, &a);
    same_bits(p, sizeof(p));
    assert_int_equal(ids[0], 5);
    assert_int_equal(ids[1], 77);
    assert_int_equal(ids[2], 400);
    for (int t = 0; t < 2; t++) {
        const float *row = z + (size_t)t * VOCAB;
        double sum = 0;

        for (int i = 0; i < VOCAB; i++)
            sum += exp(row[i]);
        for (int k = 0; k < K; k++) {
            uint32_t larger = 0, id = ids[t * K + k];

            for (uint32_t i = 0; i < VOCAB; i++)
                larger += row[i] > row[id] || (row[i] == row[id] && i < id);
            assert_int_equal(larger, k);
            assert_true(near_within(p[t * K + k], exp(row[id]) / sum, 1e-6));
        }
    }
    ops->free(on, a.z);
    free(z);
}

static void parameters(void **state)
{
    enum { N = 9001 };
    float *p = randoms(TENSORS_F32, N, 1), *g = randoms(TENSORS_F32, N, 2),
          *m = randoms(TENSORS_F32, N, 1), *v = randoms(TENSORS_F32, N, 1);
    double *want = doubles(N), sum = 0, got;
    struct tensors_adamw a = { .n = N,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-8f,
                               .keep = 0.99f,
                               .rate = 0.01f,
                               .root = 1.3f,
                               .scale = 0.5f };
    float *on_g = to_device(g, N);

    (void)state;
    for (int i = 0; i < N; i++) {
        double scaled = 0.5 * g[i], mean, square;

        v[i] = fabsf(v[i]);
        mean = 0.9 * m[i] + 0.1 * scaled;
        square = 0.95 * v[i] + 0.05 * scaled * scaled;
        want[i] = p[i] * 0.99 - 0.01 * mean / (sqrt(square) * 1.3 + 1e-8);
        sum += (double)g[i] * g[i];
    }
    a.p = to_device(p, N);
    a.m = to_device(m, N);
    a.v = to_device(v, N);
    a.g = on_g;
    got = ops->sum_squares(on, on_g, N);
    same_bits(&got, sizeof(got));
    assert_true(near_within(got, sum, 1e-9 * sum));
    ops->adamw(on, &a);
    check("AdamW", TENSORS_F32, a.p, want, N);
    ops->free(on, a.m);
    ops->free(on, a.v);
    ops->free(on, on_g);
    free(p);
    free(g);
    free(m);
    free(v);
    free(want);
}

/* W += B A, a part of a matrix's rows. */
static void low_ranks(void **state)
{
    enum { OUT = 5, IN = 11, RANK = 3 };
    float *w = randoms(TENSORS_F32, OUT * IN, 1), *b = randoms(TENSORS_F32, OUT * RANK, 1),
          *a = randoms(TENSORS_F32, RANK * IN, 1), *on_w = to_device(w, OUT * IN),
          *on_b = to_device(b, OUT * RANK), *on_a = to_device(a, RANK * IN);
    double *want = doubles(OUT * IN);

    (void)state;
    for (int i = 0; i < OUT; i++)
        for (int j = 0; j < IN; j++) {
            want[i * IN + j] = w[i * IN + j];
            for (int k = 0; k < RANK; k++)
                want[i * IN + j] += (double)b[i * RANK + k] * a[k * IN + j];
        }
    ops->low_rank(on, on_w, on_b, on_a, OUT, IN, RANK);
    check("low rank", TENSORS_F32, on_w, want, OUT * IN);
    ops->free(on, on_b);
    ops->free(on, on_a);
    free(w);
    free(b);
    free(a);
    free(want);
}

static void is_kept(void **state)
{
    float x = 1;
    float *p = to_device(&x, 1);

    (void)state;
    shim_set_lost(1);
    ops->add(on, p, p, 1, 1);
    ops->get(on, &x, p, sizeof(x));
    assert_true(ops->error(on) < 0);
    shim_set_lost(0);
    ops->get(on, &x, p, sizeof(x));
    assert_true(ops->error(on) < 0); /* nothing is done behind a failure */
    assert_null(ops->alloc(on, 4));
    ops->free(on, p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(casts),      cmocka_unit_test(norms),       cmocka_unit_test(gates),
        cmocka_unit_test(sums),       cmocka_unit_test(wide_tables), cmocka_unit_test(gives),
        cmocka_unit_test(tables),     cmocka_unit_test(products),    cmocka_unit_test(losses),
        cmocka_unit_test(bad_logits), cmocka_unit_test(largest),     cmocka_unit_test(parameters),
        cmocka_unit_test(low_ranks),  cmocka_unit_test(host_memory),
    };
    const struct CMUnitTest lost[] = { cmocka_unit_test(is_kept) };
    int r = rig_run(tests);

    return r + cmocka_run_group_tests_name("lost", lost, open_device, close_device) ? 1 : 0;
}
