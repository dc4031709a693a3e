/* train/run_log.c - lines of JSON, one a step or an evaluation, each written by one call: who reads
 * while the run writes sees whole lines, but for a last one.
 */
#include "train/run_log.h"

#include "base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The numbers of a line, by name: writer and reader both go through these. */
struct field {
    const char *name;
    size_t off;
};

/* In the order in which a line has them. */
static const struct field step_fields[] = {
    { "loss", offsetof(struct run_log_step, loss) },
    { "lm", offsetof(struct run_log_step, lm) },
    { "ae", offsetof(struct run_log_step, ae) },
    { "distill", offsetof(struct run_log_step, distill) },
    { "lr", offsetof(struct run_log_step, lr) },
    { "norm", offsetof(struct run_log_step, norm) },
    { "seconds", offsetof(struct run_log_step, seconds) },
};
static const struct field eval_fields[] = {
    { "full", offsetof(struct run_log_eval, full) },
    { "none", offsetof(struct run_log_eval, none) },
    { "recalled_full", offsetof(struct run_log_eval, recalled_full) },
    { "recalled_none", offsetof(struct run_log_eval, recalled_none) },
    { "recalled_tokens_full", offsetof(struct run_log_eval, recalled_tokens_full) },
    { "recalled_tokens_none", offsetof(struct run_log_eval, recalled_tokens_none) },
    { "seconds", offsetof(struct run_log_eval, seconds) },
};
/* One value a ratio, in the order of "ratios". */
static const struct field eval_lists[] = {
    { "nll", offsetof(struct run_log_eval, nll) },
    { "untrained", offsetof(struct run_log_eval, untrained) },
    { "other", offsetof(struct run_log_eval, other) },
    { "rebuilt", offsetof(struct run_log_eval, rebuilt) },
    { "recalled", offsetof(struct run_log_eval, recalled) },
    { "recalled_tokens", offsetof(struct run_log_eval, recalled_tokens) },
};
#define N_OF(a) (sizeof(a) / sizeof(*(a)))

/* By the offset that the table has, so that one loop reads or writes them all. */
static double *at(void *base, const struct field *f)
{
    return (double *)((char *)base + f->off);
}

static const double *at_const(const void *base, const struct field *f)
{
    return (const double *)((const char *)base + f->off);
}

/* NaN: not measured. Such a field is left out of the line, and so read back as NaN. */
void run_log_step_init(struct run_log_step *s)
{
    *s = (struct run_log_step){ 0 };
    for (size_t i = 0; i < N_OF(step_fields); i++)
        *at(s, &step_fields[i]) = NAN;
}

/* All places of lists, since nobody knows yet how many ratios there are. */
void run_log_eval_init(struct run_log_eval *e)
{
    *e = (struct run_log_eval){ 0 };
    for (size_t i = 0; i < N_OF(eval_fields); i++)
        *at(e, &eval_fields[i]) = NAN;
    for (size_t i = 0; i < N_OF(eval_lists); i++)
        for (size_t k = 0; k < RUN_LOG_RATIOS_MAX; k++)
            at(e, &eval_lists[i])[k] = NAN;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* null, text or nothing at all: *ret stays, which is NaN. */
static void get_number(struct json_object *o, const char *name, double *ret)
{
    struct json_object *v;

    if (json_object_object_get_ex(o, name, &v) &&
        (json_object_is_type(v, json_type_double) || json_object_is_type(v, json_type_int)))
        *ret = json_object_get_double(v);
}

static bool get_count(struct json_object *o, const char *name, uint64_t *ret)
{
    struct json_object *v;

    if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, json_type_int) ||
        json_object_get_int64(v) < 0)
        return false;
    *ret = (uint64_t)json_object_get_int64(v);
    return true;
}

/* NULL and 0 where there is none. */
static struct json_object *get_list(struct json_object *o, const char *name, size_t *ret_n)
{
    struct json_object *v;

    *ret_n = 0;
    if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, json_type_array))
        return NULL;
    *ret_n = json_object_array_length(v);
    return v;
}

/* A line without a step's number is none; all else may be missing, as in logs of older versions. */
static bool read_step(struct json_object *o, struct run_log_step *ret)
{
    uint64_t ratio = 0;

    run_log_step_init(ret);
    if (!get_count(o, "step", &ret->step))
        return false;
    (void)get_count(o, "tokens", &ret->tokens);
    if (get_count(o, "ratio", &ratio))
        ret->ratio = (uint32_t)ratio;
    for (size_t i = 0; i < N_OF(step_fields); i++)
        get_number(o, step_fields[i].name, at(ret, &step_fields[i]));
    return true;
}

static bool read_eval(struct json_object *o, struct run_log_eval *ret)
{
    struct json_object *list, *asked;
    size_t n;

    run_log_eval_init(ret);
    if (!get_count(o, "eval", &ret->step))
        return false;
    (void)get_count(o, "tokens", &ret->tokens);
    if (json_object_object_get_ex(o, "asked", &asked))
        /* As text: JSON's numbers do not hold 64 bits everywhere. */
        ret->asked = strtoull(json_object_get_string(asked), NULL, 16);
    for (size_t i = 0; i < N_OF(eval_fields); i++)
        get_number(o, eval_fields[i].name, at(ret, &eval_fields[i]));
    list = get_list(o, "ratios", &n);
    /* No run of ours has so many. */
    if (n > RUN_LOG_RATIOS_MAX)
        return false;
    ret->n_ratios = (uint32_t)n;
    for (size_t k = 0; k < n; k++)
        ret->ratios[k] = (uint32_t)json_object_get_int64(json_object_array_get_idx(list, k));
    for (size_t i = 0; i < N_OF(eval_lists); i++) {
        list = get_list(o, eval_lists[i].name, &n);
        for (size_t k = 0; k < n && k < ret->n_ratios; k++) {
            struct json_object *v = json_object_array_get_idx(list, k);

            if (v)
                at(ret, &eval_lists[i])[k] = json_object_get_double(v);
        }
    }
    return true;
}

/* A line of either kind, in one of the two. False: it is none. Room for both; is_eval says which
 * was read. */
struct line {
    bool is_eval;
    struct run_log_step step;
    struct run_log_eval eval;
};

static bool read_line(const char *text, struct line *ret)
{
    /* NULL of a line that is no JSON: it is of no type then. */
    struct json_object *o = json_tokener_parse(text);
    bool ok = false;

    if (json_object_is_type(o, json_type_object)) {
        ret->is_eval = json_object_object_get_ex(o, "eval", NULL);
        /* A line of an evaluation has "eval", its step, and no "step". */
        ok = ret->is_eval ? read_eval(o, &ret->eval) : read_step(o, &ret->step);
    }
    (void)json_object_put(o);
    return ok;
}

/* Room for one more element of an array that doubles. It is full when n is a power of two from 64
 * on. */
static int make_room(void *array, size_t n, size_t size)
{
    void **p = array, *q;

    if (n & (n - 1) || (n > 0 && n < 64))
        return 0;
    q = reallocarray(*p, n ? 2 * n : 64, size);
    if (!q)
        return -ENOMEM;
    *p = q;
    return 0;
}

/* A copy of it. */
static int add_line(struct run_log_data *d, const struct line *line)
{
    if (line->is_eval) {
        if (make_room(&d->evals, d->n_evals, sizeof(*d->evals)) < 0)
            return -ENOMEM;
        d->evals[d->n_evals++] = line->eval;
    } else {
        if (make_room(&d->steps, d->n_steps, sizeof(*d->steps)) < 0)
            return -ENOMEM;
        d->steps[d->n_steps++] = line->step;
    }
    return 0;
}

/* Lines up to one of a step after `last`, none if that is 0; *ret_end is where the rest begins, or
 * the file's end. ret NULL: lines are only looked at. */
static int read_file(FILE *f, const char *path, uint64_t last, struct run_log_data *ret,
                     long *ret_end, struct why *why)
{
    char *text = NULL;
    size_t cap = 0;
    ssize_t len = 0;
    int r = 0;

    *ret_end = 0;
    for (unsigned number = 1; r == 0 && (len = getline(&text, &cap, f)) > 0; number++) {
        struct line line;

        if (text[len - 1] != '\n')
            break; /* the run was killed while it wrote */
        if (!read_line(text, &line))
            r = why_set(why, -EINVAL, "%s:%u: found \"%.60s\", expected a line of a training log",
                        path, number, text);
        /* The run goes on from a checkpoint of step `last`: what it did behind that it does again.
         */
        else if (last == 0 || (line.is_eval ? line.eval.step : line.step.step) > last)
            break;
        else if (ret && add_line(ret, &line) < 0)
            r = why_set(why, -ENOMEM, "%s: no memory", path);
        else
            /* Of whole lines alone, so half a line goes with what is cut. */
            *ret_end += len;
    }
    /* What is behind would be cut off. */
    if (r == 0 && len < 0 && (r = files_lines_end(f)) < 0)
        why_set(why, r, "%s: cannot be read: %s", path, strerror(-r));
    free(text);
    return r;
}

/* All or nothing: *ret is written when the whole file was read. */
int run_log_read(const char *path, struct run_log_data *ret, struct why *why)
{
    struct run_log_data d = { 0 };
    FILE *f = fopen(path, "re");
    long end;
    int r;

    if (!f)
        return why_set(why, -errno, "%s: %s", path, strerror(errno));
    /* All steps there are. */
    r = read_file(f, path, UINT64_MAX, &d, &end, why);
    (void)fclose(f);
    if (r < 0) {
        run_log_data_fini(&d);
        return r;
    }
    *ret = d;
    return 0;
}

void run_log_data_fini(struct run_log_data *d)
{
    free(d->steps);
    free(d->evals);
    *d = (struct run_log_data){ 0 };
}

/* --- writing ---------------------------------------------------------------------------------- */

struct run_log {
    int fd;
};

/* Cuts what is not to stay. A run that goes on writes the steps behind its checkpoint again. stdio
 * closes the copy; both share a position, which stdio has moved past what was looked at. */
static int cut(int fd, const char *path, uint64_t done, struct why *why)
{
    int copy = dup(fd), r;
    FILE *f = copy < 0 ? NULL : fdopen(copy, "r");
    long end;

    if (!f) {
        r = -errno;
        if (copy >= 0)
            (void)close(copy);
        return why_set(why, r, "%s: %s", path, strerror(-r));
    }
    r = read_file(f, path, done, NULL, &end, why);
    (void)fclose(f);
    /* In place: others may have the file open, and go on with what is written. */
    if (r == 0 && (ftruncate(fd, end) < 0 || lseek(fd, end, SEEK_SET) < 0))
        r = why_set(why, -errno, "%s: %s", path, strerror(errno));
    return r;
}

int run_log_open(const char *path, uint64_t done, struct run_log **ret, struct why *why)
{
    struct run_log *l = calloc(1, sizeof(*l));
    int r;

    if (!l)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    /* Appending: a second run with this log would not write over the first one's lines. */
    l->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    r = l->fd < 0 ? why_set(why, -errno, "%s: %s", path, strerror(errno))
                  : cut(l->fd, path, done, why);
    if (r < 0) {
        run_log_close(l);
        return r;
    }
    *ret = l;
    return 0;
}

void run_log_close(struct run_log *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        (void)close(l->fd);
    free(l);
}

/* In as few digits as give the same number back. 6 digits for what was a float or a round number,
 * 15 and 17 for doubles. */
static void put_number(FILE *f, double v)
{
    char text[32];

    for (int digits = 6; digits <= 17; digits += digits < 15 ? 9 : 2) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    (void)fputs(isfinite(v) ? text : "null", f);
}

/* What was not measured is not written. */
static void put_field(FILE *f, const void *base, const struct field *field)
{
    double v = *at_const(base, field);

    if (isnan(v))
        return;
    (void)fprintf(f, ",\"%s\":", field->name);
    put_number(f, v);
}

static void put_list(FILE *f, const struct run_log_eval *e, const struct field *field)
{
    const double *v = at_const(e, field);
    /* Nor a list of which nothing was. */
    bool any = false;

    for (uint32_t i = 0; i < e->n_ratios; i++)
        any |= !isnan(v[i]);
    if (!any)
        return;
    (void)fprintf(f, ",\"%s\":[", field->name);
    for (uint32_t i = 0; i < e->n_ratios; i++) {
        (void)fputs(i ? "," : "", f);
        put_number(f, v[i]);
    }
    (void)fputc(']', f);
}

/* Ends the line in text, which f wrote, and writes it in one go. */
static int write_line(struct run_log *l, FILE *f, char **text, size_t *len)
{
    const char *p;
    int r = 0;

    (void)fputs("}\n", f);
    if (ferror(f)) /* half a line is none */
        r = -ENOMEM;
    if (fclose(f) != 0)
        r = -ENOMEM;
    p = *text;
    /* A full disk may take half of it: the rest follows, or the error. */
    while (r == 0 && *len > 0) {
        ssize_t n = write(l->fd, p, *len);

        if (n < 0 && errno != EINTR)
            r = -errno;
        if (n == 0) /* nor does the next one */
            r = -EIO;
        if (n > 0) {
            p += n;
            *len -= (size_t)n;
        }
    }
    free(*text);
    return r;
}

int run_log_step(struct run_log *l, const struct run_log_step *s)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return -ENOMEM;
    (void)fprintf(f, "{\"step\":%llu,\"tokens\":%llu", (unsigned long long)s->step,
                  (unsigned long long)s->tokens);
    if (s->ratio)
        (void)fprintf(f, ",\"ratio\":%u", s->ratio);
    for (size_t i = 0; i < N_OF(step_fields); i++)
        put_field(f, s, &step_fields[i]);
    return write_line(l, f, &text, &len);
}

int run_log_eval(struct run_log *l, const struct run_log_eval *e)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return -ENOMEM;
    (void)fprintf(f, "{\"eval\":%llu,\"tokens\":%llu", (unsigned long long)e->step,
                  (unsigned long long)e->tokens);
    if (e->asked)
        (void)fprintf(f, ",\"asked\":\"%016llx\"", (unsigned long long)e->asked);
    for (size_t i = 0; i < N_OF(eval_fields); i++)
        put_field(f, e, &eval_fields[i]);
    (void)fputs(",\"ratios\":[", f);
    for (uint32_t i = 0; i < e->n_ratios; i++)
        (void)fprintf(f, "%s%u", i ? "," : "", e->ratios[i]);
    (void)fputc(']', f);
    for (size_t i = 0; i < N_OF(eval_lists); i++)
        put_list(f, e, &eval_lists[i]);
    return write_line(l, f, &text, &len);
}
