#include "cuda/rt.h"

const char rt_name[] = "cuda-shim";
const bool rt_has_memory = false;
