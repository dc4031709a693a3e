/* client/gist_spans.h - several texts of a caller's, as one request has them.
 *
 * Ownership  lens is the caller's to free, and all is with it.
 */
#ifndef CLIENT_GIST_SPANS_H
#define CLIENT_GIST_SPANS_H

#include "client/gist_internal.h"

struct gist_gathered {
    uint64_t *lens;       /* bytes of each */
    const uint8_t *bytes; /* (len): one behind the other */
    size_t len;
};

/* Spans of so many bytes an element. */
int gist_gather_spans(gist_conn *c, const struct gist_span *spans, size_t n, size_t elem,
                      struct gist_gathered *ret);

/* Runs r, made of them, to its end; they and the rows that r has kept are freed. */
int gist_run_spans(struct gist_request *r, struct gist_gathered *all);

/* ScoreRows of LOGPROBS, to r's ids and logprobs (gist_score.c). */
int gist_keep_rows(struct gist_request *r, const struct wire_rep *rep, const uint8_t *bulk);

#endif
