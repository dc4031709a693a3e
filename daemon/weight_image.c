#include "daemon/weight_image.h"

#include "base/clock.h"
#include "daemon/log.h"
#include "engine/backend.h"
#include "engine/file/image_write.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What is packed in less time than this is not worth as much disk as the model takes once more. */
#define PAYS_NS CLOCK_S

/* linux/ioprio.h is not everywhere. */
#define IOPRIO_WHO_THREAD 1
#define IOPRIO_IDLE       (3 << 13)

struct weight_image {
    char folder[CACHE_DIR_MAX];
    const struct model *model;
    enum io_kind io;
    pthread_t thread;
    atomic_bool stop, done;
};

bool weight_image_folder(const struct config *c, char ret[CACHE_DIR_MAX])
{
    if (strcmp(c->weight_cache, "none") == 0)
        return false;
    if (strcmp(c->weight_cache, "auto") == 0)
        return cache_dir("weights", ret);
    (void)snprintf(ret, CACHE_DIR_MAX, "%s", c->weight_cache);
    return true;
}

/* Relaxed: nothing is read behind it, and the thread is joined. */
static bool told_to_stop(void *arg)
{
    struct weight_image *w = arg;

    return atomic_load_explicit(&w->stop, memory_order_relaxed);
}

/* Time and disk that nobody else wants. A kernel that denies it costs others a little. */
static void step_back(void)
{
    const struct sched_param none = { .sched_priority = 0 };

    (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    (void)syscall(SYS_ioprio_set, IOPRIO_WHO_THREAD, 0, IOPRIO_IDLE);
}

/* With an io of its own: the store's belongs to the scheduler. */
static void *write_it(void *arg)
{
    struct weight_image *w = arg;
    struct io_options options = { .kind = w->io, .depth = 8, .threads = 1 };
    struct image_write iw = { .folder = w->folder,
                              .of = &w->model->of,
                              .digest = w->model->digest,
                              .arena = w->model->mem,
                              .stop = told_to_stop,
                              .arg = w };
    struct why why = { "" };
    uint64_t start = clock_ns();
    int r;

    (void)pthread_setname_np(pthread_self(), "gistd-image");
    step_back();
    r = io_open(&options, &iw.io, &why);
    if (r == 0) {
        r = image_write(&iw, &why);
        io_close(iw.io);
    }
    if (r == 0)
        log_info("the packed weights are in %s (%zu bytes, %.1f s): the next start maps them",
                 w->folder, image_len(&w->model->packed), (double)(clock_ns() - start) / 1e9);
    else if (r != -ECANCELED)
        log_warning("the packed weights are not kept for the next start: %s", why.text);
    atomic_store_explicit(&w->done, true, memory_order_relaxed);
    return NULL;
}

/* Half of what is free is left to others. The folder may not be there yet: its nearest one that is
 * lies on the same disk. */
static bool has_room(const char *folder, size_t len)
{
    char path[CACHE_DIR_MAX];
    struct statvfs fs;
    char *slash;

    (void)snprintf(path, sizeof(path), "%s", folder);
    while (statvfs(path, &fs) < 0) {
        slash = strrchr(path, '/');
        if (errno != ENOENT || !slash || slash == path)
            return false;
        *slash = '\0';
    }
    return (uint64_t)fs.f_bavail * fs.f_frsize / 2 >= len;
}

/* Another daemon may have written it, or an earlier one that left its weights in memory, too. */
static bool is_there(const struct model *m, const char *folder)
{
    struct image_file f;

    if (image_file_open(folder, &m->of, &f, NULL) < 0)
        return false;
    image_file_close(&f);
    return true;
}

/* Only weights that lie in this machine's memory as they are packed, all of them. */
static bool wanted(const struct config *c, const struct model *m, uint64_t load_ns,
                   const char *folder)
{
    if (m->stream || m->from == MODEL_FROM_IMAGE || backend_host(m->backend, m->mem) != m->mem)
        return false;
    /* Who names a folder wants one whatever it costs. One that is there and was not taken up is
     * written anew, else it would be in the way at every start. */
    if (strcmp(c->weight_cache, "auto") != 0)
        return m->image_why.text[0] || !is_there(m, folder);
    /* Of weights that were kept in memory it is not known what packing takes: an image was written
     * when they were packed, if it pays. */
    return m->from == MODEL_FROM_FILE && load_ns >= PAYS_NS &&
           has_room(folder, image_len(&m->packed));
}

void weight_image_start(const struct config *c, const struct model *m, uint64_t load_ns,
                        struct weight_image **ret)
{
    struct weight_image *w = calloc(1, sizeof(*w));
    int r;

    *ret = NULL;
    if (!w)
        return;
    w->model = m;
    w->io = (enum io_kind)c->io;
    if (!weight_image_folder(c, w->folder) || !wanted(c, m, load_ns, w->folder)) {
        free(w);
        return;
    }
    r = pthread_create(&w->thread, NULL, write_it, w);
    if (r != 0) {
        log_warning("the packed weights are not kept for the next start: %s", strerror(r));
        free(w);
        return;
    }
    *ret = w;
}

bool weight_image_busy(const struct weight_image *w)
{
    return w && !atomic_load_explicit(&w->done, memory_order_relaxed);
}

void weight_image_close(struct weight_image *w)
{
    if (!w)
        return;
    atomic_store_explicit(&w->stop, true, memory_order_relaxed);
    (void)pthread_join(w->thread, NULL);
    free(w);
}
