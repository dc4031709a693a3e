/* train/data/corpus.c - a corpus file that is mapped, looked at once as a whole, and drawn from.
 * After that nothing in it is doubted: reading and sampling have no errors.
 */
#include "base/draw.h"
#include "train/data/corpus_file.h"

#include "base/digest.h"
#include "engine/file/gguf.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* Documents, names and ids are the mapping's; sources and `below` are made of them. */
struct corpus {
    void *map;
    size_t map_len;
    struct corpus_file_header head;
    const uint16_t *ids16; /* one of the two */
    const uint32_t *ids32;
    const uint64_t *mask;
    const struct corpus_file_document *documents;
    const struct corpus_file_source *names;
    struct corpus_source *sources;
    double *below; /* (n_documents) sum of the probabilities' numerators up to and with this one */
};

/* --- the tokenizer's digest ------------------------------------------------------------------- */

/* With its length before it: "ab", "c" is not "a", "bc". */
static void hash_str(XXH3_state_t *h, struct gguf_str s)
{
    uint64_t len = s.len;

    (void)XXH3_128bits_update(h, &len, sizeof(len));
    (void)XXH3_128bits_update(h, s.s, s.len);
}

/* Its length first, for the same reason. */
static int hash_strings(XXH3_state_t *h, const struct gguf *g, const char *key, struct why *why)
{
    struct gguf_array a;
    size_t pos = 0;

    if (gguf_get_array(g, key, &a) < 0 || a.kind != GGUF_STRING)
        return why_set(why, -EINVAL, "%s: no %s, or not a list of strings", gguf_label(g), key);
    (void)XXH3_128bits_update(h, &a.n, sizeof(a.n));
    for (uint64_t i = 0; i < a.n; i++)
        hash_str(h, gguf_next_str(&a, &pos));
    return 0;
}

/* Of what ids mean, and of nothing else: models of one tokenizer share a corpus. A key that is
 * missing counts as an empty one. */
int corpus_digest(const struct gguf *g, char ret[CORPUS_DIGEST_LEN], struct why *why)
{
    /* How text becomes tokens, and which of them end and begin it. */
    static const char *const strings[] = { "tokenizer.ggml.model", "tokenizer.ggml.pre" };
    static const char *const numbers[] = { "tokenizer.ggml.eos_token_id",
                                           "tokenizer.ggml.bos_token_id" };
    XXH3_state_t *h = XXH3_createState();
    int r;

    if (!h)
        return why_set(why, -ENOMEM, "%s: no memory", gguf_label(g));
    (void)XXH3_128bits_reset(h);
    for (size_t i = 0; i < 2; i++) {
        struct gguf_str s = { "", 0 };
        uint32_t id = CORPUS_NONE;

        (void)gguf_get_str(g, strings[i], &s);
        (void)gguf_get_u32(g, numbers[i], &id);
        hash_str(h, s);
        (void)XXH3_128bits_update(h, &id, sizeof(id));
    }
    r = hash_strings(h, g, "tokenizer.ggml.tokens", why);
    if (r == 0)
        r = hash_strings(h, g, "tokenizer.ggml.merges", why);
    ret[0] = '\0';
    if (r == 0)
        digest_put(h, ret);
    (void)XXH3_freeState(h);
    return r;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int check_header(const struct corpus_file_header *h, const char *path, uint64_t file_len,
                        const char *digest, struct why *why)
{
    /* In the order that says most: what it is, whose version, whether the header is whole, the
     * file, the model's. */
    if (memcmp(h->magic, CORPUS_FILE_MAGIC, sizeof(h->magic)) != 0)
        return why_set(why, -EINVAL, "%s: found no corpus file; gist-train corpus makes one", path);
    if (h->version != CORPUS_FILE_VERSION)
        return why_set(why, -EINVAL, "%s: found a corpus file of version %u, expected %u", path,
                       h->version, CORPUS_FILE_VERSION);
    if (h->header_len != sizeof(*h) ||
        h->header_hash != XXH3_64bits(h, offsetof(struct corpus_file_header, header_hash)))
        return why_set(
            why, -EINVAL, "%s: the header is damaged: found checksum %016llx, expected %016llx",
            path,
            (unsigned long long)XXH3_64bits(h, offsetof(struct corpus_file_header, header_hash)),
            (unsigned long long)h->header_hash);
    if (h->file_len != file_len)
        return why_set(why, -EINVAL, "%s: found %llu bytes, expected %llu: the file was %s", path,
                       (unsigned long long)file_len, (unsigned long long)h->file_len,
                       file_len < h->file_len ? "cut" : "added to");
    if (digest && strncmp(h->digest, digest, sizeof(h->digest)) != 0)
        return why_set(why, -EINVAL,
                       "%s: found a corpus of the tokenizer %.32s, expected %.32s, the model's: "
                       "make it again with this model",
                       path, h->digest, digest);
    return 0;
}

/* The checksums tell what an accident did; from here on it is what no builder of ours writes.
 * Nothing that is computed from counts may run over: their limits are far below. */
static int check_counts(const struct corpus_file_header *h, const char *path, struct why *why)
{
    struct corpus_file_layout at;

    if (h->n_tokens == 0 || h->n_tokens > CORPUS_FILE_TOKENS || h->n_documents > h->n_tokens ||
        h->n_documents == 0 || h->n_documents > CORPUS_FILE_DOCUMENTS || h->n_sources == 0 ||
        h->n_sources > CORPUS_FILE_SOURCES || h->eos >= h->n_vocab ||
        (h->bos != CORPUS_NONE && h->bos >= h->n_vocab))
        return why_set(why, -EINVAL,
                       "%s: found %llu tokens, %llu documents, %u sources, which is impossible: "
                       "the file is damaged",
                       path, (unsigned long long)h->n_tokens, (unsigned long long)h->n_documents,
                       h->n_sources);
    corpus_file_layout(h, &at);
    if (at.file_len != h->file_len)
        return why_set(why, -EINVAL, "%s: found %llu bytes, expected %llu for its %llu tokens",
                       path, (unsigned long long)h->file_len, (unsigned long long)at.file_len,
                       (unsigned long long)h->n_tokens);
    return 0;
}

/* Offsets are multiples of 8, as the layout has them, so casts are aligned. */
static void set_parts(struct corpus *c)
{
    const char *base = c->map;
    struct corpus_file_layout at;

    corpus_file_layout(&c->head, &at);
    if (at.id_len == 2)
        c->ids16 = (const void *)(base + sizeof(c->head));
    else
        c->ids32 = (const void *)(base + sizeof(c->head));
    c->mask = (const void *)(base + at.mask_off);
    c->documents = (const void *)(base + at.documents_off);
    c->names = (const void *)(base + at.sources_off);
}

/* Of token i of the corpus. */
static uint32_t id_at(const struct corpus *c, uint64_t i)
{
    return c->ids16 ? c->ids16[i] : c->ids32[i];
}

static bool loss_at(const struct corpus *c, uint64_t i)
{
    return c->mask[i / 64] >> i % 64 & 1;
}

/* A word at a time in between: a corpus has hundreds of millions of tokens. */
static uint64_t count_loss(const struct corpus *c, uint64_t first, uint64_t n)
{
    uint64_t sum = 0;

    for (; n > 0 && first % 64; first++, n--)
        sum += loss_at(c, first);
    for (; n >= 64; first += 64, n -= 64)
        sum += (uint64_t)__builtin_popcountll(c->mask[first / 64]);
    for (; n > 0; first++, n--)
        sum += loss_at(c, first);
    return sum;
}

static int check_documents(const struct corpus *c, const char *path, struct why *why)
{
    const struct corpus_file_header *h = &c->head;
    uint64_t next = 0;

    for (uint64_t i = 0; i < h->n_documents; i++) {
        const struct corpus_file_document *d = &c->documents[i];

        /* Documents follow each other without holes. */
        if (d->first != next || d->n_tokens == 0 || d->n_tokens > h->n_tokens - next ||
            d->source >= h->n_sources || !isfinite(d->weight) || d->weight < 0 ||
            d->n_loss != count_loss(c, d->first, d->n_tokens))
            return why_set(why, -EINVAL,
                           "%s: document %llu is damaged: found %llu tokens at %llu of source %u",
                           path, (unsigned long long)i, (unsigned long long)d->n_tokens,
                           (unsigned long long)d->first, d->source);
        next += d->n_tokens;
    }
    /* Tokens behind the last document would be nobody's. */
    if (next != h->n_tokens)
        return why_set(why, -EINVAL, "%s: found documents of %llu tokens, expected %llu", path,
                       (unsigned long long)next, (unsigned long long)h->n_tokens);
    /* An id beyond the vocabulary would be a row behind the embeddings. */
    for (uint64_t i = 0; i < h->n_tokens; i++)
        if (id_at(c, i) >= h->n_vocab)
            return why_set(why, -EINVAL, "%s: token %llu is %u, expected below %u", path,
                           (unsigned long long)i, id_at(c, i), h->n_vocab);
    return 0;
}

/* Fills `below`; false: no document can be drawn. A document is drawn as often as its tokens, its
 * own weight and its source's say. */
static bool add_up(struct corpus *c)
{
    double sum = 0;

    for (uint64_t i = 0; i < c->head.n_documents; i++) {
        const struct corpus_file_document *d = &c->documents[i];

        sum += c->sources[d->source].weight * (double)d->weight * (double)d->n_tokens;
        /* Ascending, so that a draw is a search. */
        c->below[i] = sum;
    }
    /* Weights are finite each; their sum over 2^32 documents need not be. */
    return sum > 0 && isfinite(sum);
}

static int set_sources(struct corpus *c, const char *path, struct why *why)
{
    const struct corpus_file_header *h = &c->head;

    c->sources = calloc(h->n_sources, sizeof(*c->sources));
    c->below = calloc(h->n_documents, sizeof(*c->below));
    if (!c->sources || !c->below)
        return why_set(why, -ENOMEM, "%s: no memory for %llu documents", path,
                       (unsigned long long)h->n_documents);
    for (uint32_t i = 0; i < h->n_sources; i++) {
        /* The last byte is its end. */
        if (!c->names[i].name[0] || c->names[i].name[CORPUS_SOURCE_MAX])
            return why_set(why, -EINVAL, "%s: the name of source %u is damaged", path, i);
        c->sources[i] = (struct corpus_source){ .name = c->names[i].name, .weight = 1 };
    }
    /* Counted here, as the file says it of documents alone. */
    for (uint64_t i = 0; i < h->n_documents; i++) {
        struct corpus_source *s = &c->sources[c->documents[i].source];

        s->n_documents++;
        s->n_tokens += c->documents[i].n_tokens;
        s->n_loss += c->documents[i].n_loss;
    }
    if (!add_up(c))
        return why_set(why, -EINVAL, "%s: no document has a weight greater than 0", path);
    return 0;
}

/* Mapped, as a run reads a corpus of gigabytes in an order of its own, many times. Who cuts the
 * file in place while it is read ends the run by SIGBUS; corpus_file.c writes beside it and moves.
 */
static int map_file(struct corpus *c, const char *path, struct why *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        r = why_set(why, -errno, "corpus %s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode) || (size_t)st.st_size < sizeof(c->head))
        r = why_set(why, -EINVAL, "%s: found %s of %lld bytes, expected a corpus file", path,
                    S_ISREG(st.st_mode) ? "a file" : "no file", (long long)st.st_size);
    if (r == 0) {
        c->map_len = (size_t)st.st_size;
        /* Private: what we never write to is shared all the same. */
        c->map = mmap(NULL, c->map_len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (c->map == MAP_FAILED) {
            c->map = NULL;
            r = why_set(why, -errno, "corpus %s: %s", path, strerror(errno));
        }
    }
    if (fd >= 0)
        (void)close(fd);
    return r;
}

static int check_payload(const struct corpus *c, const char *path, struct why *why)
{
    uint64_t found =
        XXH3_64bits((const char *)c->map + sizeof(c->head), c->map_len - sizeof(c->head));

    if (found != c->head.payload_hash)
        return why_set(why, -EINVAL,
                       "%s: the tokens are damaged: found checksum %016llx, expected %016llx", path,
                       (unsigned long long)found, (unsigned long long)c->head.payload_hash);
    return 0;
}

int corpus_open(const char *path, const char *digest, struct corpus **ret, struct why *why)
{
    struct corpus *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    r = map_file(c, path, why);
    if (r < 0)
        goto fail;
    /* A copy: what was checked is what is used, whoever writes to the file. */
    memcpy(&c->head, c->map, sizeof(c->head));
    r = check_header(&c->head, path, c->map_len, digest, why);
    if (r == 0)
        r = check_payload(c, path, why);
    /* Behind the checksum: counts of a damaged file are worth no sentence of their own. */
    if (r == 0)
        r = check_counts(&c->head, path, why);
    if (r < 0)
        goto fail;
    set_parts(c);
    r = check_documents(c, path, why);
    if (r == 0)
        r = set_sources(c, path, why);
    if (r < 0)
        goto fail;
    *ret = c;
    return 0;

fail:
    corpus_close(c);
    return r;
}

void corpus_close(struct corpus *c)
{
    if (!c)
        return;
    if (c->map)
        (void)munmap(c->map, c->map_len);
    free(c->sources);
    free(c->below);
    free(c);
}

/* --- what is in it ---------------------------------------------------------------------------- */

void corpus_info(const struct corpus *c, struct corpus_info *ret)
{
    const struct corpus_file_header *h = &c->head;

    *ret = (struct corpus_info){ .n_vocab = h->n_vocab,
                                 .eos = h->eos,
                                 .bos = h->bos,
                                 .n_sources = h->n_sources,
                                 .n_documents = h->n_documents,
                                 .n_tokens = h->n_tokens,
                                 .hash = h->payload_hash };
    memcpy(ret->digest, h->digest, sizeof(h->digest));
    for (uint32_t i = 0; i < h->n_sources; i++)
        ret->n_loss += c->sources[i].n_loss;
}

/* The name is the mapping's. */
void corpus_source(const struct corpus *c, uint32_t source, struct corpus_source *ret)
{
    assert(source < c->head.n_sources);
    *ret = c->sources[source];
}

void corpus_document(const struct corpus *c, uint64_t doc, struct corpus_document *ret)
{
    const struct corpus_file_document *d = &c->documents[doc];

    assert(doc < c->head.n_documents);
    *ret = (struct corpus_document){ d->n_tokens, d->n_loss, d->source, d->weight };
}

/* ret_loss NULL: nobody asks. */
static void copy(const struct corpus *c, uint64_t first, uint32_t n, uint32_t *ret_ids,
                 uint8_t *ret_loss)
{
    for (uint32_t i = 0; i < n; i++)
        ret_ids[i] = id_at(c, first + i);
    for (uint32_t i = 0; ret_loss && i < n; i++)
        ret_loss[i] = loss_at(c, first + i);
}

void corpus_read(const struct corpus *c, uint64_t doc, uint64_t from, uint32_t n, uint32_t *ret_ids,
                 uint8_t *ret_loss)
{
    const struct corpus_file_document *d = &c->documents[doc];

    assert(doc < c->head.n_documents && from <= d->n_tokens && n <= d->n_tokens - from);
    copy(c, d->first + from, n, ret_ids, ret_loss);
}

int corpus_weigh(struct corpus *c, const char *source, double weight, struct why *why)
{
    struct corpus_source *s = c->sources, *end = s + c->head.n_sources;
    double before;

    while (s < end && strcmp(s->name, source) != 0)
        s++;
    if (s == end)
        return why_set(why, -ENOENT, "the corpus has no source \"%.60s\"; its first is \"%s\"",
                       source, c->sources[0].name);
    if (!isfinite(weight) || weight < 0)
        return why_set(why, -EINVAL, "source %s: found the weight %g, allowed: 0 or more", source,
                       weight);
    /* Back to it where nothing could be drawn any more: the caller may go on. */
    before = s->weight;
    s->weight = weight;
    if (add_up(c))
        return 0;
    s->weight = before;
    (void)add_up(c);
    return why_set(why, -EINVAL, "source %s: with a weight of %g there is nothing left to draw",
                   source, weight);
}

/* --- sampling --------------------------------------------------------------------------------- */

/* The upper half of a product: no division, and a bias of n / 2^64. */
static uint64_t draw_below(uint64_t *state, uint64_t n)
{
    return (uint64_t)((unsigned __int128)draw_next(state) * n >> 64);
}

/* 53 random bits are a double in [0, 1). */
static uint64_t draw_document(const struct corpus *c, uint64_t *state)
{
    uint64_t lo = 0, hi = c->head.n_documents - 1;
    double x = (double)(draw_next(state) >> 11) * 0x1p-53 * c->below[hi];

    while (lo < hi) { /* the first whose sum is above x; a document of weight 0 adds nothing */
        uint64_t mid = lo + (hi - lo) / 2;

        if (c->below[mid] > x)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* All of it carries loss: text, no conversation. */
static bool is_plain(const struct corpus_file_document *d)
{
    return d->n_loss == d->n_tokens;
}

/* S2. whole: the room is that of a whole sequence. */
static bool fits(const struct corpus *c, const struct corpus_file_document *d, uint32_t room,
                 bool whole)
{
    /* Text may begin anywhere; a conversation must be whole, or begin a sequence and carry loss
     * before its cut. */
    if (is_plain(d) || d->n_tokens <= room)
        return true;
    return whole && count_loss(c, d->first, room) > 0;
}

static const struct corpus_file_document *draw_fitting(const struct corpus *c, uint64_t *state,
                                                       uint32_t room, bool whole)
{
    const struct corpus_file_document *d = NULL;

    /* Where nothing fits the last one drawn is taken all the same, and cut. */
    for (unsigned i = 0; i < CORPUS_DRAWS; i++) {
        d = &c->documents[draw_document(c, state)];
        if (fits(c, d, room, whole))
            break;
    }
    return d;
}

void corpus_sample(const struct corpus *c, uint64_t seed, uint64_t index, uint32_t n_tokens,
                   uint32_t *ret_ids, uint8_t *ret_loss)
{
    /* Of both numbers: sequences of neighbouring numbers, and of neighbouring seeds, have nothing
     * in common. */
    uint64_t state = draw_mix(seed + DRAW_GAMMA) ^ draw_mix(~index);
    uint32_t at = 0, start;

    assert(n_tokens > 1);
    if (c->head.bos != CORPUS_NONE) {
        ret_ids[at] = c->head.bos;
        /* Nothing before it predicts it. */
        ret_loss[at++] = 0;
    }
    for (start = at; at < n_tokens;) {
        uint32_t room = n_tokens - at;
        const struct corpus_file_document *d = draw_fitting(c, &state, room, at == start);
        uint64_t from = d->first;

        /* The last of the sequence. */
        if (d->n_tokens > room) {
            /* Any stretch of it, each as likely. */
            if (is_plain(d))
                from += draw_below(&state, d->n_tokens - room + 1);
            copy(c, from, room, ret_ids + at, ret_loss + at);
            return;
        }
        copy(c, from, (uint32_t)d->n_tokens, ret_ids + at, ret_loss + at);
        at += (uint32_t)d->n_tokens;
        if (at < n_tokens) {
            ret_ids[at] = c->head.eos;
            /* The end is part of what is learnt where the text before it is. */
            ret_loss[at] = ret_loss[at - 1];
            at++;
        }
    }
}
