/* tests/support/deny.h - a system call that is no longer there.
 *
 * A seccomp filter of the calling thread's own, for those it starts and what it executes from now
 * on. It can't be taken back.
 */
#ifndef TESTS_SUPPORT_DENY_H
#define TESTS_SUPPORT_DENY_H

/* The call of that number (__NR_x) fails with error. -1: the kernel has no filters. */
int deny_call(unsigned number, unsigned error);

#endif
