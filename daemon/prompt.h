/* daemon/prompt.h - where the question stands in a long text: at its end.
 *
 * A book and a question about it may come in one piece. What asks is then the last message of a
 * chat, without the head of the answer behind it; of a long message, or of plain text, the last
 * paragraph of more than a few words; without one, the last 64 tokens.
 *
 *     .. <|im_start|> user \n A long text. \n\n Who did it? <|im_end|> \n .. assistant \n
 *                                               |<------------ prompt_len ------------->|
 *
 * Threads    any.
 */
#ifndef DAEMON_PROMPT_H
#define DAEMON_PROMPT_H

#include <stdint.h>

#define PROMPT_MAX     256u /* a message or a paragraph that is longer is a text */
#define PROMPT_DEFAULT 64u

struct vocab;

/* How many of the last ids the question is, what stands behind it included; n at most. */
uint32_t prompt_len(const struct vocab *v, const uint32_t *ids, uint32_t n);

#endif
