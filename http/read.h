/* http/read.h - the requests of each API: from the JSON object in ask.root to the rest of the ask.
 *
 * Unknown fields are ignored. Known ones that change the answer and can't be done here are refused
 * by name: an answer that quietly is not what was asked for is the worse one.
 *
 * An object `gistd` in any request says what no API has words for (docs/http.md):
 *
 *     memory    "auto", or a compressor's name         ratio, budget, hydrate, adapter
 *     private   keep nothing of it                     priority   "interactive", "background"
 *     deadline  seconds, for all of it
 *
 * memory, ratio and budget are also taken beside the API's own fields.
 *
 * Threads    pure.
 * Errors     -1 and a problem; the ask is the caller's to free all the same.
 */
#ifndef HTTP_READ_H
#define HTTP_READ_H

#include "http/ask.h"

typedef int read_fn(struct ask *a, struct problem *p);

/* OpenAI */
read_fn read_chat_completions, read_completions, read_responses;
/* Anthropic */
read_fn read_messages, read_count_tokens;
/* Ours: a turn of a live session, a chat completion with some words of its own (docs/http.md). */
read_fn read_turn;
/* Ollama */
read_fn read_ollama_chat, read_ollama_generate;

/* --- what they share -------------------------------------------------------------------------- */

/* A message's content: a string, or an array of objects whose `type` is one of `types` (ends with
 * NULL) and which have a `text`: these, one after the other. what names it in sentences. */
int read_content(struct ask *a, const struct json_object *content, const char *const *types,
                 const char *what, const char **ret, struct problem *p);

/* A string or an array of strings that end the answer. */
int read_stops(struct ask *a, const struct json_object *o, const char *name, struct problem *p);

/* The answer is a text of this JSON Schema; NULL: any JSON object. What of it can't be enforced the
 * daemon refuses, and names the place. */
int read_schema(struct ask *a, const struct json_object *schema, struct problem *p);

/* Log-probabilities of the answer's tokens, and of n others beside each. */
#define READ_LOGPROBS_MAX 20u
void read_want_logprobs(struct ask *a, uint32_t n);

/* Those as OpenAI's chat and Ollama ask for them: `logprobs` (true, false) and `top_logprobs`. */
int read_logprobs(struct ask *a, const struct json_object *o, struct problem *p);

/* A format as OpenAI and Anthropic write it: {"type": "text" | "json_object" | "json_schema", ...};
 * the schema is in `inner`, or with NULL beside the type. */
int read_format(struct ask *a, const struct json_object *o, const char *name, const char *inner,
                struct problem *p);

/* model, stream, seed and the extension. */
int read_common(struct ask *a, const struct json_object *o, struct problem *p);

#endif
