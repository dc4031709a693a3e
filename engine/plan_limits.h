/* engine/plan_limits.h - how large a plan can be (engine/plan.h), for who lays out memory before
 * there is one.
 */
#ifndef ENGINE_PLAN_LIMITS_H
#define ENGINE_PLAN_LIMITS_H

#include "engine/plan.h"

/* One of plan_open, without its arrays. */
struct plan plan_limits(uint32_t max_rows, uint32_t max_pages);

#endif
