/* daemon/answer.h - a generated answer between the sampler and the wire: text, ids, stop strings.
 *
 * Tokens go in, whole characters come out. Text that may be the beginning of a stop string is held
 * back until it is known not to be one; when a stop string is complete, the text ends before it.
 * It is the one that is complete first, of several that end at the same byte the first one given:
 * where tokens begin and end makes no difference.
 *
 *     text   |------- may go out -------|-- held: a stop may begin here --|
 *            0                          answer_ready()                    n_text
 *     ids    each with the offset where its text ends; an id goes out with the end of its text
 *
 * It is also what a slow reader fills: answer_has_room() false pauses the request, so nothing
 * grows.
 *
 * Threads    one, the scheduler's.
 * Ownership  init/fini; text, ids and stops are allocated by answer_init, nothing later.
 */
#ifndef DAEMON_ANSWER_H
#define DAEMON_ANSWER_H

#include "engine/text/detok.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWER_IDS_MAX   256u /* that a reader may be behind, beside those of a stop string */
#define ANSWER_STOPS_MAX 16u
#define ANSWER_STOP_MAX  4096u /* bytes of one stop string */

struct answer {
    struct detok detok;
    char *text;
    size_t n_text, cap_text;
    size_t room; /* free bytes of text that one more token may need */
    uint32_t *ids;
    ptrdiff_t *starts; /* offset in text; negative: its beginning went out already */
    size_t *ends;      /* offset in text; n_text + 1: half a character is in detok */
    uint32_t n_ids,
        cap_ids; /* a token of each byte of the longest stop string, and ANSWER_IDS_MAX */
    char *stop_mem;
    const char *stops[ANSWER_STOPS_MAX];
    size_t stop_len[ANSWER_STOPS_MAX];
    uint32_t n_stops;
    bool stopped;  /* a stop string was found; text ends before it */
    uint32_t stop; /* then which of stops */
    bool ended;    /* nothing more comes: nothing is held back */
};

/* token_max: bytes of the longest token. stops: n strings of 1 to ANSWER_STOP_MAX bytes. -ENOMEM.
 */
int answer_init(struct answer *a, size_t token_max, const char *const *stops, uint32_t n_stops);
void answer_fini(struct answer *a);

bool answer_has_room(const struct answer *a);

/* Takes a token. Returns how many of the last tokens lie wholly in or behind a stop string: 0 as
 * long as none was found. They are dropped from the ids; the caller drops them from the session. */
uint32_t answer_push(struct answer *a, uint32_t id, const uint8_t *bytes, size_t n);

/* No token follows: what was held back is text after all. */
void answer_end(struct answer *a);

/* What may go out now: bytes of text (at most max_text, whole characters) and ids (at most max_ids,
 * 1 or more). */
size_t answer_ready(const struct answer *a, size_t max_text, uint32_t max_ids, uint32_t *ret_n_ids);
/* They went out. */
void answer_sent(struct answer *a, size_t n_text, uint32_t n_ids);

#endif
