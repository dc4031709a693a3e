/* tests/support/markup.h - as much of XML as pictures and pages have. */
#ifndef TESTS_SUPPORT_MARKUP_H
#define TESTS_SUPPORT_MARKUP_H

#include <stdbool.h>

/* Each tag is closed by itself or by its own end, and none stands open. empty: a tag that has no
 * end, or NULL. */
bool markup_is_nested(const char *text, const char *empty);

#endif
