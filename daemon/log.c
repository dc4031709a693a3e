#include "daemon/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_journal;

/* JOURNAL_STREAM is inherited by children whose stderr goes elsewhere, so compare. */
static bool stderr_is_journal(void)
{
    const char *s = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return s && sscanf(s, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == dev && st.st_ino == ino;
}

void log_open(enum log_level max)
{
    log_max = max;
    log_journal = stderr_is_journal();
}

void log_at(enum log_level level, const char *fmt, ...)
{
    static const char *const journal[] = { "<3>", "<4>", "<6>", "<7>" };
    static const char *const plain[] = { "gistd: error: ", "gistd: warning: ", "gistd: ",
                                         "gistd: debug: " };
    char line[LOG_LINE_MAX];
    va_list ap;
    size_t n;
    int r;

    if (level > log_max)
        return;
    n = (size_t)snprintf(line, sizeof(line), "%s", log_journal ? journal[level] : plain[level]);
    va_start(ap, fmt);
    r = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
    va_end(ap);
    if (r < 0)
        return;
    n = n + (size_t)r < sizeof(line) - 1 ? n + (size_t)r : sizeof(line) - 2;
    /* Names come from clients: a line break in one would forge a line of the log. */
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    (void)!write(STDERR_FILENO, line, n);
}
