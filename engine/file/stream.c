/* engine/file/stream.c - a ring of slots, and rows of the embedding beside it.
 *
 *     slots    | in use | begun | begun |          at: the one in use; ahead: those behind it
 *     unit        k       k + 1   k + 2           successors in the circle
 *
 * The ring is filled by guess: after a unit comes its successor in the circle. A guess is wrong
 * only where a step is given up, fails, or wants outputs that the one before did not want; then
 * what was read ahead is dropped, and the first unit of the new step waits for the disk.
 */
#include "engine/file/stream.h"

#include "base/clock.h"
#include "engine/backend.h"
#include "engine/file/stream_fit.h"
#include "engine/file/tile.h"
#include "store/io.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A slot is read by some operations at once, so that one slot is enough to keep a disk busy. */
#define OPS_A_SLOT 16u
#define OP_MIN     ((size_t)128 << 10)
#define OP_MAX     ((size_t)4 << 20)
#define DEPTH      128u
#define NONE       UINT32_MAX

/* What passes as a whole: a layer, or a slice of the output. */
struct unit {
    size_t off, len; /* in the arena */
    uint32_t first_sum, n_sums;
};

/* Somewhere that bytes of the arena are read to, by the whole blocks around them. */
struct place {
    uint8_t *mem;
    size_t from;    /* block of the arena that mem begins with */
    uint32_t n_out; /* operations */
    int error;
};

struct slot {
    struct place place;
    uint32_t unit; /* NONE: nothing of use */
};

struct stream {
    const struct model *m;
    const struct packed *p;
    struct backend *b;
    struct image_file image;
    struct io *io;
    struct stream_fit fit;

    uint8_t *mem;    /* fit.len */
    uint8_t *apart;  /* p->len addresses that nothing stands at */
    uint8_t **bases; /* (p->n_extents) */

    struct unit *units; /* (n_units): layers, then slices from first_slice on */
    uint32_t n_units, first_slice, slice_rows;
    uint32_t *unit_of; /* (n_layer) NONE: it stays */

    struct slot slots[STREAM_SLOTS_MAX];
    uint32_t at, ahead; /* the one in use; how many behind it were begun, in order */
    bool outputs;       /* the step wants some */
    struct place rows[STREAM_ROWS];

    size_t op_len;
    uint32_t n_out; /* operations of all places */
    uint64_t read, step_ns, waited_ns, taken_ns, begun, last;
    struct why why;
};

/* --- reading ---------------------------------------------------------------------------------- */

/* A cookie is the place's address: none goes before all of its operations have come back. One that
 * the end of the file made short is found by the digests, as anything else that is wrong. Does not
 * wait. */
static void reap(struct stream *s)
{
    struct io_done done[32];
    uint32_t n = io_reap(s->io, done, 32);

    for (uint32_t i = 0; i < n; i++) {
        struct place *p = (struct place *)(uintptr_t)done[i].cookie;

        p->n_out--;
        s->n_out--;
        if (done[i].result < 0)
            p->error = (int)done[i].result;
        else
            s->read += (uint64_t)done[i].result;
    }
}

/* Until all of the place has come back. */
static int await(struct stream *s, struct place *p)
{
    uint64_t from = p->n_out ? clock_ns() : 0;

    while (p->n_out > 0) {
        int r;

        reap(s);
        if (p->n_out == 0)
            break;
        r = io_wait(s->io);
        if (r < 0 && r != -EINTR)
            return r;
    }
    if (from)
        s->waited_ns += clock_ns() - from;
    return p->error;
}

/* Rows and slots share the operations: where all are out it waits for whichever comes back
 * first. */
static int queue(struct stream *s, struct place *p, uint8_t *to, size_t len, uint64_t off)
{
    struct io_op op = { .code = IO_READ,
                        .fd = s->image.fd,
                        .mem = to,
                        .len = len,
                        .off = off,
                        .cookie = (uintptr_t)p };
    int r;

    while ((r = io_queue(s->io, &op)) == -EAGAIN) {
        r = io_wait(s->io);
        if (r < 0 && r != -EINTR)
            return r;
        reap(s);
    }
    if (r < 0)
        return r;
    p->n_out++;
    s->n_out++;
    return 0;
}

/* Begins to read bytes [off, off + len) of the arena. An error is the place's. */
static void begin_read(struct stream *s, struct place *p, size_t off, size_t len)
{
    size_t end = (off + len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;

    p->from = off / IO_ALIGN * IO_ALIGN;
    p->error = 0;
    for (size_t at = p->from; at < end && p->error == 0; at += s->op_len)
        p->error = queue(s, p, p->mem + (at - p->from), end - at < s->op_len ? end - at : s->op_len,
                         s->image.arena_off + at);
}

/* Where byte 0 of the arena would be, for who looks at what was read. */
static const uint8_t *base_of(const struct place *p)
{
    return (const uint8_t *)((uintptr_t)p->mem - p->from);
}

/* Finishes what begin_read began: there, and right. b: whose threads look, or NULL. Once more,
 * since a bit that flipped on its way is right the second time; a disk that is bad stays so. */
static int finish_read(struct stream *s, struct place *p, const struct unit *u, struct backend *b)
{
    int r = await(s, p);

    for (int retry = 0;; retry++) {
        if (r == 0)
            r = packed_check(s->p, b, base_of(p), u->first_sum, u->n_sums,
                             image_sums(s->image.head));
        if (r == 0 || retry)
            return r;
        begin_read(s, p, u->off, u->len);
        r = io_submit(s->io);
        if (r == 0)
            r = await(s, p);
    }
}

/* why_set keeps the first sentence, and this is the last error's. */
static int failed(struct stream *s, int r, const char *what, uint32_t i)
{
    s->why.text[0] = '\0';
    return why_set(&s->why, r, "%s %" PRIu32 " can't be read from the image of %s: %s", what, i,
                   gguf_label(s->m->file),
                   r == -EBADMSG ? "its bytes are not those that were written" : strerror(-r));
}

/* --- the ring --------------------------------------------------------------------------------- */

static struct slot *slot_at(struct stream *s, uint32_t behind)
{
    return &s->slots[(s->at + behind) % s->fit.n_slots];
}

/* The slot in use is free from here on. */
static void step_on(struct stream *s)
{
    s->at = (s->at + 1) % s->fit.n_slots;
    s->ahead--;
}

/* NONE: no layer passes, and no outputs are wanted. */
static uint32_t successor(const struct stream *s, uint32_t unit)
{
    uint32_t end = s->outputs ? s->n_units : s->first_slice;

    return end == 0 ? NONE : unit + 1 < end ? unit + 1 : 0;
}

/* Queued only: io_submit, once for all that was begun, hands it to the kernel. */
static void begin_unit(struct stream *s, struct slot *slot, uint32_t unit)
{
    slot->unit = unit;
    begin_read(s, &slot->place, s->units[unit].off, s->units[unit].len);
}

/* Slots that are free read on. */
static void read_ahead(struct stream *s)
{
    while (s->ahead + 1 < s->fit.n_slots) {
        uint32_t next = successor(s, slot_at(s, s->ahead)->unit);

        if (next == NONE)
            return;
        s->ahead++;
        begin_unit(s, slot_at(s, s->ahead), next);
    }
}

/* What was begun for another unit than this one. */
static void drop_others(struct stream *s, uint32_t unit)
{
    while (s->ahead > 0 && slot_at(s, 1)->unit != unit) {
        (void)await(s, &slot_at(s, 1)->place);
        slot_at(s, 1)->unit = NONE;
        step_on(s);
    }
}

/* The unit's slot becomes the one in use, and the one before it is free. The same unit again is
 * there already: a model of one streamed layer. */
static int take_unit(struct stream *s, uint32_t unit, struct slot **ret)
{
    struct slot *slot = slot_at(s, 0);
    uint64_t from = clock_ns();
    int r = 0;

    if (slot->unit != unit) {
        drop_others(s, unit);
        /* Nothing of use was begun: the disk is waited for. */
        if (s->ahead == 0) {
            s->ahead = 1;
            begin_unit(s, slot_at(s, 1), unit);
        }
        slot_at(s, 0)->unit = NONE;
        step_on(s);
        slot = slot_at(s, 0);
        /* Before the wait: the disk has the next units to read while this one is compared. */
        read_ahead(s);
        r = io_submit(s->io);
        if (r == 0)
            r = finish_read(s, &slot->place, &s->units[unit], s->b);
        if (r < 0)
            slot->unit = NONE;
    }
    s->last = clock_ns();
    s->taken_ns += s->last - from;
    *ret = slot;
    return r;
}

void stream_begin(struct stream *s, bool outputs)
{
    s->why.text[0] = 0;
    s->outputs = outputs;
    /* Of the step before, up to its last unit: what comes between two steps is not the disk's. */
    s->step_ns += s->last - s->begun;
    s->begun = s->last = clock_ns();
}

int stream_layer(struct stream *s, uint32_t layer, ptrdiff_t *ret_by)
{
    uint32_t unit = s->unit_of[layer];
    struct slot *slot;
    int r;

    *ret_by = 0;
    if (unit == NONE)
        return 0;
    r = take_unit(s, unit, &slot);
    if (r < 0)
        return failed(s, r, "layer", layer);
    /* C does not define a difference between two objects; addresses are plain numbers here. */
    *ret_by = slot->place.mem - s->bases[PACKED_LAYERS + layer];
    return 0;
}

/* The slice as a matrix of its own, of fewer rows. */
int stream_output(struct stream *s, uint32_t row, struct model_tensor *ret)
{
    uint32_t slice = row / s->slice_rows, unit = s->first_slice + slice;
    struct slot *slot;
    int r;

    assert(row % s->slice_rows == 0);
    r = take_unit(s, unit, &slot);
    if (r < 0)
        return failed(s, r, "output rows from", row);
    *ret = s->m->output;
    ret->data = slot->place.mem + (s->units[unit].off - slot->place.from);
    ret->n_rows = s->m->n_vocab - row < s->slice_rows ? s->m->n_vocab - row : s->slice_rows;
    return 0;
}

/* --- rows of the embedding -------------------------------------------------------------------- */

static struct unit tile_of(const struct stream *s, uint32_t id)
{
    const struct packed_extent *e = &s->p->extents[PACKED_EMBD];
    uint32_t tile = id / TILE_ROWS;

    return (struct unit){ .off = e->off + tile * e->piece,
                          .len = e->piece,
                          .first_sum = e->first_sum + tile,
                          .n_sums = 1 };
}

/* All are begun before the first is waited for, and all are finished whatever fails: nothing of
 * them may come back later. Each token reads a tile of its own, even where two tokens share one:
 * there are few buffers to look through. */
int stream_rows(struct stream *s, const uint32_t *ids, uint32_t n, const void **ret)
{
    struct unit tiles[STREAM_ROWS];
    int r;

    assert(n <= s->fit.n_rows);
    for (uint32_t i = 0; i < n; i++) {
        tiles[i] = tile_of(s, ids[i]);
        begin_read(s, &s->rows[i], tiles[i].off, tiles[i].len);
    }
    r = io_submit(s->io);
    for (uint32_t i = 0; i < n; i++) {
        int e = finish_read(s, &s->rows[i], &tiles[i], NULL);

        if (e < 0 && r == 0)
            r = failed(s, e, "the embedding of token", ids[i]);
        ret[i] = s->rows[i].mem + (tiles[i].off - s->rows[i].from);
    }
    s->last = clock_ns();
    return r;
}

/* --- what there is ---------------------------------------------------------------------------- */

uint8_t *const *stream_bases(const struct stream *s)
{
    return s->bases;
}

bool stream_keeps_embd(const struct stream *s)
{
    return s->fit.keeps_embd;
}

bool stream_keeps_output(const struct stream *s)
{
    return s->fit.keeps_output;
}

uint32_t stream_n_rows(const struct stream *s)
{
    return s->fit.n_rows;
}

const char *stream_why(const struct stream *s)
{
    return s->why.text;
}

void *stream_mem(const struct stream *s, size_t *ret_len)
{
    *ret_len = s->fit.len;
    return s->mem;
}

uint64_t stream_taken_ns(const struct stream *s)
{
    return s->taken_ns;
}

void stream_stats(const struct stream *s, struct stream_stats *ret)
{
    *ret = (struct stream_stats){ .memory = s->fit.len,
                                  .resident = s->fit.len - s->fit.n_slots * s->fit.slot_len -
                                              s->fit.n_rows * s->fit.row_len,
                                  .read = s->read,
                                  .step_ns = s->step_ns + (s->last - s->begun),
                                  .waited_ns = s->waited_ns,
                                  .io = io_name(s->io) };
    for (uint32_t i = 0; i < s->n_units; i++)
        ret->streamed += s->units[i].len;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* A slice begins anywhere in a block, so one block of a slot is for what stands around it. */
static uint32_t count_units(struct stream *s)
{
    const struct packed_extent *out = &s->p->extents[s->fit.output];
    uint32_t tiles = (uint32_t)((s->fit.slot_len - IO_ALIGN) / out->piece);

    s->slice_rows = tiles * TILE_ROWS;
    s->first_slice = s->m->n_layer - s->fit.n_layers;
    if (s->fit.keeps_output)
        return s->first_slice;
    return s->first_slice + (tile_count(s->m->n_vocab) + tiles - 1) / tiles;
}

static void list_units(struct stream *s)
{
    const struct packed_extent *out = &s->p->extents[s->fit.output];
    uint32_t n = 0, tiles = s->slice_rows / TILE_ROWS;

    for (uint32_t i = 0; i < s->m->n_layer; i++) {
        const struct packed_extent *e = &s->p->extents[PACKED_LAYERS + i];
        bool stays = stream_fit_keeps(&s->fit, s->p, PACKED_LAYERS + i);

        s->unit_of[i] = stays ? NONE : n;
        if (!stays)
            s->units[n++] = (struct unit){ e->off, e->len, e->first_sum, e->n_sums };
    }
    for (uint32_t t = 0; n < s->n_units; n++, t += tiles) {
        uint32_t k = out->n_sums - t < tiles ? out->n_sums - t : tiles;

        s->units[n] =
            (struct unit){ out->off + t * out->piece, k * out->piece, out->first_sum + t, k };
    }
}

/* Each part where it will be: what stays, the slots, rows. The base of an extent that passes is its
 * place in apart: addresses that are nobody's, so that a pointer that is used without what
 * stream_layer says faults, and reads nothing else. */
static void lay_out(struct stream *s)
{
    uint8_t *at = s->mem;

    for (uint32_t i = 0; i < s->p->n_extents; i++) {
        const struct packed_extent *e = &s->p->extents[i];

        s->bases[i] = s->apart + e->off;
        if (!stream_fit_keeps(&s->fit, s->p, i))
            continue;
        s->bases[i] = at;
        at += (e->len + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    }
    for (uint32_t i = 0; i < s->fit.n_slots; i++, at += s->fit.slot_len)
        s->slots[i] = (struct slot){ .place.mem = at, .unit = NONE };
    for (uint32_t i = 0; i < s->fit.n_rows; i++, at += s->fit.row_len)
        s->rows[i].mem = at;
    s->op_len = s->fit.slot_len / OPS_A_SLOT / IO_ALIGN * IO_ALIGN;
    s->op_len = s->op_len < OP_MIN ? OP_MIN : s->op_len > OP_MAX ? OP_MAX : s->op_len;
}

/* What stays, one extent after the other. */
static int load_kept(struct stream *s, const struct model_progress *progress, struct why *why)
{
    uint64_t done = 0;

    for (uint32_t i = 0; i < s->p->n_extents; i++) {
        const struct packed_extent *e = &s->p->extents[i];
        struct unit u = { e->off, e->len, e->first_sum, e->n_sums };
        struct place place = { .mem = s->bases[i] };
        int r;

        if (!stream_fit_keeps(&s->fit, s->p, i) || e->len == 0)
            continue;
        begin_read(s, &place, u.off, u.len);
        r = io_submit(s->io);
        if (r == 0)
            r = finish_read(s, &place, &u, s->b);
        /* It is this function's: nothing may come back to it later. */
        (void)await(s, &place);
        if (r < 0) {
            (void)failed(s, r, "part", i);
            return why_set(why, r, "%s", s->why.text);
        }
        done += e->len;
        if (progress && progress->fn(progress->arg, done, s->fit.len) != 0)
            return why_set(why, -ECANCELED, "%s: loading was cancelled", gguf_label(s->m->file));
    }
    return 0;
}

static int fit(const struct model *m, uint64_t budget, struct stream_fit *ret, struct why *why)
{
    size_t least;

    if (stream_fit(m, budget, ret, &least) == 0)
        return 0;
    return why_set(why, -EINVAL,
                   "option weight-bytes: found %" PRIu64
                   ", but %s needs at least %zu: room for two of its layers",
                   budget, gguf_label(m->file), least);
}

int stream_check(const struct model *m, uint64_t budget, struct why *why)
{
    struct stream_fit f;

    return fit(m, budget, &f, why);
}

static int take_memory(struct stream *s)
{
    void *mem, *apart;

    if (backend_alloc(s->b, s->fit.len, &mem) < 0)
        return -ENOMEM;
    s->mem = mem;
    if (backend_host(s->b, mem) != mem)
        return -ENOTSUP;
    apart = mmap(NULL, s->p->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (apart == MAP_FAILED)
        return -ENOMEM;
    s->apart = apart;
    s->bases = calloc(s->p->n_extents, sizeof(*s->bases));
    s->unit_of = calloc(s->m->n_layer, sizeof(*s->unit_of));
    /* Everything stays but the embedding, say: then there is no ring. */
    if (s->fit.n_slots > 0) {
        s->n_units = count_units(s);
        s->units = calloc(s->n_units, sizeof(*s->units));
    }
    return s->bases && s->unit_of && (s->units || s->n_units == 0) ? 0 : -ENOMEM;
}

int stream_open(const struct stream_options *o, struct image_file *image, struct stream **ret,
                struct why *why)
{
    struct io_options io = *o->io;
    struct stream *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return why_set(why, -ENOMEM, "no memory for a stream of weights");
    *s = (struct stream){
        .m = o->model, .p = &o->model->packed, .b = o->backend, .image = { .fd = -1 }
    };
    /* A ring's operations and those of all rows. Of very large layers some wait for others. */
    io.depth = DEPTH;
    r = fit(s->m, o->budget, &s->fit, why);
    if (r == 0) {
        r = take_memory(s);
        if (r == -ENOTSUP)
            (void)why_set(why, r, "option weight-bytes: this device can't stream weights");
        else if (r < 0)
            (void)why_set(why, r, "no memory for %zu bytes of weights", s->fit.len);
    }
    if (r == 0)
        r = io_open(&io, &s->io, why);
    if (r == 0) {
        lay_out(s);
        list_units(s);
        /* What is read again and again. Without it a read costs the kernel a little more. */
        if (s->fit.n_slots > 0)
            (void)io_register(s->io, s->slots[0].place.mem, s->fit.n_slots * s->fit.slot_len);
        s->image = *image;
        r = load_kept(s, o->progress, why);
    }
    if (r < 0) {
        s->image.fd = -1; /* still the caller's */
        s->image.head = NULL;
        stream_close(s);
        return r;
    }
    image->fd = -1;
    image->head = NULL;
    s->read = s->waited_ns = 0; /* steps are counted */
    *ret = s;
    return 0;
}

void stream_follow(struct stream *s, const struct model *model)
{
    s->m = model;
    s->p = &model->packed;
}

void stream_close(struct stream *s)
{
    if (!s)
        return;
    /* Before the memory that it reads to. */
    io_close(s->io);
    image_file_close(&s->image);
    backend_free(s->b, s->mem, s->fit.len);
    if (s->apart)
        (void)munmap(s->apart, s->p->len);
    free(s->bases);
    free(s->unit_of);
    free(s->units);
    free(s);
}
