/* dbus/manager.h - org.gistd.Manager1: who uses the model, for desktops.
 *
 * The door to sd-bus, with dbus/gist_dbus.c. gist-dbus(1) has the interface in words.
 *
 * Who asks is told by the bus (its uid), never by the message. A caller sees and cancels its own
 * sessions; root and the user that gist-dbus runs as those that gist-dbus sees. Of texts nobody
 * hears: gistd has told us none.
 *
 * Threads    one.
 * Ownership  borrows bus and view.
 */
#ifndef DBUS_MANAGER_H
#define DBUS_MANAGER_H

#include "dbus/view.h"

#include <systemd/sd-bus.h>

#define MANAGER_NAME "org.gistd.Manager1"
#define MANAGER_PATH "/org/gistd/Manager1"

struct manager {
    sd_bus *bus;
    struct view view, said; /* now, and as signals have told it */
};

/* On the bus, under its name. -EEXIST: somebody else has that. */
int manager_open(struct manager *m);
/* Looks, and says what has changed. */
void manager_look(struct manager *m);

#endif
