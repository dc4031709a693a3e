/* ipc/wire_kept.h - sessions that outlive their connection, as plain structs (a part of
 * ipc/wire.h).
 *
 * Ownership  what an unpacked message points to lives in the scratch, as in ipc/wire.h.
 */
#ifndef IPC_WIRE_KEPT_H
#define IPC_WIRE_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_TOKEN_BYTES 16u /* what a kept session is known by */

struct wire_keep {
    uint64_t session;
    uint32_t seconds;
};
struct wire_attach {
    const uint8_t *token; /* (n) */
    uint32_t n;
    const char *realm;
};
struct wire_resume {
    uint64_t session;
    bool has_from;
    uint64_t from;
};

struct wire_kept {
    const uint8_t *token; /* (n) */
    uint32_t n, seconds;
    uint64_t bytes;
};
struct wire_attached {
    uint64_t session;
    uint32_t context_max, n_tokens, answers;
    uint64_t first, unread, written; /* tokens of the answers */
    uint32_t seconds;
};

#endif
