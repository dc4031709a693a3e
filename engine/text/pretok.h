/* engine/text/pretok.h - cuts text into pre-tokens, the pieces inside which byte pairs are merged.
 *
 * Each kind is the regular expression that the model's published tokenizer uses, run by PCRE2. The
 * one file that includes its header is pretok.c.
 *
 *     smollm      every digit alone, then GPT-2's expression
 *     llama-bpe   Llama 3's: up to three digits together, line ends kept with what they end
 *     qwen2       Llama 3's with every digit alone
 *
 * Unicode   Letters, numbers and spaces are those of PCRE2's tables (Unicode 14 in 10.42). A
 *           character that a later Unicode assigned counts as neither, so that its ids may differ
 *           from those of a tokenizer with newer tables; no byte is lost by it. Space is the
 *           White_Space property, spelled out: PCRE2's own \s has U+180E besides.
 * Normal form  none is applied here: engine/text/vocab.h.
 *
 * Invariants
 *   P1  Every position begins a pre-token of at least one character.
 *
 * Threads    struct pretok is immutable; a struct pretok_scratch belongs to one thread at a time.
 * Errors     -ENOMEM; no other.
 */
#ifndef ENGINE_TEXT_PRETOK_H
#define ENGINE_TEXT_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pretok_kind { PRETOK_SMOLLM, PRETOK_LLAMA3, PRETOK_QWEN2, PRETOK__N };

/* The value of tokenizer.ggml.pre. */
const char *pretok_name(enum pretok_kind kind);

struct pretok;
struct pretok_scratch;

/* jit: compile to machine code where the process may; where not (a service that may not map memory
 * writable and executable), the interpreter gives the same pieces several times slower. */
int pretok_new(enum pretok_kind kind, bool jit, struct pretok **ret);
void pretok_free(struct pretok *p);

int pretok_scratch_new(const struct pretok *p, struct pretok_scratch **ret);
void pretok_scratch_free(struct pretok_scratch *s);

/* The length of the pre-token at the start of text[0..len), which is well-formed UTF-8, len > 0. */
int pretok_next(const struct pretok *p, struct pretok_scratch *s, const uint8_t *text, size_t len,
                size_t *ret_len);

#endif
