/* base/why.h - one sentence that says why a file was refused.
 *
 * Loaders return a negative errno for the program and fill a struct why for the reader: the file,
 * what was found, what was expected. The first writer wins, so that the innermost cause stays.
 * What it quotes may be anything: the sentence is fit for a terminal (base/shown.h).
 *
 * Ownership  the caller's storage; nothing to release.
 */
#ifndef BASE_WHY_H
#define BASE_WHY_H

#define WHY_MAX 512

struct why {
    char text[WHY_MAX];
};

/* Writes the sentence unless one is there already. Returns err, so that a loader can say
 * `return why_set(why, -EINVAL, "...")`. why may be NULL. */
int why_set(struct why *why, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
