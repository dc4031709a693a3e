/* train/net/optim.c - AdamW over a list of tensors, wherever they are computed with, and files of
 * all of it.
 */
#include "train/net/optim.h"

#include "base/files.h"
#include "train/net/tensors_cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC   "gist-checkpoint"
#define VERSION 1u
#define ALIGN   64u

/* A checkpoint's head, as the header draws it. */
struct file_head {
    char magic[16];
    uint32_t version, n_tensors;
    uint64_t step, tokens, recipe_len;
};
_Static_assert(sizeof(struct file_head) == 48, "layout");

/* Whole cache lines. */
static float *zeros(size_t n)
{
    size_t len = (n * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
    float *p = aligned_alloc(ALIGN, len);

    if (p)
        memset(p, 0, len);
    return p;
}

/* on NULL: the table of the CPU, whose functions here do not look at it. */
static const struct tensors_ops *ops_of(const struct optim *o)
{
    return o->on ? o->on->ops : &tensors_cpu;
}

/* Values are another memory's. Then the host's p, m and v are copies,
 * for files, and gradients are nowhere but there. */
static bool is_apart(const struct optim *o)
{
    return !ops_of(o)->host;
}

static void give_back(const struct optim *o, void *p)
{
    if (p)
        o->on->ops->free(o->on, p);
}

/* NULL: no memory, or a device that failed. */
static float *zeros_apart(const struct optim *o, size_t n)
{
    float *p = o->on->ops->alloc(o->on, n * sizeof(float));

    if (p)
        o->on->ops->clear(o->on, p, n * sizeof(float));
    return p;
}

/* Its place where it is computed. What was allocated stays in *t, also where something is missing:
 * optim_fini gives it back. */
static bool settle(const struct optim *o, struct optim_tensor *t)
{
    if (!is_apart(o)) {
        t->p_on = t->p;
        t->m_on = t->m;
        t->v_on = t->v;
        /* The gradient alone has memory of its own. */
        t->g = zeros(t->n);
        return t->g;
    }
    t->p_on = zeros_apart(o, t->n);
    t->m_on = zeros_apart(o, t->n);
    t->v_on = zeros_apart(o, t->n);
    t->g = zeros_apart(o, t->n);
    return t->p_on && t->m_on && t->v_on && t->g;
}

/* Pointers to tensors of before are stale then: who keeps something keeps their arrays. */
int optim_add(struct optim *o, const char *name, size_t n, bool decays)
{
    struct optim_tensor *t;

    /* From 64 on: a run has a few hundred. */
    if (o->n == o->cap) {
        uint32_t cap = o->cap ? 2 * o->cap : 64;

        t = realloc(o->t, cap * sizeof(*t));
        if (!t)
            return -ENOMEM;
        o->t = t;
        o->cap = cap;
    }
    t = &o->t[o->n++];
    /* Zeros first: after a failure optim_fini finds what there is. */
    *t = (struct optim_tensor){ .n = n, .decays = decays };
    snprintf(t->name, sizeof(t->name), "%s", name);
    t->p = zeros(n);
    t->m = zeros(n);
    t->v = zeros(n);
    if (!t->p || !t->m || !t->v)
        return -ENOMEM;
    return settle(o, t) ? (int)o->n - 1 : -ENOMEM;
}

void optim_put(struct optim *o, uint32_t first)
{
    for (uint32_t i = first; is_apart(o) && i < o->n; i++) {
        /* Moments too: a checkpoint has set them. */
        const struct optim_tensor *t = &o->t[i];

        o->on->ops->put(o->on, t->p_on, t->p, t->n * sizeof(float));
        o->on->ops->put(o->on, t->m_on, t->m, t->n * sizeof(float));
        o->on->ops->put(o->on, t->v_on, t->v, t->n * sizeof(float));
    }
}

/* For files. A get waits, and the last one for all of them. */
int optim_fetch(const struct optim *o)
{
    for (uint32_t i = 0; is_apart(o) && i < o->n; i++) {
        const struct optim_tensor *t = &o->t[i];

        o->on->ops->get(o->on, t->p, t->p_on, t->n * sizeof(float));
        o->on->ops->get(o->on, t->m, t->m_on, t->n * sizeof(float));
        o->on->ops->get(o->on, t->v, t->v_on, t->n * sizeof(float));
    }
    return is_apart(o) ? o->on->ops->error(o->on) : 0;
}

const float *optim_host(const struct optim *o, const float *p_on)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (p_on == o->t[i].p_on)
            return o->t[i].p;
    return NULL;
}

void optim_fini(struct optim *o)
{
    for (uint32_t i = 0; i < o->n; i++) {
        struct optim_tensor *t = &o->t[i];

        if (is_apart(o)) {
            give_back(o, t->p_on);
            give_back(o, t->m_on);
            give_back(o, t->v_on);
            give_back(o, t->g);
        } else {
            free(t->g);
        }
        free(t->p);
        free(t->m);
        free(t->v);
    }
    free(o->t);
    *o = (struct optim){ 0 };
}

void optim_zero_gradients(struct optim *o)
{
    for (uint32_t i = 0; i < o->n; i++)
        ops_of(o)->clear(o->on, o->t[i].g, o->t[i].n * sizeof(float));
}

/* In an order that does not depend on the number of threads. Fixed tensors are no part of it: they
 * would have gradients scaled that nobody uses. */
static double norm_of(const struct optim *o)
{
    double all = 0;

    for (uint32_t i = 0; i < o->n; i++)
        if (!o->t[i].fixed)
            all += ops_of(o)->sum_squares(o->on, o->t[i].g, o->t[i].n);
    return sqrt(all);
}

/* What is the same for all values is worked out in double, once. */
static void adamw(const struct optim *o, const struct optim_tensor *t,
                  const struct optim_rule *rule, double lr, uint64_t step, double scale)
{
    struct tensors_adamw a = {
        .p = t->p_on,
        .m = t->m_on,
        .v = t->v_on,
        .g = t->g,
        .n = t->n,
        .beta1 = (float)rule->beta1,
        .beta2 = (float)rule->beta2,
        .eps = (float)rule->eps,
        /* The decay, as a factor of the value. */
        .keep = (float)(1.0 - lr * (t->decays ? rule->weight_decay : 0)),
        /* Moments begin at 0 and are too small at first: both are made up for here, and in root. */
        .rate = (float)(lr / (1.0 - pow(rule->beta1, (double)step))),
        .root = (float)(1.0 / sqrt(1.0 - pow(rule->beta2, (double)step))),
        .scale = (float)scale,
    };

    ops_of(o)->adamw(o->on, &a);
}

double optim_step(struct optim *o, const struct optim_rule *rule, double lr, uint64_t step)
{
    double norm = norm_of(o);
    /* 1e-6 as torch.nn.utils.clip_grad_norm_ has it. */
    double scale = rule->clip > 0 && norm + 1e-6 > rule->clip ? rule->clip / (norm + 1e-6) : 1.0;

    /* Moments would never get rid of it. */
    if (!isfinite(norm))
        return norm;
    for (uint32_t i = 0; i < o->n; i++)
        if (!o->t[i].fixed)
            adamw(o, &o->t[i], rule, lr, step, scale);
    return norm;
}

double optim_lr(double lr, double floor, uint64_t warmup, uint64_t n_steps, uint64_t step)
{
    double done;

    /* From the first step on it is above 0. */
    if (step < warmup)
        return lr * (double)(step + 1) / (double)(warmup + 1);
    if (n_steps <= warmup)
        return lr;
    /* 0 where the warm-up ends, 1 at the last step. */
    done = (double)(step - warmup) / (double)(n_steps - warmup);
    if (done > 1)
        done = 1;
    return lr * (floor + (1 - floor) * 0.5 * (1 + cos(M_PI * done)));
}

/* --- checkpoints ------------------------------------------------------------------------------ */

/* A file and the sum of what passed through it. */
struct stream {
    FILE *f;
    XXH3_state_t *hash;
    bool ok;
};

/* After the first error nothing: `ok` is looked at once, at the end. */
static void put(struct stream *s, const void *p, size_t n)
{
    s->ok = s->ok && fwrite(p, 1, n, s->f) == n;
    if (s->ok)
        XXH3_128bits_update(s->hash, p, n);
}

/* A file that is too short sets ok to false: what was to be read stays as it was. */
static void get(struct stream *s, void *p, size_t n)
{
    s->ok = s->ok && fread(p, 1, n, s->f) == n;
    if (s->ok)
        XXH3_128bits_update(s->hash, p, n);
}

/* errno is set where it fails, but for the hash, for which the caller has set ENOMEM. */
static bool stream_open(struct stream *s, const char *path, const char *mode)
{
    *s = (struct stream){ .f = fopen(path, mode), .hash = XXH3_createState(), .ok = true };
    if (s->hash)
        XXH3_128bits_reset(s->hash);
    return s->f && s->hash;
}

static void stream_close(struct stream *s)
{
    if (s->f)
        fclose(s->f);
    XXH3_freeState(s->hash);
    s->f = NULL;
    s->hash = NULL;
}

static int write_all(const struct optim *o, const char *path, const struct optim_progress *at,
                     const char *recipe)
{
    struct file_head head = { MAGIC, VERSION, o->n, at->step, at->tokens, strlen(recipe) };
    struct stream s;
    XXH128_hash_t sum;
    int r = 0;

    /* For XXH3_createState, which does not set it. */
    errno = ENOMEM;
    if (stream_open(&s, path, "we")) {
        put(&s, &head, sizeof(head));
        put(&s, recipe, head.recipe_len);
        for (uint32_t i = 0; i < o->n; i++) {
            const struct optim_tensor *t = &o->t[i];
            uint64_t n = t->n;

            put(&s, t->name, sizeof(t->name));
            put(&s, &n, sizeof(n));
            put(&s, t->p, n * sizeof(float));
            put(&s, t->m, n * sizeof(float));
            put(&s, t->v, n * sizeof(float));
        }
        sum = XXH3_128bits_digest(s.hash);
        /* The sum of what stands before it; put adds it to a hash that nobody asks any more. */
        put(&s, &sum, sizeof(sum));
        /* On the disk before it takes the old one's name. */
        if (!s.ok || fflush(s.f) != 0 || fsync(fileno(s.f)) < 0)
            r = -(errno ? errno : EIO);
    } else {
        r = -errno;
    }
    stream_close(&s);
    return r;
}

int optim_save(const struct optim *o, const char *path, const struct optim_progress *at,
               const char *recipe, struct why *why)
{
    char *beside = NULL;
    int r;

    if (optim_fetch(o) < 0)
        return why_set(why, -EIO, "%s: the checkpoint was not written: the device failed", path);
    /* In the same folder: a rename does not cross file systems. */
    if (asprintf(&beside, "%s.part", path) < 0)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    r = write_all(o, beside, at, recipe);
    if (r == 0 && rename(beside, path) < 0)
        r = -errno;
    if (r < 0) {
        unlink(beside);
        why_set(why, r, "%s: the checkpoint could not be written: %s", path, strerror(-r));
    }
    free(beside);
    return r < 0 ? r : files_sync_entry(path, why);
}

/* Values go to their places before the sum is known: a run whose checkpoint is damaged does not
 * begin. */
static int read_tensor(struct stream *s, struct optim_tensor *t, const char *path, struct why *why)
{
    char name[OPTIM_NAME_MAX + 1] = "";
    uint64_t n = 0;

    get(s, name, sizeof(name));
    get(s, &n, sizeof(n));
    /* It is said in a sentence, and comes from a file. */
    name[OPTIM_NAME_MAX] = '\0';
    if (s->ok && (strcmp(name, t->name) != 0 || n != t->n))
        return why_set(why, -EINVAL,
                       "%s: found tensor %s of %llu values where %s of %zu was expected", path,
                       name, (unsigned long long)n, t->name, t->n);
    get(s, t->p, t->n * sizeof(float));
    get(s, t->m, t->n * sizeof(float));
    get(s, t->v, t->n * sizeof(float));
    return 0;
}

/* By its length first, so that a damaged one asks for no memory. */
static int read_recipe(struct stream *s, const struct file_head *head, const char *path,
                       const char *recipe, struct why *why)
{
    size_t n = strlen(recipe);
    char *found;
    bool same;

    if (head->recipe_len != n)
        return why_set(why, -EINVAL, "%s: made with a different recipe", path);
    found = calloc(1, n + 1);
    if (!found)
        return why_set(why, -ENOMEM, "%s: no memory", path);
    get(s, found, n);
    same = strcmp(found, recipe) == 0;
    free(found);
    return same ? 0 : why_set(why, -EINVAL, "%s: made with a different recipe", path);
}

static int read_all(struct optim *o, struct stream *s, const char *path, const char *recipe,
                    struct optim_progress *ret, struct why *why)
{
    struct file_head head = { 0 };
    XXH128_hash_t sum, found;
    int r;

    get(s, &head, sizeof(head));
    if (!s->ok || memcmp(head.magic, MAGIC, sizeof(head.magic)) != 0 || head.version != VERSION ||
        head.n_tensors != o->n)
        return why_set(why, -EINVAL, "%s: not a checkpoint of version %u with %u tensors", path,
                       VERSION, o->n);
    r = read_recipe(s, &head, path, recipe, why);
    for (uint32_t i = 0; r == 0 && i < o->n; i++)
        r = read_tensor(s, &o->t[i], path, why);
    if (r < 0)
        return r;
    /* Before the file's own is read, which would be added. */
    sum = XXH3_128bits_digest(s->hash);
    get(s, &found, sizeof(found));
    if (!s->ok || !XXH128_isEqual(sum, found))
        return why_set(why, -EINVAL, "%s: the checkpoint is truncated or damaged", path);
    *ret = (struct optim_progress){ head.step, head.tokens };
    return 0;
}

int optim_load(struct optim *o, const char *path, const char *recipe, struct optim_progress *ret,
               struct why *why)
{
    struct stream s;
    int r;

    errno = ENOMEM;
    if (stream_open(&s, path, "re"))
        r = read_all(o, &s, path, recipe, ret, why);
    else
        r = why_set(why, -errno, "%s: %s", path, strerror(errno));
    stream_close(&s);
    if (r == 0)
        optim_put(o, 0);
    return r;
}
