/* train/data/corpus_file.h - the bytes of a corpus file (drawn in train/data/corpus.h), and who
 * writes them.
 *
 * Errors     -ENOMEM, or the errno of the I/O, both with a sentence.
 */
#ifndef TRAIN_DATA_CORPUS_FILE_H
#define TRAIN_DATA_CORPUS_FILE_H

#include "train/data/corpus.h"

#define CORPUS_FILE_MAGIC     "GISTCORP"
#define CORPUS_FILE_VERSION   1u
#define CORPUS_FILE_TOKENS    (1ull << 40) /* the most; keeps every product below 64 bits */
#define CORPUS_FILE_DOCUMENTS (1ull << 32)
#define CORPUS_FILE_SOURCES   4096u

struct corpus_file_header {
    char magic[8];
    uint32_t version, header_len;
    uint32_t n_vocab, eos, bos; /* bos: CORPUS_NONE for none */
    uint32_t n_sources;
    uint64_t n_documents, n_tokens;
    char digest[32]; /* hex, no NUL */
    uint64_t file_len;
    uint64_t payload_hash; /* xxh3-64 of [header_len, file_len) */
    uint8_t zero[24];
    uint64_t header_hash; /* xxh3-64 of what is before it */
};

struct corpus_file_document {
    uint64_t first, n_tokens, n_loss;
    uint32_t source;
    float weight;
};

struct corpus_file_source {
    char name[CORPUS_SOURCE_MAX + 1];
    uint8_t zero[16];
};

_Static_assert(sizeof(struct corpus_file_header) == 128, "layout");
_Static_assert(offsetof(struct corpus_file_header, n_documents) == 32, "layout");
_Static_assert(offsetof(struct corpus_file_header, digest) == 48, "layout");
_Static_assert(offsetof(struct corpus_file_header, file_len) == 80, "layout");
_Static_assert(offsetof(struct corpus_file_header, header_hash) == 120, "layout");
_Static_assert(sizeof(struct corpus_file_document) == 32, "layout");
_Static_assert(sizeof(struct corpus_file_source) == 64, "layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian");

/* Where the parts begin, from the start of the file. */
struct corpus_file_layout {
    uint32_t id_len; /* 2 or 4 */
    uint64_t mask_off, documents_off, sources_off, file_len;
};

/* Counts are at most the limits above. */
void corpus_file_layout(const struct corpus_file_header *h, struct corpus_file_layout *ret);

/* Writes beside path, under another name, until corpus_writer_commit renames it. A writer that is
 * closed before removes what it wrote. After an error only close is allowed. */
struct corpus_writer;

/* head: n_vocab, eos, bos and digest are taken from it. */
int corpus_writer_open(const char *path, const struct corpus_file_header *head,
                       struct corpus_writer **ret, struct why *why);
void corpus_writer_close(struct corpus_writer *w);

/* The number of the source of this name, new or known. */
int corpus_writer_source(struct corpus_writer *w, const char *name, uint32_t *ret, struct why *why);
/* n > 0; loss: 0 or 1 a token. */
int corpus_writer_document(struct corpus_writer *w, const uint32_t *ids, const uint8_t *loss,
                           size_t n, uint32_t source, float weight, struct why *why);
int corpus_writer_commit(struct corpus_writer *w, struct why *why);

#endif
