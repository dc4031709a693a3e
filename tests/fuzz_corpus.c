/* Fuzzes corpus files: any bytes are refused with a sentence, or are a corpus whose documents and
 * sources add up, whose ids are all in the vocabulary and of which any number of sequences can be
 * drawn. Run by tests/run-fuzz.
 *
 * Each input is opened as it is and once more with a header that is put right as far as a checksum
 * or the file's length can refuse it, so that the fuzzer meets the checks behind those.
 */
#include "tests/support/fuzz_seeds.h"
#include "train/data/corpus_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#define SEQUENCE 96u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(int yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "not so: %s\n", what);
        abort();
    }
}

/* --- seeds: what the writer writes ------------------------------------------------------------ */

static void put_seed(const char *dir, const char *name, uint32_t n_vocab, uint32_t bos)
{
    struct corpus_file_header head = { .n_vocab = n_vocab, .eos = 2, .bos = bos };
    static const uint8_t plain[80] = { [0 ... 79] = 1 }, answer[80] = { [60 ... 69] = 1 };
    uint32_t ids[80], text, tasks;
    struct corpus_writer *w;
    char path[512];

    memset(head.digest, 'd', sizeof(head.digest));
    for (uint32_t i = 0; i < 80; i++)
        ids[i] = i * 7919 % n_vocab;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    require(corpus_writer_open(path, &head, &w, NULL) == 0 &&
                corpus_writer_source(w, "text", &text, NULL) == 0 &&
                corpus_writer_source(w, "recall-json", &tasks, NULL) == 0 &&
                corpus_writer_document(w, ids, plain, 80, text, 1, NULL) == 0 &&
                corpus_writer_document(w, ids, answer, 80, tasks, 2.5f, NULL) == 0 &&
                corpus_writer_document(w, ids + 9, plain, 5, text, 0, NULL) == 0 &&
                corpus_writer_commit(w, NULL) == 0,
            "a seed");
    corpus_writer_close(w);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = fuzz_seeds_dir(*argc, *argv);

    if (dir) {
        put_seed(dir, "narrow", 300, CORPUS_NONE);
        put_seed(dir, "wide", 70000, 1);
    }
    return 0;
}

/* --- what an opened corpus says --------------------------------------------------------------- */

static uint64_t read_document(const struct corpus *c, uint64_t doc, uint64_t n, uint32_t n_vocab)
{
    uint32_t ids[64];
    uint8_t loss[64];
    uint64_t n_loss = 0;

    for (uint64_t at = 0; at < n; at += 64) {
        uint32_t some = n - at < 64 ? (uint32_t)(n - at) : 64;

        corpus_read(c, doc, at, some, ids, loss);
        for (uint32_t i = 0; i < some; i++) {
            require(ids[i] < n_vocab && loss[i] <= 1, "an id of the vocabulary");
            n_loss += loss[i];
        }
    }
    return n_loss;
}

static void walk(const struct corpus *c, const struct corpus_info *info)
{
    uint64_t n_tokens = 0, n_loss = 0, n_documents = 0;

    for (uint64_t i = 0; i < info->n_documents; i++) {
        struct corpus_document d;

        corpus_document(c, i, &d);
        require(d.source < info->n_sources && d.n_tokens > 0 && d.weight >= 0, "a document");
        require(read_document(c, i, d.n_tokens, info->n_vocab) == d.n_loss, "a document's loss");
        n_tokens += d.n_tokens;
        n_loss += d.n_loss;
    }
    require(n_tokens == info->n_tokens && n_loss == info->n_loss, "the sum of documents");
    for (uint32_t i = 0; i < info->n_sources; i++) {
        struct corpus_source s;

        corpus_source(c, i, &s);
        require(s.name[0] && strlen(s.name) <= CORPUS_SOURCE_MAX, "a source's name");
        n_documents += s.n_documents;
        n_loss -= s.n_loss;
    }
    require(n_documents == info->n_documents && n_loss == 0, "the sum of sources");
}

static void draw(const struct corpus *c, const struct corpus_info *info)
{
    uint32_t ids[SEQUENCE];
    uint8_t loss[SEQUENCE];

    for (uint64_t index = 0; index < 4; index++) {
        memset(ids, 0xff, sizeof(ids));
        corpus_sample(c, 1, index, SEQUENCE, ids, loss);
        for (uint32_t i = 0; i < SEQUENCE; i++)
            require(ids[i] < info->n_vocab && loss[i] <= 1, "a drawn id");
    }
}

static void try_file(int fd)
{
    struct why why = { "" };
    struct corpus_source first;
    struct corpus_info info;
    struct corpus *c;
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (corpus_open(path, NULL, &c, &why) < 0) {
        require(why.text[0] != '\0', "a sentence with every refusal");
        return;
    }
    require(why.text[0] == '\0', "no sentence without a refusal");
    corpus_info(c, &info);
    walk(c, &info);
    draw(c, &info);
    corpus_source(c, 0, &first);
    if (corpus_weigh(c, first.name, 0, &why) == 0) /* others are left */
        draw(c, &info);
    corpus_close(c);
}

/* --- inputs ----------------------------------------------------------------------------------- */

/* Few sources and documents, as many tokens as there are bytes for, the rest by that. Returns the
 * file's length. */
static size_t mend_counts(struct corpus_file_header *h, size_t len)
{
    struct corpus_file_layout at;
    size_t ends;

    h->n_sources = h->n_sources % 8;
    h->n_documents = h->n_documents % 32;
    h->n_tokens = 0;
    corpus_file_layout(h, &at);
    ends = at.file_len - sizeof(*h);
    if (len > at.file_len)
        h->n_tokens = (len - sizeof(*h) - ends) * 8 / (at.id_len * 8 + 1);
    corpus_file_layout(h, &at);
    return at.file_len;
}

/* file has room for what is added. */
static size_t mend(uint8_t *file, size_t len)
{
    struct corpus_file_header h;

    memcpy(&h, file, sizeof(h));
    if (h.file_len != len)
        len = mend_counts(&h, len);
    memcpy(h.magic, CORPUS_FILE_MAGIC, sizeof(h.magic));
    h.version = CORPUS_FILE_VERSION;
    h.header_len = sizeof(h);
    h.file_len = len;
    h.payload_hash = XXH3_64bits(file + sizeof(h), len - sizeof(h));
    h.header_hash = XXH3_64bits(&h, offsetof(struct corpus_file_header, header_hash));
    memcpy(file, &h, sizeof(h));
    return len;
}

static void put(int fd, const void *data, size_t len)
{
    require(ftruncate(fd, 0) == 0 && pwrite(fd, data, len, 0) == (ssize_t)len, "a file of memory");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int fd = memfd_create("corpus", MFD_CLOEXEC);
    uint8_t *file =
        calloc(1, len + 4096); /* mend_counts adds up to 8 sources, 32 documents and a word */

    if (fd >= 0 && file) {
        put(fd, data, len);
        try_file(fd);
        memcpy(file, data, len);
        if (len >= sizeof(struct corpus_file_header)) {
            len = mend(file, len);
            put(fd, file, len);
            try_file(fd);
        }
    }
    free(file);
    if (fd >= 0)
        (void)close(fd);
    return 0;
}
