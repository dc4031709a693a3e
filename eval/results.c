/* Fields are tables of names and offsets, by type. A new one is a line there: it is written, read
 * and, if it is part of the name, compared from then on; files from before have it as 0 or NAN. */
#include "eval/results.h"

#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT 1

static const char *const kinds[RESULTS_KIND__N] = { "recall", "boundary", "set", "ppl" };

/* An item's numbers, by name: writer and reader both go through these. */
struct field {
    const char *name;
    size_t off;
    bool is_name; /* two items that differ in it are two; for cells grid_same_cell says it */
};
#define OFF(f) offsetof(struct results_item, f)

static const struct field counts[] = {
    /* uint64_t */
    { "length", OFF(length), true },
    { "asks", OFF(asks), true },
    { "depth", OFF(depth), true },
    { "index", OFF(index), true },
    { "seed", OFF(seed), true },
    { "offset", OFF(offset), true },
    { "prefix", OFF(prefix), false },
    { "read_ns", OFF(read_ns), false },
    { "first_token_ns", OFF(first_token_ns), false },
    { "prompt_tokens", OFF(prompt_tokens), false },
    { "gist_tokens", OFF(gist_tokens), false },
    { "gists", OFF(gists), false },
    { "hydrated_tokens", OFF(hydrated_tokens), false },
    { "missed_tokens", OFF(missed_tokens), false },
    { "n_scored", OFF(n_scored), false },
};
static const struct field cell_counts[] = {
    /* uint32_t */
    { "ratio", OFF(cell.ratio), true },         { "segment", OFF(cell.segment), true },
    { "keep_tail", OFF(cell.keep_tail), true }, { "hydrate", OFF(cell.hydrate), true },
    { "budget_part", OFF(cell.part), true },
};
static const struct field reals[] = {
    /* double */
    { "score", OFF(score), false },
    { "nll", OFF(nll), false },
};
static const struct list {
    const char *name;
    size_t off, n;
} lists[] = {
    /* double, n of them */
    { "by_segment", OFF(by_segment), RESULTS_BINS },
    { "by_quarter", OFF(by_quarter), RESULTS_QUARTERS },
};
#define N_OF(a)          (sizeof(a) / sizeof(*(a)))
#define AT(type, it, f)  ((type *)((char *)(it) + (f)->off))
#define GET(type, it, f) (*(const type *)((const char *)(it) + (f)->off))

void results_item_init(struct results_item *it)
{
    *it = (struct results_item){ .score = NAN, .nll = NAN };
    for (size_t i = 0; i < N_OF(lists); i++)
        for (size_t k = 0; k < lists[i].n; k++)
            AT(double, it, &lists[i])[k] = NAN;
}

static bool same_name(const struct results_item *a, const struct results_item *b)
{
    if (a->kind != b->kind || strcmp(a->task, b->task) != 0 || !grid_same_cell(&a->cell, &b->cell))
        return false;
    for (size_t i = 0; i < N_OF(counts); i++)
        if (counts[i].is_name && GET(uint64_t, a, &counts[i]) != GET(uint64_t, b, &counts[i]))
            return false;
    return true;
}

const struct results_item *results_find(const struct results *r, const struct results_item *it)
{
    for (size_t i = 0; i < r->n; i++)
        if (same_name(&r->items[i], it))
            return &r->items[i];
    return NULL;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void put_text(struct json_object *o, const char *name, const char *text)
{
    (void)json_object_object_add(o, name, json_object_new_string(text));
}

static void put_count(struct json_object *o, const char *name, uint64_t v)
{
    if (v)
        (void)json_object_object_add(o, name, json_object_new_uint64(v));
}

static void put_real(struct json_object *o, const char *name, double v)
{
    if (isfinite(v))
        (void)json_object_object_add(o, name, json_object_new_double(v));
}

/* Not written when nothing is in it. */
static void put_list(struct json_object *o, const struct results_item *it, const struct list *l)
{
    const double *v = &GET(double, it, l);
    struct json_object *list = json_object_new_array();
    bool any = false;

    for (size_t i = 0; i < l->n; i++) {
        any |= isfinite(v[i]);
        (void)json_object_array_add(list, isfinite(v[i]) ? json_object_new_double(v[i]) : NULL);
    }
    if (any)
        (void)json_object_object_add(o, l->name, list);
    else
        (void)json_object_put(list);
}

static struct json_object *make_line(const struct results_item *it)
{
    struct json_object *o = json_object_new_object();

    put_text(o, "kind", kinds[it->kind]);
    put_text(o, "task", it->task);
    put_text(o, "compressor", grid_compressor_name(&it->cell));
    for (size_t i = 0; i < N_OF(cell_counts); i++)
        put_count(o, cell_counts[i].name, GET(uint32_t, it, &cell_counts[i]));
    for (size_t i = 0; i < N_OF(counts); i++)
        put_count(o, counts[i].name, GET(uint64_t, it, &counts[i]));
    for (size_t i = 0; i < N_OF(reals); i++)
        put_real(o, reals[i].name, GET(double, it, &reals[i]));
    for (size_t i = 0; i < N_OF(lists); i++)
        put_list(o, it, &lists[i]);
    if (it->answer)
        put_text(o, "answer", it->answer);
    return o;
}

/* One write: another process sees the line or does not. Releases o. At the file's end as it is now:
 * what another program may have cut off or added is not written over. */
static int write_line(const struct results *r, struct json_object *o, struct why *why)
{
    const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE);
    char *line = NULL;
    struct stat st;
    int len = text ? asprintf(&line, "%s\n", text) : -1, err = len < 0 ? -ENOMEM : 0;

    if (err == 0 && fstat(r->fd, &st) < 0)
        err = -errno;
    if (err == 0)
        err = files_write(r->fd, line, (size_t)len, st.st_size);
    free(line);
    (void)json_object_put(o);
    return err < 0 ? why_set(why, err, "%s: %s", r->path, strerror(-err)) : 0;
}

/* Room doubles whenever the number is a power of two: no capacity has to be kept. */
static int keep(struct results *r, const struct results_item *it)
{
    if ((r->n & (r->n - 1)) == 0) {
        struct results_item *more = reallocarray(r->items, r->n ? 2 * r->n : 1, sizeof(*r->items));

        if (!more)
            return -ENOMEM;
        r->items = more;
    }
    r->items[r->n++] = *it;
    return 0;
}

int results_add(struct results *r, const struct results_item *it, struct why *why)
{
    if (keep(r, it) < 0) {
        free(it->answer);
        return why_set(why, -ENOMEM, "out of memory");
    }
    return r->fd < 0 ? 0 : write_line(r, make_line(it), why);
}

/* --- reading ---------------------------------------------------------------------------------- */

static const char *get_text(struct json_object *o, const char *name)
{
    struct json_object *v;

    if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, json_type_string))
        return NULL;
    return json_object_get_string(v);
}

static uint64_t get_count(struct json_object *o, const char *name)
{
    struct json_object *v;

    return json_object_object_get_ex(o, name, &v) ? json_object_get_uint64(v) : 0;
}

static void get_reals(struct json_object *o, struct results_item *it)
{
    struct json_object *v;

    for (size_t i = 0; i < N_OF(reals); i++)
        if (json_object_object_get_ex(o, reals[i].name, &v))
            *AT(double, it, &reals[i]) = json_object_get_double(v);
    for (size_t i = 0; i < N_OF(lists); i++) {
        if (!json_object_object_get_ex(o, lists[i].name, &v) ||
            !json_object_is_type(v, json_type_array))
            continue;
        for (size_t k = 0; k < lists[i].n && k < json_object_array_length(v); k++) {
            struct json_object *x = json_object_array_get_idx(v, k);

            if (x)
                AT(double, it, &lists[i])[k] = json_object_get_double(x);
        }
    }
}

/* Negative: there is none of that name. */
static int find_kind(const char *name)
{
    for (int i = 0; name && i < RESULTS_KIND__N; i++)
        if (strcmp(kinds[i], name) == 0)
            return i;
    return -1;
}

/* An item of a later version with a compressor that is not known here is none. */
static bool read_item(struct json_object *o, struct results_item *ret)
{
    const char *task = get_text(o, "task"), *answer = get_text(o, "answer");
    const char *compressor = get_text(o, "compressor");
    int kind = find_kind(get_text(o, "kind"));

    results_item_init(ret);
    if (kind < 0 || !task || !compressor ||
        !grid_find_compressor(compressor, strlen(compressor), &ret->cell))
        return false;
    ret->kind = (enum results_kind)kind;
    (void)snprintf(ret->task, sizeof(ret->task), "%s", task);
    for (size_t i = 0; i < N_OF(counts); i++)
        *AT(uint64_t, ret, &counts[i]) = get_count(o, counts[i].name);
    for (size_t i = 0; i < N_OF(cell_counts); i++)
        *AT(uint32_t, ret, &cell_counts[i]) = (uint32_t)get_count(o, cell_counts[i].name);
    get_reals(o, ret);
    ret->answer = answer ? strdup(answer) : NULL;
    return !answer || ret->answer;
}

static bool set_model(struct results *r, const char *model, const char *digest)
{
    r->model = strdup(model);
    r->digest = strdup(digest);
    return r->model && r->digest;
}

static bool read_head(struct json_object *o, struct results *r)
{
    const char *model = get_text(o, "model"), *digest = get_text(o, "digest");

    return get_count(o, "gist-eval") == FORMAT && model && digest && set_model(r, model, digest);
}

/* The n-th line, from 1. */
static int take_line(struct results *r, const char *text, size_t n, struct why *why)
{
    struct json_object *o = json_tokener_parse(text);
    struct results_item it = { 0 };
    bool is_object = json_object_is_type(o, json_type_object), ok;
    int err = 0;

    if (n == 1) {
        ok = is_object && read_head(o, r);
    } else {
        ok = is_object && read_item(o, &it);
        if (ok)
            err = keep(r, &it);
    }
    (void)json_object_put(o);
    if (!ok && n == 1)
        return why_set(why, -EINVAL,
                       "%s: not a results file of gist-eval: its first line is no "
                       "{\"gist-eval\":%d,...}",
                       r->path, FORMAT);
    if (!ok)
        return why_set(why, -EINVAL, "%s, line %zu: not a result of gist-eval", r->path, n);
    return err < 0 ? why_set(why, err, "out of memory") : 0;
}

/* ret_whole: bytes of whole lines. The last line counts only with its end: without it the run was
 * ended while it was written. */
static int read_lines(struct results *r, FILE *f, off_t *ret_whole, struct why *why)
{
    char *line = NULL;
    size_t cap = 0, n = 0;
    ssize_t len = 0;
    int err = 0;

    *ret_whole = 0;
    while (err == 0 && (len = getline(&line, &cap, f)) > 0 && line[len - 1] == '\n') {
        err = take_line(r, line, ++n, why);
        *ret_whole += len;
    }
    /* What is behind would be cut off. */
    if (err == 0 && len < 0 && (err = files_lines_end(f)) < 0)
        why_set(why, err, "%s: %s", r->path, strerror(-err));
    free(line);
    return err;
}

/* A copy of the descriptor, for fclose closes what it has; the lock is on the file, and stays with
 * the other one. */
static int read_file(struct results *r, int fd, off_t *ret_whole, struct why *why)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    FILE *f = copy < 0 ? NULL : fdopen(copy, "r");
    int err;

    if (!f) {
        err = why_set(why, -errno, "%s: %s", r->path, strerror(errno));
        if (copy >= 0)
            (void)close(copy);
        return err;
    }
    err = read_lines(r, f, ret_whole, why);
    (void)fclose(f);
    return err;
}

/* --- files ------------------------------------------------------------------------------------ */

void results_close(struct results *r)
{
    for (size_t i = 0; i < r->n; i++)
        free(r->items[i].answer);
    free(r->items);
    free(r->path);
    free(r->model);
    free(r->digest);
    if (r->fd >= 0)
        (void)close(r->fd);
    *r = (struct results){ .fd = -1 };
}

static int open_file(struct results *r, const char *path, int flags, struct why *why)
{
    *r = (struct results){ .fd = -1, .path = strdup(path) };
    if (!r->path)
        return why_set(why, -ENOMEM, "out of memory");
    r->fd = open(path, flags | O_CLOEXEC, 0666);
    return r->fd < 0 ? why_set(why, -errno, "%s: %s", path, strerror(errno)) : 0;
}

int results_read(const char *path, struct results *ret, struct why *why)
{
    struct results r;
    off_t whole;
    int err = open_file(&r, path, O_RDONLY, why);

    if (err == 0)
        err = read_file(&r, r.fd, &whole, why);
    if (err == 0 && !r.model)
        err = why_set(why, -EINVAL, "%s: empty", path);
    if (err < 0) {
        results_close(&r);
        return err;
    }
    (void)close(r.fd);
    r.fd = -1;
    *ret = r;
    return 0;
}

static int write_head(struct results *r, const char *model, const char *digest, struct why *why)
{
    struct json_object *o;

    if (!set_model(r, model, digest))
        return why_set(why, -ENOMEM, "out of memory");
    if (r->fd < 0)
        return 0;
    o = json_object_new_object();
    (void)json_object_object_add(o, "gist-eval", json_object_new_int(FORMAT));
    put_text(o, "model", model);
    put_text(o, "digest", digest);
    put_text(o, "version", GISTD_VERSION);
    return write_line(r, o, why);
}

/* An open file, as it was left, to the last whole line. The lock first, then the reading: another
 * run might be adding. It is checked before anything is cut. */
static int go_on(struct results *r, const char *model, const char *digest, struct why *why)
{
    off_t whole;
    int err;

    if (flock(r->fd, LOCK_EX | LOCK_NB) < 0)
        return why_set(why, errno == EWOULDBLOCK ? -EBUSY : -errno,
                       errno == EWOULDBLOCK ? "%s: another run of gist-eval is adding to this file"
                                            : "%s: cannot lock it",
                       r->path);
    err = read_file(r, r->fd, &whole, why);
    /* A file of someone's own that has no line's end must not be cut to nothing. */
    if (err == 0 && whole == 0 && lseek(r->fd, 0, SEEK_END) > 0)
        err = why_set(why, -EINVAL, "%s: not a results file of gist-eval", r->path);
    if (err == 0 && ftruncate(r->fd, whole) < 0)
        err = why_set(why, -errno, "%s: %s", r->path, strerror(errno));
    if (err == 0 && r->model && strcmp(r->digest, digest) != 0)
        err = why_set(why, -EINVAL,
                      "%s: these are results of the model %s, and the daemon has %s: name another "
                      "file with --out",
                      r->path, r->model, model);
    if (err == 0 && !r->model)
        err = write_head(r, model, digest, why);
    return err;
}

int results_open(const char *path, const char *model, const char *digest, struct results *ret,
                 struct why *why)
{
    struct results r = { .fd = -1 };
    int err;

    if (*path) {
        err = open_file(&r, path, O_RDWR | O_CREAT, why);
        if (err == 0)
            err = go_on(&r, model, digest, why);
    } else {
        err = write_head(&r, model, digest, why);
    }
    if (err < 0) {
        results_close(&r);
        return err;
    }
    *ret = r;
    return 0;
}
