/* daemon/masker.h - which tokens may come next in answers' grammars, found while the model
 * computes.
 *
 * What an answer stands at is known when a step begins: its last token was taken. So the mask of
 * the next one (daemon/form.h) can be made beside the step, by a thread of its own, where a CPU has
 * nothing else to do: not all of them compute, or a device does. Elsewhere there is no such thread,
 * and masks are found when they are asked for, in the order of the answers.
 *
 * Threads    the scheduler's. From masker_go to masker_wait forms that were added, and the masks of
 *            all grammars, are the thread's.
 */
#ifndef DAEMON_MASKER_H
#define DAEMON_MASKER_H

#include "daemon/form.h"

struct masker;

/* NULL: no CPU is free. -errno of a thread. */
int masker_open(struct masker **ret, const struct backend_info *info);
void masker_close(struct masker *m);

/* For the step that begins. m NULL: nothing. */
void masker_add(struct masker *m, struct form *f, struct form_limit limit);
void masker_go(struct masker *m);
/* All that were added are found. */
void masker_wait(struct masker *m);

#endif
