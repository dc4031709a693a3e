/* ctl/ctl_line.h - lines from a person (edited, with a history) or from a pipe.
 *
 * The one door to libedit. Without a terminal on standard input lines are read as they are, and no
 * prompt is printed.
 */
#ifndef CTL_CTL_LINE_H
#define CTL_CTL_LINE_H

#include <stddef.h>

struct ctl_line;

/* history: a file, read now and written after each line; NULL: none. */
int ctl_line_open(const char *history, struct ctl_line **ret);
void ctl_line_close(struct ctl_line *l);

/* The next line without its end, LF or CRLF; it lives until the next call. From a pipe any byte may
 * be in it, NUL too: its length is what counts. -ENODATA: the end (Ctrl-D), -EINTR: Ctrl-C, the
 * line is dropped; or the errno of a failed read. */
int ctl_line_read(struct ctl_line *l, const char *prompt, const char **ret_text, size_t *ret_len);

/* Puts a text into the history. */
void ctl_line_remember(struct ctl_line *l, const char *text);

#endif
