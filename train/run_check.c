#include "train/run_check.h"

#include "engine/file/adapter.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a run that trains the model, or says so. Returns the sentence of the first thing that does not
 * go together. */
static int check_base(const struct recipe *c, struct why *why)
{
    if (c->probe)
        return why_set(why, -EINVAL, "probe and train-base cannot be combined");
    if (!c->train_base)
        return why_set(why, -EINVAL, "model-out is %s, but no model is trained without train-base",
                       c->model_out);
    if (c->out[0] && !c->model_out[0])
        return why_set(
            why, -EINVAL,
            "train-base with out needs model-out too: the adapter belongs to the model that "
            "was trained with it");
    return 0;
}

/* By device, folder and name: the file itself may not be there yet. name: the path's last part. */
struct place {
    struct stat file, folder;
    const char *name;
};

/* false: there is not even a folder. */
static bool find_place(const char *path, struct place *ret)
{
    /* dirname writes to what it is given. */
    char folder[RECIPE_TEXT_MAX + 1];

    *ret = (struct place){ 0 };
    (void)stat(path, &ret->file);
    ret->name = strrchr(path, '/');
    ret->name = ret->name ? ret->name + 1 : path;
    snprintf(folder, sizeof(folder), "%s", path);
    return path[0] && stat(dirname(folder), &ret->folder) == 0;
}

/* st_ino 0: no such file. */
static bool same_inode(const struct stat *a, const struct stat *b)
{
    return a->st_ino && a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

/* Also by two names that lead to one file, and by one name that nothing has yet. */
static bool same_file(const char *a, const char *b)
{
    struct place one, other;

    if (!find_place(a, &one) || !find_place(b, &other))
        return false;
    return same_inode(&one.file, &other.file) ||
           (same_inode(&one.folder, &other.folder) && strcmp(one.name, other.name) == 0);
}

/* Hours before it is written: whether there can be a new file beside it. */
static int check_writable(const char *name, const char *path, struct why *why)
{
    char *temp;
    int fd, r = 0;

    /* Not asked for. */
    if (!path[0])
        return 0;
    /* The very name that adapter_write would take: what stands there would be in its way. */
    if (asprintf(&temp, "%s.%ld.tmp", path, (long)getpid()) < 0)
        return why_set(why, -ENOMEM, "no memory");
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        r = why_set(why, -errno, "%s cannot be written: %s: %s", name, path, strerror(errno));
    } else {
        (void)close(fd);
        (void)unlink(temp);
    }
    free(temp);
    return r;
}

/* What is written is its own file each. */
static int check_files(const struct recipe *c, struct why *why)
{
    const struct {
        const char *name, *path;
    } files[] = { { "out", c->out },
                  { "model-out", c->model_out },
                  { "checkpoint", c->checkpoint },
                  { "log", c->log },
                  { "distill-cache", c->distill_cache },
                  { "init", c->init },
                  { "model", c->model },
                  { "corpus", c->corpus },
                  { "heldout", c->heldout } };
    /* The first n_written are written, of which the first n_renamed replace a file as a whole. */
    const size_t n = sizeof(files) / sizeof(*files), n_written = 5, n_renamed = 3;
    int r = 0;

    for (size_t i = 0; i < n_written; i++)
        for (size_t j = i + 1; j < n; j++)
            if (same_file(files[i].path, files[j].path))
                return why_set(why, -EINVAL, "%s and %s must be different files, both are %s",
                               files[i].name, files[j].name, files[i].path);
    for (size_t i = 0; r == 0 && i < n_renamed; i++)
        r = check_writable(files[i].name, files[i].path, why);
    return r;
}

int run_check(const struct recipe *c, const struct ranks *ranks, struct why *why)
{
    if (!c->model[0] || !c->corpus[0])
        return why_set(why, -EINVAL,
                       "a run needs a model and a corpus (--model FILE, --corpus FILE)");
    /* Each has as many sequences of a step as the others. */
    if (c->batch % ranks->n != 0)
        return why_set(why, -EINVAL,
                       "batch is %u, but must be a multiple of the number of processes, %u",
                       c->batch, ranks->n);
    if (c->probe && c->loss_ae <= 0)
        return why_set(why, -EINVAL,
                       "probe trains the decoder of loss-ae, but loss-ae is 0; set it above 0");
    /* Checkpointing keeps a layer's input alone and computes its keys again on the way back: the
     * decoder, and the stages behind soft tokens, read them earlier. */
    if (c->checkpointing && (c->loss_ae > 0 || c->method == ADAPTER_COARSE_REC))
        return why_set(why, -EINVAL, "checkpointing cannot be combined with loss-ae or coarse-rec");
    if ((c->train_base || c->model_out[0]) && check_base(c, why) < 0)
        return -EINVAL;
    /* Files are process 0's to write; others may be on machines where their folders are not. */
    return ranks->rank == 0 ? check_files(c, why) : 0;
}
