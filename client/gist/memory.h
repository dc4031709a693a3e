/* gist/memory.h - what becomes of old context (a part of gist.h). */
#ifndef GIST_MEMORY_H
#define GIST_MEMORY_H

#ifndef GIST_H
#error "include <gist.h>, which has all of it"
#endif

/* What becomes of old context. With any compressor but GIST_FULL a segment that is full and has
 * keep_tail tokens behind it is compressed; when the budget is short older segments are compressed
 * further, up to ratio 64: memory stays bounded, and a session may be longer than the model's
 * window. */
enum gist_compressor {
    GIST_FULL,          /* all of it stays as it is */
    GIST_NONE,          /* it is forgotten */
    GIST_FINE_KV,       /* one key and value of every `ratio` tokens */
    GIST_SELECT,        /* for each head those that the segment's end attends to */
    GIST_COARSE_KV,     /* an adapter's gists of the whole segment */
    GIST_COARSE_REC,    /* the same, their last hidden states read as soft tokens */
    GIST_SELECT_REREAD, /* for each head those that reading the segment again attends to */
    GIST_FIT /* those that the next segment would attend to, with values that stand for all of it */
};           /* gist_compressor_name knows those of a later library, too */

/* A struct of zeros asks for the defaults. A field whose 0 means "the default" is 0 itself when
 * flags of its struct say so; any other number needs no flag. */
#define GIST_SET_SEGMENT        0x100u
#define GIST_SET_RATIO          0x200u
#define GIST_SET_SINKS          0x400u
#define GIST_SET_BUDGET         0x800u
#define GIST_SET_WINDOW         0x1000u
#define GIST_SET_TOP_P          0x2000u
#define GIST_SET_REPEAT_PENALTY 0x4000u
#define GIST_SET_HYDRATE        0x8000u
#define GIST_SET_LOGPROBS       0x10000u
#define GIST_SET_DRAFT          0x20000u

#define GIST_NO_SINKS     UINT32_MAX /* 0 with GIST_SET_SINKS */
#define GIST_HYDRATE_AUTO UINT32_MAX /* as many as fit */
#define GIST_DRAFT_AUTO   UINT32_MAX /* as many as pay */
#define GIST_LATE         1u         /* segments stay as they are until the budget is short */
#define GIST_FIXED        2u /* all segments keep one ratio: when the budget is used up, an error */

/* Texts of any length, without a choice to make: all of it stays as it is while it fits (the
 * model's window or the budget, this client's pages, the daemon's), and is exactly what GIST_FULL
 * has. When it does not fit the oldest segments are compressed, as far as needed; never what was
 * asked last, while it is answered; and those that a prompt points to come back as they were read.
 * In gist_policy.flags it is all that has to be
 * said, and what new programs should say. In gist_memory.flags it chooses what the other fields
 * leave at 0, and takes what they say. Who does not say it has what earlier versions had:
 * GIST_FULL, which ends with GIST_E_CONTEXT_LENGTH_EXCEEDED when a text does not fit. */
#define GIST_AUTO 0x20u

struct gist_memory {
    size_t size; /* sizeof(struct gist_memory) */
    enum gist_compressor compressor;
    uint32_t ratio;      /* 2 to 64, a divisor of the segment; 0: 8, by GIST_AUTO 4 */
    uint32_t sinks;      /* first tokens that always stay; 0: the adapter's,
                          * without one 4; GIST_NO_SINKS: none */
    uint32_t keep_tail;  /* last tokens that are not compressed yet */
    const char *adapter; /* that makes the gists, of gist_stats.adapters; NULL: none */
    uint32_t budget;     /* keys that the session may hold; 0: as many as the model's window */
    unsigned flags;      /* GIST_AUTO, _LATE, _FIXED, GIST_SET_RATIO, _SINKS, _BUDGET, _HYDRATE */
    uint32_t hydrate;    /* compressed segments, at most, that come back as they were read for a
                          * prompt that points to them; 0: none, by GIST_AUTO as many as fit */
};

/* "full" for GIST_FULL and so on, and a sentence that says what old context becomes; NULL past the
 * last. */
GIST_API const char *gist_compressor_name(enum gist_compressor compressor);
GIST_API const char *gist_compressor_help(enum gist_compressor compressor);

#endif
