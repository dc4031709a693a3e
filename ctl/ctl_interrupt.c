/* ctl/ctl_interrupt.c - Ctrl-C ends an answer, not the program. */
#include "ctl/ctl.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* Written by the handler, read everywhere. */
static atomic_int n_came;
/* Written before the handler is installed, read by it. */
static _Atomic(gist_conn *) conn;
static atomic_bool leave_on_second;

/* Only what a handler may do: atomics, _exit, and gist_cancel_async, which is made for it. */
static void on_sigint(int sig)
{
    gist_conn *c = atomic_load(&conn);

    (void)sig;
    if (atomic_fetch_add(&n_came, 1) > 0 && atomic_load(&leave_on_second))
        _exit(CTL_INTERRUPTED);
    if (c)
        gist_cancel_async(c);
}

/* The handler's variables are written first. c NULL gives the signal back. */
void ctl_interrupt_catch(gist_conn *c, bool leave)
{
    /* No SA_RESTART: a read of the keyboard ends too. */
    struct sigaction sa = { .sa_handler = c ? on_sigint : SIG_DFL };

    atomic_store(&conn, c);
    atomic_store(&leave_on_second, leave);
    sigaction(SIGINT, &sa, NULL);
}

bool ctl_interrupt_came(void)
{
    return atomic_load(&n_came) > 0;
}

void ctl_interrupt_forget(void)
{
    atomic_store(&n_came, 0);
}

int ctl_interrupt_wait(int fd, const volatile sig_atomic_t *came)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    sigset_t watched, old;
    int n;

    /* Blocked but inside ppoll: one that comes after the look and before the sleep ends the sleep.
     */
    sigemptyset(&watched);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGWINCH);
    sigprocmask(SIG_BLOCK, &watched, &old);
    n = ctl_interrupt_came() || *came ? 0 : ppoll(&p, 1, NULL, &old);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return ctl_interrupt_came() ? -1 : n > 0;
}
