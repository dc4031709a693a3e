/* ctl/ctl_human.h - numbers, and names in columns, as people read them.
 *
 * Each fills ret, which has room for it, and returns it.
 */
#ifndef CTL_CTL_HUMAN_H
#define CTL_CTL_HUMAN_H

#include <stdint.h>

#define CTL_HUMAN_CAP      32u
#define CTL_HUMAN_UNIT_CAP 256u

/* Binary units, three digits or so: "87.6 MiB". */
const char *ctl_human_bytes(uint64_t bytes, char ret[CTL_HUMAN_CAP]);
/* "3 min 12 s"; below a second "340 ms". */
const char *ctl_human_time(uint64_t ns, char ret[CTL_HUMAN_CAP]);
/* A moment, seconds since 1970, by this machine's clock: "12:03" of the last 24 hours, else
 * "2026-11-28 12:03". */
const char *ctl_human_when(uint64_t s, char ret[CTL_HUMAN_CAP]);
/* A systemd unit's name, fit for a terminal; "-": none is known. */
const char *ctl_human_unit(const char *unit, char ret[CTL_HUMAN_UNIT_CAP]);

#endif
