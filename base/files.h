/* base/files.h - what POSIX leaves to loops: paths made as a whole, bytes moved as a whole.
 *
 * Threads    any.
 * Errors     -errno, beside those that are named.
 */
#ifndef BASE_FILES_H
#define BASE_FILES_H

#include "base/why.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* Every folder of path, as mkdir -p, each 0700. *ret_made (may be NULL) is increased for each that
 * was not there: its entry in the one above it is not synced. */
int files_make_path(const char *path, uint32_t *ret_made);

/* The last n_made folders of path have entries in those above them: they are on the disk when this
 * returns, as far as the disk does what it is told. */
void files_sync_above(const char *path, uint32_t n_made);

/* A file that was made, or renamed to path: its name is on the disk when this returns, where a
 * folder can be synced at all. The file's own bytes are the caller's to sync, before. why may be
 * NULL. */
int files_sync_entry(const char *path, struct why *why);

/* At once behind a getline of f that gave -1, which says no more of a line that has no memory, or
 * can't be read, than of the end: 0, f has ended; else why what is behind would be missing. */
int files_lines_end(FILE *f);

/* All n bytes at off. read: -EBADMSG, the file ends before. write: -EIO, the disk takes nothing and
 * names no error. */
int files_read(int fd, void *to, size_t n, off_t off);
int files_write(int fd, const void *from, size_t n, off_t off);

#endif
