#include "daemon/log.h"

#include "base/clock.h"
#include "base/shown.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

/* When the limit would be used up by the lines so far, at one every LOG_PEER_NS; it may lie as far
 * ahead as a burst lasts. One number, so that two threads need no lock. */
static _Atomic uint64_t peer_until;
static _Atomic uint64_t peer_left_out;

static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_journal;
static int log_socket = -1; /* the journal's; -1: lines go to stderr */

/* JOURNAL_STREAM is inherited by children whose stderr goes elsewhere, so compare. */
static bool stderr_is_journal(void)
{
    const char *s = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return s && sscanf(s, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == dev && st.st_ino == ino;
}

/* Again with each call: options are read in between. */
void log_open_at(enum log_level max, const char *journal)
{
    log_max = max;
    log_journal = stderr_is_journal();
    if (log_socket >= 0)
        (void)close(log_socket);
    log_socket = log_journal ? journal_open(journal) : -1;
}

void log_open(enum log_level max)
{
    log_open_at(max, JOURNAL_SOCKET);
}

static const int priorities[] = { 3, 4, 6, 7 }; /* as of syslog(3) */

/* journald reads a priority from a line's beginning; people and files get words. */
static const char *line_head(enum log_level level)
{
    static const char *const journal[] = { "<3>", "<4>", "<6>", "<7>" };
    static const char *const plain[] = { "gistd: error: ", "gistd: warning: ", "gistd: ",
                                         "gistd: debug: " };

    return log_journal ? journal[level] : plain[level];
}

/* Cut at LOG_LINE_MAX, on the stack: a line is written where there may be no memory. */
static void put_line(enum log_level level, const struct journal_about *about, const char *fmt,
                     va_list ap)
{
    char text[LOG_LINE_MAX], line[LOG_LINE_MAX];
    size_t head, n;
    int r;

    head = n = (size_t)snprintf(line, sizeof(line), "%s", line_head(level));
    r = vsnprintf(text, sizeof(text), fmt, ap);
    if (r < 0)
        return;
    /* Names come from clients and models: a line break in one would forge a line of the log. */
    n += shown_put(SHOWN_LINE, text, strlen(text), line + n, sizeof(line) - n - 1);
    if (log_socket >= 0 &&
        journal_send(log_socket, priorities[level], about, line + head, n - head) == 0)
        return;
    line[n++] = '\n';
    (void)!write(STDERR_FILENO, line, n);
}

void log_about(enum log_level level, const struct journal_about *about, const char *fmt, ...)
{
    va_list ap;

    if (level > log_max)
        return;
    va_start(ap, fmt);
    put_line(level, about, fmt, ap);
    va_end(ap);
}

/* Nothing here that a signal handler may not call: no printf, no lock, and the journal's socket is
 * left alone. */
void log_in_signal(enum log_level level, const char *const *parts)
{
    char line[LOG_LINE_MAX];
    size_t n = 0;

    if (level > log_max)
        return;
    for (const char *part = line_head(level); part; part = *parts++) {
        size_t len = strlen(part);

        len = len < sizeof(line) - 1 - n ? len : sizeof(line) - 1 - n;
        memcpy(line + n, part, len);
        n += len;
    }
    line[n++] = '\n';
    (void)!write(STDERR_FILENO, line, n);
}

/* Takes one line of what the limit allows now. A bucket that leaks, as one time: each line moves it
 * LOG_PEER_NS ahead, and it may not be a burst ahead of now. A failed exchange has loaded the other
 * thread's value. */
static bool take_line(void)
{
    uint64_t until = atomic_load(&peer_until), now = clock_ns(), next;

    do {
        next = (until > now ? until : now) + LOG_PEER_NS;
        if (next > now + LOG_PEER_BURST * LOG_PEER_NS)
            return false;
    } while (!atomic_compare_exchange_weak(&peer_until, &until, next));
    return true;
}

void log_peer_left_out(void)
{
    uint64_t n = atomic_exchange(&peer_left_out, 0);

    if (n > 0)
        log_warning("%" PRIu64 " more lines about clients were left out: too many at once", n);
}

/* When the bucket has room for the line that says how many there were. */
uint64_t log_peer_due_ns(void)
{
    if (atomic_load(&peer_left_out) == 0)
        return 0;
    return atomic_load(&peer_until) - (LOG_PEER_BURST - 1) * LOG_PEER_NS;
}

void log_peer_about(enum log_level level, const struct journal_about *about, const char *fmt, ...)
{
    va_list ap;

    if (level > log_max)
        return;
    if (!take_line()) {
        atomic_fetch_add(&peer_left_out, 1);
        return;
    }
    log_peer_left_out();
    va_start(ap, fmt);
    put_line(level, about, fmt, ap);
    va_end(ap);
}
