/* tests/support/io_faulty.h - an io over another one that does what disks do on bad days.
 *
 * Faults are rules: which operation, and what happens to it. What is linked behind one that failed
 * is cancelled, as store/io.h has it, by the io below.
 *
 *     struct io_fault full = { .code = IO_WRITE, .nth = 3, .what = IO_FAULT_PART, .error = ENOSPC
 * };
 *
 *     io_faulty_open(inner, &io);      inner is taken: io_close closes both
 *     io_faulty_add(io, &full);        the third write from now on
 *
 * Its depth is half of that of the io below.
 */
#ifndef TESTS_SUPPORT_IO_FAULTY_H
#define TESTS_SUPPORT_IO_FAULTY_H

#include "store/io.h"
#include "tests/support/io_log.h"

enum io_fault_what {
    IO_FAULT_ERROR, /* nothing is done, -error */
    IO_FAULT_PART,  /* of a write: its first half is there, -error */
    IO_FAULT_EARLY, /* of a read: the file ends in its first half */
    IO_FAULT_LATE,  /* comes back when nothing else is out, or at io_faulty_release */
    IO_FAULT_NEVER  /* comes back at io_faulty_release */
};

struct io_fault {
    enum io_code code; /* IO_CODE__N: any */
    const char *name;  /* in the file's path, or in an operation's; NULL: any */
    uint64_t nth;      /* of those from now on, 1 is the next; 0: all */
    enum io_fault_what what;
    int error;
};

int io_faulty_open(struct io *inner, struct io **ret);
void io_faulty_add(struct io *io, const struct io_fault *f); /* borrows name; 16 at most */
void io_faulty_clear(struct io *io);
/* Chains are handed over, and what came back is told, in an order of chance. 0: no more. */
void io_faulty_shuffle(struct io *io, uint64_t seed);
void io_faulty_release(struct io *io);
/* Operations of that code so far, IO_CODE__N: of all. */
uint64_t io_faulty_n(const struct io *io, enum io_code code);
/* What is done from now on goes to the log (borrowed). NULL: to none. */
void io_faulty_record(struct io *io, struct io_log *log);

#endif
