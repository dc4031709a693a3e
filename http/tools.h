/* http/tools.h - tools: what a request offers and must have called, and calls of earlier answers.
 *
 * Each API writes tools in its own way. Here they become the messages "tools" and "calls" of
 * libgist (client/gist.h), which the model's template makes its own of, and, where one must be
 * called, a schema that the answer has to satisfy.
 *
 * Threads    pure.
 * Ownership  texts are borrowed from the request, or of ask.mem.
 * Errors     -1 and a problem.
 */
#ifndef HTTP_TOOLS_H
#define HTTP_TOOLS_H

#include "http/ask.h"

#define TOOLS_MAX      128u
#define TOOLS_NAME_MAX 128u
#define TOOLS_OPEN     "<tool_call>"
#define TOOLS_CLOSE    "</tool_call>"

/* The list in o's field `tools`, as OpenAI's chat and Ollama have it, or without an object
 * `function` around what is said; parameters is the name of the arguments' schema. The message
 * comes before all others: call it before any is read. */
int tools_read(struct ask *a, const struct json_object *o, const char *parameters,
               struct problem *p);

/* One must be called; name NULL: any. */
int tools_must(struct ask *a, const char *name, struct problem *p);
/* At most one. */
int tools_one(struct ask *a, struct problem *p);

/* A call of an earlier answer, one line more of t. arguments: an object, or a text that holds one.
 */
int tools_call(struct text *t, const char *name, const struct json_object *arguments,
               struct problem *p);
/* A message of the lines, if there are any; t is freed. */
int tools_calls(struct ask *a, struct text *t, struct problem *p);
/* The same of a message's field `tool_calls`, as OpenAI's chat and Ollama have it. */
int tools_read_calls(struct ask *a, const struct json_object *m, struct problem *p);

/* What tools and the rest make of each other, or can't. At the end of a request's reading. */
int tools_check(struct ask *a, struct problem *p);

/* What a call calls its arguments, by a template of this form. */
const char *tools_arguments(enum gist_tools form);
/* The schema of a call, where one must be made. NULL: no memory. */
char *tools_schema(struct mem *m, const struct ask *a, enum gist_tools form);
/* The text of a GIST_CALLS, for an answer that is held. NULL: no memory. */
char *tools_or_format(struct mem *m, const struct ask *a, enum gist_tools form);

#endif
