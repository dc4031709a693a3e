/* ctl/ctl_cache.c - gistctl cache: what the daemon keeps on disk of one's own sessions. */
#include "base/shown.h"
#include "ctl/ctl.h"
#include "ctl/ctl_human.h"
#include "ctl/ctl_json.h"
#include "ctl/ctl_opt.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* What the commands have in common. */
struct cache {
    gist_conn *conn;
    struct gist_cache_opts opts;
    struct ctl_json json;
    bool as_json, is_public;
    bool shown; /* a line of progress stands on the terminal */
    bool begun; /* the object of ls */
};

/* clang-format off */
#define CACHE_OPTIONS(c)                                                                           \
    { "json", 'j', CTL_OPT_FLAG, NULL, &(c)->as_json, 0, 0, "one object, bytes and seconds" },     \
    { "public", 0, CTL_OPT_FLAG, NULL, &(c)->is_public, 0, 0,                                      \
      "what public sessions have read, of whatever user" }
/* clang-format on */

/* Options, no operands, and a connection. 0: go on, and cache_close in the end; else *ret_exit. */
static int cache_open(struct cache *c, const struct ctl_opt_usage *usage,
                      const struct ctl_opt *opts, size_t n_opts, int argc, char **argv,
                      int *ret_exit)
{
    if (ctl_opt_parse_all(usage, opts, n_opts, argc, argv, ret_exit) < 0)
        return -1;
    c->opts.size = sizeof(c->opts);
    c->opts.flags = c->is_public ? GIST_CACHE_PUBLIC : 0;
    c->json.out = stdout;
    *ret_exit = ctl_connect(&c->conn);
    if (*ret_exit != 0)
        return -1;
    ctl_interrupt_catch(c->conn, true);
    return 0;
}

/* The exit code; err: of the last call. */
static int cache_close(struct cache *c, int err)
{
    int r = err < 0 ? ctl_fail_gist(c->conn, err) : CTL_OK;

    ctl_interrupt_catch(NULL, false);
    gist_disconnect(c->conn);
    return r;
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

/* "3 records (35.3 MiB)" */
static const char *records(uint64_t n, uint64_t bytes, char ret[64])
{
    char b[CTL_HUMAN_CAP];

    (void)snprintf(ret, 64, "%" PRIu64 " record%s (%s)", n, plural(n), ctl_human_bytes(bytes, b));
    return ret;
}

static void json_sum(struct ctl_json *j, const struct gist_cache_sum *s)
{
    ctl_json_u64(j, "records", s->records);
    ctl_json_u64(j, "bytes", s->bytes);
    ctl_json_u64(j, "tokens", s->tokens);
    ctl_json_u64(j, "packed_records", s->packed_records);
    ctl_json_u64(j, "packed_bytes", s->packed_bytes);
}

/* --- ls --------------------------------------------------------------------------------------- */

static const struct ctl_opt_usage ls_usage = {
    "cache ls [OPTIONS]",
    "Lists the records that are kept on disk of your sessions: keys and values of a part of a\n"
    "text (raw) or the gists of one, so many tokens of it, behind so many others.\n"
};

static void print_row(const struct gist_cache_row *x)
{
    char size[CTL_HUMAN_CAP], when[CTL_HUMAN_CAP], cost[CTL_HUMAN_CAP];

    printf("%8u %8u  %-5s %8u %10s  %-16s  %s\n", x->n_tokens, x->depth,
           x->packed ? "gists" : "raw", x->n_keys, ctl_human_bytes(x->bytes, size),
           ctl_human_when(x->used_s, when), ctl_human_time(x->cost_ns, cost));
}

static void json_row(struct ctl_json *j, const struct gist_cache_row *x)
{
    ctl_json_open(j, NULL, '{');
    ctl_json_u64(j, "id", x->id);
    ctl_json_string(j, "kind", x->packed ? "gists" : "raw");
    ctl_json_u64(j, "tokens", x->n_tokens);
    ctl_json_u64(j, "depth", x->depth);
    ctl_json_u64(j, "keys", x->n_keys);
    ctl_json_u64(j, "bytes", x->bytes);
    ctl_json_u64(j, "used_s", x->used_s);
    ctl_json_u64(j, "cost_ns", x->cost_ns);
    ctl_json_close(j, '}');
}

/* Not before something came: a call that fails prints nothing. */
static void begin_list(struct cache *c)
{
    if (c->as_json && !c->begun) {
        ctl_json_open(&c->json, NULL, '{');
        ctl_json_open(&c->json, "list", '[');
    }
    c->begun = true;
}

/* As they come, so that a list of any length takes no memory. */
static int on_rows(void *arg, const struct gist_cache_row *rows, size_t n,
                   const struct gist_cache_sum *so_far)
{
    struct cache *c = arg;

    begin_list(c);
    if (!c->as_json && n > 0 && so_far->records == n) /* the first ones */
        printf("%8s %8s  %-5s %8s %10s  %-16s  %s\n", "TOKENS", "BEHIND", "KIND", "KEYS", "SIZE",
               "LAST USED", "COMPUTED IN");
    for (size_t i = 0; i < n; i++) {
        if (c->as_json)
            json_row(&c->json, &rows[i]);
        else
            print_row(&rows[i]);
    }
    return ferror(stdout); /* nobody reads on: main says why */
}

static int cache_ls(int argc, char **argv)
{
    struct cache c = { 0 };
    const struct ctl_opt opts[] = { CACHE_OPTIONS(&c) };
    struct gist_cache_sum sum;
    char text[64];
    int r;

    if (cache_open(&c, &ls_usage, opts, 2, argc, argv, &r) < 0)
        return r;
    r = gist_cache(c.conn, GIST_CACHE_LIST, &c.opts, on_rows, &c, &sum);
    if (r == 0 && c.as_json) {
        begin_list(&c);
        ctl_json_close(&c.json, ']');
        json_sum(&c.json, &sum);
        ctl_json_close(&c.json, '}');
        putchar('\n');
    } else if (r == 0) {
        printf("%s of %" PRIu64 " tokens\n", records(sum.records, sum.bytes, text), sum.tokens);
    }
    return cache_close(&c, r);
}

/* --- df --------------------------------------------------------------------------------------- */

static const struct ctl_opt_usage df_usage = {
    "cache df [OPTIONS]",
    "Prints how much is kept on disk, of all users and of you, and what it is good for.\n"
};

static void print_df(const struct gist_stats_store *t, const struct gist_cache_sum *own,
                     bool is_public)
{
    char a[CTL_HUMAN_CAP], b[CTL_HUMAN_CAP], text[64];
    uint64_t asked = t->hits + t->misses;

    printf("all users   %s of at most %s; %" PRIu64 " saved by name\n",
           records(t->records, t->bytes, text), ctl_human_bytes(t->limit, a), t->names);
    printf("%s %s of %" PRIu64 " tokens", is_public ? "public     " : "yours      ",
           records(own->records, own->bytes, text), own->tokens);
    if (own->packed_records > 0)
        printf("; %" PRIu64 " of them gists (%s)", own->packed_records,
               ctl_human_bytes(own->packed_bytes, a));
    printf("\nwritten     %s in the last 24 hours", ctl_human_bytes(t->written_today, a));
    if (t->write_a_day > 0)
        printf(", of at most %s", ctl_human_bytes(t->write_a_day, b));
    printf("\nfound       %" PRIu64 " of %" PRIu64 " records that were looked for", t->hits, asked);
    if (asked > 0)
        printf(" (%.0f %%)", 100.0 * (double)t->hits / (double)asked);
    putchar('\n');
    if (t->read_ns > 0)
        printf("read        %s, %s a second, by %s\n", ctl_human_bytes(t->read_bytes, a),
               ctl_human_bytes((uint64_t)((double)t->read_bytes * 1e9 / (double)t->read_ns), b),
               t->io);
    if (t->refused > 0)
        printf("bad         %" PRIu64 " record%s not what was written; deleted\n", t->refused,
               t->refused == 1 ? " was" : "s were");
    if (t->degraded[0])
        shown_line(stdout, "degraded    %s (since %s); sessions go on", t->degraded,
                   ctl_human_when(t->degraded_s, a));
}

static void json_df(struct ctl_json *j, const struct gist_stats_store *t,
                    const struct gist_cache_sum *own)
{
    ctl_json_open(j, NULL, '{');
    ctl_json_u64(j, "bytes", t->bytes);
    ctl_json_u64(j, "limit", t->limit);
    ctl_json_u64(j, "records", t->records);
    ctl_json_u64(j, "names", t->names);
    ctl_json_u64(j, "written_today", t->written_today);
    ctl_json_u64(j, "write_a_day", t->write_a_day);
    ctl_json_u64(j, "hits", t->hits);
    ctl_json_u64(j, "misses", t->misses);
    ctl_json_u64(j, "refused", t->refused);
    ctl_json_u64(j, "read_bytes", t->read_bytes);
    ctl_json_u64(j, "read_ns", t->read_ns);
    ctl_json_string(j, "degraded", t->degraded);
    ctl_json_open(j, "own", '{');
    json_sum(j, own);
    ctl_json_close(j, '}');
    ctl_json_close(j, '}');
    putchar('\n');
}

static int cache_df(int argc, char **argv)
{
    struct cache c = { 0 };
    const struct ctl_opt opts[] = { CACHE_OPTIONS(&c) };
    struct gist_cache_sum own;
    struct gist_stats s;
    int r;

    if (cache_open(&c, &df_usage, opts, 2, argc, argv, &r) < 0)
        return r;
    r = gist_cache(c.conn, GIST_CACHE_STAT, &c.opts, NULL, NULL, &own);
    if (r == 0)
        r = gist_stats(c.conn, &s);
    if (r == 0 && s.store && c.as_json)
        json_df(&c.json, s.store, &own);
    else if (r == 0 && s.store)
        print_df(s.store, &own, c.is_public);
    return cache_close(&c, r);
}

/* --- verify ----------------------------------------------------------------------------------- */

static const struct ctl_opt_usage verify_usage = {
    "cache verify [OPTIONS]",
    "Reads all that is kept on disk of your sessions and compares checksums. What is not as it "
    "was\n"
    "written is deleted. Exit code 1: there was some, or some could not be read.\n"
};

static int on_progress(void *arg, const struct gist_cache_row *rows, size_t n,
                       const struct gist_cache_sum *s)
{
    struct cache *c = arg;

    (void)rows;
    (void)n;
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\rread %" PRIu64 " of %" PRIu64 " records", s->records, s->total);
        c->shown = true;
    }
    return 0;
}

static void print_verified(const struct gist_cache_sum *s)
{
    uint64_t good = s->records - s->bad_records;
    char text[64];

    printf("%s as written\n", records(good, s->bytes - s->bad_bytes, text));
    if (s->bad_records > 0)
        printf("%s not as written, and deleted\n", records(s->bad_records, s->bad_bytes, text));
    if (s->unread_records > 0)
        printf("%" PRIu64 " record%s could not be read\n", s->unread_records,
               plural(s->unread_records));
}

static int cache_verify(int argc, char **argv)
{
    struct cache c = { 0 };
    const struct ctl_opt opts[] = { CACHE_OPTIONS(&c) };
    struct gist_cache_sum sum;
    int r, end;

    if (cache_open(&c, &verify_usage, opts, 2, argc, argv, &r) < 0)
        return r;
    r = gist_cache(c.conn, GIST_CACHE_VERIFY, &c.opts, on_progress, &c, &sum);
    if (c.shown)
        fputs("\r\033[K", stderr);
    if (r == 0 && c.as_json) {
        ctl_json_open(&c.json, NULL, '{');
        json_sum(&c.json, &sum);
        ctl_json_u64(&c.json, "bad_records", sum.bad_records);
        ctl_json_u64(&c.json, "bad_bytes", sum.bad_bytes);
        ctl_json_u64(&c.json, "unread_records", sum.unread_records);
        ctl_json_close(&c.json, '}');
        putchar('\n');
    } else if (r == 0) {
        print_verified(&sum);
    }
    end = cache_close(&c, r);
    return r == 0 && (sum.bad_records > 0 || sum.unread_records > 0) ? CTL_FAILED : end;
}

/* --- prune, forget ---------------------------------------------------------------------------- */

static const struct ctl_opt_usage prune_usage = {
    "cache prune [OPTIONS]",
    "Deletes records of your sessions, those first that are worth least: cheap to compute again,\n"
    "large, not used for long. Saved sessions and documents keep their names and texts, and are\n"
    "computed again when they are used.\n"
};

static int print_deleted(struct cache *c, const struct gist_cache_sum *sum)
{
    char text[64];

    if (c->as_json) {
        ctl_json_open(&c->json, NULL, '{');
        ctl_json_u64(&c->json, "records", sum->records);
        ctl_json_u64(&c->json, "bytes", sum->bytes);
        ctl_json_close(&c->json, '}');
        putchar('\n');
    } else {
        printf("%s deleted\n", records(sum->records, sum->bytes, text));
    }
    return 0;
}

/* Half of what there is can't be named beforehand, so it is asked for. */
static int cache_prune(int argc, char **argv)
{
    struct cache c = { .opts.bytes = UINT64_MAX };
    const struct ctl_opt opts[] = {
        { "to", 0, CTL_OPT_SIZE, "SIZE", &c.opts.bytes, 0, 0,
          "leave at most so many bytes (half of what there is)" },
        CACHE_OPTIONS(&c),
    };
    struct gist_cache_sum sum;
    int r;

    if (cache_open(&c, &prune_usage, opts, 3, argc, argv, &r) < 0)
        return r;
    if (c.opts.bytes == UINT64_MAX) {
        r = gist_cache(c.conn, GIST_CACHE_STAT, &c.opts, NULL, NULL, &sum);
        c.opts.bytes = r == 0 ? sum.bytes / 2 : 0;
    }
    if (r == 0)
        r = gist_cache(c.conn, GIST_CACHE_PRUNE, &c.opts, NULL, NULL, &sum);
    if (r == 0)
        r = print_deleted(&c, &sum);
    return cache_close(&c, r);
}

static const struct ctl_opt_usage forget_usage = {
    "cache forget [OPTIONS]",
    "Deletes all that is kept of your sessions, on disk and in the daemon's memory, with the\n"
    "sessions and documents that you saved. Sessions that are open go on.\n"
};

/* 0: yes. A script that meant it says --yes: without a terminal there is nobody to ask, and what is
 * deleted here can't be had back. A Ctrl-C at the question is no "no": it ends the command as
 * anywhere else. */
static int ask_first(struct cache *c)
{
    struct gist_cache_sum sum;
    char text[64], answer[16];
    int r;

    if (!isatty(STDIN_FILENO))
        return ctl_fail(CTL_USAGE, "cache forget deletes saved sessions and documents, too; "
                                   "without a terminal to ask on it needs --yes.");
    r = gist_cache(c->conn, GIST_CACHE_STAT, &c->opts, NULL, NULL, &sum);
    if (r < 0)
        return ctl_fail_gist(c->conn, r);
    fprintf(stderr, "Delete %s%s? [y/N] ", records(sum.records, sum.bytes, text),
            c->is_public ? " of public sessions" : ", and your saved sessions and documents");
    if (!fgets(answer, sizeof(answer), stdin))
        answer[0] = '\0';
    answer[strcspn(answer, "\n")] = '\0';
    if (strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0)
        return 0;
    return ctl_interrupt_came() ? CTL_INTERRUPTED : ctl_fail(CTL_FAILED, "nothing was deleted.");
}

static int cache_forget(int argc, char **argv)
{
    struct cache c = { 0 };
    bool yes = false;
    const struct ctl_opt opts[] = {
        { "yes", 'y', CTL_OPT_FLAG, NULL, &yes, 0, 0, "do not ask" },
        CACHE_OPTIONS(&c),
    };
    struct gist_cache_sum sum;
    int r, refused;

    if (cache_open(&c, &forget_usage, opts, 3, argc, argv, &r) < 0)
        return r;
    refused = yes ? 0 : ask_first(&c);
    if (refused) {
        (void)cache_close(&c, 0);
        return refused;
    }
    r = gist_cache(c.conn, GIST_CACHE_FORGET, &c.opts, NULL, NULL, &sum);
    if (r == 0)
        r = print_deleted(&c, &sum);
    return cache_close(&c, r);
}

int ctl_cache(int argc, char **argv)
{
    static const struct ctl_sub subs[] = {
        { "ls", cache_ls, "list it" },
        { "df", cache_df, "how much it is, and what it is good for" },
        { "verify", cache_verify, "read all of it, and delete what is not as it was written" },
        { "prune", cache_prune, "delete what is worth least" },
        { "forget", cache_forget, "delete all of it" },
    };
    static const struct ctl_sub_usage usage = {
        "cache", "What the daemon keeps on disk of your sessions, so that a text it has read once\n"
                 "is not computed again. Nobody sees what is kept of another user.\n"
    };

    return ctl_sub_run(&usage, subs, sizeof(subs) / sizeof(subs[0]), argc, argv);
}
