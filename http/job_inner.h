/* http/job_inner.h - what the files of a job share: job.c connects, reads the prompt and waits,
 * job_answer.c has it answered and told.
 *
 * Threads    the request's own.
 */
#ifndef HTTP_JOB_INNER_H
#define HTTP_JOB_INNER_H

#include "http/job.h"

/* --- job.c ------------------------------------------------------------------------------------ */

/* What libgist said last is the job's problem, if it has none yet. */
void job_fail(struct job *j);
/* What is asked next ends with the time that there is for all of it. -1: it has failed. */
int job_set_deadline(struct job *j);
/* The one that is the job's own. */
void job_close_session(struct job *j);
/* What the last tokens stand on. */
void job_stand_on(struct job_usage *to, const struct gist_usage *u);
uint64_t job_random(void);

/* --- job_answer.c ----------------------------------------------------------------------------- */

/* The prompt is read, and its number is known: it is to be answered, or that was all. */
void job_choose(struct job *j);
/* An answer that has pieces to be told, of all that have some in turn; NULL: none has. */
struct job_choice *job_untold(struct job *j);
/* The first of them. */
void job_tell_piece(struct job *j, struct job_choice *c);
/* All answers to the prompt are there: what is left of them is told, and the next one comes. */
void job_end_answers(struct job *j);

#endif
