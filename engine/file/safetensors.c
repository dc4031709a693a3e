/* engine/file/safetensors.c - a header of JSON, by hand.
 *
 * The format needs objects, strings and whole numbers, nested two deep: less than a library's
 * parser is, and no recursion that a file could drive. The header is one buffer with a NUL behind
 * it, which no rule accepts: so every loop over characters ends there, and a string is decoded
 * where it stands, since what an escape becomes is never longer than the escape.
 */
#include "engine/file/safetensors.h"

#include "base/hex.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_BYTES 8u
#define HASH_BYTES   ((size_t)1 << 20)
#define SHOWN        40 /* bytes of a name in a sentence */

struct meta {
    const char *key, *value;
};

struct safetensors {
    const char *label; /* for sentences; borrowed while opening */
    int fd;
    const uint8_t *data; /* a file in memory */
    uint64_t len;        /* of the file */
    char *header;
    uint64_t data_off;
    struct meta *metas;
    size_t n_metas, cap_metas;
    struct safetensors_tensor *tensors;
    size_t n_tensors, cap_tensors;
};

/* --- JSON, as much as there is of it ---------------------------------------------------------- */

struct parser {
    struct safetensors *s;
    struct why *why;
    char *p, *end; /* *end is NUL */
};

/* Where the parser stands is what is wrong. */
static int bad(struct parser *j, const char *expected)
{
    if (j->p >= j->end)
        return why_set(j->why, -EINVAL, "%s: the header ends where %s should be", j->s->label,
                       expected);
    return why_set(j->why, -EINVAL, "%s: byte %zu of the header is '%c', expected %s", j->s->label,
                   (size_t)(j->p - j->s->header), *j->p >= ' ' && *j->p <= '~' ? *j->p : '?',
                   expected);
}

/* The four that JSON has; the NUL at the end is none of them. */
static void skip_space(struct parser *j)
{
    while (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t')
        j->p++;
}

/* Takes the character if it is this one. */
static bool next_is(struct parser *j, char c)
{
    skip_space(j);
    if (*j->p != c)
        return false;
    j->p++;
    return true;
}

static int want(struct parser *j, char c, const char *name)
{
    return next_is(j, c) ? 0 : bad(j, name);
}

/* Exactly four, as \u wants them. */
static int read_hex(struct parser *j, uint32_t *ret)
{
    uint32_t v = 0;

    for (int i = 0; i < 4; i++, j->p++) {
        int d = hex_digit(*j->p);

        if (d < 0)
            return bad(j, "a hexadecimal digit");
        v = v << 4 | (uint32_t)d;
    }
    *ret = v;
    return 0;
}

/* One \ and what follows, as UTF-8 at *to: never longer than it was. Surrogate halves are written
 * each by itself: names with them are not ours. */
static int read_escape(struct parser *j, char **to)
{
    static const char from[] = "\"\\/bfnrt", is[] = "\"\\/\b\f\n\r\t";
    const char *at = *j->p ? strchr(from, *j->p) : NULL;
    uint32_t v = 0;
    int r;

    if (at) {
        *(*to)++ = is[at - from];
        j->p++;
        return 0;
    }
    if (*j->p != 'u')
        return bad(j, "an escape");
    j->p++;
    r = read_hex(j, &v);
    if (r < 0)
        return r;
    if (v == 0)
        return bad(j, "text without \\u0000");
    if (v < 0x80) {
        *(*to)++ = (char)v;
    } else {
        if (v >= 0x800)
            *(*to)++ = (char)(0xe0 | v >> 12);
        *(*to)++ = (char)((v >= 0x800 ? 0x80 : 0xc0) | (v >> 6 & (v >= 0x800 ? 0x3f : 0x1f)));
        *(*to)++ = (char)(0x80 | (v & 0x3f));
    }
    return 0;
}

/* Decoded where it stands, and ended by a NUL in the place of its quote. Bytes from 0x80 on are not
 * looked at: a name that is no UTF-8 is none that is asked for. */
static int read_string(struct parser *j, const char **ret)
{
    char *to;
    int r = want(j, '"', "a string");

    if (r < 0)
        return r;
    *ret = to = j->p;
    while (*j->p != '"') {
        if ((unsigned char)*j->p < ' ')
            return bad(j, "the rest of a string");
        if (*j->p != '\\') {
            *to++ = *j->p++;
            continue;
        }
        j->p++;
        r = read_escape(j, &to);
        if (r < 0)
            return r;
    }
    j->p++;
    *to = '\0';
    return 0;
}

/* Digits alone: a sign, a fraction or an exponent is what comes next, and is not expected there. */
static int read_number(struct parser *j, uint64_t *ret)
{
    uint64_t v = 0;

    skip_space(j);
    if (*j->p < '0' || *j->p > '9')
        return bad(j, "a whole number");
    for (; *j->p >= '0' && *j->p <= '9'; j->p++) {
        /* So that ten times that and a digit fit. */
        if (v > (UINT64_MAX - 9) / 10)
            return bad(j, "a smaller number");
        v = 10 * v + (uint64_t)(*j->p - '0');
    }
    *ret = v;
    return 0;
}

/* [a, b, ...]: at most max numbers. `max` is asked before a number is read: ret has room for no
 * more. */
static int read_numbers(struct parser *j, uint64_t *ret, uint32_t max, uint32_t *ret_n)
{
    uint32_t n = 0;
    int r = want(j, '[', "a list of numbers");

    if (r < 0)
        return r;
    if (next_is(j, ']')) {
        *ret_n = 0;
        return 0;
    }
    do {
        if (n == max)
            return bad(j, "a shorter list");
        r = read_number(j, &ret[n++]);
        if (r < 0)
            return r;
    } while (next_is(j, ','));
    *ret_n = n;
    return want(j, ']', "the end of a list");
}

/* {"key": value, ...}: member reads a value. */
typedef int member_fn(struct parser *j, void *arg, const char *key);

/* The caller's member has to take the value, whatever it is, or fail: nothing is skipped. */
static int read_object(struct parser *j, member_fn *member, void *arg)
{
    const char *key;
    int r = want(j, '{', "an object");

    if (r < 0)
        return r;
    if (next_is(j, '}'))
        return 0;
    do {
        r = read_string(j, &key);
        if (r == 0)
            r = want(j, ':', "a colon");
        if (r == 0)
            r = member(j, arg, key);
        if (r < 0)
            return r;
    } while (next_is(j, ','));
    return want(j, '}', "the end of an object");
}

/* --- the header ------------------------------------------------------------------------------- */

/* Room for one element more. */
static void *grow(void *mem, size_t n, size_t *cap, size_t size)
{
    size_t more = *cap ? 2 * *cap : 16;

    if (n < *cap)
        return mem;
    mem = realloc(mem, more * size);
    if (mem)
        *cap = more;
    return mem;
}

/* Both point into the header, which stays as long as they do. */
static int read_meta(struct parser *j, void *arg, const char *key)
{
    struct safetensors *s = j->s;
    struct meta *metas = grow(s->metas, s->n_metas, &s->cap_metas, sizeof(*metas));
    const char *value;
    int r;

    (void)arg;
    if (!metas)
        return why_set(j->why, -ENOMEM, "not enough memory for a header");
    s->metas = metas;
    r = read_string(j, &value);
    if (r == 0)
        metas[s->n_metas++] = (struct meta){ key, value };
    return r;
}

/* A tensor's fields, which may come in any order. */
struct record {
    struct safetensors_tensor t;
    uint64_t span[2];
    uint32_t bytes; /* of an element; 0: no dtype was read */
    bool shape, offsets;
};

/* All types of the format: a tensor that is not ours may be of any, and its bytes are counted. Of
 * OTHER nothing more is asked. */
static int read_dtype(struct parser *j, struct record *rec)
{
    static const struct {
        const char *name;
        uint8_t bytes;
        uint8_t type;
    } types[] = {
        { "F32", 4, SAFETENSORS_F32 },       { "F16", 2, SAFETENSORS_F16 },
        { "BF16", 2, SAFETENSORS_BF16 },     { "F64", 8, SAFETENSORS_OTHER },
        { "I64", 8, SAFETENSORS_OTHER },     { "I32", 4, SAFETENSORS_OTHER },
        { "I16", 2, SAFETENSORS_OTHER },     { "I8", 1, SAFETENSORS_OTHER },
        { "U64", 8, SAFETENSORS_OTHER },     { "U32", 4, SAFETENSORS_OTHER },
        { "U16", 2, SAFETENSORS_OTHER },     { "U8", 1, SAFETENSORS_OTHER },
        { "BOOL", 1, SAFETENSORS_OTHER },    { "F8_E4M3", 1, SAFETENSORS_OTHER },
        { "F8_E5M2", 1, SAFETENSORS_OTHER },
    };
    const char *name;
    int r = read_string(j, &name);

    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if (strcmp(name, types[i].name) == 0) {
            rec->t.type = types[i].type;
            rec->bytes = types[i].bytes;
            return 0;
        }
    return why_set(j->why, -EINVAL,
                   "%s: tensor %.*s: found dtype %.*s, expected a type of the format, such as F32, "
                   "F16 or BF16",
                   j->s->label, SHOWN, rec->t.name, SHOWN, name);
}

static int read_field(struct parser *j, void *arg, const char *key)
{
    struct record *rec = arg;
    uint32_t n = 0;
    int r;

    if (strcmp(key, "dtype") == 0)
        return read_dtype(j, rec);
    if (strcmp(key, "shape") == 0) {
        rec->shape = true;
        return read_numbers(j, rec->t.dims, SAFETENSORS_DIMS_MAX, &rec->t.n_dims);
    }
    if (strcmp(key, "data_offsets") != 0)
        return why_set(j->why, -EINVAL,
                       "%s: tensor %.*s: unknown field %.*s; allowed: dtype, shape, "
                       "data_offsets",
                       j->s->label, SHOWN, rec->t.name, SHOWN, key);
    rec->offsets = true;
    r = read_numbers(j, rec->span, 2, &n);
    return r < 0 || n == 2 ? r : bad(j, "two offsets");
}

/* Bytes of a shape; UINT64_MAX: more than there can be. */
static uint64_t shape_bytes(const struct record *rec)
{
    uint64_t n = rec->bytes;

    for (uint32_t i = 0; i < rec->t.n_dims; i++) {
        if (rec->t.dims[i] && n > UINT64_MAX / 2 / rec->t.dims[i])
            return UINT64_MAX;
        n *= rec->t.dims[i];
    }
    return n;
}

/* One member of the outermost object: the metadata, or a tensor. */
static int read_tensor(struct parser *j, void *arg, const char *key)
{
    struct record rec = { .t = { .name = key } };
    struct safetensors *s = j->s;
    struct safetensors_tensor *tensors;
    int r;

    (void)arg;
    if (strcmp(key, "__metadata__") == 0)
        return read_object(j, read_meta, NULL);
    r = read_object(j, read_field, &rec);
    if (r < 0)
        return r;
    for (uint32_t i = rec.t.n_dims; i < SAFETENSORS_DIMS_MAX; i++)
        rec.t.dims[i] = 1;
    /* A field that comes twice is the last one of it: what is checked below is what is used. */
    if (!rec.bytes || !rec.shape || !rec.offsets)
        return why_set(j->why, -EINVAL, "%s: tensor %.*s has no %s", s->label, SHOWN, key,
                       !rec.bytes  ? "dtype"
                       : rec.shape ? "data_offsets"
                                   : "shape");
    /* data_off is at most len (read_header), so none of these wraps. */
    if (rec.span[0] > rec.span[1] || rec.span[1] > s->len - s->data_off ||
        rec.span[1] - rec.span[0] != shape_bytes(&rec))
        return why_set(j->why, -EINVAL,
                       "%s: tensor %.*s: found data from %" PRIu64 " to %" PRIu64
                       ", its shape has %" PRIu64 " bytes, the file has %" PRIu64 " of data",
                       s->label, SHOWN, key, rec.span[0], rec.span[1], shape_bytes(&rec),
                       s->len - s->data_off);
    rec.t.off = s->data_off + rec.span[0];
    rec.t.len = rec.span[1] - rec.span[0];
    tensors = grow(s->tensors, s->n_tensors, &s->cap_tensors, sizeof(*tensors));
    if (!tensors)
        return why_set(j->why, -ENOMEM, "not enough memory for a header");
    s->tensors = tensors;
    tensors[s->n_tensors++] = rec.t;
    return 0;
}

/* Of those at one place the empty ones come first, so that each begins where the one before
 * ends. */
static int by_place(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    return (x->len > y->len) - (x->len < y->len);
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* A byte that no tensor owns could carry anything past whoever compares tensors. Spans one after
 * the other fill the file; then they are sorted by name, and none comes twice. */
static int check_all(struct safetensors *s, struct why *why)
{
    uint64_t at = s->data_off;

    if (s->n_tensors)
        qsort(s->tensors, s->n_tensors, sizeof(*s->tensors), by_place);
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct safetensors_tensor *t = &s->tensors[i];

        if (t->off != at)
            return why_set(why, -EINVAL,
                           "%s: tensor %.*s begins at byte %" PRIu64 " of the file, "
                           "expected %" PRIu64 ", where the previous one ends",
                           s->label, SHOWN, t->name, t->off, at);
        at += t->len;
    }
    if (at != s->len)
        return why_set(why, -EINVAL,
                       "%s: found %" PRIu64 " bytes after the last tensor, expected none", s->label,
                       s->len - at);
    if (s->n_tensors)
        qsort(s->tensors, s->n_tensors, sizeof(*s->tensors), by_name);
    for (size_t i = 1; i < s->n_tensors; i++)
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0)
            return why_set(why, -EINVAL, "%s: tensor %.*s is there twice", s->label, SHOWN,
                           s->tensors[i].name);
    return 0;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* By pread at most 1 GiB at a time: Linux reads less than 2 GiB at once. */
static int read_bytes(const struct safetensors *s, uint64_t off, uint64_t n, void *ret)
{
    uint8_t *to = ret;

    if (s->data) {
        memcpy(to, s->data + off, n);
        return 0;
    }
    /* Whoever changes the file meanwhile makes a short read, which is an error here (cause). */
    while (n > 0) {
        ssize_t got = pread(s->fd, to, n < 1u << 30 ? n : 1u << 30, (off_t)off);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -ENODATA;
        to += got;
        off += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return 0;
}

/* Tensors are read by pread and never mapped: a file that shrinks meanwhile is a short read, with a
 * sentence, and no SIGBUS. */
static const char *cause(int e)
{
    return e == -ENODATA ? "the file has become shorter while it was read" : strerror(-e);
}

static int read_header(struct safetensors *s, struct why *why)
{
    struct parser j = { .s = s, .why = why };
    uint8_t raw[LENGTH_BYTES];
    uint64_t n = 0;
    int r;

    if (s->len < LENGTH_BYTES)
        return why_set(why, -EINVAL, "%s: has only %" PRIu64 " bytes, expected a safetensors file",
                       s->label, s->len);
    r = read_bytes(s, 0, LENGTH_BYTES, raw);
    for (unsigned i = LENGTH_BYTES; i-- > 0;)
        n = n << 8 | raw[i];
    /* Before anything is allocated for it. */
    if (r == 0 && (n > SAFETENSORS_HEADER_MAX || n > s->len - LENGTH_BYTES))
        return why_set(why, -EINVAL,
                       "%s: found a header of %" PRIu64
                       " bytes, expected up to %u in a file of %" PRIu64
                       "; is this a safetensors file?",
                       s->label, n, SAFETENSORS_HEADER_MAX, s->len);
    s->header = r == 0 ? malloc(n + 1) : NULL;
    if (r == 0 && !s->header)
        r = -ENOMEM;
    if (r == 0)
        r = read_bytes(s, LENGTH_BYTES, n, s->header);
    if (r < 0)
        return why_set(why, r, "%s: %s", s->label, cause(r));
    s->header[n] = '\0';
    s->data_off = LENGTH_BYTES + n;
    j.p = s->header;
    j.end = s->header + n;
    r = read_object(&j, read_tensor, NULL);
    if (r < 0)
        return r;
    skip_space(&j);
    if (j.p != j.end)
        return bad(&j, "the end of the header");
    return check_all(s, why);
}

static int open_any(struct safetensors *s, struct safetensors **ret, struct why *why)
{
    int r = read_header(s, why);

    if (r < 0) {
        safetensors_close(s);
        return r;
    }
    /* The path is the caller's, and may be gone when tensors are read. */
    s->label = NULL;
    *ret = s;
    return 0;
}

int safetensors_open(const char *path, struct safetensors **ret, struct why *why)
{
    struct safetensors *s = calloc(1, sizeof(*s));
    struct stat st;
    int r;

    if (!s)
        return why_set(why, -ENOMEM, "%s: not enough memory", path);
    s->label = path;
    /* Not blocking: a FIFO would wait for a writer that never comes. */
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0 || fstat(s->fd, &st) < 0) {
        r = why_set(why, -errno, "%s: %s", path, strerror(errno));
        safetensors_close(s);
        return r;
    }
    if (!S_ISREG(st.st_mode)) {
        safetensors_close(s);
        return why_set(why, -EINVAL, "%s: not a regular file; expected a safetensors file", path);
    }
    s->len = (uint64_t)st.st_size;
    return open_any(s, ret, why);
}

int safetensors_open_mem(const void *data, size_t len, struct safetensors **ret, struct why *why)
{
    struct safetensors *s = calloc(1, sizeof(*s));

    if (!s)
        return why_set(why, -ENOMEM, "not enough memory");
    s->label = "a file in memory";
    s->fd = -1;
    s->data = data;
    s->len = len;
    return open_any(s, ret, why);
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        (void)close(s->fd);
    free(s->header);
    free(s->metas);
    free(s->tensors);
    free(s);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* OTHER has no entry: callers have refused it (adapter.c's find). */
enum quant safetensors_quant(enum safetensors_type type)
{
    static const enum quant quants[] = { [SAFETENSORS_F32] = QUANT_F32,
                                         [SAFETENSORS_F16] = QUANT_F16,
                                         [SAFETENSORS_BF16] = QUANT_BF16 };

    return quants[type];
}

/* A handful of keys, asked for once each. */
const char *safetensors_meta(const struct safetensors *s, const char *key)
{
    for (size_t i = 0; i < s->n_metas; i++)
        if (strcmp(s->metas[i].key, key) == 0)
            return s->metas[i].value;
    return NULL;
}

size_t safetensors_n_metas(const struct safetensors *s)
{
    return s->n_metas;
}

const char *safetensors_meta_at(const struct safetensors *s, size_t i, const char **ret_key)
{
    *ret_key = s->metas[i].key;
    return s->metas[i].value;
}

size_t safetensors_n(const struct safetensors *s)
{
    return s->n_tensors;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *s, size_t i)
{
    return &s->tensors[i];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    struct safetensors_tensor key = { .name = name };

    return s->n_tensors ? bsearch(&key, s->tensors, s->n_tensors, sizeof(key), by_name) : NULL;
}

int safetensors_read(const struct safetensors *s, const struct safetensors_tensor *t, void *ret,
                     struct why *why)
{
    int r = read_bytes(s, t->off, t->len, ret);

    return r < 0 ? why_set(why, r, "tensor %.*s: %s", SHOWN, t->name, cause(r)) : 0;
}

int safetensors_digest(const struct safetensors *s, char ret_digest[DIGEST_LEN], struct why *why)
{
    XXH3_state_t *hash = XXH3_createState();
    uint8_t *piece = malloc(HASH_BYTES);
    int r = hash && piece ? 0 : -ENOMEM;

    if (r == 0)
        (void)XXH3_128bits_reset(hash);
    for (uint64_t at = 0; r == 0 && at < s->len; at += HASH_BYTES) {
        size_t n = s->len - at < HASH_BYTES ? (size_t)(s->len - at) : HASH_BYTES;

        r = read_bytes(s, at, n, piece);
        if (r == 0)
            (void)XXH3_128bits_update(hash, piece, n);
    }
    if (r == 0)
        digest_put(hash, ret_digest);
    free(piece);
    (void)XXH3_freeState(hash);
    return r < 0 ? why_set(why, r, "a safetensors file can't be hashed: %s", cause(r)) : 0;
}
