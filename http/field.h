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

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The object in a request's body. */
int field_parse(const char *body, size_t len, json_t **ret, struct problem *p);

const char *field_type(const json_t *v); /* "a number", "an array" ... */

/* NULL: absent or null. */
const json_t *field_get(const json_t *o, const char *name);

int field_text(const json_t *o, const char *name, const char **ret, struct problem *p);
int field_bool(const json_t *o, const char *name, bool *ret, struct problem *p);
int field_real(const json_t *o, const char *name, double min, double max, float *ret,
               struct problem *p);
int field_count(const json_t *o, const char *name, uint32_t min, uint32_t max, uint32_t *ret,
                struct problem *p);
int field_object(const json_t *o, const char *name, const json_t **ret, struct problem *p);
int field_array(const json_t *o, const char *name, const json_t **ret, struct problem *p);

/* Refuses a field that would change the answer and that nothing here understands; false, 0, "",
 * [], {} and null ask for nothing. instead may be NULL. */
int field_refuse(const json_t *o, const char *name, const char *instead, struct problem *p);

#endif
