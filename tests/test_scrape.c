/* tests/test_scrape.c - the socket for metrics, by itself. Would catch: a control thread that is
 * kept awake by a peer that asked and left, or by one that waits while there are no descriptors,
 * and is then never let in; numbers of others who come with the number of nobody, or of what others
 * had before.
 */
#include "daemon/listener.h"
#include "daemon/scrape.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define ROUNDS  50
#define WAIT_MS 30000

static struct scrape scrape;

static void open_scrape(void)
{
    static struct config c;
    const struct listener l = { .fd = -1, .lock = -1 };
    struct why why = { "" };
    char path[SCRATCH_PATH_MAX];

    c = (struct config){ .socket_mode = 0600 };
    (void)snprintf(c.metrics_socket, sizeof(c.metrics_socket), "%s",
                   scratch_path(path, "metrics.sock"));
    if (scrape_open(&scrape, &c, &l, &why) < 0)
        fail_msg("%s", why.text);
}

static int join(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", scrape.path);
    assert_true(sock >= 0);
    assert_int_equal(connect(sock, (const struct sockaddr *)&a, sizeof(a)), 0);
    return sock;
}

static void say(int sock, const char *text)
{
    assert_int_equal(send(sock, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static bool has_something(int ms)
{
    struct pollfd p = { .fd = scrape.epoll, .events = POLLIN };

    return poll(&p, 1, ms) == 1;
}

/* Whether it sleeps after a few rounds. */
static bool falls_quiet(void)
{
    for (int i = 0; i < ROUNDS && has_something(0); i++)
        (void)scrape_run(&scrape);
    return !has_something(0);
}

static void who_asks_and_leaves(void **state)
{
    char text[4096];
    int sock;

    (void)state;
    open_scrape();
    sock = join();
    say(sock, "GET /metrics HTTP/1.0\r\n\r\n");
    assert_true(falls_quiet());
    (void)close(sock);
    assert_true(falls_quiet());
    assert_false(scrape_run(&scrape));
    /* Who only says no more is answered. */
    sock = join();
    say(sock, "GET /metrics HTTP/1.0\r\n\r\n");
    assert_int_equal(shutdown(sock, SHUT_WR), 0);
    assert_true(falls_quiet());
    assert_true(scrape_run(&scrape));
    scrape_answer(&scrape, NULL);
    text[0] = '\0';
    assert_true(recv(sock, text, sizeof(text) - 1, 0) > 0);
    assert_memory_equal(text, "HTTP/1.0 200", 12);
    (void)close(sock);
    scrape_close(&scrape);
}

/* All numbers below the limit are in use then. */
static void no_descriptors(struct rlimit *ret_was)
{
    int next = fcntl(scrape.epoll, F_DUPFD_CLOEXEC, 0);
    struct rlimit l;

    assert_true(next >= 0);
    (void)close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, ret_was), 0);
    l = *ret_was;
    l.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
}

static void nobody_is_lost_for_want_of_descriptors(void **state)
{
    struct rlimit was;
    int sock;

    (void)state;
    open_scrape();
    sock = join();
    no_descriptors(&was);
    assert_true(falls_quiet());
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    say(sock, "GET /metrics HTTP/1.0\r\n\r\n");
    while (has_something(WAIT_MS))
        if (scrape_run(&scrape))
            break;
    assert_true(scrape_run(&scrape));
    (void)close(sock);
    scrape_close(&scrape);
}

static char *printed(const struct metrics *m, bool all, uid_t uid)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    metrics_print(m, all, uid, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static void others_numbers(void **state)
{
    static const struct metrics m = {
        .model = "m",
        .owners = { { .uid = 1000, .clients = 1 }, { .uid = 65534, .clients = 2 } },
        .n_owners = 2,
        .stand_in = 65534,
        .store = true,
        .store_read = 4096,
    };
    char *own = printed(&m, false, 1000), *nobody = printed(&m, false, 65534);
    char *all = printed(&m, true, 65534);

    (void)state;
    assert_non_null(strstr(own, "gistd_owner_clients{uid=\"1000\"} 1"));
    assert_null(strstr(own, "65534"));
    assert_null(strstr(own, "restore_bytes"));
    assert_non_null(strstr(all, "gistd_restore_bytes_total 4096"));
    assert_null(strstr(nobody, "uid="));
    assert_non_null(strstr(all, "gistd_owner_clients{uid=\"65534\"} 2"));
    free(own);
    free(nobody);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(who_asks_and_leaves),
                                        cmocka_unit_test(nobody_is_lost_for_want_of_descriptors),
                                        cmocka_unit_test(others_numbers) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
