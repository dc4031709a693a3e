/* The kernel answers from a bitmap whatever is allowed whatever its arguments (since 5.11), so that
 * the calls of serving cost what they did: only those below whose arguments are looked at run the
 * filter.
 */
#include "daemon/calls.h"

#include "base/sanitized.h"
#include "daemon/log.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* Numbers of calls; all architectures that are served here stay below. */
#define CALLS_MAX 1024

/* What the handler needs, made before the filter is: a handler may not ask libseccomp, which
 * allocates. Written once, before there are other threads; the bits of `told` by any. */
static const char *names[CALLS_MAX];
static bool lethal[CALLS_MAX];
static atomic_bool told[CALLS_MAX];

/* --- the handler ------------------------------------------------------------------------------ */

/* What the interrupted call seems to return. */
static void set_result(ucontext_t *u, long value)
{
#if defined(__x86_64__)
    u->uc_mcontext.gregs[REG_RAX] = value;
#elif defined(__aarch64__)
    u->uc_mcontext.regs[0] = (unsigned long)value;
#else
#error "where does this architecture keep a system call's result?"
#endif
}

static void die(void)
{
    sigset_t set;

    (void)signal(SIGSYS, SIG_DFL);
    (void)raise(SIGSYS);
    /* It is blocked as long as its handler runs. */
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGSYS);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    _exit(128 + SIGSYS);
}

/* Runs instead of the call, in the thread that made it. */
static void on_sigsys(int sig, siginfo_t *info, void *context)
{
    unsigned call = (unsigned)info->si_syscall;
    const char *name = call < CALLS_MAX && names[call] ? names[call] : "of an unknown number";
    bool ends = call < CALLS_MAX && lethal[call];

    (void)sig;
    if (call >= CALLS_MAX || ends || !atomic_exchange(&told[call], true)) {
        const char *const parts[] = {
            "the sandbox denied the system call ", name,
            ends ? ", which gistd never makes: foreign code may be running, so it ends here"
                 : ", which gistd does not need (--sandbox)",
            NULL
        };

        log_in_signal(ends ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING, parts);
    }
    if (ends)
        die();
    set_result(context, -EPERM);
}

/* Names are libseccomp's, which may be asked only now. */
static int catch_denied(void)
{
    struct sigaction a = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };

    (void)sigemptyset(&a.sa_mask);
    for (int i = 0; i < CALLS_MAX; i++) {
        free((char *)names[i]);
        names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
    }
    return sigaction(SIGSYS, &a, NULL) < 0 ? -errno : 0;
}

/* --- the lists -------------------------------------------------------------------------------- */

static const char *const allowed[] = {
#define ALLOW(name) #name,
#define LATER(name)
#define NEVER(name)
#include "daemon/calls.def"
#undef ALLOW
#undef LATER
#undef NEVER
};

static const char *const later[] = {
#define ALLOW(name)
#define LATER(name) #name,
#define NEVER(name)
#include "daemon/calls.def"
#undef ALLOW
#undef LATER
#undef NEVER
};

static const char *const never[] = {
#define ALLOW(name)
#define LATER(name)
#define NEVER(name) #name,
#include "daemon/calls.def"
#undef ALLOW
#undef LATER
#undef NEVER
};

/* Sanitizers' run-time libraries call what they like: leaks are looked for at the end by a process
 * of its own, which traces this one and dies of a signal that it blocks. */
static const char *const sanitizers[] = { "execve", "fork", "ptrace", "vfork", "process_vm_readv" };

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static bool of_sanitizers(const char *name)
{
    for (size_t i = 0; SANITIZED && i < N_OF(sanitizers); i++)
        if (strcmp(sanitizers[i], name) == 0)
            return true;
    return false;
}

/* Calls that this architecture or this libseccomp does not have are not missed. */
static int add(scmp_filter_ctx f, uint32_t action, const char *name)
{
    int number = seccomp_syscall_resolve_name(name);

    return number < 0 ? 0 : seccomp_rule_add(f, action, number, 0);
}

/* --- calls whose arguments say what they are ----------------------------------------------------
 */

#define INT_MASK UINT64_C(0xffffffff)

/* Of an int: what stands above it in the register is nobody's business. */
static int add_if(scmp_filter_ctx f, const char *name, unsigned arg, uint64_t mask, uint64_t value)
{
    struct scmp_arg_cmp c = {
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value
    };

    return seccomp_rule_add(f, SCMP_ACT_ALLOW, seccomp_syscall_resolve_name(name), 1, c);
}

static int add_looked_at(scmp_filter_ctx f)
{
    const struct {
        const char *name;
        unsigned arg;
        uint64_t mask, value;
    } rules[] = {
        /* Memory that could be both written and run would make foreign code of a stray write. */
        { "mmap", 2, PROT_EXEC, 0 },
        { "mprotect", 2, PROT_EXEC, 0 },
        /* Threads, and no processes. */
        { "clone", 0, CLONE_THREAD, CLONE_THREAD },
        { "socket", 0, INT_MASK, AF_UNIX },
        { "socketpair", 0, INT_MASK, AF_UNIX },
        /* abort() and raise(). */
        { "tgkill", 0, INT_MASK, (uint64_t)getpid() },
        { "prlimit64", 0, INT_MASK, 0 },
        /* What stdio asks of a standard output that may be a terminal. */
        { "ioctl", 1, INT_MASK, TCGETS },
        { "prctl", 0, INT_MASK, PR_SET_NAME },
        { "prctl", 0, INT_MASK, PR_GET_NAME },
        { "prctl", 0, INT_MASK, PR_SET_VMA },
        { "prctl", 0, INT_MASK, PR_SET_TIMERSLACK },
    };
    /* PCRE2 asks for such memory to compile an expression into, and interprets it without: reading
     * text into tokens takes a tenth longer. It is no news. */
    const struct scmp_arg_cmp compiled[] = {
        { .arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = PROT_EXEC },
        { .arg = 3, .op = SCMP_CMP_MASKED_EQ, .datum_a = MAP_ANONYMOUS, .datum_b = MAP_ANONYMOUS },
    };
    int r = seccomp_rule_add_array(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mmap), 2, compiled);

    for (size_t i = 0; r == 0 && i < N_OF(rules); i++)
        r = add_if(f, rules[i].name, rules[i].arg, rules[i].mask, rules[i].value);
    return r;
}

/* --- the filter ------------------------------------------------------------------------------- */

/* All that is not named is denied. */
static int fill_allowed(scmp_filter_ctx f, unsigned *n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < N_OF(allowed); i++)
        r = add(f, SCMP_ACT_ALLOW, allowed[i]);
    for (size_t i = 0; r == 0 && i < N_OF(later); i++)
        r = add(f, SCMP_ACT_ERRNO(ENOSYS), later[i]);
    *n = (unsigned)N_OF(allowed);
    return r == 0 ? add_looked_at(f) : r;
}

/* Those that end the process. With a driver they are all that is caught; without one they are
 * caught anyway. */
static int fill_never(scmp_filter_ctx f, bool others)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < N_OF(never); i++) {
        int number = seccomp_syscall_resolve_name(never[i]);

        if (number < 0 || number >= CALLS_MAX || of_sanitizers(never[i]))
            continue;
        lethal[number] = true;
        if (others)
            r = seccomp_rule_add(f, SCMP_ACT_TRAP, number, 0);
    }
    return r;
}

int calls_limit(bool driver, unsigned *ret_n)
{
    bool others = driver || SANITIZED; /* call what is not ours to list */
    scmp_filter_ctx f = seccomp_init(others ? SCMP_ACT_ALLOW : SCMP_ACT_TRAP);
    int r = 0;

    if (!f)
        return -ENOMEM;
    *ret_n = 0;
    if (!others)
        r = fill_allowed(f, ret_n);
    if (r == 0)
        r = fill_never(f, others);
    if (r == 0)
        r = catch_denied();
    if (r == 0)
        r = seccomp_load(f);
    seccomp_release(f);
    return r;
}
