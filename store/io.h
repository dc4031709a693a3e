/* store/io.h - file operations that nobody waits for.
 *
 * Operations are queued, handed over by io_submit in one go, and come back in any order as a cookie
 * and a result. Behind it is io_uring where the kernel lets us have it, else threads that call
 * pread, pwrite and the rest; which of the two can't be told from the results.
 *
 *     io_queue  io_queue  io_queue  io_submit ---> kernel or threads ---> eventfd ---> io_reap
 *        read      write > sync                                            readable     cookies
 *                  (linked)
 *
 * A read or write is whole or an error: an implementation goes on behind a short one, and only the
 * end of the file makes a result smaller than len. Memory and paths stay as they are until the
 * operation came back.
 *
 * Linked     An operation with `link` starts the next one only when it has succeeded (a read or
 *            write: all of len); else that one and those linked to it come back as -ECANCELED. A
 *            chain is queued without a gap and handed over by one io_submit.
 * Order      Nothing else is ordered: two writes may be done in any order, and what was written is
 *            on the medium when a later sync of the same descriptor came back, not before.
 * Buffers    io_register makes later transfers to that memory cheaper, and all of it resident. A
 * kernel that refuses it (the limit of locked memory) costs speed only. Memory in huge pages is
 * worth more: with O_DIRECT a request is cut at the end of every page.
 *
 * Threads    one: who opens it queues, submits and reaps. The eventfd may be polled anywhere.
 *            A completion may end a sleep in a system call with EINTR, as a signal does.
 * Ownership  borrows descriptors, memory and paths until they came back. io_close cancels what has
 *            not begun, waits for the rest, and forgets their results (closes what they opened).
 * Errors     io_open: -ENOSYS, -EPERM, -ENOMEM and the like, why says which and what stood against
 *            it. io_queue: -EAGAIN, io_depth operations are out: reap first. Results: -errno.
 */
#ifndef STORE_IO_H
#define STORE_IO_H

#include "base/why.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define IO_ALIGN 4096u /* of memory, offset and length, for a descriptor with O_DIRECT */

struct io;

enum io_kind { IO_AUTO, IO_URING, IO_THREADS };

enum io_code {
    IO_READ,   /* fd, mem, len, off */
    IO_WRITE,  /* fd, mem, len, off */
    IO_SYNC,   /* fd: fdatasync; of a folder, fsync */
    IO_ALLOC,  /* fd, off, len: fallocate, the size grows */
    IO_OPEN,   /* fd (a folder), path, flags, mode: the result is a descriptor */
    IO_CLOSE,  /* fd */
    IO_RENAME, /* fd (a folder), path, to (in the same folder): replaces it */
    IO_UNLINK, /* fd (a folder), path */
    IO_DATE,   /* fd (a folder), path, off: when it was last modified, seconds since 1970 */
    IO_CODE__N
};

struct io_op {
    enum io_code code;
    int fd;
    void *mem; /* IO_WRITE only reads it */
    size_t len;
    uint64_t off;
    const char *path, *to;
    int flags;
    mode_t mode;
    bool link;
    bool aside; /* a transfer in the page cache is copied by another thread, not in io_submit */
    uint64_t cookie; /* the caller's */
};

struct io_done {
    uint64_t cookie;
    int64_t result; /* bytes, a descriptor or 0; -errno */
};

struct io_options {
    enum io_kind kind;
    uint32_t depth;   /* operations at once; 0: 256 */
    uint32_t threads; /* of IO_THREADS; 0: 4 */
};

/* IO_AUTO: io_uring, or threads when it is denied; io_why then says what stood against it. */
int io_open(const struct io_options *o, struct io **ret, struct why *why);
void io_close(struct io *io);

const char *io_name(const struct io *io); /* "io_uring", "threads" */
/* Why IO_AUTO took threads, a sentence; empty: it did not. */
const char *io_why(const struct io *io);
uint32_t io_depth(const struct io *io);
uint32_t io_room(const struct io *io); /* operations that io_queue takes now: for a chain */
/* A descriptor for poll and epoll, and nothing else: readable while io_reap has something to do. */
int io_eventfd(const struct io *io);

/* Memory that many transfers will go to. -errno is harmless: nothing is registered then. At most 8
 * pieces; io_unregister (all of them) before the memory goes. */
int io_register(struct io *io, void *mem, size_t len);
void io_unregister(struct io *io);

int io_queue(struct io *io, const struct io_op *op);
/* Hands over what was queued. Never waits. */
int io_submit(struct io *io);
/* What came back, at most cap. Makes no system call when nothing did. */
uint32_t io_reap(struct io *io, struct io_done *ret, uint32_t cap);
/* Submits, and waits until something is to be reaped or nothing is out. -EINTR. */
int io_wait(struct io *io);
/* Asks that the operation of that cookie ends early. It comes back in any case, perhaps as if it
 * had not been asked. */
void io_cancel(struct io *io, uint64_t cookie);
/* Waits until nothing is out. All is still to be reaped. */
void io_drain(struct io *io);

#endif
