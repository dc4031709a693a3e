/* http/json.h - JSON in and out. The one door to json-c.
 *
 * A value is a struct json_object; NULL is null. What was read is JSON by the standard
 * (base/json_check.h), without NUL, of at most JSON_VALUES_MAX values and JSON_DEPTH levels.
 *
 * Threads    one at a time a value.
 * Ownership  json_free frees a value with all that is in it. What json_get, json_at and json_text
 *            return is borrowed from it. json_make, json_set and json_add take values over.
 * Errors     json_read: a negative errno and a sentence. What is made: NULL, or -1 (out of memory),
 *            also of a value that contains such a one, so that its maker asks once.
 */
#ifndef HTTP_JSON_H
#define HTTP_JSON_H

#include "http/mem.h"

#include <stdint.h>

#define JSON_DEPTH      256
#define JSON_VALUES_MAX (1u << 20)

struct json_object;

enum json_kind {
    JSON_NULL,
    JSON_BOOL,
    JSON_INTEGER,
    JSON_REAL,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/* --- read ------------------------------------------------------------------------------------- */

enum json_read_flags {
    JSON_SAID = 1 /* by a model, which writes line ends into texts as they are */
};

/* -EINVAL: it is not JSON, or more than is read; -ENOMEM. */
int json_read(const char *text, size_t len, unsigned flags, struct json_object **ret,
              char why[160]);
void json_free(struct json_object *v);

enum json_kind json_kind(const struct json_object *v);
const struct json_object *json_get(const struct json_object *o, const char *name); /* or NULL */
size_t json_len(const struct json_object *v); /* elements or members; of a text: bytes; else 0 */
const struct json_object *json_at(const struct json_object *array, size_t i);
const char *json_text(const struct json_object *string);
bool json_true(const struct json_object *v);
double json_real(const struct json_object *v); /* of either kind of number */
int64_t json_integer(const struct json_object *v);

/* --- make ------------------------------------------------------------------------------------- */

/* A value by its form, as in json_make("{s:s, s:[o, n], s:I}", "a", "text", "b", v, "c", int64):
 *
 *     s  text    s?  text or NULL    s%  text and its size_t     n  null       b  int: true, false
 *     i  int     I   int64_t         f   double, finite          o  a value
 *
 * NULL: out of memory, or a value is NULL, which could not be made itself; what was given is freed.
 * What may be null is put into its place by json_with.
 */
struct json_object *json_make(const char *form, ...);

int json_set(struct json_object *o, const char *name, struct json_object *v); /* v: not null */
/* o with v under that name; NULL: either could not be made, and neither is there any more. */
struct json_object *json_with(struct json_object *o, const char *name, struct json_object *v);
int json_set_null(struct json_object *o, const char *name);
int json_add(struct json_object *array, struct json_object *v); /* v: not null */
/* Elements of `from`, which is taken over, behind those of array. */
int json_join(struct json_object *array, struct json_object *from);
/* v with one more owner; NULL: NULL. */
struct json_object *json_share(const struct json_object *v);
/* Members of `from`, which is taken over, behind those of o. */
int json_merge(struct json_object *o, struct json_object *from);

void json_write(struct text *t, const struct json_object *v);
void json_write_text(struct text *t, const char *text); /* as a string */
/* As Python's json.dumps does, with a space behind ',' and ':', which is what models have seen.
 * refs, if it is not NULL, comes behind the '#' of each "$ref": a schema stands in another one. */
void json_write_spaced(struct text *t, const struct json_object *v, const char *refs);

#endif
