/* cuda/products.c - which kernel or library multiplies which rows. The base's weights take all rows
 * of a step; then, where a piece has an adapter with matrices of its own, its gists' rows are
 * multiplied again with those, over what the base's left.
 */
#include "cuda/products.h"

static bool is_few(uint32_t n_rows)
{
    return n_rows <= ROOM_FEW_ROWS;
}

/* Behind the last layer's attention only wanted rows are left, and gists have other places among
 * them. */
static const struct plan_gists *gists_of(const struct plan_piece *p, const struct product *a)
{
    return a->wanted ? &p->wanted : &p->gists;
}

/* As this device has it. */
static struct adapter_projection own_of(const struct products *p, const struct plan_piece *piece,
                                        const struct product *a, uint32_t i)
{
    const struct spread_view *v = &p->view;
    struct adapter_projection own =
        piece->adapter->layers[v->first_layer + a->layer].p[a->out[i].projection];

    /* Of a low-rank one the side that the weight is divided by. A x is whole on every device when B
     * is cut by rows: each has its rows of the sum. Cut by columns, A gives each a part, and the
     * sum over devices adds B times all of them. */
    if (own.a.data && divide_by_rows(a->out[i].projection))
        own.b = view_part(v, a->out[i].projection, &own.b);
    else if (own.a.data)
        own.a = view_part(v, a->out[i].projection, &own.a);
    if (own.w.data)
        own.w = view_part(v, a->out[i].projection, &own.w);
    own.w.data = view_at(v, own.w.data);
    own.a.data = view_at(v, own.a.data);
    own.b.data = view_at(v, own.b.data);
    return own; /* biases: cuda/upload.c */
}

/* Whether gists in the step have a matrix that takes int8 rows. */
static bool gists_take_q8(const struct products *own, const struct plan *plan,
                          const struct product *a)
{
    for (uint32_t p = 0; p < plan->n_pieces; p++) {
        const struct plan_piece *piece = &plan->pieces[p];

        for (uint32_t i = 0; piece->adapter && gists_of(piece, a)->n && i < a->n_out; i++) {
            const struct model_tensor w = own_of(own, piece, a, i).w;

            if (w.data && k_matvec_takes_q8(w.type))
                return true;
        }
    }
    return false;
}

struct k_forms products_forms(const struct products *p, const struct plan *plan,
                              const struct product *a)
{
    /* Gists are few: with a matrix of their own they want int8 rows, however many the step has. */
    bool q8 = gists_take_q8(p, plan, a), few = is_few(a->n_rows), low = false;

    for (uint32_t i = 0; i < a->n_out; i++) {
        q8 |= few && k_matvec_takes_q8(a->out[i].w->type);
        low |= !few && !k_matvec_takes_q8(a->out[i].w->type);
    }
    return (struct k_forms){ .q8 = q8 ? p->room->q8 : NULL,
                             .bf16 = few ? NULL : p->room->bf16,
                             .low = low ? p->room->bf16_low : NULL };
}

struct k_matvec products_matvec(const struct model_tensor *w)
{
    return (struct k_matvec){ .type = w->type,
                              .w = w->data,
                              .tile_len = w->tile_len,
                              .n_rows = w->n_rows,
                              .n_cols = w->n_cols };
}

/* --- few rows --------------------------------------------------------------------------------- */

/* Rows first, first + step, ... of x and of y, of one weight. step: gists stand at equal distances.
 */
struct few {
    const struct model_tensor *w;
    const float *x; /* its f32 rows: those in int8 are in the room */
    uint32_t first, step, n;
    float *y;
};

static uint32_t n_at_once(uint32_t left)
{
    return left < K_MATVEC_ROWS ? left : K_MATVEC_ROWS;
}

static int run_few(const struct products *p, const struct few *f)
{
    const struct model_tensor *w = f->w;
    bool q8 = k_matvec_takes_q8(w->type);
    size_t row = q8 ? w->n_cols / 32 * sizeof(struct k_q8) : w->n_cols * sizeof(float);
    const uint8_t *x = q8 ? (const uint8_t *)p->room->q8 : (const uint8_t *)f->x;
    int r = 0;

    /* Each call reads all of the weight: as many rows as one takes. */
    for (uint32_t at = 0; at < f->n && r == 0; at += K_MATVEC_ROWS) {
        size_t from = f->first + (size_t)at * f->step;
        struct k_matvec a = products_matvec(w);

        a.x = x + from * row;
        a.x_stride = f->step * row;
        a.n_x = n_at_once(f->n - at);
        a.y = f->y + from * w->n_rows;
        a.y_stride = (size_t)f->step * w->n_rows;
        r = k_matvec(p->stream, &a);
    }
    return r;
}

/* --- many rows -------------------------------------------------------------------------------- */

/* A slab times the rows. bf16 has 8 bits, as int8 has; what is multiplied as it is by the CPU has
 * 16 that way, and the product of the two low parts is left out as below them. */
static int multiply(const struct products *p, struct gemm_product a, bool exact)
{
    int r = gemm_run(p->gemm, &a);

    if (!exact)
        return r;
    a.add = true;
    a.x = p->room->bf16_low;
    if (r == 0)
        r = gemm_run(p->gemm, &a);
    a.x = p->room->bf16;
    a.w = p->room->slab_low;
    return r == 0 ? gemm_run(p->gemm, &a) : r;
}

/* Slabs of whole tiles, one after the other in the same memory: the stream orders them. */
static int run_many(const struct products *p, const struct model_tensor *w, uint32_t n_x, float *y)
{
    uint32_t whole = (uint32_t)(ROOM_SLAB_BYTES / (w->n_cols * sizeof(uint16_t)));
    uint32_t slab = whole / TILE_ROWS * TILE_ROWS, n;
    bool exact = !k_matvec_takes_q8(w->type);
    int r = 0;

    for (uint32_t row = 0; row < w->n_rows && r == 0; row += n) {
        struct k_dequant d = { .type = w->type,
                               .w = w->data,
                               .tile_len = w->tile_len,
                               .n_rows = w->n_rows,
                               .n_cols = w->n_cols,
                               .row0 = row,
                               .to = p->room->slab,
                               .low = exact ? p->room->slab_low : NULL };

        n = w->n_rows - row < slab ? w->n_rows - row : slab;
        d.row1 = row + n;
        r = k_dequant(p->stream, &d);
        if (r == 0)
            r = multiply(p,
                         (struct gemm_product){ .w = p->room->slab,
                                                .x = p->room->bf16,
                                                .y = y + row,
                                                .n_rows = n,
                                                .n_cols = w->n_cols,
                                                .n_x = n_x,
                                                .y_stride = w->n_rows },
                         exact);
    }
    return r;
}

/* --- gists ------------------------------------------------------------------------------------ */

/* y += B (A x), of as many gists at a time as a product of few rows has. */
static int add_low_rank(const struct products *p, const struct adapter_projection *own,
                        const struct few *gists)
{
    int r = 0;

    for (uint32_t at = 0; at < gists->n && r == 0; at += K_MATVEC_ROWS) {
        size_t from = gists->first + (size_t)at * gists->step;
        struct k_matvec a = products_matvec(&own->a), b = products_matvec(&own->b);

        a.n_x = b.n_x = n_at_once(gists->n - at);
        a.x = gists->x + from * a.n_cols;
        a.x_stride = (size_t)gists->step * a.n_cols * sizeof(float);
        a.y = p->room->low;
        a.y_stride = a.n_rows;
        b.x = p->room->low;
        b.x_stride = b.n_cols * sizeof(float);
        b.y = gists->y + from * b.n_rows;
        b.y_stride = (size_t)gists->step * b.n_rows;
        b.add = true;
        r = k_matvec(p->stream, &a);
        if (r == 0)
            r = k_matvec(p->stream, &b);
    }
    return r;
}

/* Rank and whole matrix: W' x, or W' x + B A x, or W x + B A x. */
static int run_gists(const struct products *p, const struct plan_piece *piece,
                     const struct product *a)
{
    const struct plan_gists *g = gists_of(piece, a);
    int r = 0;

    for (uint32_t i = 0; piece->adapter && g->n && i < a->n_out && r == 0; i++) {
        const struct adapter_projection own = own_of(p, piece, a, i);
        struct few few = { &own.w, a->x, g->first, g->step, g->n, a->out[i].y };

        if (own.w.data)
            r = run_few(p, &few);
        if (own.a.data && r == 0)
            r = add_low_rank(p, &own, &few);
    }
    return r;
}

/* Gists last: their rows are written over. */
int products_run(const struct products *p, const struct plan *plan, const struct product *a)
{
    int r = 0;

    for (uint32_t i = 0; i < a->n_out && r == 0; i++) {
        const struct product_output *o = &a->out[i];

        if (is_few(a->n_rows))
            r = run_few(p, &(struct few){ o->w, a->x, 0, 1, a->n_rows, o->y });
        else
            r = run_many(p, o->w, a->n_rows, o->y);
    }
    for (uint32_t i = 0; i < plan->n_pieces && r == 0; i++)
        r = run_gists(p, &plan->pieces[i], a);
    return r;
}
