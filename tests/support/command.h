/* tests/support/command.h - what a command of the shell prints. */
#ifndef TESTS_SUPPORT_COMMAND_H
#define TESTS_SUPPORT_COMMAND_H

#include <stddef.h>

/* Its standard output, up to cap - 1 bytes and a NUL; its exit status. It has to end by itself. */
int command_run(const char *command, char *ret, size_t cap);

#endif
