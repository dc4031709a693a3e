/* http/field.h - fields of a JSON object, read one by one.
 *
 * What is absent or null leaves the value as it is. What is there and is of another type, or out of
 * range, is refused with a sentence that names the field, what was found and what is allowed.
 * Fields that nobody asks for are ignored, as every server of these APIs does.
 *
 * Threads    pure.
 * Ownership  texts are borrowed from the object.
 * Errors     -1 and a problem.
 */
#ifndef HTTP_FIELD_H
#define HTTP_FIELD_H

#include "http/problem.h"

#include "http/json.h"
#include <stdbool.h>
#include <stdint.h>

/* The object in a request's body. */
int field_parse(const char *body, size_t len, struct json_object **ret, struct problem *p);

const char *field_type(const struct json_object *v); /* "a number", "an array" ... */

int field_text(const struct json_object *o, const char *name, const char **ret, struct problem *p);
int field_bool(const struct json_object *o, const char *name, bool *ret, struct problem *p);
int field_real(const struct json_object *o, const char *name, double min, double max, float *ret,
               struct problem *p);
int field_count(const struct json_object *o, const char *name, uint32_t min, uint32_t max,
                uint32_t *ret, struct problem *p);
int field_object(const struct json_object *o, const char *name, const struct json_object **ret,
                 struct problem *p);
int field_array(const struct json_object *o, const char *name, const struct json_object **ret,
                struct problem *p);

/* A list of token ids, which the field `name` is or holds; *ret: (json_len(list)), of m. */
int field_ids(const struct json_object *list, const char *name, struct mem *m, const uint32_t **ret,
              struct problem *p);

/* Refuses a field that would change the answer and that nothing here understands; false, 0, "",
 * [], {} and null ask for nothing. instead may be NULL. */
int field_refuse(const struct json_object *o, const char *name, const char *instead,
                 struct problem *p);

#endif
