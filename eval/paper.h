/* eval/paper.h - the paper's own figures, to stand beside ours.
 *
 * Deng et al., "A Silver Bullet or a Compromise for Full Attention? A Comprehensive Study of Gist
 * Token-based Context Compression": models of 7 and 8 billion weights, trained for gists, at 16K.
 * What is measured here is another model, with other texts: the shape is comparable, the numbers
 * are not.
 *
 * Threads    constant.
 */
#ifndef EVAL_PAPER_H
#define EVAL_PAPER_H

#include "eval/page.h"

enum paper_table {
    PAPER_SYNTHETIC,      /* tables 2 and 5, one column */
    PAPER_SURPRISE,       /* table 4 */
    PAPER_PREFIX,         /* figure 5 */
    PAPER_BOUNDARY,       /* table 6 with figure 4 */
    PAPER_RECONSTRUCTION, /* table 3 */
    PAPER__N
};

/* With a line above it that says whose it is. */
void paper_write(struct page *p, enum paper_table which);

#endif
