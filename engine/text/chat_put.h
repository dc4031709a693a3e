/* engine/text/chat_put.h - pieces of a rendered chat, one after the other, until one is not taken.
 *
 * Threads    none.
 * Ownership  borrows all texts while the call lasts.
 */
#ifndef ENGINE_TEXT_CHAT_PUT_H
#define ENGINE_TEXT_CHAT_PUT_H

#include "engine/text/chat.h"

struct chat_out {
    int (*emit)(void *arg, const struct chat_piece *p);
    void *arg;
    int r; /* of the first emit that failed; nothing is emitted after it */
};

void chat_put_piece(struct chat_out *o, const char *text, size_t len, bool special);
void chat_put_special(struct chat_out *o, const char *text); /* the text of one special token */
void chat_put_text(struct chat_out *o, const char *text);
void chat_put_trimmed(struct chat_out *o, const char *text, size_t len); /* as str.strip() */
void chat_put_json(struct chat_out *o, const char *text, size_t len);    /* as a JSON string */

#endif
