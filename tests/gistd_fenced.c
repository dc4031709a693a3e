/* tests/gistd_fenced.c - gistd as it is, but for who computes: the backend whose memory the host
 * may not touch (tests/support/backend_fenced.h). Linked with --wrap=backend_find. */
#include "tests/support/backend_fenced.h"

int __wrap_backend_find(const char *name, const struct backend_ops **ret,
                        struct backend_devices *ret_devices, struct why *why);

int __wrap_backend_find(const char *name, const struct backend_ops **ret,
                        struct backend_devices *ret_devices, struct why *why)
{
    (void)name;
    (void)why;
    *ret = &backend_fenced;
    *ret_devices = (struct backend_devices){ 0 };
    return 0;
}
