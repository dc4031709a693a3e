#include "tests/support/gguf_build.h"

#include "base/draw.h"

#include <assert.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bytes {
    uint8_t *p;
    size_t len, cap;
};

struct pair {
    char *key;
    struct bytes value; /* u32 kind, then the value */
};

struct record {
    char *name;
    uint32_t type, n_dims;
    uint64_t dims[GGUF_DIMS_MAX];
    bool own_off;
    uint64_t off; /* when own_off; else data follows the one before */
    size_t len;
    uint8_t *data; /* NULL: a hole */
};

struct gguf_build {
    uint32_t version, align;
    struct pair *pairs;
    size_t n_pairs;
    struct record *tensors;
    size_t n_tensors;
};

static void *must(void *p)
{
    assert(p);
    return p;
}

static void put(struct bytes *b, const void *src, size_t n)
{
    if (b->len + n > b->cap) {
        b->cap = (b->len + n) * 2 + 64;
        b->p = must(realloc(b->p, b->cap));
    }
    if (n)
        memcpy(b->p + b->len, src, n);
    b->len += n;
}

static void put_u32(struct bytes *b, uint32_t v)
{
    put(b, &v, sizeof(v));
}

static void put_u64(struct bytes *b, uint64_t v)
{
    put(b, &v, sizeof(v));
}

static void put_str(struct bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

struct gguf_build *gguf_build_new(uint32_t version)
{
    struct gguf_build *b = must(calloc(1, sizeof(*b)));

    b->version = version;
    b->align = 32;
    return b;
}

void gguf_build_free(struct gguf_build *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_pairs; i++) {
        free(b->pairs[i].key);
        free(b->pairs[i].value.p);
    }
    for (size_t i = 0; i < b->n_tensors; i++) {
        free(b->tensors[i].name);
        free(b->tensors[i].data);
    }
    free(b->pairs);
    free(b->tensors);
    free(b);
}

/* --- keys ------------------------------------------------------------------------------------- */

static struct pair *find_pair(struct gguf_build *b, const char *key)
{
    for (size_t i = 0; i < b->n_pairs; i++)
        if (strcmp(b->pairs[i].key, key) == 0)
            return &b->pairs[i];
    return NULL;
}

static struct bytes *add_pair(struct gguf_build *b, const char *key)
{
    struct pair *p;

    b->pairs = must(realloc(b->pairs, (b->n_pairs + 1) * sizeof(*b->pairs)));
    p = &b->pairs[b->n_pairs++];
    *p = (struct pair){ .key = must(strdup(key)) };
    return &p->value;
}

/* An empty value of this key and kind to append to. */
static struct bytes *set_pair(struct gguf_build *b, const char *key, uint32_t kind)
{
    struct pair *p = find_pair(b, key);
    struct bytes *value = p ? &p->value : add_pair(b, key);

    value->len = 0;
    put_u32(value, kind);
    return value;
}

void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t kind, const void *v, size_t len)
{
    put(set_pair(b, key, kind), v, len);
}

void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v)
{
    gguf_build_raw(b, key, GGUF_U32, &v, sizeof(v));
}

void gguf_build_f32(struct gguf_build *b, const char *key, float v)
{
    gguf_build_raw(b, key, GGUF_F32, &v, sizeof(v));
}

void gguf_build_bool(struct gguf_build *b, const char *key, bool v)
{
    uint8_t byte = v;

    gguf_build_raw(b, key, GGUF_BOOL, &byte, 1);
}

void gguf_build_str(struct gguf_build *b, const char *key, const char *v)
{
    put_str(set_pair(b, key, GGUF_STRING), v);
}

void gguf_build_str_array(struct gguf_build *b, const char *key, const char *const *v, size_t n)
{
    struct bytes *value = set_pair(b, key, GGUF_ARRAY);

    put_u32(value, GGUF_STRING);
    put_u64(value, n);
    for (size_t i = 0; i < n; i++)
        put_str(value, v[i]);
}

void gguf_build_i32_array(struct gguf_build *b, const char *key, const int32_t *v, size_t n)
{
    struct bytes *value = set_pair(b, key, GGUF_ARRAY);

    put_u32(value, GGUF_I32);
    put_u64(value, n);
    put(value, v, n * sizeof(*v));
}

void gguf_build_duplicate(struct gguf_build *b, const char *key)
{
    struct bytes *value = add_pair(b, key); /* may move the pairs: look up after it */
    const struct pair *p = find_pair(b, key);

    put(value, p->value.p, p->value.len);
}

void gguf_build_drop(struct gguf_build *b, const char *key)
{
    struct pair *p = find_pair(b, key);

    assert(p);
    free(p->key);
    free(p->value.p);
    b->n_pairs--;
    memmove(p, p + 1, (size_t)(b->pairs + b->n_pairs - p) * sizeof(*p));
}

/* --- tensors ---------------------------------------------------------------------------------- */

static struct record *find_record(struct gguf_build *b, const char *name)
{
    for (size_t i = 0; i < b->n_tensors; i++)
        if (strcmp(b->tensors[i].name, name) == 0)
            return &b->tensors[i];
    return NULL;
}

static struct record *add_record(struct gguf_build *b, const char *name)
{
    struct record *t;

    b->tensors = must(realloc(b->tensors, (b->n_tensors + 1) * sizeof(*b->tensors)));
    t = &b->tensors[b->n_tensors++];
    *t = (struct record){ .name = must(strdup(name)) };
    return t;
}

static struct record *set_record(struct gguf_build *b, const char *name, enum quant type,
                                 uint32_t n_dims, const uint64_t *dims)
{
    struct record *t = find_record(b, name);
    uint64_t rows = 1;

    assert(n_dims >= 1 && n_dims <= GGUF_DIMS_MAX);
    if (!t)
        t = add_record(b, name);
    free(t->data);
    t->data = NULL;
    t->type = quant_info(type)->gguf_type;
    t->n_dims = n_dims;
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++)
        t->dims[i] = i < n_dims ? dims[i] : 1;
    for (uint32_t i = 1; i < n_dims; i++)
        rows *= dims[i];
    t->len = quant_row_bytes(type, dims[0]) * rows;
    return t;
}

void gguf_build_tensor(struct gguf_build *b, const char *name, enum quant type, uint32_t n_dims,
                       const uint64_t *dims, const void *data)
{
    struct record *t = set_record(b, name, type, n_dims, dims);

    if (!data)
        return;
    t->data = must(malloc(t->len + 1));
    memcpy(t->data, data, t->len);
}

void gguf_build_random(struct gguf_build *b, const char *name, enum quant type, uint32_t n_dims,
                       const uint64_t *dims, float mean, float std, uint64_t seed)
{
    struct record *t = set_record(b, name, type, n_dims, dims);
    size_t n = 1;

    for (uint32_t i = 0; i < n_dims; i++)
        n *= dims[i];
    t->data = must(malloc(t->len + 1));
    gguf_build_values(type, n, mean, std, &seed, t->data);
}

void gguf_build_drop_tensor(struct gguf_build *b, const char *name)
{
    struct record *t = find_record(b, name);

    assert(t);
    free(t->name);
    free(t->data);
    b->n_tensors--;
    memmove(t, t + 1, (size_t)(b->tensors + b->n_tensors - t) * sizeof(*t));
}

void gguf_build_duplicate_tensor(struct gguf_build *b, const char *name)
{
    struct record *t = add_record(b, name), *from = find_record(b, name);
    char *own = t->name;

    *t = *from;
    t->name = own;
    t->data = NULL; /* a hole of the same size */
}

void gguf_build_tensor_type(struct gguf_build *b, const char *name, uint32_t type)
{
    ((struct record *)must(find_record(b, name)))->type = type;
}

void gguf_build_tensor_dims(struct gguf_build *b, const char *name, uint32_t n_dims,
                            const uint64_t *dims)
{
    struct record *t = must(find_record(b, name));

    t->n_dims = n_dims;
    for (uint32_t i = 0; i < n_dims && i < GGUF_DIMS_MAX; i++)
        t->dims[i] = dims[i];
}

void gguf_build_tensor_off(struct gguf_build *b, const char *name, uint64_t off)
{
    struct record *t = must(find_record(b, name));

    t->own_off = true;
    t->off = off;
}

void gguf_build_align(struct gguf_build *b, uint32_t align)
{
    b->align = align;
}

/* --- the file --------------------------------------------------------------------------------- */

/* Gives every tensor its offset in the data part; returns the part's length. */
static uint64_t place_tensors(struct gguf_build *b)
{
    uint64_t at = 0, end = 0;

    for (size_t i = 0; i < b->n_tensors; i++) {
        struct record *t = &b->tensors[i];

        if (!t->own_off)
            t->off = at;
        at = t->off + t->len;
        if (at > end)
            end = at;
        at = (at + b->align - 1) / b->align * b->align;
    }
    return end;
}

static struct bytes write_header(const struct gguf_build *b)
{
    struct bytes h = { 0 };

    put(&h, "GGUF", 4);
    put_u32(&h, b->version);
    put_u64(&h, b->n_tensors);
    put_u64(&h, b->n_pairs);
    for (size_t i = 0; i < b->n_pairs; i++) {
        put_str(&h, b->pairs[i].key);
        put(&h, b->pairs[i].value.p, b->pairs[i].value.len);
    }
    for (size_t i = 0; i < b->n_tensors; i++) {
        const struct record *t = &b->tensors[i];

        put_str(&h, t->name);
        put_u32(&h, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++)
            put_u64(&h, d < GGUF_DIMS_MAX ? t->dims[d] : 1);
        put_u32(&h, t->type);
        put_u64(&h, t->off);
    }
    while (h.len % b->align)
        put(&h, "", 1);
    return h;
}

void *gguf_build_bytes(struct gguf_build *b, size_t *ret_len, size_t *ret_data_off)
{
    uint64_t data_len = place_tensors(b);
    struct bytes h = write_header(b);
    size_t head = h.len;

    h.p = must(realloc(h.p, head + data_len));
    memset(h.p + head, 0, data_len);
    for (size_t i = 0; i < b->n_tensors; i++)
        if (b->tensors[i].data)
            memcpy(h.p + head + b->tensors[i].off, b->tensors[i].data, b->tensors[i].len);
    *ret_len = head + data_len;
    if (ret_data_off)
        *ret_data_off = head;
    return h.p;
}

static void write_at(int fd, const uint8_t *p, size_t len, uint64_t off)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)off);

        assert(n > 0);
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
}

void gguf_build_write(struct gguf_build *b, const char *path)
{
    uint64_t data_len = place_tensors(b);
    struct bytes h = write_header(b);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r;

    assert(fd >= 0);
    r = ftruncate(fd, (off_t)(h.len + data_len));
    assert(r == 0);
    write_at(fd, h.p, h.len, 0);
    for (size_t i = 0; i < b->n_tensors; i++)
        if (b->tensors[i].data)
            write_at(fd, b->tensors[i].data, b->tensors[i].len, h.len + b->tensors[i].off);
    r = close(fd);
    assert(r == 0);
    (void)r;
    free(h.p);
}

/* --- random values ---------------------------------------------------------------------------- */

static void random_bytes(uint64_t *seed, void *ret, size_t n)
{
    uint8_t *p = ret;

    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(draw_next(seed) >> 24);
}

/* A scale between half and one and a half of `about`, as f16. */
static uint16_t random_scale(uint64_t *seed, float about)
{
    float u = (float)(draw_next(seed) >> 40) / 16777216.0f;

    return quant_f32_to_f16(about * (0.5f + u));
}

/* Uniform with this mean and standard deviation. */
static float random_float(uint64_t *seed, float mean, float std)
{
    float u = (float)(draw_next(seed) >> 40) / 16777216.0f;

    return mean + (u - 0.5f) * sqrtf(12.0f) * std;
}

/* Nibbles that are uniform have a deviation of 4.6, five bits 9.2, six bits 18.5, signed
 * bytes 73.6. */
static void random_q4_0(uint64_t *seed, float std, struct quant_q4_0 *ret)
{
    random_bytes(seed, ret->q, sizeof(ret->q));
    ret->d = random_scale(seed, std / 4.6f);
}

static void random_q4_1(uint64_t *seed, float std, struct quant_q4_1 *ret)
{
    random_bytes(seed, ret->q, sizeof(ret->q));
    ret->d = random_scale(seed, std / 4.6f);
    ret->m = quant_f32_to_f16(-7.5f * quant_f16_to_f32(ret->d));
}

static void random_q8_0(uint64_t *seed, float std, struct quant_q8_0 *ret)
{
    random_bytes(seed, ret->q, sizeof(ret->q));
    ret->d = random_scale(seed, std / 73.6f);
}

static void random_q5_0(uint64_t *seed, float std, struct quant_q5_0 *ret)
{
    random_bytes(seed, ret->q, sizeof(ret->q));
    random_bytes(seed, ret->qh, sizeof(ret->qh));
    ret->d = random_scale(seed, std / 9.2f);
}

static void random_q5_1(uint64_t *seed, float std, struct quant_q5_1 *ret)
{
    random_bytes(seed, ret->q, sizeof(ret->q));
    random_bytes(seed, ret->qh, sizeof(ret->qh));
    ret->d = random_scale(seed, std / 9.2f);
    ret->m = quant_f32_to_f16(-15.5f * quant_f16_to_f32(ret->d));
}

/* Scales and minima are the same random six bits (40 on average), so that each group is centred. */
static void random_k_scales(uint64_t *seed, uint8_t ret[12])
{
    uint8_t sc[8];

    for (int j = 0; j < 8; j++)
        sc[j] = (uint8_t)(16 + draw_next(seed) % 48);
    for (int j = 0; j < 4; j++) {
        ret[j] = (uint8_t)(sc[j] | (sc[j + 4] >> 4) << 6);
        ret[j + 4] = ret[j];
        ret[j + 8] = (uint8_t)((sc[j + 4] & 15) | (sc[j + 4] & 15) << 4);
    }
}

static void random_q4_k(uint64_t *seed, float std, struct quant_q4_k *ret)
{
    random_bytes(seed, ret->q, sizeof(ret->q));
    ret->d = random_scale(seed, std / (4.6f * 40));
    ret->dmin = quant_f32_to_f16(7.5f * quant_f16_to_f32(ret->d));
    random_k_scales(seed, ret->scales);
}

static void random_q5_k(uint64_t *seed, float std, struct quant_q5_k *ret)
{
    random_bytes(seed, ret->q, sizeof(ret->q));
    random_bytes(seed, ret->qh, sizeof(ret->qh));
    ret->d = random_scale(seed, std / (9.2f * 40));
    ret->dmin = quant_f32_to_f16(15.5f * quant_f16_to_f32(ret->d));
    random_k_scales(seed, ret->scales);
}

static void random_q6_k(uint64_t *seed, float std, struct quant_q6_k *ret)
{
    random_bytes(seed, ret->ql, sizeof(ret->ql));
    random_bytes(seed, ret->qh, sizeof(ret->qh));
    for (size_t j = 0; j < sizeof(ret->scales); j++) {
        int8_t s = (int8_t)(40 + draw_next(seed) % 80);

        ret->scales[j] = draw_next(seed) & 1 ? s : (int8_t)-s;
    }
    ret->d = random_scale(seed, std / (18.5f * 80));
}

void gguf_build_values(enum quant type, size_t n, float mean, float std, uint64_t *seed, void *ret)
{
    const struct quant_info *info = quant_info(type);
    uint8_t *p = ret;

    assert(n % info->block_cols == 0);
    for (size_t i = 0; i < n / info->block_cols; i++, p += info->block_bytes) {
        union {
            float f32;
            uint16_t h;
            struct quant_q4_0 q4_0;
            struct quant_q4_1 q4_1;
            struct quant_q8_0 q8_0;
            struct quant_q4_k q4_k;
            struct quant_q6_k q6_k;
            struct quant_q5_0 q5_0;
            struct quant_q5_1 q5_1;
            struct quant_q5_k q5_k;
        } u;

        switch (type) {
        case QUANT_F32:
            u.f32 = random_float(seed, mean, std);
            break;
        case QUANT_F16:
            u.h = quant_f32_to_f16(random_float(seed, mean, std));
            break;
        case QUANT_BF16:
            u.f32 = random_float(seed, mean, std);
            memmove(&u.h, (uint8_t *)&u.f32 + 2, 2); /* the upper half: rounded towards zero */
            break;
        case QUANT_Q4_0:
            random_q4_0(seed, std, &u.q4_0);
            break;
        case QUANT_Q4_1:
            random_q4_1(seed, std, &u.q4_1);
            break;
        case QUANT_Q8_0:
            random_q8_0(seed, std, &u.q8_0);
            break;
        case QUANT_Q4_K:
            random_q4_k(seed, std, &u.q4_k);
            break;
        case QUANT_Q6_K:
            random_q6_k(seed, std, &u.q6_k);
            break;
        case QUANT_Q5_0:
            random_q5_0(seed, std, &u.q5_0);
            break;
        case QUANT_Q5_1:
            random_q5_1(seed, std, &u.q5_1);
            break;
        case QUANT_Q5_K:
            random_q5_k(seed, std, &u.q5_k);
            break;
        case QUANT__N:
            abort();
        }
        memcpy(p, &u, info->block_bytes);
    }
}

/* --- a whole model ---------------------------------------------------------------------------- */

struct gguf_build_shape gguf_build_tiny(void)
{
    return (struct gguf_build_shape){
        .arch = "llama",
        .n_layer = 2,
        .n_embd = 64,
        .n_ff = 96,
        .n_head = 4,
        .n_head_kv = 2,
        .head_dim = 16,
        .n_ctx = 512,
        .n_vocab = GGUF_BUILD_N_VOCAB,
        .embd = QUANT_F32,
        .attn = QUANT_F32,
        .ffn = QUANT_F32,
        .tied = true,
        .rope_base = 10000.0f,
        .rms_eps = 1e-5f,
        .std = 0.05f,
        .seed = 1,
    };
}

static void arch_key(char ret[128], const struct gguf_build_shape *s, const char *what)
{
    int n = snprintf(ret, 128, "%s.%s", s->arch, what);

    assert(n < 128);
    (void)n;
}

static void add_hparams(struct gguf_build *b, const struct gguf_build_shape *s)
{
    const struct {
        const char *key;
        uint32_t v;
    } ints[] = {
        { "context_length", s->n_ctx },          { "embedding_length", s->n_embd },
        { "block_count", s->n_layer },           { "feed_forward_length", s->n_ff },
        { "attention.head_count", s->n_head },   { "attention.head_count_kv", s->n_head_kv },
        { "rope.dimension_count", s->head_dim }, { "vocab_size", s->n_vocab },
    };
    char key[128];

    gguf_build_str(b, "general.architecture", s->arch);
    gguf_build_str(b, "general.name", "Tiny random");
    for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        arch_key(key, s, ints[i].key);
        gguf_build_u32(b, key, ints[i].v);
    }
    arch_key(key, s, "attention.layer_norm_rms_epsilon");
    gguf_build_f32(b, key, s->rms_eps);
    arch_key(key, s, "rope.freq_base");
    gguf_build_f32(b, key, s->rope_base);
    if (s->key_length) {
        arch_key(key, s, "attention.key_length");
        gguf_build_u32(b, key, s->head_dim);
        arch_key(key, s, "attention.value_length");
        gguf_build_u32(b, key, s->head_dim);
    }
}

/* GPT-2's printable stand-in for a byte, as UTF-8: printable Latin-1 is itself, the others are
 * counted from U+0100 on. */
static void byte_token(unsigned byte, char ret[4])
{
    unsigned c = byte, n = 0;

#define PRINTABLE(x) (((x) >= 33 && (x) <= 126) || ((x) >= 161 && (x) <= 172) || (x) >= 174)
    if (!PRINTABLE(byte)) {
        for (unsigned x = 0; x < byte; x++)
            n += !PRINTABLE(x);
        c = 256 + n;
    }
#undef PRINTABLE
    memset(ret, 0, 4);
    if (c < 128) {
        ret[0] = (char)c;
    } else {
        ret[0] = (char)(0xc0 | c >> 6);
        ret[1] = (char)(0x80 | (c & 63));
    }
}

/* U+0120, the stand-in for a space, is "\xc4\xa0". */
static const char *const merges[] = {
    "h e", "i n",          "e r",  "\xc4\xa0 t", "\xc4\xa0 a",   "r e", "o n",
    "a n", "\xc4\xa0t he", "in g", "\xc4\xa0 w", "\xc4\xa0w or", "o r",
};
#define N_MERGES (sizeof(merges) / sizeof(merges[0]))
_Static_assert(GGUF_BUILD_BYTE_0 + 256 + N_MERGES == GGUF_BUILD_N_VOCAB, "tokens");

static const char chat_template[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a test.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_UNUSED = 5 };

static void add_tokenizer(struct gguf_build *b, uint32_t n_vocab)
{
    static const char *const specials[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" };
    char(*text)[24] = must(calloc(n_vocab, sizeof(*text)));
    const char **tokens = must(calloc(n_vocab, sizeof(*tokens)));
    int32_t *types = must(calloc(n_vocab, sizeof(*types)));

    assert(n_vocab >= GGUF_BUILD_N_VOCAB);
    for (uint32_t i = 0; i < n_vocab; i++) {
        types[i] = TOKEN_NORMAL;
        if (i < GGUF_BUILD_BYTE_0) {
            strcpy(text[i], specials[i]);
            types[i] = TOKEN_CONTROL;
        } else if (i < GGUF_BUILD_BYTE_0 + 256) {
            byte_token(i - GGUF_BUILD_BYTE_0, text[i]);
        } else if (i < GGUF_BUILD_N_VOCAB) {
            const char *merge = merges[i - GGUF_BUILD_BYTE_0 - 256];

            for (char *to = text[i]; *merge; merge++)
                if (*merge != ' ')
                    *to++ = *merge;
        } else {
            snprintf(text[i], sizeof(text[i]), "[unused %u]", i);
            types[i] = TOKEN_UNUSED;
        }
        tokens[i] = text[i];
    }
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_str(b, "tokenizer.ggml.pre", "smollm");
    gguf_build_str_array(b, "tokenizer.ggml.tokens", tokens, n_vocab);
    gguf_build_i32_array(b, "tokenizer.ggml.token_type", types, n_vocab);
    gguf_build_str_array(b, "tokenizer.ggml.merges", merges, N_MERGES);
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 1);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", 2);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", false);
    gguf_build_str(b, "tokenizer.chat_template", chat_template);
    free(text);
    free(tokens);
    free(types);
}

/* One weight of the model: (rows, cols), its own seed. rows 0: a vector of F32. */
static void add_weight(struct gguf_build *b, const struct gguf_build_shape *s, const char *name,
                       enum quant type, uint64_t cols, uint64_t rows, float mean, float std)
{
    uint64_t dims[2] = { cols, rows };
    uint64_t seed = s->seed;

    for (const char *c = name; *c; c++) /* what a tensor gets does not depend on the others */
        seed = seed * 1099511628211u + (uint8_t)*c;
    if (s->sparse && rows > 0)
        gguf_build_tensor(b, name, type, 2, dims, NULL);
    else
        gguf_build_random(b, name, rows ? type : QUANT_F32, rows ? 2 : 1, dims, mean, std, seed);
}

static void add_layer(struct gguf_build *b, const struct gguf_build_shape *s, uint32_t layer)
{
    uint64_t q = (uint64_t)s->n_head * s->head_dim, kv = (uint64_t)s->n_head_kv * s->head_dim;
    const struct {
        const char *name;
        enum quant type;
        uint64_t cols, rows;
        float mean, std;
        bool there;
    } w[] = {
        { "attn_norm.weight", QUANT_F32, s->n_embd, 0, 1.0f, 0.1f, true },
        { "attn_q.weight", s->attn, s->n_embd, q, 0, s->std, true },
        { "attn_k.weight", s->attn, s->n_embd, kv, 0, s->std, true },
        { "attn_v.weight", s->attn, s->n_embd, kv, 0, s->std, true },
        { "attn_q.bias", QUANT_F32, q, 0, 0, s->std, s->biases },
        { "attn_k.bias", QUANT_F32, kv, 0, 0, s->std, s->biases },
        { "attn_v.bias", QUANT_F32, kv, 0, 0, s->std, s->biases },
        { "attn_output.weight", s->attn, q, s->n_embd, 0, s->std, true },
        { "ffn_norm.weight", QUANT_F32, s->n_embd, 0, 1.0f, 0.1f, true },
        { "ffn_gate.weight", s->ffn, s->n_embd, s->n_ff, 0, s->std, true },
        { "ffn_up.weight", s->ffn, s->n_embd, s->n_ff, 0, s->std, true },
        { "ffn_down.weight", s->ffn, s->n_ff, s->n_embd, 0, s->std, true },
    };

    for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++) {
        char name[128];

        if (!w[i].there)
            continue;
        snprintf(name, sizeof(name), "blk.%u.%s", layer, w[i].name);
        add_weight(b, s, name, w[i].type, w[i].cols, w[i].rows, w[i].mean, w[i].std);
    }
}

/* Llama 3.1's factors: 1 for short wavelengths, 8 for long ones, between them a ramp. */
static void add_rope_freqs(struct gguf_build *b, const struct gguf_build_shape *s)
{
    uint64_t half = s->head_dim / 2;
    float *factor = must(calloc(half, sizeof(*factor)));
    const float high = 8192.0f / 4, low = 8192.0f / 1;

    for (uint64_t i = 0; i < half; i++) {
        float wavelength = 6.2831853f * powf(s->rope_base, 2.0f * (float)i / (float)s->head_dim);
        float smooth = (8192.0f / wavelength - 1) / (4 - 1);

        factor[i] = wavelength < high  ? 1.0f
                    : wavelength > low ? 8.0f
                                       : 1.0f / ((1 - smooth) / 8.0f + smooth);
    }
    gguf_build_tensor(b, "rope_freqs.weight", QUANT_F32, 1, &half, factor);
    free(factor);
}

struct gguf_build *gguf_build_model(const struct gguf_build_shape *s)
{
    struct gguf_build *b = gguf_build_new(3);

    add_hparams(b, s);
    add_tokenizer(b, s->n_vocab);
    if (s->rope_freqs)
        add_rope_freqs(b, s);
    add_weight(b, s, "token_embd.weight", s->embd, s->n_embd, s->n_vocab, 0, s->std);
    for (uint32_t i = 0; i < s->n_layer; i++)
        add_layer(b, s, i);
    add_weight(b, s, "output_norm.weight", QUANT_F32, s->n_embd, 0, 1.0f, 0.1f);
    if (!s->tied)
        add_weight(b, s, "output.weight", s->embd, s->n_embd, s->n_vocab, 0, s->std);
    return b;
}
