/* daemon/look.h - how a sequence's text is held, segment by segment, for people to see.
 *
 * Threads    the scheduler's; also between the layers of a step, since nothing is changed.
 */
#ifndef DAEMON_LOOK_H
#define DAEMON_LOOK_H

#include "daemon/memory.h"

/* Segments that hold something, the open one included. */
uint32_t look_count(const struct memory *m);

/* What the segment is. stored is the caller's to fill (tier_stored). */
struct wire_segment look_at(const struct memory *m, uint32_t segment);

/* Tokens of all of them: without one that was sampled and waits to be read. Keys. */
uint32_t look_tokens(const struct memory *m);
uint32_t look_keys(const struct memory *m);

#endif
