#include "tests/support/manual.h"

#include "tests/support/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void manual_check(const char *path, const char *begin_line, const char *end_line, const char *list,
                  const char *made_from)
{
    size_t page_len, len = strlen(list);
    char *page = (char *)file_read(path, &page_len), *begin = strstr(page, begin_line), *end;

    assert_non_null(begin);
    begin += strlen(begin_line);
    end = strstr(begin, end_line);
    assert_non_null(end);
    if (getenv("UPDATE")) {
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        (void)fprintf(f, "%.*s%s%s", (int)(begin - page), page, list, end);
        assert_int_equal(fclose(f), 0);
    } else if ((size_t)(end - begin) != len || memcmp(begin, list, len) != 0) {
        fail_msg("%s does not have %s: run this test with UPDATE=1", path, made_from);
    }
    free(page);
}
