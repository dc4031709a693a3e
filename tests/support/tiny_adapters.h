/* tests/support/tiny_adapters.h - an untrained adapter of each kind for the fixture's tiny model.
 *
 * Their names are fine, among, coarse and rec: fine-kv with both mask rules, coarse-kv, coarse-rec.
 * Segments of 64, two sinks.
 *
 * Errors     a test's helper: what can't go wrong in a test is asserted.
 */
#ifndef TESTS_SUPPORT_TINY_ADAPTERS_H
#define TESTS_SUPPORT_TINY_ADAPTERS_H

/* What --adapter takes: their files, made when it is first called. */
const char *tiny_adapters(void);

#endif
