/* http/places.h - whose live sessions have the places that there are (--live-sessions): which idle
 * one ends for one more, and how many may be answered at once for one key.
 *
 * An idle session can end for another key's, one that is being answered can't. So of those
 *
 *   P1  the first of a key has any place that there is;
 *   P2  one more leaves a place, while there are keys of which none is being answered: the next
 *       one of those need not wait for an answer's end;
 *   P3  while another key waits, one that was refused a moment ago, one more is within an even
 *       part, rounded up, of those that wait or are being answered.
 *
 * Where there is one key, or none is needed, all places are its own.
 *
 * Threads    the lock of the lives is held.
 */
#ifndef HTTP_PLACES_H
#define HTTP_PLACES_H

#include "http/live.h"

/* The idle one that goes for one more of who's: of the key that has most of them, if that has more
 * than who, and else of who's own the longest unused. So nobody's chats go because another opens
 * many, and keys that want all there is come to have as many each. NULL: none may. */
struct live *places_end(const struct lives *l, const char *who);

/* Whether one more of who's may be answered, P1 to P3. If so it waits no longer. */
bool places_may(struct lives *l, const char *who);

/* Who was refused, and is expected to come again. */
void places_wait(struct lives *l, const char *who);

#endif
