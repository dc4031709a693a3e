/* ctl/ctl.h - what the commands of gistctl share: exit codes, errors, reading text, interrupts.
 *
 * gistctl uses libgist's public header, and base/, and nothing between. A command is one file with
 * one function, which gets its own argv (argv[0] is the command's name) and returns the exit code.
 *
 * Errors     a function that printed a sentence on stderr returns the exit code; others a negative
 *            errno.
 * Threads    one; the signal handler touches only the two variables of ctl_interrupt.c.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "client/gist.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Documented in gistctl(1). */
enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1, /* the daemon refused the request, or a file could not be read */
    CTL_USAGE = 2,
    CTL_NO_DAEMON = 3,    /* none there, or the connection was lost */
    CTL_LOADING = 4,      /* status: it serves when it has loaded its model */
    CTL_INTERRUPTED = 130 /* 128 + SIGINT, as shells count it */
};

int ctl_ask(int argc, char **argv);
int ctl_attach(int argc, char **argv);
int ctl_chat(int argc, char **argv);
int ctl_doc(int argc, char **argv);
int ctl_session(int argc, char **argv);
int ctl_score(int argc, char **argv);
int ctl_embed(int argc, char **argv);
int ctl_tokenize(int argc, char **argv);
int ctl_detokenize(int argc, char **argv);
int ctl_cache(int argc, char **argv);
int ctl_sessions(int argc, char **argv);
int ctl_cancel(int argc, char **argv);
int ctl_trace(int argc, char **argv);
int ctl_top(int argc, char **argv);
int ctl_status(int argc, char **argv);
int ctl_start(int argc, char **argv);
int ctl_stop(int argc, char **argv);
int ctl_models(int argc, char **argv);
int ctl_pull(int argc, char **argv);
int ctl_use(int argc, char **argv);
int ctl_bench_ring(int argc, char **argv);

/* Prints "gistctl: sentence" and returns code. */
__attribute__((format(printf, 2, 3))) int ctl_fail(enum ctl_exit code, const char *fmt, ...);

/* The exit code of a failed libgist call, which is explained on stderr. */
int ctl_fail_gist(const gist_conn *c, int err);

/* Connects to $GISTD_SOCKET or the usual places; 0 or the exit code. Waits while the daemon loads
 * its model, and says how far it is when standard error is a terminal. */
int ctl_connect(gist_conn **ret_conn);
/* The same without waiting: CTL_LOADING with the percentage when it is not loaded. */
int ctl_connect_now(gist_conn **ret_conn, unsigned *ret_percent);

/* --- commands of a command (ctl_sub.c) -------------------------------------------------------- */

struct ctl_sub {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is both names: "doc add" */
    const char *help;
};

struct ctl_sub_usage {
    const char *name;  /* "doc" */
    const char *about; /* lines of text, ends with \n */
};

/* Runs the one that argv[1] names; argv as the command got it. */
int ctl_sub_run(const struct ctl_sub_usage *usage, const struct ctl_sub *subs, size_t n, int argc,
                char **argv);

/* --- text (ctl_text.c) ------------------------------------------------------------------------ */

struct ctl_text {
    char *bytes; /* NUL-terminated for convenience; the NUL is not counted */
    size_t len, cap;
};

void ctl_text_fini(struct ctl_text *t);
int ctl_text_add(struct ctl_text *t, const char *bytes, size_t len);
/* Adds the whole of a file; path "-" is standard input. -EINTR when Ctrl-C ended the reading. */
int ctl_text_add_file(struct ctl_text *t, const char *path);

/* The same for a command's one optional FILE operand: prints what failed; 0 or the exit code. */
int ctl_text_read(struct ctl_text *t, const char *path);

/* Text of a model to standard output: as it is into a file or a pipe, fit for a terminal on one. */
void ctl_text_print(const char *text, size_t len);

/* --- Ctrl-C (ctl_interrupt.c) ----------------------------------------------------------------- */

/* From here on SIGINT cancels the call that c is in, instead of ending the program. With leave, a
 * second SIGINT ends it: a daemon that does not answer must not hold the user. */
void ctl_interrupt_catch(gist_conn *c, bool leave);
bool ctl_interrupt_came(void);
/* Until fd is readable: 1, another signal came, such as a window's new size: 0, or Ctrl-C: -1. Such
 * a signal's handler sets came, so that one from before the call counts, too. */
int ctl_interrupt_wait(int fd, const volatile sig_atomic_t *came);
void ctl_interrupt_forget(void);

/* --- small things ----------------------------------------------------------------------------- */

uint64_t ctl_now_ns(void);

/* Requests from now on have the time that is left until then, of ctl_now_ns; 0: any time. */
int ctl_set_end(gist_conn *c, uint64_t end_ns);

/* Before anything else is printed: the line that tells of a model being loaded is taken away. */
void ctl_loading_end(void);

#endif
