/* ctl/ctl_top.c - gistctl top: the daemon at work, on a terminal, again and again. */
#include "base/shown.h"
#include "ctl/ctl.h"
#include "ctl/ctl_human.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"

#include <errno.h>
#include <ncurses.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 512
#define UNIT_COLUMN    24

struct top {
    bool json, once, screen;
    /* Of the Stats before: rates are what came since. */
    uint64_t at_ns, prompt, generated;
    double prompt_rate, generated_rate; /* tokens a second */
    bool ended;                         /* by a key, or by --once */
    bool done;
    int err;
    int y; /* the next line of the screen */
};

/* --- what is shown ---------------------------------------------------------------------------- */

/* Over the time since the last look, or at first since the daemon's start. */
static void measure(struct top *t, const struct gist_stats *s)
{
    double seconds = (double)(s->uptime_ns - t->at_ns) / 1e9;

    if (seconds > 0) {
        t->prompt_rate = (double)(s->prompt_tokens_total - t->prompt) / seconds;
        t->generated_rate = (double)(s->generated_tokens_total - t->generated) / seconds;
    }
    t->at_ns = s->uptime_ns;
    t->prompt = s->prompt_tokens_total;
    t->generated = s->generated_tokens_total;
}

/* A line of the screen, or of standard output. What does not fit is cut, and what is no character
 * of a terminal's is not sent to it: names are their clients'. */
__attribute__((format(printf, 3, 4))) static void line(struct top *t, bool head, const char *fmt,
                                                       ...)
{
    char text[LINE_MAX_BYTES], shown[LINE_MAX_BYTES];
    va_list ap;
    size_t n;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    n = shown_put(SHOWN_LINE, text, strlen(text), shown, sizeof(shown) - 1);
    shown[n] = '\0';
    if (!t->screen) {
        puts(shown);
        return;
    }
    if (t->y >= LINES)
        return;
    if (head)
        attron(A_REVERSE);
    mvaddnstr(t->y++, 0, shown, COLS);
    if (head)
        attroff(A_REVERSE);
}

static uint32_t count_detached(const struct gist_stats *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n_sessions; i++)
        n += s->sessions[i].left_s > 0;
    return n;
}

static void show_summary(struct top *t, const struct gist_stats *s)
{
    uint32_t used = s->pages - s->pages_free - s->pages_cached, gists = 0;
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP], c[CTL_HUMAN_CAP], d[CTL_HUMAN_CAP];

    for (uint32_t i = 0; i < s->n_owners; i++)
        gists += s->owners[i].gist_pages;
    gists = gists < used ? gists : used;
    line(t, true, "gistd %s  %s  up %s", s->version, s->model, ctl_human_time(s->uptime_ns, a));
    line(t, false, "tokens/s  %.1f read, %.1f written", t->prompt_rate, t->generated_rate);
    line(t, false,
         "queue     %u requests at work, %u of them wait; %llu since the start, %llu failed",
         s->requests_running, s->requests_waiting, (unsigned long long)s->requests_total,
         (unsigned long long)s->requests_failed);
    if (count_detached(s) > 0)
        line(t, false, "detached  %u of %u sessions have no connection now", count_detached(s),
             s->n_sessions);
    line(t, false, "pages     %u of %u used: %s raw, %s gists; %s cached, %s free", used, s->pages,
         ctl_human_bytes((uint64_t)(used - gists) * s->page_bytes, a),
         ctl_human_bytes((uint64_t)gists * s->page_bytes, b),
         ctl_human_bytes((uint64_t)s->pages_cached * s->page_bytes, c),
         ctl_human_bytes((uint64_t)s->pages_free * s->page_bytes, d));
}

static void show_owners(struct top *t, const struct gist_stats *s)
{
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP], c[CTL_HUMAN_CAP];

    line(t, true, "%10s %8s %8s %10s %10s %10s", "owner", "clients", "sessions", "raw", "gists",
         "on disk");
    for (uint32_t i = 0; i < s->n_owners; i++) {
        const struct gist_stats_owner *o = &s->owners[i];

        line(t, false, "%10u %8u %8u %10s %10s %10s", o->uid, o->clients, o->sessions,
             ctl_human_bytes((uint64_t)(o->pages - o->gist_pages) * s->page_bytes, a),
             ctl_human_bytes((uint64_t)o->gist_pages * s->page_bytes, b),
             ctl_human_bytes(o->store_bytes, c));
    }
}

static const char *doing(const struct gist_stats_session *x)
{
    if (x->request)
        return x->doing;
    return x->left_s > 0 ? "detached" : "idle";
}

/* width: of the units' column, which is there where one is known. */
static void show_session(struct top *t, const struct gist_stats *s,
                         const struct gist_stats_session *x, int width)
{
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP], unit[CTL_HUMAN_UNIT_CAP];

    line(t, false, "%8llu %8u %8u %10s %10s %-14s %8u  %-*.*s%s", (unsigned long long)x->id, x->uid,
         x->n_tokens, ctl_human_bytes((uint64_t)(x->pages - x->gist_pages) * s->page_bytes, a),
         ctl_human_bytes((uint64_t)x->gist_pages * s->page_bytes, b), doing(x), x->generated_tokens,
         width, width > 0 ? width - 1 : 0, ctl_human_unit(x->unit, unit), x->label);
}

/* Those at work first: on a small screen the rest is cut. */
static void show_sessions(struct top *t, const struct gist_stats *s)
{
    int width = 0;

    for (uint32_t i = 0; i < s->n_sessions; i++)
        if (s->sessions[i].unit && s->sessions[i].unit[0])
            width = UNIT_COLUMN;
    line(t, true, "%8s %8s %8s %10s %10s %-14s %8s  %-*.*s%s", "session", "uid", "tokens", "raw",
         "gists", "doing", "written", width, width, "unit", "label");
    for (int idle = 0; idle < 2; idle++)
        for (uint32_t i = 0; i < s->n_sessions; i++)
            if ((s->sessions[i].request == 0) == idle)
                show_session(t, s, &s->sessions[i], width);
}

static void print_json(const struct top *t, const struct gist_stats *s)
{
    struct ctl_json j = { .out = stdout };

    ctl_json_open(&j, NULL, '{');
    ctl_json_u64(&j, "uptime_ns", s->uptime_ns);
    ctl_json_double(&j, "read_tokens_per_s", t->prompt_rate);
    ctl_json_double(&j, "written_tokens_per_s", t->generated_rate);
    ctl_json_u64(&j, "requests_running", s->requests_running);
    ctl_json_u64(&j, "requests_waiting", s->requests_waiting);
    ctl_json_u64(&j, "pages", s->pages);
    ctl_json_u64(&j, "pages_free", s->pages_free);
    ctl_json_u64(&j, "pages_cached", s->pages_cached);
    ctl_json_u64(&j, "clients", s->n_clients_all);
    ctl_json_u64(&j, "sessions", s->n_sessions_all);
    ctl_json_u64(&j, "detached", count_detached(s));
    ctl_json_open(&j, "owners", '[');
    for (uint32_t i = 0; i < s->n_owners; i++) {
        ctl_json_open(&j, NULL, '{');
        ctl_json_u64(&j, "uid", s->owners[i].uid);
        ctl_json_u64(&j, "sessions", s->owners[i].sessions);
        ctl_json_u64(&j, "pages", s->owners[i].pages);
        ctl_json_u64(&j, "gist_pages", s->owners[i].gist_pages);
        ctl_json_u64(&j, "store_bytes", s->owners[i].store_bytes);
        ctl_json_close(&j, '}');
    }
    ctl_json_close(&j, ']');
    ctl_json_close(&j, '}');
    fputc('\n', stdout);
    fflush(stdout);
}

/* One picture for each Stats that the daemon sends; non-zero ends the watch. */
static int show(void *arg, const struct gist_stats *s)
{
    struct top *t = arg;

    measure(t, s);
    if (t->json) {
        print_json(t, s);
    } else {
        if (t->screen)
            erase();
        t->y = 0;
        show_summary(t, s);
        show_owners(t, s);
        show_sessions(t, s);
        if (t->screen)
            refresh();
    }
    t->ended |= t->once || ctl_interrupt_came();
    return t->ended;
}

/* --- keys and the loop ------------------------------------------------------------------------ */

static void on_done(void *arg, int err, const struct gist_result *result)
{
    struct top *t = arg;

    (void)result;
    t->done = true;
    t->err = err;
}

/* A new size is drawn with the next Stats; until then the old picture is cut or has a margin. */
static void take_keys(struct top *t)
{
    int key;

    while (t->screen && (key = getch()) != ERR)
        t->ended |= key == 'q' || key == 'Q' || key == 27;
}

/* Until q, Ctrl-C, --once or the daemon's end. After a cancel the loop goes on until the daemon has
 * said that it came. */
static int follow(struct top *t, gist_conn *c, uint64_t request)
{
    bool cancelled = false;

    while (!t->done) {
        struct pollfd p[2] = { { .fd = gist_fd(c), .events = POLLIN },
                               { .fd = STDIN_FILENO, .events = POLLIN } };
        int r;

        /* A signal ends the wait: Ctrl-C, or another size of the terminal. */
        if (poll(p, t->screen ? 2 : 1, -1) < 0 && errno != EINTR)
            return -errno;
        take_keys(t);
        /* A terminal that is gone has no key to end this, and its end is there at every poll. */
        t->ended |= p[1].revents & (POLLHUP | POLLERR) || ctl_interrupt_came();
        if (t->ended && !cancelled) {
            cancelled = true;
            (void)gist_cancel(c, request);
        }
        r = gist_dispatch(c);
        if (r < 0)
            return r;
    }
    return t->err == -ECANCELED && t->ended ? 0 : t->err;
}

/* False: the terminal can't do it. newterm and not initscr, which ends the program where it can't
 * go on. */
static bool open_screen(SCREEN **ret)
{
    *ret = newterm(NULL, stdout, stdin);
    if (!*ret)
        return false;
    (void)cbreak();
    (void)noecho();
    (void)nodelay(stdscr, TRUE);
    (void)keypad(stdscr, TRUE);
    (void)curs_set(0);
    return true;
}

static void close_screen(SCREEN *s)
{
    if (!s)
        return;
    (void)endwin();
    delscreen(s);
}

/* The screen is closed before anything is said: it would be lost with the picture. */
static int run(struct top *t, double seconds)
{
    SCREEN *screen = NULL;
    uint64_t request = 0;
    gist_conn *c;
    int r = ctl_connect(&c);

    if (r != 0)
        return r;
    if (t->screen && !open_screen(&screen)) {
        gist_disconnect(c);
        return ctl_fail(CTL_FAILED,
                        "this terminal (TERM=%s) can't be drawn on; --once or --json "
                        "prints lines.",
                        getenv("TERM") ? getenv("TERM") : "");
    }
    ctl_interrupt_catch(c, false);
    r = gist_watch_start(c, (uint32_t)(seconds * 1000), show, on_done, t, &request);
    if (r == 0)
        r = follow(t, c, request);
    close_screen(screen);
    if (r < 0)
        r = ctl_fail_gist(c, r);
    gist_disconnect(c);
    return r;
}

int ctl_top(int argc, char **argv)
{
    static const struct ctl_opt_usage usage = {
        "top [OPTIONS]",
        "Shows what the daemon does: tokens a second, the queue, pages by kind, users, sessions,\n"
        "again and again. q ends it.\n"
    };
    struct top t = { .json = false };
    float seconds = 1;
    const struct ctl_opt opts[] = {
        { "interval", 'i', CTL_OPT_FLOAT, "SECONDS", &seconds, 0.1, 3600, "between two looks (1)" },
        { "once", '1', CTL_OPT_FLAG, NULL, &t.once, 0, 0, "print it once, as lines" },
        { "json", 'j', CTL_OPT_FLAG, NULL, &t.json, 0, 0, "an object a line, for scripts" },
    };
    int r;

    if (ctl_opt_parse_all(&usage, opts, 3, argc, argv, &r) < 0)
        return r;
    t.screen = !t.once && !t.json;
    if (t.screen && (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO)))
        return ctl_fail(CTL_USAGE, "top needs a terminal; --once prints it once, --json prints an "
                                   "object a line.");
    return run(&t, seconds);
}
