/* http/info.h - what is asked about the server and its model, without a prompt.
 *
 * Threads    any.
 * Ownership  *ret is the caller's.
 * Errors     -1 and a problem.
 */
#ifndef HTTP_INFO_H
#define HTTP_INFO_H

#include "http/pool.h"

#include "http/json.h"

/* tail: what stands in the path behind the route's own. */
typedef int info_fn(struct pool *pool, const char *tail, struct json_object **ret,
                    struct problem *p);

info_fn info_health, info_models, info_model;               /* OpenAI's and Anthropic's, in one */
info_fn info_tags, info_show, info_ps, info_ollama_version; /* Ollama's */

#endif
