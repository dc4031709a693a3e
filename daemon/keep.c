/* Descriptors pass through three hands: the service manager has copies as long as it is not told to
 * forget them, this process has those that it was started with, and the model may use one. So each
 * that is of no use is forgotten there and closed here. */
#include "daemon/keep.h"

#include "daemon/log.h"
#include "engine/file/model.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void remove_found(struct keep *k, uint32_t i)
{
    notify_forget(k->found[i].name);
    (void)close(k->found[i].fd);
    k->found[i].fd = -1;
}

/* Without a manager nobody would take the descriptor, and the memory would be shared for nothing.
 */
static bool wants(const struct config *c)
{
    if (c->weight_keep == CONFIG_KEEP_NO)
        return false;
    if (c->weight_keep == CONFIG_KEEP_YES && !notify_manager())
        log_warning(
            "option weight-keep: nobody is there to keep the weights: gistd was not started "
            "by a service manager (NOTIFY_SOCKET)");
    return c->weight_keep == CONFIG_KEEP_YES ? notify_manager() : notify_store();
}

/* Before the sandbox, and before the model: what is not wanted goes now, or the memory would be
 * there twice. */
void keep_open(struct keep *k, const struct config *c)
{
    uint32_t n;

    *k = (struct keep){ .kept = { .wanted = wants(c), .used = -1, .fd = -1 } };
    n = notify_take_kept(k->found, KEPT_FOUND_MAX);
    for (uint32_t i = 0; i < n && !k->kept.wanted; i++)
        remove_found(k, i);
    if (!k->kept.wanted)
        return;
    k->kept.n_found = n;
    for (uint32_t i = 0; i < n; i++)
        k->kept.found[i] = k->found[i].fd;
}

void keep_drop(struct keep *k)
{
    if (k->kept.n_found == 0)
        return;
    log_info("the kept weights are of no use: %s", k->kept.not_used.text[0]
                                                       ? k->kept.not_used.text
                                                       : "the model is read in another way now");
    for (uint32_t i = 0; i < k->kept.n_found; i++)
        remove_found(k, i);
    k->kept.n_found = 0;
}

void keep_settle(struct keep *k, const struct model *m)
{
    int r;

    if (k->kept.used < 0)
        keep_drop(k); /* no memory was taken: there is an image (daemon/weight_image.h) */
    for (uint32_t i = 0; i < k->kept.n_found; i++)
        if ((int)i != k->kept.used)
            remove_found(k, i);
    (void)snprintf(k->name, sizeof(k->name), NOTIFY_KEPT_PREFIX "%.16s", m->digest);
    if (k->kept.used >= 0)
        log_info("the weights are those that the service manager kept: nothing was read");
    if (k->kept.fd >= 0) {
        r = notify_keep(k->kept.fd, k->name);
        if (r < 0)
            (void)why_set(&k->kept.not_kept, r, "the service manager can't be told: %s",
                          strerror(-r));
    }
    /* Nothing is kept under that name: there is nothing to be forgotten later. */
    if (k->kept.used < 0 && (k->kept.fd < 0 || k->kept.not_kept.text[0]))
        k->name[0] = '\0';
    if (k->kept.not_kept.text[0])
        log_warning("the weights are not kept for the next start: %s", k->kept.not_kept.text);
    keep_close(k);
}

/* The memory is the machine's only when the manager's copy is closed as well. */
void keep_leave(struct keep *k)
{
    if (k->name[0])
        notify_forget(k->name);
    k->name[0] = '\0';
    k->kept.used = -1;
    k->kept.not_used.text[0] = k->kept.not_kept.text[0] = '\0';
}

/* Ours only: the mapping stays without a descriptor, and the manager has its own. */
void keep_close(struct keep *k)
{
    for (uint32_t i = 0; i < k->kept.n_found; i++)
        if (k->found[i].fd >= 0)
            (void)close(k->found[i].fd);
    k->kept.n_found = 0;
    if (k->kept.fd >= 0)
        (void)close(k->kept.fd);
    k->kept.fd = -1;
}
