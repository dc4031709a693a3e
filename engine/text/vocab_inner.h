/* engine/text/vocab_inner.h - a vocabulary as its own files see it.
 *
 *     vocab.c          from the file: tokens, merges, tables made of them; looking at it
 *     vocab_encode.c   text to ids
 *
 * Threads    struct vocab is immutable after vocab_open.
 */
#ifndef ENGINE_TEXT_VOCAB_INNER_H
#define ENGINE_TEXT_VOCAB_INNER_H

#include "engine/text/bpe.h"
#include "engine/text/pretok.h"
#include "engine/text/strmap.h"
#include "engine/text/vocab.h"

struct vocab_token {
    const uint8_t *bytes; /* in struct vocab's text */
    uint32_t len;
    uint8_t kind;
    bool literal; /* its text is not in byte-level letters: no text is encoded to it */
    bool word;    /* a pre-token of just these bytes is this token, no need to merge */
    bool eog;
};

struct vocab {
    struct vocab_token *tokens;
    uint32_t n_tokens;
    uint8_t *text;         /* the bytes of all tokens, one after the other */
    struct strmap normal;  /* what merges can make */
    struct strmap special; /* what is found in text only when asked for */
    struct bpe bpe;
    struct pretok *pretok;
    bool nfc;                /* the published tokenizer brings text to NFC */
    bool ignore_merges;      /* Llama 3: a pre-token in the vocabulary needs no merges to be one */
    uint32_t byte_id[256];   /* VOCAB_NONE: the model has no token for the byte */
    bool special_first[256]; /* a special token begins with this byte */
    uint16_t *special_lens;  /* (n_special_lens), longest first */
    uint32_t n_special_lens;
    uint32_t bos;
    bool add_bos;
};

/* The ids of one pre-token's bytes; ids has room for len of them. Bytes that have no token are left
 * out and added to *lost, as the published tokenizers leave them out. */
int vocab_merge(const struct vocab *v, struct bpe_scratch *s, const uint8_t *p, size_t len,
                uint32_t *ids, size_t *ret_n, size_t *lost);

#endif
