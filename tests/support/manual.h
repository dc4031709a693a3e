/* tests/support/manual.h - lists that programs make and manual pages hold, between two lines of
 * comment:
 *
 *     .\" begin of the options, made from daemon/options.def
 *     .\" end of the options
 */
#ifndef TESTS_SUPPORT_MANUAL_H
#define TESTS_SUPPORT_MANUAL_H

/* Fails the test when the page at path has another list there; made_from is for the sentence. With
 * UPDATE in the environment the page gets the list. The two lines end with a newline. */
void manual_check(const char *path, const char *begin_line, const char *end_line, const char *list,
                  const char *made_from);

#endif
