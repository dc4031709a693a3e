/* tests/support/made_store.h - a store's folder with many small records, made in a moment.
 *
 * The files are what store_put would write, but none is synced: ten thousand take a second. Each is
 * a raw record of 16 tokens and one page of zeros, which no session looks for.
 */
#ifndef TESTS_SUPPORT_MADE_STORE_H
#define TESTS_SUPPORT_MADE_STORE_H

#include <stdint.h>

#define MADE_BYTES 8192u /* of a record, on disk */

/* Makes the folder if it is not there, and n more records of the owner (a uid, or STORE_PUBLIC),
 * numbered from `first` so that no two are the same. Of every bad-th (0: none) a byte of the page
 * is not what its sum says. The store must not be open. */
void made_store(const char *path, uint32_t owner, uint32_t first, uint32_t n, uint32_t bad);

#endif
