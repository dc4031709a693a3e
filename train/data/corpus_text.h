/* train/data/corpus_text.h - a text or a line of JSONL to token ids, each with its bit of loss.
 *
 * The forms of a line are in train/data/corpus_build.h. A conversation is encoded as it would be
 * met when serving: what stands before an answer up to the head of its turn, then the answer apart
 * from it, then the token that ends the turn. Answer and end carry loss.
 *
 * Threads    one at a time.
 * Ownership  ids and loss are the struct corpus_text's, until the next call.
 * Errors     -EINVAL with a sentence that begins with `where`; -ENOMEM.
 */
#ifndef TRAIN_DATA_CORPUS_TEXT_H
#define TRAIN_DATA_CORPUS_TEXT_H

#include "engine/file/gguf.h"

struct corpus_text;

struct corpus_ids {
    const uint32_t *ids;
    const uint8_t *loss;
    size_t n;
};

int corpus_text_open(const struct gguf *g, struct corpus_text **ret, struct why *why);
void corpus_text_close(struct corpus_text *t);

/* What stands between documents: <|endoftext|> or <|end_of_text|> where the vocabulary has one (a
 * chat model's eos ends a turn), else eos. bos: CORPUS_NONE when the model wants none before a
 * text. */
void corpus_text_marks(const struct corpus_text *t, uint32_t *ret_n_vocab, uint32_t *ret_eos,
                       uint32_t *ret_bos);

int corpus_text_plain(struct corpus_text *t, const char *text, size_t len, const char *where,
                      struct corpus_ids *ret, struct why *why);
int corpus_text_line(struct corpus_text *t, const char *line, size_t len, const char *where,
                     struct corpus_ids *ret, struct why *why);

/* Bytes so far that the model has no token for. */
size_t corpus_text_lost(const struct corpus_text *t);

#endif
