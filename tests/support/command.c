#include "tests/support/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

int command_run(const char *command, char *ret, size_t cap)
{
    FILE *f = popen(command, "r");
    size_t n;
    int status;

    assert_non_null(f);
    n = fread(ret, 1, cap - 1, f);
    ret[n] = '\0';
    status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}
