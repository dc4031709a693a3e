/* engine/device_list.h - several devices that are one backend (engine/backend.h): which, and what
 * each says of itself.
 */
#ifndef ENGINE_DEVICE_LIST_H
#define ENGINE_DEVICE_LIST_H

#include <stddef.h>
#include <stdint.h>

/* Those of a kind that one backend computes on, in the order of the layers. */
#define BACKEND_DEVICES_MAX 16u
#define BACKEND_DEVICES_ALL UINT32_MAX
struct backend_devices {
    uint32_t n; /* 0: number 0 alone; ALL: all that look finds */
    uint8_t at[BACKEND_DEVICES_MAX];
};

/* How they share a model (engine/divide.h): each has some layers, one computes at a time; or a part
 * of each layer, and all compute together. */
enum backend_split { BACKEND_SPLIT_LAYER, BACKEND_SPLIT_TENSOR, BACKEND_SPLIT__N };

/* One of several. */
struct backend_device {
    char name[64];                /* "cuda:1 (NVIDIA H200)" */
    uint64_t memory, memory_free; /* 0: it is this machine's */
    size_t scratch_bytes;
    uint32_t first_layer, n_layers; /* 0: no model was loaded yet */
};

#endif
