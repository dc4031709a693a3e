/* daemon/backlog.h - the last frames of an answer, so that who comes back to it has them once more.
 *
 *     0          taken            at                  end            size
 *     +------------+---------------+-------------------+--------------+
 *     | were taken | were sent     | are to be sent    | free         |     each a head, then its
 * bytes
 *     +------------+---------------+-------------------+--------------+
 *
 * What the reader has taken makes room for what comes, the oldest first; nothing else goes. So an
 * answer that nobody reads waits when all of it is full, and no reader who comes in time misses a
 * token that he has not read.
 *
 * A place is a count of tokens, of all that the answer has so far. Frames are whole: of a place
 * inside of one, or where frames without tokens stand, the first is meant.
 *
 * Threads    the scheduler's.
 * Ownership  init/fini. Borrows the account that all of it is charged to, from the beginning.
 */
#ifndef DAEMON_BACKLOG_H
#define DAEMON_BACKLOG_H

#include "daemon/held.h"

#include <stdbool.h>
#include <stdint.h>

struct backlog {
    struct held_account *account;
    uint8_t *mem;
    size_t size, taken, at, end;
    uint64_t first;   /* tokens before the oldest frame, */
    uint64_t unread;  /* before `taken`, */
    uint64_t written; /* and of all */
};

int backlog_init(struct backlog *b, struct held_account *account, size_t size);
void backlog_fini(struct backlog *b);

/* Of another answer: nothing is there. */
void backlog_clear(struct backlog *b);

/* Room for a frame of len bytes; it is there with backlog_add, which says of how many tokens it is.
 * -EAGAIN: there is none until more is taken; -EMSGSIZE: never. */
int backlog_room(struct backlog *b, size_t len, uint8_t **ret);
void backlog_add(struct backlog *b, size_t len, uint32_t n_tokens);

/* The next one to send. NULL: all were sent. And its place. */
const uint8_t *backlog_next(const struct backlog *b, size_t *ret_len);
uint64_t backlog_place(const struct backlog *b);
/* It was, as the reader's message of that number, modulo 2^32. */
void backlog_sent(struct backlog *b, uint32_t number);

/* The reader has taken all messages before that number. */
void backlog_took(struct backlog *b, uint32_t number);
/* Bytes that nobody has taken yet. */
size_t backlog_unread(const struct backlog *b);
/* There is another reader: what was not taken is sent again. */
void backlog_again(struct backlog *b);
/* The next one to send is the one of this place, which is at most `written`. Where it is instead:
 * `first`, if that is later, or where the frame begins. */
uint64_t backlog_seek(struct backlog *b, uint64_t place);

#endif
