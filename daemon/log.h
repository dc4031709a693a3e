/* daemon/log.h - lines to stderr, with a level.
 *
 * When stderr is the journal ($JOURNAL_STREAM names it) a line goes there by journald's own socket,
 * with the fields of daemon/journal.h, and where that takes nothing to stderr as ever, with
 * journald's "<N>" before it. Elsewhere it begins with "gistd: warning: ". A line is one write, so
 * that threads don't mix theirs. Never text of a client.
 *
 * Lines that a peer can cause (log_peer_*) have one limit for all peers: LOG_PEER_BURST at once,
 * then one every LOG_PEER_NS. What is left out is counted, and the count is the next line that may
 * be written. Without it one process that says bad hellos filled the disk with 790 kB a second.
 * Debug lines have no limit: who asks for them wants all.
 *
 * Threads    log_open before there are any; the rest from every thread.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include "daemon/journal.h"

#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_open(enum log_level max);
/* The same with another socket of a journal, for tests. */
void log_open_at(enum log_level max, const char *journal);

/* With what it is about, for lines that are looked for; NULL: nothing in particular. */
void log_about(enum log_level level, const struct journal_about *about, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The parts, NULL behind the last, as one line; from a signal handler too. They are ours: nothing
 * in them is quoted. */
void log_in_signal(enum log_level level, const char *const *parts);

/* For what a peer can cause. */
#define LOG_PEER_BURST 20u
#define LOG_PEER_NS    UINT64_C(2000000000)
void log_peer_about(enum log_level level, const struct journal_about *about, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#define log_peer_error(...)   log_peer_about(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_peer_warning(...) log_peer_about(LOG_LEVEL_WARNING, NULL, __VA_ARGS__)

/* Says how many lines were left out, if any were. log_peer_due_ns: when that may be said (of
 * clock_ns); 0: none were. */
void log_peer_left_out(void);
uint64_t log_peer_due_ns(void);

#define log_error(...)   log_about(LOG_LEVEL_ERROR, NULL, __VA_ARGS__)
#define log_warning(...) log_about(LOG_LEVEL_WARNING, NULL, __VA_ARGS__)
#define log_info(...)    log_about(LOG_LEVEL_INFO, NULL, __VA_ARGS__)
#define log_debug(...)   log_about(LOG_LEVEL_DEBUG, NULL, __VA_ARGS__)

#endif
