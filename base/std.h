/* base/std.h - the three standard descriptors: there from the start, and asked at the end.
 *
 * A program may be started with descriptors 0 to 2 closed. Its next open(), socket() or eventfd()
 * would get such a number, and what is printed would go into a socket's protocol or a lock file.
 *
 * Threads    std_open: before there are any, and before anything else is opened.
 */
#ifndef BASE_STD_H
#define BASE_STD_H

#include <stdbool.h>

/* Puts /dev/null on those of 0 to 2 that are closed, open the wrong way round: reading standard
 * input and writing to the other two go on failing with EBADF, as they should. */
void std_open(void);

/* Whether standard input can be read: it was there when the program started. */
bool std_in_is_readable(void);

/* The program's last look at standard output: 0 when all that was printed has been written, else
 * -errno of the failure, also of one long before. */
int std_flush(void);

#endif
