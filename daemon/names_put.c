#include "daemon/names_put.h"

#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(NAMES_MAX == STORE_NAME_MAX, "a name that is allowed can be kept");

/* By the second of the two who know it, the disk and who asked. */
static void end(struct names_put *p)
{
    TAILQ_REMOVE(p->puts, p, link);
    free(p);
}

/* From store_pump, between steps. */
static void on_done(void *arg, int result)
{
    struct names_put *p = arg;

    p->done = true;
    p->result = result;
    if (!p->wanted)
        end(p);
}

/* The store copies the bytes. on_done can't come before the put is in the list: it comes from
 * store_pump. */
int names_put_begin(struct names_puts *puts, struct store *store, uint32_t owner,
                    enum wire_named kind, const char *name, const struct names_file *f,
                    struct names_put **ret)
{
    struct names_put *p = calloc(1, sizeof(*p));
    void *bytes = NULL;
    int r;

    if (!p)
        return -ENOMEM;
    *p = (struct names_put){
        .puts = puts, .store = store, .owner = owner, .kind = kind, .wanted = true
    };
    (void)stpcpy(p->name, name);
    r = names_encode(f, &bytes, &p->len);
    /* None of that name is on its way: who asks has looked (names_put_find). */
    if (r == 0)
        r = store_name_put(store, owner, kind, name, bytes, p->len, on_done, p);
    free(bytes);
    if (r < 0) {
        free(p);
        return r;
    }
    TAILQ_INSERT_TAIL(puts, p, link);
    *ret = p;
    return 0;
}

const struct names_put *names_put_find(const struct names_puts *puts, uint32_t owner,
                                       enum wire_named kind, const char *name)
{
    const struct names_put *p;

    TAILQ_FOREACH (p, puts, link)
        if (p->owner == owner && p->kind == kind && strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

/* A result that was made up here may be followed by the real one, which only `done` says. */
bool names_put_ready(struct names_put *p)
{
    if (!p->done && store_silent(p->store)) {
        p->result = -EROFS; /* on_done comes when it answers, and nobody waits for that */
        return true;
    }
    return p->done;
}

void names_put_end(struct names_put *p)
{
    if (!p)
        return;
    p->wanted = false;
    if (p->done)
        end(p);
}
