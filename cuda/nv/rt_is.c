#include "cuda/rt.h"

const char rt_name[] = "cuda";
const bool rt_has_memory = true;
