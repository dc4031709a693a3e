/* tests/test_cgroup.c - which systemd unit a peer is of. Would catch: a file of cgroup v1, or of v1
 * and v2 together, in which the wrong line is read; a unit that is looked for too high or too low
 * in the path; a name that is none of a unit's, or could do harm where it is shown; a unit of a
 * process that has ended, or of another one that has its number now; an error where /proc can't be
 * read.
 *
 * None of it depends on the machine: what stands in /proc is written here.
 */
#include "daemon/cgroup.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- what the file says ----------------------------------------------------------------------- */

#define HOME "0::/user.slice/user-1000.slice/user@1000.service/"

static const struct {
    const char *text, *unit;
} files[] = {
    /* v2 alone */
    { HOME "app.slice/app-firefox-1234.scope\n", "app-firefox-1234.scope" },
    { HOME "app.slice/app-firefox-1234.scope", "app-firefox-1234.scope" },
    { "0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope" },
    { "0::/system.slice/nightly.service\n", "nightly.service" },
    { "0::/system.slice/gistd.socket\n", "gistd.socket" },
    { "0::/init.scope\n", "init.scope" },
    /* what a unit has made below itself */
    { "0::/system.slice/a.service/worker/7\n", "a.service" },
    { HOME "user.slice/libpod-5e1f.scope/container\n", "libpod-5e1f.scope" },
    { "0::/machine.slice/box.scope/payload/system.slice/in.service\n", "in.service" },
    { "0::/../system.slice/outside.service\n", "outside.service" },
    { "0:://system.slice//a.service/\n", "a.service" },
    /* no more than the user */
    { HOME "\n", "" },
    { HOME "app.slice\n", "" },
    { HOME "made by hand\n", "" },
    { "0::/user.slice/user-1000.slice\n", "" },
    { "0::/user.slice/user-1000.slice/user@1000.service.scope\n", "user@1000.service.scope" },
    { HOME "user@x.service\n", "user@x.service" },
    { HOME "user@.service\n", "" },
    { "0::/\n", "" },
    { "0::\n", "" },
    /* as systemd writes names that would be something else */
    { "0::/system.slice/_cgroup.service\n", "cgroup.service" },
    { HOME "app.slice/app-org.gnome.Terminal\\x2d1.scope\n", "app-org.gnome.Terminal\\x2d1.scope" },
    { "0::/system.slice/system-getty.slice/getty@tty1.service\n", "getty@tty1.service" },
    /* v1, with and without v2 */
    { "12:pids:/system.slice/v1.service\n1:name=systemd:/system.slice/v1.service\n", "" },
    { "5:memory:/a.scope\n1:name=systemd:/b.scope\n0::/c.scope\n", "c.scope" },
    { "0::/c.scope\n5:memory:/a.scope\n", "c.scope" },
    { "1:name=systemd:/b.scope\n0::/\n", "" },
    { "10::/a.scope\n", "" },
    { "1:name=0::/a.scope:/\n", "" },
    /* nobody is in it any more */
    { "0::/system.slice/a.service (deleted)\n", "" },
    /* names that are no unit's */
    { "0::/a b.scope\n", "" },
    { "0::/\x1b[31mred.scope\n", "" },
    { "0::/caf\xc3\xa9.service\n", "" },
    { "0::/system.slice/ok.service/\x07.scope\n", "ok.service" },
    { "0::/.scope\n", "" },
    { "0::/_.scope\n", "" },
    { "0::/scope\n", "" },
    { "0::/a.scope.txt\n", "" },
    { "0::a.scope\n", "" },
    { "0:", "" },
    { "0", "" },
    { "", "" },
    { "\n\n0::/late.scope\n", "late.scope" },
    { "garbage without an end", "" },
};

static void files_of_all_kinds(void **state)
{
    struct cgroup_unit unit;

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        size_t len = strlen(files[i].text);
        char *text = malloc(len ? len : 1); /* no NUL: who reads on is found out */

        assert_non_null(text);
        memcpy(text, files[i].text, len);
        (void)memset(&unit, 'x', sizeof(unit));
        cgroup_parse(text, len, &unit);
        if (strcmp(unit.name, files[i].unit) != 0)
            fail_msg("'%s' of '%s'", unit.name, files[i].text);
        free(text);
    }
}

/* As long as a folder's name may be, and one more. */
static void long_names(void **state)
{
    char text[CGROUP_UNIT_MAX + 64];
    struct cgroup_unit unit;

    (void)state;
    for (size_t n = CGROUP_UNIT_MAX - 1; n <= CGROUP_UNIT_MAX + 1; n++) {
        size_t len = 4 + n;

        memcpy(text, "0::/", 4);
        (void)memset(text + 4, 'a', n);
        memcpy(text + len - 6, ".scope", 6);
        cgroup_parse(text, len, &unit);
        assert_int_equal(strlen(unit.name), n <= CGROUP_UNIT_MAX ? n : 0);
    }
}

static bool is_safe(const char *name)
{
    return name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             ":-_.\\@")] == '\0';
}

/* Bytes of all kinds, often those that mean something. */
static void whatever_comes(void **state)
{
    static const char parts[][16] = { "0::",    "/",     "\n",       ".scope",     ".service", "_",
                                      "a",      "\x80",  " ",        " (deleted)", "user@",    "7",
                                      ".slice", "0::/a", ".scope\n", ":" };
    char text[256];
    unsigned seed = 20, n_units = 0;
    struct cgroup_unit unit;

    (void)state;
    for (int i = 0; i < 200000; i++) {
        size_t len = 0;

        for (int k = rand_r(&seed) % 12; k > 0; k--) {
            const char *part = parts[(size_t)rand_r(&seed) % (sizeof(parts) / sizeof(*parts))];

            memcpy(text + len, part, strlen(part));
            len += strlen(part);
        }
        if (rand_r(&seed) % 8 == 0 && len > 0)
            text[(size_t)rand_r(&seed) % len] = (char)rand_r(&seed);
        cgroup_parse(text, len, &unit);
        assert_true(is_safe(unit.name) && strlen(unit.name) <= CGROUP_UNIT_MAX);
        n_units += unit.name[0] != '\0';
    }
    assert_true(n_units > 1000);
}

/* --- whose file it is ------------------------------------------------------------------------- */

static char root[SCRATCH_PATH_MAX];

static void path_of(char ret[SCRATCH_PATH_MAX + 64], pid_t pid, const char *name)
{
    (void)snprintf(ret, SCRATCH_PATH_MAX + 64, "%s/proc/%d%s", root, (int)pid, name);
}

static void make_file(pid_t pid, const char *name, const char *text)
{
    char path[SCRATCH_PATH_MAX + 64];
    FILE *f;

    path_of(path, pid, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A process as /proc shows it, that began so many ticks after the machine. */
static void make_process(pid_t pid, unsigned long began, const char *cgroup)
{
    char path[SCRATCH_PATH_MAX + 64], stat[256];

    path_of(path, pid, "");
    (void)mkdir(path, 0700);
    (void)snprintf(stat, sizeof(stat),
                   "%d (a ) b (c) S 1 2 3 0 -1 4194304 5 6 7 8 9 10 11 12 20 0 1 0 %lu 13 14\n",
                   (int)pid, began);
    make_file(pid, "/stat", stat);
    make_file(pid, "/cgroup", cgroup);
}

static int make_root(void **state)
{
    char path[SCRATCH_PATH_MAX + 64];

    (void)state;
    (void)scratch_path(root, "root");
    (void)mkdir(root, 0700);
    (void)snprintf(path, sizeof(path), "%s/proc", root);
    (void)mkdir(path, 0700);
    return 0;
}

static uint64_t tick(void)
{
    return UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* Without a pidfd: who has begun after the connection was there is not who made it. */
static void known_by_its_beginning(void **state)
{
    struct cgroup_unit unit;

    (void)state;
    make_process(7, 1000, "0::/system.slice/a.service\n");
    assert_int_equal(cgroup_of_process(root, 7, -1, 1000 * tick(), &unit), 0);
    assert_string_equal(unit.name, "a.service");
    assert_int_equal(cgroup_of_process(root, 7, -1, UINT64_MAX, &unit), 0);
    (void)strcpy(unit.name, "as before");
    assert_int_equal(cgroup_of_process(root, 7, -1, 1000 * tick() - 1, &unit), -ESRCH);
    assert_string_equal(unit.name, "as before");
    make_file(7, "/stat", "7 (a) S 1 2\n");
    assert_int_equal(cgroup_of_process(root, 7, -1, UINT64_MAX, &unit), -EPROTO);
    make_file(7, "/stat", "7 a S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22\n");
    assert_int_equal(cgroup_of_process(root, 7, -1, UINT64_MAX, &unit), -EPROTO);
    make_file(7, "/stat", "7 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -1 20 21\n");
    assert_int_equal(cgroup_of_process(root, 7, -1, UINT64_MAX, &unit), -EPROTO);
    make_file(7, "/stat", "");
    assert_int_equal(cgroup_of_process(root, 7, -1, UINT64_MAX, &unit), -EPROTO);
    assert_string_equal(unit.name, "as before");
}

/* Not there, not to be read, longer than any. */
static void unreadable(void **state)
{
    char path[SCRATCH_PATH_MAX + 64], *text;
    struct cgroup_unit unit;

    (void)state;
    assert_int_equal(cgroup_of_process(root, 8, -1, UINT64_MAX, &unit), -ENOENT);
    assert_int_equal(cgroup_of_process("/nonesuch", 8, -1, UINT64_MAX, &unit), -ENOENT);
    make_process(8, 1, "");
    assert_int_equal(cgroup_of_process(root, 8, -1, UINT64_MAX, &unit), 0);
    assert_string_equal(unit.name, "");
    path_of(path, 8, "/cgroup");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(cgroup_of_process(root, 8, -1, UINT64_MAX, &unit), -ENOENT);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(cgroup_of_process(root, 8, -1, UINT64_MAX, &unit), -EISDIR);
    assert_int_equal(rmdir(path), 0);
    text = malloc(100001);
    assert_non_null(text);
    (void)memset(text, 'a', 100000);
    text[100000] = '\0';
    make_file(8, "/cgroup", text);
    assert_int_equal(cgroup_of_process(root, 8, -1, UINT64_MAX, &unit), -E2BIG);
    free(text);
}

/* --- peers ------------------------------------------------------------------------------------ */

/* A child that connects and then goes, or waits until it is told to. Returns the connection. */
static int connected(bool waits, pid_t *ret_pid, int *ret_tell)
{
    struct sockaddr a = { .sa_family = AF_UNIX }; /* the kernel chooses a name */
    struct sockaddr_storage name;
    socklen_t len = sizeof(name);
    int l = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fd, tell[2];

    assert_true(l >= 0);
    assert_int_equal(bind(l, &a, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&name, &len), 0);
    assert_int_equal(pipe(tell), 0);
    *ret_pid = fork();
    assert_true(*ret_pid >= 0);
    if (*ret_pid == 0) {
        char byte;

        (void)close(tell[1]);
        fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        if (connect(fd, (struct sockaddr *)&name, len) < 0)
            _exit(1);
        _exit(waits && read(tell[0], &byte, 1) < 0);
    }
    (void)close(tell[0]);
    fd = accept(l, NULL, NULL);
    assert_true(fd >= 0);
    (void)close(l);
    *ret_tell = tell[1];
    return fd;
}

static void peer_that_is_there(void **state)
{
    struct cgroup_unit unit;
    pid_t pid;
    int tell, fd, status;

    (void)state;
    fd = connected(true, &pid, &tell);
    make_process(pid, 1, "0::/system.slice/peer.service\n");
    assert_int_equal(cgroup_of_peer(root, fd, pid, UINT64_MAX, &unit), 0);
    assert_string_equal(unit.name, "peer.service");
    /* And as this machine shows it, whatever that is. */
    assert_int_equal(cgroup_of_peer("", fd, pid, cgroup_clock_ns(), &unit), 0);
    assert_true(is_safe(unit.name));
    assert_int_equal(cgroup_of_process("", pid, -1, cgroup_clock_ns(), &unit), 0);
    assert_int_equal(cgroup_of_process("", pid, -1, 0, &unit), -ESRCH);
    (void)close(tell);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)close(fd);
}

/* Its number is another one's by now, which began later: that one's file tells nothing. */
static void peer_that_is_gone(void **state)
{
    struct cgroup_unit unit = { "as before" };
    pid_t pid;
    int tell, fd, status;

    (void)state;
    fd = connected(false, &pid, &tell);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    make_process(pid, 2000, "0::/system.slice/other.service\n");
    assert_int_equal(cgroup_of_peer(root, fd, pid, 1999 * tick(), &unit), -ESRCH);
    assert_string_equal(unit.name, "as before");
    (void)close(tell);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_all_kinds),
        cmocka_unit_test(long_names),
        cmocka_unit_test(whatever_comes),
        cmocka_unit_test_setup(known_by_its_beginning, make_root),
        cmocka_unit_test_setup(unreadable, make_root),
        cmocka_unit_test_setup(peer_that_is_there, make_root),
        cmocka_unit_test_setup(peer_that_is_gone, make_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
