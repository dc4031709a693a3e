/* engine/file/gguf.c - reads and checks a header, from the first byte to the last tensor.
 *
 * Nothing of a file is believed before it was held to the file's length: counts to what the bytes
 * that are left could hold at most, strings and arrays to those bytes themselves, tensors to the
 * file's end and to each other. So what is allocated is bounded by the file's size, and what looks
 * things up later (gguf_get.c) needs no checks.
 *
 * Where a header ends is not known before it is parsed. So some of it is read and parsed; if that
 * runs past what was read, twice as much is read, and it is parsed anew from the start: tables are
 * made again, and no state of a half-parsed header has to be kept right.
 *
 *     read_until --> parse --> done
 *         ^            | -EAGAIN, need
 *         +------------+
 */
#include "engine/file/gguf_header.h"
#include "engine/file/quant.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The smallest pair and record: a count in the header that asks for more than the file's bytes can
 * hold is refused before anything is allocated for it. */
#define PAIR_BYTES_MIN   (8u + 1u + 4u + 1u)
#define RECORD_BYTES_MIN (8u + 1u + 4u + 8u + 4u + 8u)

/* The specification's limit of a key. */
#define KEY_MAX       65535u
#define ALIGN_DEFAULT 32u
#define ALIGN_MIN     8u /* the specification: a multiple of 8 */
#define ALIGN_MAX     (1u << 20)
#define READ_FIRST    (1u << 20)

/* A cursor over the header. What runs past the bytes that are there, but not past the file, ends
 * the attempt with -EAGAIN and `need`: more is read, and the header is parsed again from the start.
 */
struct reader {
    const struct gguf *g;
    struct why *why;
    size_t pos;
    uint64_t need;
    const char *part; /* "key", "tensor": what is being read, for sentences */
    uint64_t index, of;
};

/* --- sentences -------------------------------------------------------------------------------- */

/* A path may be longer than a sentence: the end says more than the beginning. */
static void set_label(struct gguf *g, const char *path)
{
    size_t n = strlen(path);

    if (n < GGUF_LABEL_MAX) {
        memcpy(g->label, path, n + 1);
    } else {
        memcpy(g->label, "...", 3);
        memcpy(g->label + 3, path + n - (GGUF_LABEL_MAX - 4), GGUF_LABEL_MAX - 3);
    }
}

/* `key 3 of 33` as the start of what is wrong with it. */
#define bad(r, fmt, ...)                                                                           \
    why_set((r)->why, -EINVAL, "%s: %s %" PRIu64 " of %" PRIu64 ": " fmt, (r)->g->label,           \
            (r)->part, (r)->index, (r)->of, __VA_ARGS__)

/* --- reading ---------------------------------------------------------------------------------- */

/* The next n bytes. Past the file's end is the file's fault, past what was read is ours: -EAGAIN.
 * pos never passes `have`, which never passes `len`, so no difference wraps. */
static int take(struct reader *r, uint64_t n, const uint8_t **ret)
{
    uint64_t left = r->g->len - r->pos;

    if (n > left) {
        why_set(r->why, -EINVAL,
                "%s: %s %" PRIu64 " of %" PRIu64 " needs %" PRIu64 " bytes at byte %zu, but "
                "the file ends %" PRIu64 " bytes after it: cut short or damaged",
                r->g->label, r->part, r->index, r->of, n, r->pos, left);
        return -EINVAL;
    }
    if (n > r->g->have - r->pos) {
        r->need = r->pos + n;
        return -EAGAIN;
    }
    *ret = r->g->p + r->pos;
    r->pos += (size_t)n;
    return 0;
}

/* Copied, since numbers are unaligned. The file is little-endian, as the machine is
 * (engine/file/quant.c asserts that). */
static int take_u32(struct reader *r, uint32_t *ret)
{
    const uint8_t *p;
    int e = take(r, sizeof(*ret), &p);

    if (e == 0)
        memcpy(ret, p, sizeof(*ret));
    return e;
}

static int take_u64(struct reader *r, uint64_t *ret)
{
    const uint8_t *p;
    int e = take(r, sizeof(*ret), &p);

    if (e == 0)
        memcpy(ret, p, sizeof(*ret));
    return e;
}

/* Points into the header. While that may still be read anew and move, nothing keeps it but the
 * tables, which are made again then. */
static int take_str(struct reader *r, struct gguf_str *ret)
{
    const uint8_t *p;
    uint64_t n;
    int e = take_u64(r, &n);

    if (e == 0)
        e = take(r, n, &p);
    if (e == 0)
        *ret = (struct gguf_str){ (const char *)p, (size_t)n };
    return e;
}

/* Another byte would be a bool that is neither, for whoever reads it as one. */
static int check_bools(struct reader *r, const uint8_t *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return bad(r, "a bool of value %u, expected 0 or 1", p[i]);
    return 0;
}

/* Walks over an array, so that gguf_next_str can walk over it later without looking where it ends.
 * Arrays of arrays are refused: no key of ours has one, and to any depth they would be a recursion
 * that the file drives. */
static int skip_array(struct reader *r)
{
    const uint8_t *p;
    uint32_t kind;
    uint64_t n, bytes;
    int e = take_u32(r, &kind);

    if (e == 0)
        e = take_u64(r, &n);
    if (e != 0)
        return e;
    if (kind >= GGUF__N)
        return bad(r, "an array of kind %u, expected 0 to %d", kind, GGUF__N - 1);
    if (kind == GGUF_ARRAY)
        return bad(r, "an array of %s, expected an array of plain values or strings", "arrays");
    if (kind != GGUF_STRING) {
        if (__builtin_mul_overflow(n, gguf_kind_bytes[kind], &bytes))
            bytes = UINT64_MAX; /* more than any file has */
        e = take(r, bytes, &p);
        return e == 0 && kind == GGUF_BOOL ? check_bools(r, p, n) : e;
    }
    for (uint64_t i = 0; i < n && e == 0; i++) { /* each takes 8 bytes or ends the loop */
        struct gguf_str s;

        e = take_str(r, &s);
    }
    return e;
}

/* Only where its value begins is kept; values are read when they are asked for. */
static int take_pair(struct reader *r, struct gguf_pair *ret)
{
    const uint8_t *p;
    struct gguf_str s;
    uint32_t kind;
    int e = take_str(r, &ret->key);

    if (e == 0)
        e = take_u32(r, &kind);
    if (e != 0)
        return e;
    if (ret->key.len == 0 || ret->key.len > KEY_MAX)
        return bad(r, "its name has %zu bytes, expected 1 to %u", ret->key.len, KEY_MAX);
    if (kind >= GGUF__N)
        return bad(r, "a value of kind %u, expected 0 to %d", kind, GGUF__N - 1);
    ret->kind = (enum gguf_kind)kind;
    ret->value = r->g->p + r->pos;
    if (kind == GGUF_STRING)
        return take_str(r, &s);
    if (kind == GGUF_ARRAY)
        return skip_array(r);
    e = take(r, gguf_kind_bytes[kind], &p);
    return e == 0 && kind == GGUF_BOOL ? check_bools(r, p, 1) : e;
}

/* Sorted to be found by bisection; then a key that is there twice stands beside itself. Which of
 * the two counted would be a matter of the sort. */
static int take_pairs(struct reader *r, struct gguf *g)
{
    char shown[GGUF_SHOW_MAX];

    r->part = "key";
    r->of = g->n_pairs;
    for (size_t i = 0; i < g->n_pairs; i++) {
        int e;

        r->index = i + 1;
        e = take_pair(r, &g->pairs[i]);
        if (e != 0)
            return e;
    }
    if (g->n_pairs > 0)
        qsort(g->pairs, g->n_pairs, sizeof(*g->pairs), gguf_compare_pairs);
    for (size_t i = 1; i < g->n_pairs; i++)
        if (gguf_compare_pairs(&g->pairs[i - 1], &g->pairs[i]) == 0)
            return why_set(r->why, -EINVAL, "%s: key %s is there twice", g->label,
                           gguf_show(g->pairs[i].key, shown));
    return 0;
}

/* --- tensor records --------------------------------------------------------------------------- */

/* The record's shape: fills len, which is 0 for a type whose blocks we don't know. A type that is
 * not known is no error yet: who wants the tensor says which types it takes
 * (engine/file/weights.c). */
static int measure_tensor(struct reader *r, struct gguf_tensor *t)
{
    char shown[GGUF_SHOW_MAX];
    const struct quant_info *q;
    uint64_t n_blocks;
    enum quant type;

    for (uint32_t d = 0; d < t->n_dims; d++)
        if (t->dims[d] == 0)
            return bad(r, "%s has size 0 in dimension %u", gguf_show(t->name, shown), d);
    t->len = 0;
    if (quant_from_gguf(t->type, &type) < 0)
        return 0;
    q = quant_info(type);
    if (t->dims[0] % q->block_cols != 0)
        return bad(r, "%s has rows of %" PRIu64 " values, expected a multiple of %s's %u",
                   gguf_show(t->name, shown), t->dims[0], q->name, q->block_cols);
    n_blocks = t->dims[0] / q->block_cols;
    for (uint32_t d = 1; d < GGUF_DIMS_MAX; d++)
        if (__builtin_mul_overflow(n_blocks, t->dims[d], &n_blocks))
            n_blocks = UINT64_MAX;
    if (__builtin_mul_overflow(n_blocks, q->block_bytes, &t->len))
        t->len = UINT64_MAX; /* refused with the file's end */
    return 0;
}

static int take_tensor(struct reader *r, struct gguf_tensor *t)
{
    char shown[GGUF_SHOW_MAX];
    int e = take_str(r, &t->name);

    if (e == 0)
        e = take_u32(r, &t->n_dims);
    if (e != 0)
        return e;
    if (t->name.len == 0 || t->name.len > GGUF_NAME_MAX)
        return bad(r, "its name has %zu bytes, expected 1 to %u", t->name.len, GGUF_NAME_MAX);
    if (t->n_dims < 1 || t->n_dims > GGUF_DIMS_MAX)
        return bad(r, "%s has %u dimensions, expected 1 to %u", gguf_show(t->name, shown),
                   t->n_dims, GGUF_DIMS_MAX);
    /* All four get a value, so that shapes are compared without looking at n_dims. */
    for (uint32_t d = 0; d < GGUF_DIMS_MAX; d++) {
        t->dims[d] = 1;
        e = d < t->n_dims ? take_u64(r, &t->dims[d]) : 0;
        if (e != 0)
            return e;
    }
    e = take_u32(r, &t->type);
    if (e == 0)
        e = take_u64(r, &t->off); /* from the start of the data, for now */
    return e ? e : measure_tensor(r, t);
}

static int compare_offs(const void *a, const void *b)
{
    uint64_t x = (*(const struct gguf_tensor *const *)a)->off;
    uint64_t y = (*(const struct gguf_tensor *const *)b)->off;

    return (x > y) - (x < y);
}

/* By the key, which take_pairs has read: it comes before any offset is looked at. */
static int read_align(const struct gguf *g, uint32_t *ret, struct why *why)
{
    int e = gguf_get_u32(g, "general.alignment", ret);

    if (e == -ENOENT) {
        *ret = ALIGN_DEFAULT;
        return 0;
    }
    if (e != 0)
        return why_set(why, e, "%s: general.alignment is not an integer of 32 bits", g->label);
    if (*ret < ALIGN_MIN || *ret > ALIGN_MAX || (*ret & (*ret - 1)) != 0)
        return why_set(why, -EINVAL,
                       "%s: general.alignment is %u, expected a power of two from %u to %u",
                       g->label, *ret, ALIGN_MIN, ALIGN_MAX);
    return 0;
}

/* Makes offsets absolute and holds them to the file. len is 0 where the type is not known: only the
 * beginning is held to the file then. */
static int place_tensors(struct gguf *g, uint64_t data_off, uint32_t align, struct why *why)
{
    char shown[GGUF_SHOW_MAX];

    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        uint64_t end;

        if (t->off % align != 0)
            return why_set(why, -EINVAL,
                           "%s: tensor %s begins at data byte %" PRIu64 ", expected a multiple of "
                           "the alignment %u",
                           g->label, gguf_show(t->name, shown), t->off, align);
        if (__builtin_add_overflow(t->off, data_off, &t->off) ||
            __builtin_add_overflow(t->off, t->len, &end) || end > g->len)
            return why_set(why, -EINVAL,
                           "%s: tensor %s needs %" PRIu64 " bytes at byte %" PRIu64
                           ", but the file has %" PRIu64 ": cut short or damaged",
                           g->label, gguf_show(t->name, shown), t->len, t->off, g->len);
    }
    return 0;
}

/* Tensors that share bytes would let a small file ask for any amount of memory. Sorted twice, by
 * place and then by name: the second order is the one that stays, to find them by. */
static int check_tensors_apart(struct gguf *g, struct why *why)
{
    char a[GGUF_SHOW_MAX], b[GGUF_SHOW_MAX];

    for (size_t i = 0; i < g->n_tensors; i++)
        g->by_name[i] = &g->tensors[i];
    if (g->n_tensors > 0)
        qsort(g->by_name, g->n_tensors, sizeof(*g->by_name), compare_offs);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct gguf_tensor *s = g->by_name[i - 1], *t = g->by_name[i];

        if (s->off + s->len > t->off)
            return why_set(why, -EINVAL, "%s: tensors %s and %s overlap at byte %" PRIu64, g->label,
                           gguf_show(s->name, a), gguf_show(t->name, b), t->off);
    }
    if (g->n_tensors > 0)
        qsort(g->by_name, g->n_tensors, sizeof(*g->by_name), gguf_compare_names);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (gguf_compare_names(&g->by_name[i - 1], &g->by_name[i]) == 0)
            return why_set(why, -EINVAL, "%s: tensor %s is there twice", g->label,
                           gguf_show(g->by_name[i]->name, a));
    return 0;
}

static int take_tensors(struct reader *r, struct gguf *g)
{
    uint32_t align;
    uint64_t data_off;
    int e;

    r->part = "tensor record";
    r->of = g->n_tensors;
    for (size_t i = 0; i < g->n_tensors; i++) {
        r->index = i + 1;
        e = take_tensor(r, &g->tensors[i]);
        if (e != 0)
            return e;
    }
    e = read_align(g, &align, r->why);
    if (e != 0)
        return e;
    /* Behind the last record, wherever that ended. */
    data_off = (r->pos + (uint64_t)align - 1) / align * align;
    if (data_off > g->len)
        data_off = g->len; /* no tensor, no padding */
    g->header_len = (size_t)data_off;
    /* The padding belongs to the header that is hashed (gguf_header), so it is read as well. */
    if (data_off > g->have) {
        r->need = data_off;
        return -EAGAIN;
    }
    e = place_tensors(g, data_off, align, r->why);
    return e ? e : check_tensors_apart(g, r->why);
}

/* --- the whole header ------------------------------------------------------------------------- */

static int check_version(const struct gguf *g, uint32_t version, struct why *why)
{
    if (version == 2 || version == 3)
        return 0;
    /* Versions are small numbers, so this is one with its bytes the other way round. */
    if ((version & 0xffff) == 0 && version != 0)
        return why_set(why, -EINVAL, "%s: a big-endian GGUF file, supported: little-endian",
                       g->label);
    return why_set(why, -EINVAL, "%s: GGUF version %u, supported: 2 and 3", g->label, version);
}

/* Before tables are made for so many. */
static int take_counts(struct reader *r, struct gguf *g)
{
    uint64_t n_tensors, n_pairs, left;
    int e = take_u64(r, &n_tensors);

    if (e == 0)
        e = take_u64(r, &n_pairs);
    if (e != 0)
        return e;
    left = g->len - r->pos;
    if (n_pairs > left / PAIR_BYTES_MIN || n_tensors > left / RECORD_BYTES_MIN)
        return why_set(r->why, -EINVAL,
                       "%s: the header announces %" PRIu64 " keys and %" PRIu64
                       " tensors, more than the file's %" PRIu64 " bytes can hold",
                       g->label, n_pairs, n_tensors, g->len);
    g->n_pairs = (size_t)n_pairs;
    g->n_tensors = (size_t)n_tensors;
    return 0;
}

static int parse(struct gguf *g, uint64_t *ret_need, struct why *why)
{
    struct reader r = { .g = g, .why = why, .part = "header field", .index = 1, .of = 4 };
    const uint8_t *magic;
    char shown[GGUF_SHOW_MAX];
    uint32_t version;
    int e = take(&r, 4, &magic);

    if (e == 0 && memcmp(magic, "GGUF", 4) != 0)
        return why_set(why, -EINVAL, "%s: not a GGUF file: begins with %s, expected \"GGUF\"",
                       g->label, gguf_show((struct gguf_str){ (const char *)magic, 4 }, shown));
    if (e == 0)
        e = take_u32(&r, &version);
    if (e == 0)
        e = check_version(g, version, why);
    if (e == 0)
        e = take_counts(&r, g);
    if (e != 0)
        goto out;

    /* One more, so that none of them is of no bytes, for which calloc may give NULL. */
    g->pairs = calloc(g->n_pairs + 1, sizeof(*g->pairs));
    g->tensors = calloc(g->n_tensors + 1, sizeof(*g->tensors));
    g->by_name = calloc(g->n_tensors + 1, sizeof(*g->by_name));
    if (!g->pairs || !g->tensors || !g->by_name)
        return why_set(why, -ENOMEM, "%s: not enough memory for its header", g->label);
    e = take_pairs(&r, g);
    if (e == 0)
        e = take_tensors(&r, g);
out:
    *ret_need = r.need;
    return e;
}

static void forget_tables(struct gguf *g)
{
    free(g->pairs);
    free(g->tensors);
    free(g->by_name);
    g->pairs = NULL;
    g->tensors = NULL;
    g->by_name = NULL;
}

/* The header may move: pairs and names that point into it are made again by the next parse. */
static int read_until(struct gguf *g, uint64_t end, struct why *why)
{
    uint8_t *p;

    if (end > GGUF_HEADER_MAX)
        return why_set(why, -EINVAL, "%s: its header is larger than %u MiB", g->label,
                       GGUF_HEADER_MAX >> 20);
    p = realloc(g->own, (size_t)end);
    if (!p)
        return why_set(why, -ENOMEM, "%s: not enough memory for its header", g->label);
    g->own = p;
    g->p = p;
    while (g->have < end) {
        ssize_t n = pread(g->fd, p + g->have, (size_t)end - g->have, (off_t)g->have);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return why_set(why, -errno, "%s: cannot be read: %s", g->label, strerror(errno));
        /* fstat said that there is more: the file has become shorter since. */
        if (n == 0)
            return why_set(why, -EINVAL,
                           "%s: now ends at byte %zu; it had %" PRIu64 " bytes when it was opened",
                           g->label, g->have, g->len);
        g->have += (size_t)n;
    }
    return 0;
}

static int open_file(struct gguf *g, const char *path, struct why *why)
{
    struct stat st;

    /* Not blocking: a FIFO would wait for a writer that never comes. */
    g->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (g->fd < 0 || fstat(g->fd, &st) < 0)
        return why_set(why, -errno, "%s: cannot be opened: %s", g->label, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return why_set(why, -EISDIR, "%s: is a directory, expected a GGUF file", g->label);
    if (!S_ISREG(st.st_mode))
        return why_set(why, -EINVAL, "%s: is not a regular file, expected a GGUF file", g->label);
    if (st.st_size == 0)
        return why_set(why, -EINVAL, "%s: is empty, expected a GGUF file", g->label);
    g->len = (uint64_t)st.st_size;
    return 0;
}

static struct gguf *new_gguf(const char *path)
{
    struct gguf *g = calloc(1, sizeof(*g));

    if (!g)
        return NULL;
    g->fd = -1;
    set_label(g, path);
    g->path = strdup(path);
    if (!g->path) {
        free(g);
        return NULL;
    }
    return g;
}

int gguf_open(const char *path, struct gguf **ret, struct why *why)
{
    struct gguf *g = new_gguf(path);
    uint64_t end = READ_FIRST, need = 0;
    int e;

    if (!g)
        return why_set(why, -ENOMEM, "not enough memory to open a model file");
    e = open_file(g, path, why);
    if (e != 0)
        goto fail;
    /* Where the header ends is known when it is parsed: read some, parse, read twice as much. */
    for (;;) {
        e = read_until(g, end < g->len ? end : g->len, why);
        if (e != 0)
            goto fail;
        e = parse(g, &need, why);
        if (e != -EAGAIN)
            break;
        forget_tables(g);
        end = end * 2 > need ? end * 2 : need;
        /* What it needs is allowed, and only the doubling is not. */
        if (need <= GGUF_HEADER_MAX && end > GGUF_HEADER_MAX)
            end = GGUF_HEADER_MAX;
    }
    if (e != 0)
        goto fail;
    *ret = g;
    return 0;

fail:
    gguf_close(g);
    return e;
}

int gguf_open_mem(const void *data, size_t len, const char *label, struct gguf **ret,
                  struct why *why)
{
    struct gguf *g = new_gguf(label);
    uint64_t need;
    int e;

    if (!g)
        return why_set(why, -ENOMEM, "not enough memory to open a model file");
    g->p = data;
    g->have = len;
    g->len = len;
    /* own is NULL, and gguf_close frees nothing of the caller's. */
    e = len > 0 ? parse(g, &need, why)
                : why_set(why, -EINVAL, "%s: is empty, expected a GGUF file", g->label);
    assert(e != -EAGAIN); /* all of it is there */
    if (e != 0) {
        gguf_close(g);
        return e;
    }
    *ret = g;
    return 0;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    forget_tables(g);
    free(g->own);
    free(g->path);
    if (g->fd >= 0)
        (void)close(g->fd);
    free(g);
}
