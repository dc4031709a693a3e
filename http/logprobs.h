/* http/logprobs.h - log-probabilities of an answer: kept while it comes, told with its texts.
 *
 * They come by callbacks, before the text that their tokens make; to tell them the texts of other
 * tokens are needed, which a callback can't ask for. So pieces of the answer wait here until the
 * job's thread is out of the callback.
 *
 * Threads    the job's.
 * Ownership  logprobs_fini frees all.
 * Errors     memory that is short shows in `lost`.
 */
#ifndef HTTP_LOGPROBS_H
#define HTTP_LOGPROBS_H

#include "http/json.h"
#include "http/tokens.h"

#define LOGPROBS_TOP_MAX 20u

struct logprobs_token {
    uint32_t id, n_top, top_ids[LOGPROBS_TOP_MAX];
    float logprob, top[LOGPROBS_TOP_MAX];
};

struct logprobs {
    struct text texts; /* of the pieces, one behind the other */
    struct logprobs_piece {
        size_t len, n_tokens;
    } * pieces;
    struct logprobs_token *tokens;
    size_t n_pieces, n_tokens, cap_pieces, cap_tokens;
    size_t first;                           /* of tokens: the first that no piece has yet */
    struct logprobs_kept *kept, **kept_end; /* made of pieces whose text may be a call's */
    size_t kept_len;                        /* of the text of all that were ever kept */
    bool lost;
};

void logprobs_fini(struct logprobs *l);
void logprobs_token(struct logprobs *l, const struct gist_logprob *token);
/* The text that the tokens since the last piece make. */
void logprobs_piece(struct logprobs *l, const char *text, size_t len);
void logprobs_clear(struct logprobs *l);
/* The first piece was told, with its tokens. */
void logprobs_told(struct logprobs *l);

/* Where answers may call: list, which is taken over, is of the next len bytes of the answer. -1: no
 * memory. */
int logprobs_keep(struct logprobs *l, size_t len, struct json_object *list);
/* Of the bytes from..to, which are told now: what was kept of pieces that have one of them, each
 * once. What came before belongs to calls, and goes. NULL: no memory. */
struct json_object *logprobs_of(struct logprobs *l, size_t from, size_t to);

/* n tokens as OpenAI's chat has them: an array of {token, logprob, bytes, top_logprobs}. */
struct json_object *logprobs_json(const struct logprobs_token *tokens, size_t n, struct tokens *t,
                                  gist_conn *c);
/* The same as its completions have them; offset: of the first, in the answer's text. */
struct json_object *logprobs_flat(const struct json_object *content, size_t offset);

#endif
