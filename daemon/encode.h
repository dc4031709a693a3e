/* daemon/encode.h - text to token ids in slices, for texts that come in pieces.
 *
 * First the pieces are added (each says whether special tokens in it are special), then encode_step
 * is called until it says that it is done: a slice a scheduler step, so that a long document does
 * not stop the others. No more than cap ids are kept, but all are counted: an error can say how
 * many there were.
 *
 * Threads    one, the scheduler's.
 * Ownership  init/fini. The text is copied; encode_take_text takes a client's collected one.
 *            Borrows the account that all of it is charged to.
 * Errors     -ENOMEM and -EDQUOT of daemon/held.h, where nothing else is said.
 */
#ifndef DAEMON_ENCODE_H
#define DAEMON_ENCODE_H

#include "daemon/held.h"
#include "engine/text/vocab.h"

#define ENCODE_SLICE_IDS 1024u

/* Bytes that grow. */
struct encode_text {
    struct held_account *account;
    char *s;
    size_t len, cap;
};

int encode_text_reserve(struct encode_text *t, size_t n); /* room to add n more */
int encode_text_add(struct encode_text *t, const void *bytes, size_t n);
/* The bytes move out: t is empty. */
struct encode_text encode_text_take(struct encode_text *t);
void encode_text_fini(struct encode_text *t); /* empty, too: it may be added to again */

struct encode_piece {
    size_t off, len;
    bool special;
};

struct encode {
    struct held_account *account;
    struct vocab_encoder *encoder;
    struct encode_text text;
    struct encode_piece *pieces;
    size_t n_pieces, cap_pieces, piece; /* piece: the one that is being encoded */
    bool started;                       /* that piece was given to the encoder */
    uint32_t *ids;
    size_t n_ids, cap_ids, max_ids;
    uint64_t n_total; /* ids so far, kept or not */
};

int encode_init(struct encode *e, struct held_account *a, const struct vocab *v, size_t max_ids);
void encode_fini(struct encode *e);

/* Neighbouring pieces that are not special become one: their ids are those of the whole text. */
int encode_add(struct encode *e, const void *bytes, size_t n, bool special);
/* Moves a collected text in as the only piece. It is charged to this account from here on: where it
 * was collected, in a session, may go before (daemon/kept.h). */
int encode_take_text(struct encode *e, struct encode_text *text, bool special);
/* Ids as they are, after those so far. bytes: little-endian, shared memory is fine: read once. */
int encode_id(struct encode *e, uint32_t id);
int encode_ids(struct encode *e, const void *bytes, size_t n);
/* Moves collected ids in as the only ones: whole ids, no more than max_ids. */
void encode_take_ids(struct encode *e, struct encode_text *bytes);

/* Encodes a slice. 1: done, and the text is freed; 0: call again. */
int encode_step(struct encode *e);

#endif
