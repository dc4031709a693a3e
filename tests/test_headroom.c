/* tests/test_headroom.c - memory that is there, and a daemon that promises no other. Would catch: a
 * limit of a cgroup above our own that is not seen, page cache that is taken for memory in use, a
 * daemon that announces context it is killed for, one that a small machine can't start (issue 16).
 *
 * The real cgroup is made below the one that the test runs in, where that is allowed.
 */
#include "daemon/headroom.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/file.h"
#include "tests/support/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

/* --- files ------------------------------------------------------------------------------------ */

/* Writes root/path, with the folders that it needs. */
static void put(const char *root, const char *path, const char *text)
{
    char whole[SCRATCH_PATH_MAX + 128];

    (void)snprintf(whole, sizeof(whole), "%s%s", root, path);
    for (char *p = whole + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(whole, 0700);
        *p = '/';
    }
    file_write(whole, text, strlen(text));
}

/* A new root on a machine of 1000 MiB, whose process is in these cgroups. */
static const char *new_root(const char *cgroups)
{
    static char root[SCRATCH_PATH_MAX];
    static int n;
    char name[16];

    (void)snprintf(name, sizeof(name), "root%d", n++);
    assert_int_equal(mkdir(scratch_path(root, name), 0700), 0);
    put(root, "/proc/meminfo", "MemTotal: 9999999 kB\nMemAvailable:    1024000 kB\n");
    put(root, "/proc/self/cgroup", cgroups);
    return root;
}

static void expect(const char *root, uint64_t mib, const char *cause)
{
    struct headroom h;

    headroom_read(root, &h);
    if (h.bytes != mib * MIB || !strstr(h.cause, cause))
        fail_msg("found %llu bytes, \"%s\"; expected %llu MiB, \"%s\"", (unsigned long long)h.bytes,
                 h.cause, (unsigned long long)mib, cause);
}

static void reads_v2(void **state)
{
    const char *root = new_root("0::/a/b/c\n");

    (void)state;
    expect(root, 1000, "the machine has 1048576000 bytes available");
    put(root, "/sys/fs/cgroup/a/b/c/memory.max", "max\n");
    put(root, "/sys/fs/cgroup/a/b/c/memory.current", "99999999999\n");
    expect(root, 1000, "the machine");
    put(root, "/sys/fs/cgroup/a/memory.max", "314572800\n"); /* of an ancestor: 300 MiB */
    put(root, "/sys/fs/cgroup/a/memory.current", "209715200\n");
    expect(root, 100, "the cgroup /a has a limit of 314572800 bytes and 209715200 in use");
    put(root, "/sys/fs/cgroup/a/memory.stat",
        "anon 5\nfile 99\ninactive_file 52428800\nactive_file 20971520\n");
    expect(root, 170, "the cgroup /a has"); /* the page cache can go */
    put(root, "/sys/fs/cgroup/a/b/memory.max", "1048576\n");
    put(root, "/sys/fs/cgroup/a/b/memory.current", "2097152\n");
    expect(root, 0, "the cgroup /a/b has");
}

/* Both hierarchies at once, and controllers that are mounted together. */
static void reads_v1(void **state)
{
    const char *root = new_root("9:name=systemd:/x\n4:cpu,memory:/d/e\n3:cpuset:/\n0::/\n");

    (void)state;
    put(root, "/sys/fs/cgroup/memory/d/e/memory.limit_in_bytes", "9223372036854771712\n");
    put(root, "/sys/fs/cgroup/memory/d/e/memory.usage_in_bytes", "99999999999\n");
    expect(root, 1000, "the machine");
    put(root, "/sys/fs/cgroup/memory/d/memory.limit_in_bytes", "209715200\n");
    put(root, "/sys/fs/cgroup/memory/d/memory.usage_in_bytes", "104857600\n");
    put(root, "/sys/fs/cgroup/memory/d/memory.stat",
        "inactive_file 1\ntotal_inactive_file 10485760\ntotal_active_file 0\n");
    expect(root, 110, "the cgroup /d has");
    put(root, "/sys/fs/cgroup/unified/memory.max", "52428800\n");
    expect(root, 50, "the cgroup / has");
}

/* In a container the path is the host's, and the mount begins further down. */
static void reads_containers(void **state)
{
    const char *root = new_root("4:memory:/docker/0123\n");

    (void)state;
    put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
    expect(root, 100, "the cgroup / has");
}

static void reads_nothing(void **state)
{
    char root[SCRATCH_PATH_MAX];
    struct headroom h;

    (void)state;
    headroom_read(scratch_path(root, "nothing"), &h);
    assert_true(h.bytes == UINT64_MAX);
    assert_int_equal(headroom_kv_bytes(&h, 0), HEADROOM_KV_DEFAULT);
    assert_int_equal(headroom_kv_bytes(&h, 1ull << 40), 1ull << 40);
}

static void shares_out(void **state)
{
    struct headroom h = { .bytes = 232 * MIB };

    (void)state;
    assert_int_equal(headroom_kv_bytes(&h, 0), 100 * MIB);
    assert_int_equal(headroom_kv_bytes(&h, 200 * MIB), 200 * MIB);
    assert_int_equal(headroom_kv_bytes(&h, 200 * MIB + 1), 0);
    h.bytes = 5000 * MIB;
    assert_int_equal(headroom_kv_bytes(&h, 0), HEADROOM_KV_DEFAULT);
    h.bytes = 3;
    assert_int_equal(headroom_kv_bytes(&h, 0), 0);
}

/* --- the daemon ------------------------------------------------------------------------------- */

/* A limit of the process that it inherits. */
static void obeys_rlimit(void **state)
{
    struct rlimit had, now;
    char sock[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",    daemon_fixture_model(DAEMON_FIXTURE_TINY),
                           "--socket",   scratch_path(sock, "rlimit.sock"),
                           "--kv-bytes", "3G",
                           NULL };
    struct daemon_fixture d;

    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they map terabytes */
#endif
    assert_int_equal(getrlimit(RLIMIT_AS, &had), 0);
    now = had;
    now.rlim_cur = 2048 * MIB;
    assert_int_equal(setrlimit(RLIMIT_AS, &now), 0);
    daemon_fixture_spawn(&d, args);
    assert_int_equal(setrlimit(RLIMIT_AS, &had), 0);
    assert_false(daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(daemon_fixture_wait(&d), 1);
    if (!strstr(daemon_fixture_log(&d), "option kv-bytes: found 3221225472") ||
        !strstr(daemon_fixture_log(&d), "RLIMIT_AS"))
        fail_msg("said: %s", daemon_fixture_log(&d));
}

/* The folder of our own cgroup of memory, of the version that is in use; "" if there is none. */
static void own_cgroup(char *ret, size_t cap, bool *ret_v2)
{
    char line[900];
    FILE *f = fopen("/proc/self/cgroup", "re");

    ret[0] = '\0';
    *ret_v2 = false;
    while (f && fgets(line, sizeof(line), f)) {
        char *path = strstr(line, ":memory:");

        line[strcspn(line, "\n")] = '\0';
        if (path)
            (void)snprintf(ret, cap, "/sys/fs/cgroup/memory%s", path + 8);
        else if (!ret[0] && strncmp(line, "0::", 3) == 0) {
            (void)snprintf(ret, cap, "/sys/fs/cgroup%s", line + 3);
            *ret_v2 = true;
        }
    }
    if (f)
        (void)fclose(f);
}

static bool set(const char *folder, const char *name, const char *value)
{
    char path[1300];
    FILE *f;
    bool good;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "we");
    if (!f)
        return false;
    good = fputs(value, f) >= 0;
    return fclose(f) == 0 && good;
}

static uint64_t pool_bytes(struct daemon_fixture *d)
{
    gist_conn *c = daemon_fixture_connect(d);
    gist_session *s;
    struct gist_stats st;

    assert_int_equal(gist_stats(c, &st), 0);
    assert_int_equal(gist_open(c, NULL, &s), 0);
    assert_int_equal(gist_append_text(s, "It is there.", 12, 0, NULL), 0);
    gist_disconnect(c);
    return st.kv_bytes;
}

/* A cgroup of 220 MiB below our own. False: it can't be made here, or not be entered. */
struct cgroup {
    char own[1024], folder[1100];
};
static bool make_cgroup(struct cgroup *g)
{
    bool v2;

    own_cgroup(g->own, sizeof(g->own), &v2);
    if (!g->own[0])
        return false;
    (void)snprintf(g->folder, sizeof(g->folder), "%s/gistd-test-%ld", g->own, (long)getpid());
    if (mkdir(g->folder, 0755) < 0)
        return false;
    if (set(g->folder, v2 ? "memory.max" : "memory.limit_in_bytes", "230686720") &&
        set(g->folder, "cgroup.procs", "0") && set(g->own, "cgroup.procs", "0"))
        return true;
    (void)rmdir(g->folder);
    return false;
}

/* Children are born where their parent is. */
static void spawn_in(const struct cgroup *g, struct daemon_fixture *d, const char *const *args)
{
    assert_true(set(g->folder, "cgroup.procs", "0"));
    daemon_fixture_spawn(d, args);
    assert_true(set(g->own, "cgroup.procs", "0"));
}

/* 220 MiB, as in the issue: what can't be had is refused, what is announced is there. */
static void obeys_a_cgroup(void **state)
{
    char sock[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",    daemon_fixture_model(DAEMON_FIXTURE_TINY),
                           "--socket",   scratch_path(sock, "cgroup.sock"),
                           "--kv-bytes", "512M",
                           NULL };
    struct daemon_fixture d;
    struct cgroup g;
    uint64_t bytes;

    (void)state;
    if (!make_cgroup(&g)) {
        print_message("no cgroup can be made here: %s\n", strerror(errno));
        skip();
    }
    spawn_in(&g, &d, args);
    assert_false(daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS));
    assert_int_equal(daemon_fixture_wait(&d), 1);
    if (!strstr(daemon_fixture_log(&d), "has a limit of 230686720 bytes") ||
        !strstr(daemon_fixture_log(&d), "option kv-bytes: found 536870912"))
        fail_msg("said: %s", daemon_fixture_log(&d));

    args[4] = NULL; /* as much as there is */
    spawn_in(&g, &d, args);
    (void)snprintf(d.socket, sizeof(d.socket), "%s", sock);
    if (!daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS))
        fail_msg("said: %s", daemon_fixture_log(&d));
    assert_non_null(strstr(daemon_fixture_log(&d), "(--kv-bytes)"));
    bytes = pool_bytes(&d);
    assert_true(bytes > 4 * MIB && bytes < 110 * MIB);
    daemon_fixture_stop(&d);
    assert_int_equal(rmdir(g.folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_v2),         cmocka_unit_test(reads_v1),
        cmocka_unit_test(reads_containers), cmocka_unit_test(reads_nothing),
        cmocka_unit_test(shares_out),       cmocka_unit_test(obeys_rlimit),
        cmocka_unit_test(obeys_a_cgroup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
