/* engine/file/gguf_get.c - looks up what a header has, and shows it in sentences.
 *
 * Nothing is checked here: lengths, kinds and counts were, when the file was opened. Values lie
 * unaligned in the header's bytes, so they are copied out.
 */
#include "engine/file/gguf_header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const uint8_t gguf_kind_bytes[GGUF__N] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

/* By bytes, and the shorter one first: the same order when sorting and when looking for. */
static int compare_str(struct gguf_str a, struct gguf_str b)
{
    int c = memcmp(a.s, b.s, a.len < b.len ? a.len : b.len);

    return c ? c : (a.len > b.len) - (a.len < b.len);
}

int gguf_compare_pairs(const void *a, const void *b)
{
    return compare_str(((const struct gguf_pair *)a)->key, ((const struct gguf_pair *)b)->key);
}

int gguf_compare_names(const void *a, const void *b)
{
    return compare_str((*(const struct gguf_tensor *const *)a)->name,
                       (*(const struct gguf_tensor *const *)b)->name);
}

const char *gguf_path(const struct gguf *g)
{
    return g->path;
}

const char *gguf_label(const struct gguf *g)
{
    return g->label;
}

uint64_t gguf_len(const struct gguf *g)
{
    return g->len;
}

int gguf_fd(const struct gguf *g)
{
    return g->fd;
}

const uint8_t *gguf_header(const struct gguf *g, size_t *ret_len)
{
    *ret_len = g->header_len;
    return g->p;
}

static const struct gguf_pair *find_pair(const struct gguf *g, const char *key)
{
    struct gguf_pair wanted = { .key = { key, strlen(key) } };

    if (g->n_pairs == 0)
        return NULL;
    return bsearch(&wanted, g->pairs, g->n_pairs, sizeof(*g->pairs), gguf_compare_pairs);
}

/* An integer of any width as its value: false when it is negative or no integer. */
static bool read_unsigned(const struct gguf_pair *p, uint64_t *ret)
{
    uint64_t u = 0;
    unsigned bits = gguf_kind_bytes[p->kind] * 8u;
    bool is_signed;

    switch (p->kind) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        is_signed = false;
        break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        is_signed = true;
        break;
    default:
        return false;
    }
    memcpy(&u, p->value, gguf_kind_bytes[p->kind]);
    /* The sign's bit of what was copied into the lower bytes. */
    if (is_signed && (u >> (bits - 1) & 1))
        return false;
    *ret = u;
    return true;
}

/* Converters do not agree on the width of a count, so any will do whose value fits. */
int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret)
{
    const struct gguf_pair *p = find_pair(g, key);
    uint64_t u;

    if (!p)
        return -ENOENT;
    if (!read_unsigned(p, &u) || u > UINT32_MAX)
        return -EINVAL;
    *ret = (uint32_t)u;
    return 0;
}

int gguf_get_f32(const struct gguf *g, const char *key, float *ret)
{
    const struct gguf_pair *p = find_pair(g, key);
    double d;

    if (!p)
        return -ENOENT;
    if (p->kind == GGUF_F32) {
        memcpy(ret, p->value, sizeof(*ret));
        return 0;
    }
    if (p->kind != GGUF_F64)
        return -EINVAL;
    memcpy(&d, p->value, sizeof(d));
    *ret = (float)d;
    return 0;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *ret)
{
    const struct gguf_pair *p = find_pair(g, key);

    if (!p)
        return -ENOENT;
    if (p->kind != GGUF_BOOL)
        return -EINVAL;
    *ret = *p->value == 1;
    return 0;
}

int gguf_get_str(const struct gguf *g, const char *key, struct gguf_str *ret)
{
    const struct gguf_pair *p = find_pair(g, key);
    uint64_t n;

    if (!p)
        return -ENOENT;
    if (p->kind != GGUF_STRING)
        return -EINVAL;
    memcpy(&n, p->value, sizeof(n));
    *ret = (struct gguf_str){ (const char *)p->value + sizeof(n), (size_t)n };
    return 0;
}

/*     value: u32 kind | u64 n | elements */
int gguf_get_array(const struct gguf *g, const char *key, struct gguf_array *ret)
{
    const struct gguf_pair *p = find_pair(g, key);
    uint32_t kind;

    if (!p)
        return -ENOENT;
    if (p->kind != GGUF_ARRAY)
        return -EINVAL;
    memcpy(&kind, p->value, sizeof(kind));
    ret->kind = (enum gguf_kind)kind;
    memcpy(&ret->n, p->value + sizeof(kind), sizeof(ret->n));
    ret->data = p->value + sizeof(kind) + sizeof(ret->n);
    return 0;
}

struct gguf_str gguf_next_str(const struct gguf_array *a, size_t *pos)
{
    const uint8_t *p = a->data + *pos;
    uint64_t n;

    memcpy(&n, p, sizeof(n));
    *pos += sizeof(n) + (size_t)n;
    return (struct gguf_str){ (const char *)p + sizeof(n), (size_t)n };
}

size_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    struct gguf_tensor wanted = { .name = { name, strlen(name) } };
    const struct gguf_tensor *key = &wanted, **found;

    if (g->n_tensors == 0)
        return NULL;
    found = bsearch(&key, g->by_name, g->n_tensors, sizeof(*g->by_name), gguf_compare_names);
    return found ? *found : NULL;
}

/* --- sentences -------------------------------------------------------------------------------- */

/* Also of types that we don't have, so that a sentence can say what was found. By ggml's
 * numbers. */
const char *gguf_type_name(uint32_t type)
{
    static const char *const names[] = {
        "F32",     "F16",   "Q4_0",   "Q4_1",  "Q4_2",  "Q4_3",   "Q5_0", "Q5_1",    "Q8_0",
        "Q8_1",    "Q2_K",  "Q3_K",   "Q4_K",  "Q5_K",  "Q6_K",   "Q8_K", "IQ2_XXS", "IQ2_XS",
        "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",   "I16",     "I32",
        "I64",     "F64",   "IQ1_M",  "BF16",  NULL,    NULL,     NULL,   "TQ1_0",   "TQ2_0",
        NULL,      NULL,    NULL,     "MXFP4", "NVFP4", "Q1_0",   "Q2_0",
    };

    if (type >= sizeof(names) / sizeof(names[0]) || !names[type])
        return "unknown";
    return names[type];
}

/* A file's bytes are not for a terminal: what is not printable ASCII is a question mark. */
const char *gguf_show(struct gguf_str s, char ret[GGUF_SHOW_MAX])
{
    size_t room = GGUF_SHOW_MAX - 3; /* two quotes and the NUL */
    size_t n = s.len <= room ? s.len : room - 3;
    char *to = ret;

    *to++ = '"';
    for (size_t i = 0; i < n; i++)
        *to++ = s.s[i] >= ' ' && s.s[i] <= '~' ? s.s[i] : '?';
    if (n < s.len) {
        memcpy(to, "...", 3);
        to += 3;
    }
    *to++ = '"';
    *to = '\0';
    return ret;
}
