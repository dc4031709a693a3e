/* engine/tensors.c - who computes a training step: the CPU's table is the trainer's own, so that
 * NULL stands for it here. */
#include "engine/tensors.h"

#include "engine/devices.h"
#include "engine/plugin.h"

#include <errno.h>

int tensors_check(const struct tensors_ops *ops, struct why *why)
{
    if (ops->abi == TENSORS_ABI && ops->size == sizeof(*ops))
        return 0;
    return why_set(why, -ELIBBAD,
                   "a library for training that was built for another version: found interface %u "
                   "of %zu bytes, expected %u of %zu: install gist-train and its libraries from "
                   "one build",
                   ops->abi, ops->size, TENSORS_ABI, sizeof(*ops));
}

static int find_at(const struct devices_place *place, const struct tensors_ops **ret,
                   struct why *why)
{
    const struct tensors_ops *ops;
    const void *found;
    int r = plugin_find_entry(place->library, TENSORS_ENTRY, place->help, &found, why);

    if (r < 0)
        return r;
    ops = found;
    r = tensors_check(ops, why);
    if (r == 0)
        r = ops->look(place->devices.at[0], why);
    if (r == 0)
        *ret = ops;
    return r;
}

int tensors_find(const char *name, const struct tensors_ops **ret, unsigned *ret_device,
                 struct why *why)
{
    struct devices_place place;
    int r = devices_place(name, &place, why);

    *ret = NULL;
    *ret_device = place.devices.at[0];
    /* Also "cuda:all", whose number is larger than any. */
    if (r == 0 && place.devices.n > 1)
        r = why_set(why, -EINVAL,
                    "option device: found %.80s, expected one of them: training computes on one "
                    "device",
                    name);
    if (r == 0 && place.library)
        r = find_at(&place, ret, why);
    return place.or_cpu ? 0 : r;
}
