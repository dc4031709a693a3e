/* http/embed.h - embeddings, as OpenAI's and Ollama's clients ask for them.
 *
 *     embed_openai       POST /v1/embeddings   input: a text, texts, ids or lists of ids
 *     embed_ollama       POST /api/embed       input: a text or texts
 *     embed_ollama_one   POST /api/embeddings  prompt: a text; its row is not of length 1
 *
 * A request's object `gistd` may say `pooling` ("mean", "last"), `normalise` and `priority`.
 *
 * Threads    the request's own, which waits in poll() for the daemon, the program's end and the
 *            client: one that leaves ends the work.
 * Ownership  borrows all; *ret_body is the caller's.
 * Errors     -1 and a problem; 1: the client is gone.
 */
#ifndef HTTP_EMBED_H
#define HTTP_EMBED_H

#include "http/field.h"
#include "http/mem.h"
#include "http/pool.h"

struct embed_call {
    struct pool *pool;
    int client_fd, stop_fd;
    bool strict_model; /* another model than the one that is asked for will not do */
};

typedef int embed_fn(const struct embed_call *call, const struct json_object *root,
                     struct text *ret_body, struct problem *p);
embed_fn embed_openai, embed_ollama, embed_ollama_one;

#endif
