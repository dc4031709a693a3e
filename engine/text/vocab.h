/* engine/text/vocab.h - a model's tokens: byte-level BPE between text and token ids.
 *
 * Source: tokenizer.ggml.* of the GGUF file, kind `gpt2`, pre-tokenizers smollm, llama-bpe, qwen2.
 * Text is bytes. Valid UTF-8 is split by the model's pre-tokenizer; bytes that are not UTF-8
 * are encoded as themselves, one by one, so that every input has ids and decodes to itself: no
 * prefix space, and a normal form only where the published tokenizer has one.
 *
 * Normal form  Qwen2's brings each stretch between special tokens, or between bytes that are not
 * UTF-8, to NFC. A GGUF file does not say so; the pre-tokenizer's name stands for it. There ids
 * decode to the normal form of the text. Special tokens are looked for before, in the text as it
 * is.
 *
 * One exception that is the model's: a vocabulary may lack single bytes (SmolLM2's has no token for
 * seven control characters nor for bytes that hardly any text has). The published tokenizers leave
 * them out, and so do we, but count them: vocab_encoder_lost.
 *
 * Special tokens (control and user-defined ones) are found in the text only when the caller asks,
 * so that a document that contains "<|im_end|>" can't end a turn.
 *
 * Threads    immutable after vocab_open. A struct vocab_encoder belongs to one thread at a time.
 * Ownership  the vocab copies what it needs: the gguf may be closed.
 */
#ifndef ENGINE_TEXT_VOCAB_H
#define ENGINE_TEXT_VOCAB_H

#include "engine/file/gguf.h"

#define VOCAB_NONE UINT32_MAX

struct vocab;

int vocab_open(const struct gguf *g, struct vocab **ret, struct why *why);
void vocab_close(struct vocab *v);

uint32_t vocab_size(const struct vocab *v);
uint32_t vocab_bos(const struct vocab *v);             /* VOCAB_NONE: the model has none */
bool vocab_add_bos(const struct vocab *v);             /* the model wants it before a text */
bool vocab_is_nfc(const struct vocab *v);              /* text is brought to NFC */
bool vocab_is_eog(const struct vocab *v, uint32_t id); /* ends an answer: eos, eot, im_end... */
bool vocab_is_special(const struct vocab *v, uint32_t id);
uint32_t vocab_find(const struct vocab *v, const char *text, size_t len); /* whole token or NONE */

/* The bytes of one token; a special token gives its literal text. Not NUL-terminated. */
const uint8_t *vocab_bytes(const struct vocab *v, uint32_t id, size_t *ret_len);

/* Encoding in slices, so that a long document does not stop a thread for long. The text must stay
 * as it is until the end. Slices end between pre-tokens: the ids do not depend on the slicing. A
 * text's ids are no more than its bytes, or, with NFC, than the bytes of its normal form. */
#define VOCAB_IDS_MAX(len) (3 * (size_t)(len))
struct vocab_encoder;

int vocab_encoder_new(const struct vocab *v, struct vocab_encoder **ret);
void vocab_encoder_free(struct vocab_encoder *e);
void vocab_encoder_start(struct vocab_encoder *e, const void *text, size_t len, bool parse_special);

/* Writes up to cap ids (*ret_n, perhaps none) and goes on where it stopped. Some VOCAB_SLICE_BYTES
 * of the text are enough for one call, however many ids come of them. 1: that was the end, 0: call
 * again, -ENOMEM.
 *
 * A pre-token of more than BPE_MAX bytes, 16 KB (a line of one letter, say), is cut into parts of
 * at most that many. Its ids are those of the parts, where a published tokenizer merges it as a
 * whole. */
#define VOCAB_SLICE_BYTES (16u << 10)
int vocab_encoder_next(struct vocab_encoder *e, uint32_t *ids, size_t cap, size_t *ret_n);

/* Bytes since the start that the model has no token for. */
size_t vocab_encoder_lost(const struct vocab_encoder *e);

#endif
