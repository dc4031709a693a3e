/* tests/test_compressors.c - base/compressors.def and what is made of it. Would catch: numbers with
 * a gap or out of order, a constant or a name that means another compressor to a client than to the
 * daemon, a manual that lists others.
 */
#include "client/gist.h"
#include "engine/kv/compress.h"
#include "ipc/wire.h"
#include "tests/support/manual.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    unsigned number;
    enum wire_compressor wire;
    enum compress_method method;
    const char *name, *help;
} table[] = {
#define COMPRESSOR(number, ID, id, name, help) { number, WIRE_##ID, COMPRESS_##ID, name, help },
#include "base/compressors.def"
#undef COMPRESSOR
};
#define N (sizeof(table) / sizeof(*table))

static void one_table(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(table[i].number, i);
        assert_int_equal(table[i].wire, i);
        assert_int_equal(table[i].method, i);
        assert_string_equal(compress_name(table[i].method), table[i].name);
        assert_string_equal(gist_compressor_name((enum gist_compressor)i), table[i].name);
        assert_string_equal(gist_compressor_help((enum gist_compressor)i), table[i].help);
    }
    assert_null(gist_compressor_name((enum gist_compressor)N));
    assert_null(gist_compressor_help((enum gist_compressor)N));
    assert_int_equal(COMPRESS__N, N);
    assert_int_equal(WIRE_COMPRESSOR__N, N);
}

/* The constants of gist.h are part of what programs were compiled with. */
static void constants_keep_their_meaning(void **state)
{
    (void)state;
    assert_string_equal(gist_compressor_name(GIST_FULL), "full");
    assert_string_equal(gist_compressor_name(GIST_NONE), "none");
    assert_string_equal(gist_compressor_name(GIST_FINE_KV), "fine-kv");
    assert_string_equal(gist_compressor_name(GIST_SELECT), "select");
    assert_string_equal(gist_compressor_name(GIST_COARSE_KV), "coarse-kv");
    assert_string_equal(gist_compressor_name(GIST_COARSE_REC), "coarse-rec");
    assert_string_equal(gist_compressor_name(GIST_SELECT_REREAD), "select-reread");
}

/* Each method that an adapter file may name is one of the compressors. */
static void adapters_name_compressors(void **state)
{
    (void)state;
    for (enum adapter_method m = 0; m < ADAPTER_METHOD__N; m++) {
        struct adapter a = { .method = m };

        assert_string_equal(compress_name(compress_method_of(&a)), adapter_method_name(m));
    }
}

/* --- man pages -------------------------------------------------------------------------------- */

/* A sentence a line, as mdoc wants it. */
static void print_help(FILE *f, const char *help)
{
    for (; *help; help++) {
        (void)fputc(*help, f);
        if (help[0] == '.' && help[1] == ' ') {
            (void)fputc('\n', f);
            help++;
        }
    }
    (void)fputc('\n', f);
}

static void check_page(const char *path)
{
    char *list = NULL;
    size_t len;
    FILE *f = open_memstream(&list, &len);

    for (unsigned i = 0; i < N; i++) {
        (void)fprintf(f, ".It Cm %s\n", table[i].name);
        print_help(f, table[i].help);
    }
    assert_int_equal(fclose(f), 0);
    manual_check(path, ".\\\" begin of the compressors, made from base/compressors.def\n",
                 ".\\\" end of the compressors\n", list, "base/compressors.def");
    free(list);
}

static void test_man_pages(void **state)
{
    (void)state;
    check_page("docs/man/gistctl.1");
    check_page("docs/man/gist_open.3");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(one_table),
                                        cmocka_unit_test(constants_keep_their_meaning),
                                        cmocka_unit_test(adapters_name_compressors),
                                        cmocka_unit_test(test_man_pages) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
