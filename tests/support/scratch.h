/* tests/support/scratch.h - one temporary directory a test program, gone when the program ends.
 *
 *     scratch_path(path, "model.gguf");       path: char[SCRATCH_PATH_MAX]
 *
 * The directory is made at the first call, and removed with all that is in it at exit.
 */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#define SCRATCH_PATH_MAX 256

char *scratch_path(char ret[SCRATCH_PATH_MAX], const char *name);

#endif
