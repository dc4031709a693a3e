/* http/page.h - the page at /: its files, which are part of the program (http/page/).
 *
 * Threads    pure.
 */
#ifndef HTTP_PAGE_H
#define HTTP_PAGE_H

#include <stddef.h>

struct page_file {
    const char *path, *type;
    const unsigned char *bytes;
    size_t len;
};

/* NULL: there is none of that path. */
const struct page_file *page_find(const char *path);

#endif
