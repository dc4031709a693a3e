/* tests/support/built_vocab.h - the tokenizer of a model that was built (gguf_build.h), alone.
 *
 * Errors     of vocab_open; what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_BUILT_VOCAB_H
#define TESTS_SUPPORT_BUILT_VOCAB_H

#include "engine/text/vocab.h"
#include "tests/support/gguf_build.h"

/* b is left as it was. vocab_close(). */
int built_vocab_open(struct gguf_build *b, struct vocab **ret, struct why *why);

/* Of gguf_build_tiny(). */
struct vocab *built_vocab_tiny(void);

#endif
