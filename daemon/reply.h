/* daemon/reply.h - replies into a client's channel.
 *
 * A reply that finds no room marks the client as blocked and comes back as -EAGAIN: its request
 * keeps it and is tried again when the client has read something. A client whose channel is broken
 * is closed (-EPROTO), and nobody else notices.
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_REPLY_H
#define DAEMON_REPLY_H

#include "ipc/wire.h"

#include <stdbool.h>
#include <stddef.h>

struct logprobs;
struct request;
struct sched;

/* Sends rep (of r's client) with rep->bulk_len bytes at bulk. */
int reply_send(struct sched *s, struct request *r, const struct wire_rep *rep, const void *bulk);

/* Sends a frame that was packed with an id of 0, and without bulk. */
int reply_frame(struct request *r, const uint8_t *frame, size_t len);

/* In two steps, to write the bulk where the client will read it: after reply_begin write
 * rep->bulk_len bytes to *ret_bulk, then reply_commit. A reply that is not committed was not sent.
 */
int reply_begin(struct sched *s, struct request *r, const struct wire_rep *rep, uint8_t **ret_bulk);
void reply_commit(struct request *r);

/* Sends Text of n bytes (whole characters, at most REPLY_TEXT_MAX) and ids. n_tokens: what they
 * came from. l: log-probabilities of the ids, the first n_ids of it; NULL: none. The field is a
 * protobuf string, so a zero byte goes out as U+FFFD. */
#define REPLY_TEXT_MAX 16384u
int reply_text(struct sched *s, struct request *r, const char *text, size_t n, const uint32_t *ids,
               uint32_t n_ids, uint32_t n_tokens, const struct logprobs *l);

/* Sends ScoreRows of n ids and their log-probabilities, which are those from `first` on. */
int reply_scores(struct sched *s, struct request *r, const uint32_t *ids, const float *logprobs,
                 size_t first, uint32_t n);

/* It can be packed, into one frame: who makes lists shortens them until it can. */
bool reply_fits(struct sched *s, const struct wire_rep *rep);

/* Bytes of bulk that one reply can carry at best. */
uint32_t reply_bulk_max(const struct request *r);

#endif
