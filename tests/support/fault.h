/* tests/support/fault.h - every call that can fail, made to fail at its nth use.
 *
 *     for (uint64_t n = 1;; n++) {
 *         fault_arm(n);
 *         r = life();                  open, use, close
 *         if (!fault_disarm(&f))
 *             break;                   fewer than n calls: all of them have failed once
 *         assert_int_equal(r, -f.error);
 *     }
 *
 * Test programs are linked so that allocations and system calls of our own code come here first
 * (the Makefile's FAULTS, linker --wrap); the C library's own calls and other libraries' do not. A
 * watched call that fails does nothing and says what a full machine or a broken disk says.
 *
 * Threads    only calls of the thread that armed are counted: others would count in any order.
 */
#ifndef TESTS_SUPPORT_FAULT_H
#define TESTS_SUPPORT_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault {
    uint64_t n_calls; /* that were watched since fault_arm */
    const char *name; /* of the call that failed; NULL: none did */
    int error;        /* errno that it gave */
};

/* The nth call of this thread from now on fails, once. 0: none; they are counted. */
void fault_arm(uint64_t n);
/* Calls do what they should again. True: one failed. */
bool fault_disarm(struct fault *ret);

/* Calls that failed so since the program began, of all threads. */
uint64_t fault_n_failed(void);

/* Whether a call that a test watches itself, of another library, is the one that fails; it counts.
 */
bool fault_here(const char *name, int error);

/* From now on no pread or pwrite of any thread moves more than this. 0: they move what they can. */
void fault_short(size_t most);
/* Until told otherwise every pwrite, and write to a file, of any thread moves nothing and names no
 * error. */
void fault_still(bool still);

/* Allocations of our own code since the program began, of all threads. */
uint64_t fault_n_allocations(void);

/* What this process has: open descriptors, and bytes that our code mapped and did not unmap. */
unsigned fault_n_descriptors(void);
int64_t fault_mapped(void);

#endif
