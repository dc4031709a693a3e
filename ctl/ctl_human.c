#include "ctl/ctl_human.h"

#include "base/shown.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Three digits or so: below 100 of a unit one digit behind the point. */
const char *ctl_human_bytes(uint64_t bytes, char ret[CTL_HUMAN_CAP])
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    size_t u = 0;

    while (v >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) {
        v /= 1024;
        u++;
    }
    (void)snprintf(ret, CTL_HUMAN_CAP, "%.*f %s", u > 0 && v < 100 ? 1 : 0, v, units[u]);
    return ret;
}

/* Two units at most, the larger ones first. */
const char *ctl_human_time(uint64_t ns, char ret[CTL_HUMAN_CAP])
{
    unsigned long long ms = ns / 1000000, s = ms / 1000;

    if (ms < 1000)
        (void)snprintf(ret, CTL_HUMAN_CAP, "%llu ms", ms);
    else if (s < 60)
        (void)snprintf(ret, CTL_HUMAN_CAP, "%llu s", s);
    else if (s < 3600)
        (void)snprintf(ret, CTL_HUMAN_CAP, "%llu min %llu s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(ret, CTL_HUMAN_CAP, "%llu h %llu min", s / 3600, s / 60 % 60);
    else
        (void)snprintf(ret, CTL_HUMAN_CAP, "%llu days %llu h", s / 86400, s / 3600 % 24);
    return ret;
}

const char *ctl_human_when(uint64_t s, char ret[CTL_HUMAN_CAP])
{
    time_t at = (time_t)s, now = time(NULL);
    struct tm tm;

    if (!localtime_r(&at, &tm) ||
        !strftime(ret, CTL_HUMAN_CAP, now >= at && now - at < 86400 ? "%H:%M" : "%F %H:%M", &tm))
        (void)snprintf(ret, CTL_HUMAN_CAP, "%llu", (unsigned long long)s);
    return ret;
}

/* NULL: of a libgist from before there were any. */
const char *ctl_human_unit(const char *unit, char ret[CTL_HUMAN_UNIT_CAP])
{
    size_t n;

    if (!unit || !unit[0])
        unit = "-";
    n = shown_put(SHOWN_LINE, unit, strlen(unit), ret, CTL_HUMAN_UNIT_CAP - 1);
    ret[n] = '\0';
    return ret;
}
