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

static int find_at(const struct devices_place *place, unsigned device,
                   const struct tensors_ops **ret, struct why *why)
{
    const struct tensors_ops *ops;
    const void *found;
    int r = plugin_find_entry(place->library, TENSORS_ENTRY, place->help, &found, why);

    if (r < 0)
        return r;
    ops = found;
    r = tensors_check(ops, why);
    if (r == 0)
        r = ops->look(device, why);
    if (r == 0)
        *ret = ops;
    return r;
}

/* One device is everybody's. "all" has a number that is larger than any. */
static int device_of(const char *name, const struct devices_place *place, uint32_t k, uint32_t n,
                     unsigned *ret, struct why *why)
{
    const struct backend_devices *d = &place->devices;
    bool is_one = d->n <= 1 && !place->or_cpu, is_all = d->n == BACKEND_DEVICES_ALL;

    *ret = is_one ? d->at[0] : k;
    if (is_one || place->or_cpu || (is_all && n > 1))
        return 0;
    if (d->n != n)
        return why_set(why, -EINVAL,
                       "option device: found %.80s, expected one device for each process, of which "
                       "there are %u here (mpirun -n N starts N)",
                       name, n);
    *ret = d->at[k];
    return 0;
}

int tensors_find(const char *name, uint32_t k, uint32_t n, const struct tensors_ops **ret,
                 unsigned *ret_device, struct why *why)
{
    struct devices_place place;
    int r = devices_place(name, &place, why);

    *ret = NULL;
    *ret_device = 0;
    if (r == 0 && place.library)
        r = device_of(name, &place, k, n, ret_device, why);
    if (r == 0 && place.library)
        r = find_at(&place, *ret_device, ret, why);
    return place.or_cpu ? 0 : r;
}
