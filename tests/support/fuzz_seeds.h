/* tests/support/fuzz_seeds.h - the inputs a fuzzer starts from, made by the fuzzer itself.
 *
 * tests/run-fuzz gives every fuzzer --seeds=DIR before the corpus folders; libFuzzer leaves out
 * what begins with two dashes. A fuzzer that has seeds writes them from LLVMFuzzerInitialize, which
 * comes before the corpus is read:
 *
 *     int LLVMFuzzerInitialize(int *argc, char ***argv)
 *     {
 *         const char *dir = fuzz_seeds_dir(*argc, *argv);
 *
 *         if (dir)
 *             fuzz_seeds_put(dir, "hello", frame, frame_len);
 *         return 0;
 *     }
 */
#ifndef TESTS_SUPPORT_FUZZ_SEEDS_H
#define TESTS_SUPPORT_FUZZ_SEEDS_H

#include <stddef.h>

/* The folder of --seeds=DIR, or NULL. */
const char *fuzz_seeds_dir(int argc, char *const *argv);

void fuzz_seeds_put(const char *dir, const char *name, const void *data, size_t len);

#endif
