/* daemon/generate.h - one answer, for a request of several.
 *
 * A Generate of more than one answer (daemon/req_answers.c) begins each by the function that begins
 * a single one, and its lanes have request_generate as their ops.
 *
 * Threads    the scheduler's.
 */
#ifndef DAEMON_GENERATE_H
#define DAEMON_GENERATE_H

#include "daemon/request.h"

#define ANSWERS_MAX 64u /* of one request */

extern const struct request_ops request_answers;

/* An answer of r's session, which is not empty, as m says, whatever its n; the grammar is r->parts,
 * whole. -ENOMEM, -EDQUOT: r's fini frees what was begun. */
int generate_begin(struct sched *s, struct request *r, const struct wire_req *m);

/* One or several, of a request that has its session already: LIMIT and so on are answered. Else
 * likewise. */
int generate_taken(struct sched *s, struct request *r, const struct wire_req *m);

/* One that was away finds no pages to come back to: it ends with what it has said. False: that is
 * nothing, and it is to fail. */
bool generate_cut(struct sched *s, struct request *r);

#endif
