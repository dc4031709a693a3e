/* base/clones.h - CLONES before a function: it is compiled for several instruction sets, of which
 * the loader takes the widest that the CPU has. For plain loops that compilers make vectors of.
 *
 * Not under sanitizers, whose run time is not there yet when the loader asks which one to take, not
 * by clang, and not for CPUs of other kinds: there it is compiled once.
 */
#ifndef BASE_CLONES_H
#define BASE_CLONES_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__) ||         \
    !defined(__x86_64__)
#define CLONES
#else
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

#endif
