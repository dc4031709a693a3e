/* train/data/corpus_file.c - writes a corpus file as documents come: ids at once, all that is small
 * at the end, the header last and in front. Until its name is given a file that was interrupted is
 * nobody's.
 */
#include "train/data/corpus_file.h"

#include "base/files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* In 64 bits: limits of the counts (2^40 tokens) keep it from running over. */
void corpus_file_layout(const struct corpus_file_header *h, struct corpus_file_layout *ret)
{
    uint64_t end;

    ret->id_len = h->n_vocab <= 65536 ? 2 : 4;
    end = sizeof(*h) + h->n_tokens * ret->id_len;
    ret->mask_off = (end + 7) & ~7ull;
    ret->documents_off = ret->mask_off + (h->n_tokens + 63) / 64 * 8;
    ret->sources_off = ret->documents_off + h->n_documents * sizeof(struct corpus_file_document);
    ret->file_len = ret->sources_off + h->n_sources * sizeof(struct corpus_file_source);
}

/* ids go to the file as they come; the parts behind them wait in memory. */
struct corpus_writer {
    char *path, *part; /* the name it gets, the name it has */
    FILE *file;
    XXH3_state_t *hash;
    struct corpus_file_header head;
    uint64_t *mask;
    size_t mask_cap; /* words */
    struct corpus_file_document *documents;
    size_t documents_cap;
    struct corpus_file_source *sources;
};

/* errno first: why_set may change it. */
static int fail_io(struct corpus_writer *w, struct why *why)
{
    int err = errno;

    return why_set(why, -err, "%s: %s", w->part, strerror(err));
}

static int fail_memory(struct corpus_writer *w, struct why *why)
{
    return why_set(why, -ENOMEM, "%s: no memory", w->path);
}

/* To at least `need` elements, new ones zero. */
static int grow(void *array, size_t *cap, size_t need, size_t size)
{
    /* Of any type: by the address of the caller's pointer. */
    void **p = array, *q;
    size_t n = *cap ? *cap : 1024;

    if (need <= *cap)
        return 0;
    while (n < need)
        n *= 2;
    q = reallocarray(*p, n, size);
    if (!q)
        return -ENOMEM;
    memset((char *)q + *cap * size, 0, (n - *cap) * size);
    *p = q;
    *cap = n;
    return 0;
}

/* The sum is of all behind the header, in the order of the file. */
static int put(struct corpus_writer *w, const void *bytes, size_t len, struct why *why)
{
    (void)XXH3_64bits_update(w->hash, bytes, len);
    return fwrite(bytes, 1, len, w->file) == len ? 0 : fail_io(w, why);
}

int corpus_writer_open(const char *path, const struct corpus_file_header *head,
                       struct corpus_writer **ret, struct why *why)
{
    struct corpus_writer *w = calloc(1, sizeof(*w));
    static const struct corpus_file_header later; /* its place; commit writes it */
    int r;

    if (!w)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    /* Without counts yet, and without names. */
    w->head = *head;
    w->path = strdup(path);
    w->hash = XXH3_createState();
    if (!w->path || !w->hash || asprintf(&w->part, "%s.part", path) < 0) {
        w->part = NULL;
        r = fail_memory(w, why);
        goto fail;
    }
    (void)XXH3_64bits_reset(w->hash);
    w->file = fopen(w->part, "w+e");
    if (!w->file || fwrite(&later, sizeof(later), 1, w->file) != 1) {
        r = fail_io(w, why);
        goto fail;
    }
    *ret = w;
    return 0;

fail:
    corpus_writer_close(w);
    return r;
}

void corpus_writer_close(struct corpus_writer *w)
{
    if (!w)
        return;
    /* Until commit takes it away. */
    if (w->file) {
        (void)fclose(w->file);
        (void)unlink(w->part);
    }
    (void)XXH3_freeState(w->hash);
    free(w->mask);
    free(w->documents);
    free(w->sources);
    free(w->part);
    free(w->path);
    free(w);
}

/* A name that is there has its number. */
int corpus_writer_source(struct corpus_writer *w, const char *name, uint32_t *ret, struct why *why)
{
    struct corpus_file_source *s;
    uint32_t i;

    for (i = 0; i < w->head.n_sources; i++) {
        if (strcmp(w->sources[i].name, name) == 0) {
            *ret = i;
            return 0;
        }
    }
    if (!*name || strlen(name) > CORPUS_SOURCE_MAX)
        return why_set(why, -EINVAL, "source \"%.100s\": a name of %zu bytes; 1 to %u are allowed",
                       name, strlen(name), CORPUS_SOURCE_MAX);
    /* i is how many there are. */
    if (i == CORPUS_FILE_SOURCES)
        return why_set(why, -EINVAL, "source \"%s\" is one too many: %u are allowed", name, i);
    s = reallocarray(w->sources, i + 1, sizeof(*s));
    if (!s)
        return fail_memory(w, why);
    w->sources = s;
    s[i] = (struct corpus_file_source){ .zero = { 0 } };
    memcpy(s[i].name, name, strlen(name));
    w->head.n_sources++;
    *ret = i;
    return 0;
}

/* In half the bytes where ids have 16 bits. */
static int put_ids(struct corpus_writer *w, const uint32_t *ids, size_t n, struct why *why)
{
    /* On the stack: 8 KB. */
    uint16_t narrow[4096];
    int r = 0;

    if (w->head.n_vocab > 65536)
        return put(w, ids, n * sizeof(*ids), why);
    while (n > 0 && r == 0) {
        size_t some = n < 4096 ? n : 4096;

        for (size_t i = 0; i < some; i++)
            narrow[i] = (uint16_t)ids[i];
        r = put(w, narrow, some * sizeof(*narrow), why);
        ids += some;
        n -= some;
    }
    return r;
}

int corpus_writer_document(struct corpus_writer *w, const uint32_t *ids, const uint8_t *loss,
                           size_t n, uint32_t source, float weight, struct why *why)
{
    struct corpus_file_header *h = &w->head;
    struct corpus_file_document *d;

    assert(n > 0 && source < h->n_sources);
    if (n > CORPUS_FILE_TOKENS - h->n_tokens || h->n_documents == CORPUS_FILE_DOCUMENTS)
        return why_set(why, -EFBIG, "%s: more than 2^40 tokens or 2^32 documents", w->path);
    /* Before anything is counted: without memory the writer stays as it was. */
    if (grow(&w->mask, &w->mask_cap, (h->n_tokens + n + 63) / 64, sizeof(*w->mask)) < 0 ||
        grow(&w->documents, &w->documents_cap, h->n_documents + 1, sizeof(*d)) < 0)
        return fail_memory(w, why);
    d = &w->documents[h->n_documents++];
    *d = (struct corpus_file_document){ h->n_tokens, n, 0, source, weight };
    for (size_t i = 0; i < n; i++) {
        uint64_t at = h->n_tokens + i;

        assert(ids[i] < h->n_vocab && loss[i] <= 1);
        /* New words are zero (grow). */
        w->mask[at / 64] |= (uint64_t)loss[i] << at % 64;
        /* 0 or 1 each. */
        d->n_loss += loss[i];
    }
    h->n_tokens += n;
    return put_ids(w, ids, n, why);
}

/* What stands behind the ids, then the header. */
static int put_rest(struct corpus_writer *w, struct why *why)
{
    static const uint8_t zeros[8];
    struct corpus_file_header *h = &w->head;
    struct corpus_file_layout at;
    int r;

    corpus_file_layout(h, &at);
    /* Up to the next multiple of 8. */
    r = put(w, zeros, at.mask_off - sizeof(*h) - h->n_tokens * at.id_len, why);
    if (r == 0)
        r = put(w, w->mask, at.documents_off - at.mask_off, why);
    if (r == 0)
        r = put(w, w->documents, at.sources_off - at.documents_off, why);
    if (r == 0)
        r = put(w, w->sources, at.file_len - at.sources_off, why);
    if (r < 0)
        return r;
    /* Only now: a file that was never finished has no magic. */
    memcpy(h->magic, CORPUS_FILE_MAGIC, sizeof(h->magic));
    h->version = CORPUS_FILE_VERSION;
    h->header_len = sizeof(*h);
    h->file_len = at.file_len;
    h->payload_hash = XXH3_64bits_digest(w->hash);
    /* Last of the header's fields, and of all before it. */
    h->header_hash = XXH3_64bits(h, offsetof(struct corpus_file_header, header_hash));
    if (fseek(w->file, 0, SEEK_SET) < 0 || fwrite(h, sizeof(*h), 1, w->file) != 1)
        return fail_io(w, why);
    return 0;
}

int corpus_writer_commit(struct corpus_writer *w, struct why *why)
{
    int r = put_rest(w, why);

    if (r < 0)
        return r;
    /* The file's bytes before its name. */
    if (fflush(w->file) != 0 || fsync(fileno(w->file)) < 0 || rename(w->part, w->path) < 0)
        return fail_io(w, why);
    /* From here on close has nothing to take away: the file has its name. */
    r = fclose(w->file) != 0 ? -errno : 0;
    w->file = NULL;
    return r < 0 ? why_set(why, r, "%s: %s", w->path, strerror(-r))
                 : files_sync_entry(w->path, why);
}
