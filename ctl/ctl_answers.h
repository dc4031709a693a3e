/* ctl/ctl_answers.h - several answers to one question: `gistctl ask --answers`.
 *
 * Errors     as in ctl/ctl.h.
 */
#ifndef CTL_CTL_ANSWERS_H
#define CTL_CTL_ANSWERS_H

#include "ctl/ctl_answer.h"

/* Reads the prompt as ctl_answer_run does, and says n answers when all are there. */
int ctl_answers_run(gist_conn *c, gist_session *s, const struct ctl_prompt *prompt,
                    const struct ctl_answer_opts *o, uint32_t n);

#endif
