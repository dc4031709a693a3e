/* train/data/corpus.h - a tokenised corpus in one file, mapped into memory; sequences are drawn
 * from it.
 *
 * train/data/corpus_build.h makes the file, once. A document is what stood between two eos tokens:
 * a text file, or a line of a JSONL file. It belongs to a source (a name that the builder was
 * given), has a weight of its own, and a bit a token that says whether the token carries loss: all
 * of them in plain text, the answers in a conversation.
 *
 * Layout, little-endian (structs and asserts in train/data/corpus_file.h)
 *
 *     0         128                                                                    file_len
 *     +---------+-------------------+---+------------------+---------------+-----------+
 *     | header  | ids               | 0 | mask             | documents     | sources   |
 *     +---------+-------------------+---+------------------+---------------+-----------+
 *       magic,    u16 each when       8   bit i % 64 of      32 bytes each   64 bytes each: name,
 *       counts,   n_vocab <= 65536,       word i / 64: token                 padded with zeros
 *       digest    else u32                i carries loss
 *
 *     The header has an xxh3-64 of all that follows it and one of itself. A file of another version
 *     is refused. ids hold the documents one after the other, without the eos between them.
 *
 * Invariants (checked when the file is opened)
 *   C1  Documents lie one after the other, none is empty, and together they are all tokens.
 *   C2  Every id is below n_vocab, every document's source is one of the sources.
 *   C3  n_loss of a document is the number of its bits in the mask, weights are finite and >= 0.
 *
 * Sampling  An endless stream of sequences, each a pure function of (corpus, weights, seed, index):
 * not of what was drawn before, nor of how many processes draw. A document is drawn with a
 * probability proportional to source weight * document weight * length.
 *   S1  A plain document longer than the room left gives a window at a random place and ends the
 *       sequence; a shorter one is taken whole, with eos behind it, and the next one is drawn.
 *   S2  A conversation (a document of which a part carries loss) is taken whole or not at all; one
 *       that is longer than a whole sequence gives its beginning, if an answer begins there. What
 *       does not fit is drawn again, up to CORPUS_DRAWS times; then it is cut.
 *   S3  Where the model wants a begin-of-text token every sequence starts with it. It carries no
 *       loss; eos does, when the token before it does.
 *
 * Threads    immutable after corpus_weigh; readable from any thread.
 * Ownership  the file must stay as it is while it is open: a new build is a new file, and renamed.
 * Errors     corpus_open: -EINVAL with a sentence (file, found, expected), -ENOMEM, or the errno of
 *            the I/O.
 */
#ifndef TRAIN_DATA_CORPUS_H
#define TRAIN_DATA_CORPUS_H

#include "base/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gguf;

#define CORPUS_SOURCE_MAX 47u /* bytes of a source's name */
#define CORPUS_DIGEST_LEN 33  /* hex xxh3-128 and its NUL */
#define CORPUS_NONE       UINT32_MAX
#define CORPUS_DRAWS      64

struct corpus;

/* The digest of a model's tokenizer: its tokens, merges, pre-tokenizer, eos and bos. Files that
 * differ in their weights only (another quantisation) have the same, and models with another chat
 * template: a corpus keeps conversations as the template of the model that it was made with wrote
 * them. */
int corpus_digest(const struct gguf *g, char ret[CORPUS_DIGEST_LEN], struct why *why);

/* digest: what the corpus has to be made for; NULL: whatever it is. */
int corpus_open(const char *path, const char *digest, struct corpus **ret, struct why *why);
void corpus_close(struct corpus *c);

struct corpus_info {
    uint32_t n_vocab, eos, bos; /* bos: CORPUS_NONE when sequences don't start with one */
    uint32_t n_sources;
    uint64_t n_documents, n_tokens, n_loss;
    uint64_t hash; /* of all that is in the file */
    char digest[CORPUS_DIGEST_LEN];
};

struct corpus_source {
    const char *name;
    double weight; /* 1 until corpus_weigh */
    uint64_t n_documents, n_tokens, n_loss;
};

struct corpus_document {
    uint64_t n_tokens, n_loss;
    uint32_t source;
    float weight;
};

void corpus_info(const struct corpus *c, struct corpus_info *ret);
void corpus_source(const struct corpus *c, uint32_t source, struct corpus_source *ret);
void corpus_document(const struct corpus *c, uint64_t doc, struct corpus_document *ret);

/* Sets a source's weight, from 0 (never drawn) on. -ENOENT: no source of that name; -EINVAL: a
 * weight that is none, or nothing left to draw. Both with a sentence. */
int corpus_weigh(struct corpus *c, const char *source, double weight, struct why *why);

/* n tokens of a document from token `from` on, which must lie inside of it. ret_loss may
 * be NULL. */
void corpus_read(const struct corpus *c, uint64_t doc, uint64_t from, uint32_t n, uint32_t *ret_ids,
                 uint8_t *ret_loss);

/* Sequence `index` of the stream `seed`: n_tokens > 1 ids, and 1 for each that carries loss. */
void corpus_sample(const struct corpus *c, uint64_t seed, uint64_t index, uint32_t n_tokens,
                   uint32_t *ret_ids, uint8_t *ret_loss);

#endif
