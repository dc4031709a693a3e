#include "daemon/unit.h"

#include "daemon/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Names are compared and not hashed: a user has a handful of units, and they are looked for when a
 * client comes. */
static struct unit *find(const struct portion_list *units, const char *name)
{
    struct portion *x;

    TAILQ_FOREACH (x, units, link) {
        struct unit *u = x->of;

        if (strcmp(u->name, name) == 0)
            return u;
    }
    return NULL;
}

/* The name lies behind the struct, in one allocation. Its portion is all zero: portion_turn has it
 * begin where the others stand. */
static struct unit *make(struct portion_list *units, const char *name)
{
    size_t len = strlen(name);
    struct unit *u = calloc(1, sizeof(*u) + len + 1);

    if (!u)
        return NULL;
    memcpy(u->name, name, len);
    u->portion.of = u;
    TAILQ_INIT(&u->clients);
    TAILQ_INSERT_TAIL(units, &u->portion, link);
    return u;
}

int unit_join(struct portion_list *units, const char *name, struct client *c)
{
    struct unit *u;

    name = name ? name : "";
    u = find(units, name);
    if (!u)
        u = make(units, name);
    if (!u)
        return -ENOMEM;
    TAILQ_INSERT_TAIL(&u->clients, c, of_unit);
    c->unit = u;
    return 0;
}

/* The unit goes with its last client, and what it had of steps with it: who comes back under the
 * same name begins as anybody does. */
void unit_leave(struct portion_list *units, struct client *c)
{
    struct unit *u = c->unit;

    c->unit = NULL;
    TAILQ_REMOVE(&u->clients, c, of_unit);
    if (!TAILQ_EMPTY(&u->clients))
        return;
    TAILQ_REMOVE(units, &u->portion, link);
    free(u);
}

/* Two lines turn: that of the unit's clients, and that of the owner's units. Where each unit has
 * one client, or all are of one unit, one of the two has nothing to decide. */
void unit_served(struct portion_list *units, struct client *c)
{
    struct unit *u = c->unit;

    TAILQ_REMOVE(&u->clients, c, of_unit);
    TAILQ_INSERT_TAIL(&u->clients, c, of_unit);
    TAILQ_REMOVE(units, &u->portion, link);
    TAILQ_INSERT_TAIL(units, &u->portion, link);
}
