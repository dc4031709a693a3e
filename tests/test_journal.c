/* tests/test_journal.c - lines of the log in the journal's own form. Would catch: a field that is
 * missing, or of another client; a name that forges a field; a line that is lost when the journal
 * does not take it, or that is said twice; native lines where stderr is no journal; a manual with
 * other numbers.
 */
#include "daemon/log.h"
#include "tests/support/manual.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static char path[SCRATCH_PATH_MAX];
static int journal = -1, file = -1, stderr_was = -1;

/* A journal of ours, and a stderr that is a file. */
static int open_both(void **state)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char name[SCRATCH_PATH_MAX];

    (void)state;
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", scratch_path(path, "journal"));
    (void)unlink(path);
    journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(journal >= 0);
    assert_int_equal(bind(journal, (const struct sockaddr *)&a, sizeof(a)), 0);
    file = open(scratch_path(name, "stderr"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    stderr_was = dup(STDERR_FILENO);
    assert_true(stderr_was >= 0);
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    (void)close(journal);
    (void)close(file);
    (void)close(stderr_was);
    return unsetenv("JOURNAL_STREAM");
}

static void to_file(void)
{
    assert_int_equal(ftruncate(file, 0), 0);
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    assert_true(dup2(file, STDERR_FILENO) >= 0);
}

/* What went there. */
static void from_file(char *ret, size_t cap)
{
    ssize_t n;

    assert_true(dup2(stderr_was, STDERR_FILENO) >= 0);
    n = pread(file, ret, cap - 1, 0);
    assert_true(n >= 0);
    ret[n] = '\0';
}

static void say_that_stderr_is_a_journal(void)
{
    struct stat st;
    char text[64];

    assert_int_equal(fstat(file, &st), 0);
    (void)snprintf(text, sizeof(text), "%llu:%llu", (unsigned long long)st.st_dev,
                   (unsigned long long)st.st_ino);
    assert_int_equal(setenv("JOURNAL_STREAM", text, 1), 0);
}

/* The next datagram, or "". */
static const char *heard(void)
{
    static char text[4096];
    ssize_t n = recv(journal, text, sizeof(text) - 1, 0);

    if (n < 0)
        assert_int_equal(errno, EAGAIN);
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static void fields(void **state)
{
    const struct journal_about about = { .message = JOURNAL_BROKE,
                                         .client = 7,
                                         .pid = 41,
                                         .uid = 1000,
                                         .name = "a\nGISTD_UID=0\nx",
                                         .request = 1ull << 40 };
    char text[512];

    (void)state;
    say_that_stderr_is_a_journal();
    to_file();
    log_open_at(LOG_LEVEL_INFO, path);
    log_about(LOG_LEVEL_WARNING, &about, "client %d\nbroke it", 7);
    log_info("plain");
    log_debug("not wanted");
    from_file(text, sizeof(text));
    assert_string_equal(text, "");
    assert_string_equal(heard(), "MESSAGE=client 7\xef\xbf\xbd"
                                 "broke it\nPRIORITY=4\nSYSLOG_IDENTIFIER=gistd\n"
                                 "MESSAGE_ID=1f718b42c9a74c8faea9cd90f43470e3\n"
                                 "GISTD_CLIENT=7\nGISTD_CLIENT_PID=41\nGISTD_UID=1000\n"
                                 "GISTD_CLIENT_NAME=a\xef\xbf\xbdGISTD_UID=0\xef\xbf\xbdx\n"
                                 "GISTD_REQUEST=1099511627776\n");
    assert_string_equal(heard(), "MESSAGE=plain\nPRIORITY=6\nSYSLOG_IDENTIFIER=gistd\n");
    assert_string_equal(heard(), "");
}

/* A journal that reads nothing, then one that is gone: each line is said, where it can be. */
static void journal_that_fails(void **state)
{
    char text[65536];
    unsigned n = 0, there = 0;

    (void)state;
    say_that_stderr_is_a_journal();
    to_file();
    log_open_at(LOG_LEVEL_INFO, path);
    for (; n < 5000 && lseek(file, 0, SEEK_END) == 0; n++)
        log_info("line %u", n);
    assert_true(n > 1 && n < 5000);
    for (; strncmp(heard(), "MESSAGE=line ", 13) == 0; there++)
        ;
    assert_int_equal(there, n - 1);
    (void)close(journal);
    log_info("alone");
    from_file(text, sizeof(text));
    (void)snprintf(text + 4096, 64, "<6>line %u\n<6>alone\n", n - 1);
    assert_string_equal(text, text + 4096);
    journal = -1;
}

static void no_journal(void **state)
{
    char text[512];

    (void)state;
    assert_int_equal(setenv("JOURNAL_STREAM", "1:2", 1), 0);
    to_file();
    log_open_at(LOG_LEVEL_INFO, path);
    log_about(LOG_LEVEL_INFO, &(struct journal_about){ .message = JOURNAL_SERVING }, "serving");
    from_file(text, sizeof(text));
    assert_string_equal(text, "gistd: serving\n");
    assert_string_equal(heard(), "");
}

static void the_manual(void **state)
{
    static const struct {
        const char *id, *text;
    } all[] = {
#define MESSAGE(name, id, text) { id, text },
#include "daemon/messages.def"
#undef MESSAGE
    };
    char list[4096] = "";
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        assert_int_equal(strlen(all[i].id), 32);
        assert_int_equal(strspn(all[i].id, "0123456789abcdef"), 32);
        n += (size_t)snprintf(list + n, sizeof(list) - n, ".It Li %s Ta %s\n", all[i].id,
                              all[i].text);
        assert_true(n < sizeof(list));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(all[i].id, all[j].id);
    }
    manual_check("docs/man/gistd.8", ".\\\" begin of the messages, made from daemon/messages.def\n",
                 ".\\\" end of the messages\n", list, "daemon/messages.def");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(fields, open_both, close_both),
        cmocka_unit_test_setup_teardown(journal_that_fails, open_both, close_both),
        cmocka_unit_test_setup_teardown(no_journal, open_both, close_both),
        cmocka_unit_test(the_manual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
