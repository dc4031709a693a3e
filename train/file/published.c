/* train/file/published.c - a checkpoint as others publish it: a folder of safetensors files, among
 * which tensors are spread in no order, or one file; and the configuration beside it.
 */
#include "train/file/published.h"

#include "engine/file/quant.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct published {
    char *path, *config;
    struct safetensors **files;
    size_t n_files;
};

/* n_files counts those that are open, so that close finds these and no more. */
static int open_files(struct published *c, char *const *paths, size_t n, struct why *why)
{
    int r = 0;

    c->files = calloc(n, sizeof(struct safetensors *));
    if (!c->files)
        return why_set(why, -ENOMEM, "%s: no memory", c->path);
    for (; r == 0 && c->n_files < n; c->n_files += r == 0)
        r = safetensors_open(paths[c->n_files], &c->files[c->n_files], why);
    return r;
}

/* A folder whose name holds what glob has a meaning for is opened file by file. */
static int open_folder(struct published *c, struct why *why)
{
    glob_t found = { 0 };
    char *pattern;
    int r;

    if (asprintf(&c->config, "%s/config.json", c->path) < 0 ||
        asprintf(&pattern, "%s/*.safetensors", c->path) < 0)
        return why_set(why, -ENOMEM, "%s: no memory", c->path);
    /* By GLOB_ERR a folder that cannot be read is no empty one. */
    r = glob(pattern, GLOB_ERR, NULL, &found);
    free(pattern);
    if (r == 0)
        r = open_files(c, found.gl_pathv, found.gl_pathc, why);
    else if (r == GLOB_NOMATCH)
        r = why_set(why, -EINVAL, "%s: found no .safetensors file in this folder", c->path);
    else if (r == GLOB_NOSPACE)
        r = why_set(why, -ENOMEM, "%s: no memory", c->path);
    else
        r = why_set(why, -EIO, "%s: the folder cannot be read", c->path);
    globfree(&found); /* of a list that is not whole, too */
    return r;
}

static int open_file(struct published *c, struct why *why)
{
    /* Beside the file: "config.json" alone where the path has no folder. */
    const char *slash = strrchr(c->path, '/');
    int folder = slash ? (int)(slash - c->path + 1) : 0;

    if (asprintf(&c->config, "%.*sconfig.json", folder, c->path) < 0)
        return why_set(why, -ENOMEM, "%s: no memory", c->path);
    return open_files(c, &c->path, 1, why);
}

int published_open(const char *path, struct published **ret, struct why *why)
{
    struct published *c = calloc(1, sizeof(*c));
    struct stat st;
    int r;

    if (c)
        c->path = strdup(path);
    if (!c || !c->path)
        r = why_set(why, -ENOMEM, "%s: no memory", path);
    else if (stat(path, &st) < 0)
        r = why_set(why, -errno, "%s: %s", path, strerror(errno));
    else
        r = S_ISDIR(st.st_mode) ? open_folder(c, why) : open_file(c, why);
    if (r < 0) {
        published_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

void published_close(struct published *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_files; i++)
        safetensors_close(c->files[i]);
    free(c->files);
    free(c->config);
    free(c->path);
    free(c);
}

const char *published_config_path(const struct published *c)
{
    return c->config;
}

/* In the first file that has it: two of one name are not looked for. */
static const struct safetensors_tensor *find(const struct published *c, const char *name,
                                             const struct safetensors **ret_file)
{
    for (size_t i = 0; i < c->n_files; i++) {
        const struct safetensors_tensor *t = safetensors_find(c->files[i], name);

        if (t) {
            *ret_file = c->files[i];
            return t;
        }
    }
    return NULL;
}

const struct safetensors_tensor *published_find(const struct published *c, const char *name)
{
    const struct safetensors *file;

    return find(c, name, &file);
}

const char *published_any(const struct published *c, const char *part)
{
    for (size_t i = 0; i < c->n_files; i++)
        for (size_t k = 0; k < safetensors_n(c->files[i]); k++) {
            const char *name = safetensors_at(c->files[i], k)->name;

            if (strstr(name, part))
                return name;
        }
    return NULL;
}

/* A vector has its other dimensions as 1. */
static bool has_shape(const struct safetensors_tensor *t, uint64_t rows, uint64_t cols)
{
    return t->n_dims <= 2 && (t->n_dims == 2 || cols == 1) && t->dims[0] == rows &&
           t->dims[1] == cols;
}

int published_read(const struct published *c, const char *name, uint64_t rows, uint64_t cols,
                   enum safetensors_type *ret_type, float *ret, struct why *why)
{
    const struct safetensors *file;
    const struct safetensors_tensor *t = find(c, name, &file);
    void *raw;
    int r;

    if (!t)
        return why_set(why, -EINVAL, "%s: tensor %s is missing", c->path, name);
    if (t->type == SAFETENSORS_OTHER)
        return why_set(why, -EINVAL, "%s: tensor %s is neither F32 nor F16 nor BF16", c->path,
                       name);
    if (!has_shape(t, rows, cols))
        return why_set(why, -EINVAL, "%s: tensor %s has shape (%llu, %llu), expected (%llu, %llu)",
                       c->path, name, (unsigned long long)t->dims[0],
                       (unsigned long long)t->dims[1], (unsigned long long)rows,
                       (unsigned long long)cols);
    if (ret_type)
        *ret_type = t->type;
    /* Only whether it is there, and of which type. */
    if (!ret)
        return 0;
    raw = malloc(t->len);
    r = raw ? safetensors_read(file, t, raw, why)
            : why_set(why, -ENOMEM, "%s: no memory for tensor %s", c->path, name);
    /* Weights that are no numbers make every answer none: it is found here and not by whoever uses
     * the adapter. */
    if (r == 0 && !quant_finite(safetensors_quant(t->type), raw, rows * cols))
        r = why_set(why, -EINVAL, "%s: tensor %s has a NaN or an infinity, expected finite weights",
                    c->path, name);
    if (r == 0)
        quant_dequantise_row(safetensors_quant(t->type), raw, rows * cols, ret);
    free(raw);
    return r;
}
