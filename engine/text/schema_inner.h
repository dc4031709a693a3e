/* engine/text/schema_inner.h - what the files of the translation of schemas share.
 *
 *     schema.c        a schema: its kinds of values, references
 *     schema_join.c   several schemas of one value: allOf, anyOf, oneOf
 *     schema_kind.c   strings, numbers, arrays, objects
 *     callform.c      schemas as parts of a larger grammar
 *
 * Threads    none. Errors: kept in build.err (expr.h).
 */
#ifndef ENGINE_TEXT_SCHEMA_INNER_H
#define ENGINE_TEXT_SCHEMA_INNER_H

#include "engine/text/jsontext.h"

#include <json-c/json.h>

#define SCHEMA_DEPTH_MAX   64u
#define SCHEMA_JOIN_MAX    1000u /* schemas that are made by joining others */
#define SCHEMA_MEMBERS_MAX 1000u /* that an object names */
#define SCHEMA_WORK_MAX    (1u << 20)
#define SCHEMA_WHERE_MAX   200u

/* Where in the schema we are; of what is joined, where it was said to be. */
struct schema_place {
    const struct schema_place *up; /* NULL: the whole */
    const char *key;               /* NULL: index */
    size_t index;
    unsigned depth;
};

struct schema_ref {
    struct json_object *to;
    uint32_t rule;
    bool called; /* while its body is made: by that */
    bool dead;   /* no value satisfies it, and nothing calls its rule */
};

struct schema {
    struct expr_build build;
    struct jsontext json;
    struct json_object *whole;
    const char *of;         /* what it is the schema of, as sentences begin; NULL: of the answer */
    struct expr_array refs; /* struct schema_ref */
    struct expr_array joined; /* struct json_object *: ours */
    uint64_t work;            /* of joins: values compared, and names copied */
};

enum schema_kind {
    SCHEMA_NULL = 1,
    SCHEMA_BOOLEAN = 2,
    SCHEMA_INTEGER = 4,
    SCHEMA_NUMBER = 8, /* integers are of both */
    SCHEMA_STRING = 16,
    SCHEMA_ARRAY = 32,
    SCHEMA_OBJECT = 64,
    SCHEMA_ANY = 127
};
#define SCHEMA_TYPES 7u

/* schema.c */
/* A text of at most GRAMMAR_TEXT_MAX bytes, which sentences call `what`. */
int schema_parse(const char *what, const char *text, size_t len, int depth,
                 struct json_object **ret, struct why *why);
int schema_init(struct schema *s, struct why *why);
void schema_fini(struct schema *s);
/* The rule of a schema, which stays until s has gone; of: as above, and as long. */
uint32_t schema_root(struct schema *s, struct json_object *whole, const char *of);
extern const char *const schema_type_names[SCHEMA_TYPES]; /* of kind 1 << i */
struct schema_place schema_at(const struct schema_place *up, const char *key, size_t index);
/* "the schema's /properties/a", or "the schema". */
const char *schema_where(const struct schema_place *at, char ret[SCHEMA_WHERE_MAX]);
void schema_fail(struct schema *s, const struct schema_place *at, int err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
uint32_t schema_expr(struct schema *s, struct json_object *x, const struct schema_place *at);
/* What $ref points to; NULL: it failed. */
struct json_object *schema_target(struct schema *s, struct json_object *ref,
                                  const struct schema_place *at);
struct json_object *schema_get(struct json_object *x, const char *key); /* NULL: not there */
uint32_t schema_literal(struct schema *s, struct json_object *value);   /* its text */
/* What `type` says; SCHEMA_ANY without. */
unsigned schema_types(struct schema *s, struct json_object *x, const struct schema_place *at);
unsigned schema_kind_of(struct json_object *value);
/* The only keywords of x that say something are these two (with: NULL: none). */
bool schema_alone(struct schema *s, struct json_object *x, const struct schema_place *at,
                  const char *key, const char *with);
/* It says something of values, and does not describe alone. */
bool schema_asserts(const char *key);

/* schema_join.c: has allOf, anyOf or oneOf. */
uint32_t schema_joined(struct schema *s, struct json_object *x, const struct schema_place *at);

/* schema_kind.c: x has no enum and the like. */
uint32_t schema_string(struct schema *s, struct json_object *x, const struct schema_place *at);
uint32_t schema_number(struct schema *s, struct json_object *x, bool whole,
                       const struct schema_place *at);
uint32_t schema_array(struct schema *s, struct json_object *x, const struct schema_place *at);
uint32_t schema_object(struct schema *s, struct json_object *x, const struct schema_place *at);

#endif
