/* engine/text/schema.h - JSON Schemas (draft 2020-12) as grammars of the JSON texts that satisfy
 * them.
 *
 * Every text of the grammar is valid; not every valid text is one of the grammar. Keys come in the
 * schema's order, and space as engine/text/jsontext.h has it.
 *
 *   understood    type, enum, const, $ref (to a place in the same schema, also recursive), $defs,
 *                 anyOf, allOf, oneOf (where no value can satisfy two), properties, required,
 *                 additionalProperties, items, prefixItems, minItems, maxItems, minLength,
 *                 maxLength, pattern (pattern.h), format (date-time, date, time, uuid, ipv4,
 *                 email), minimum, maximum, exclusiveMinimum, exclusiveMaximum
 *   passed over   what only describes: title, description, default, examples, $comment, ...
 *   refused       all else, by name and place: what is not enforced must not seem to be
 *
 * Where the standard allows anything, less is written: of an object with `properties` no others
 * without `additionalProperties`; of an array with `prefixItems` all of them and no more without
 * `items`; and where no `type` is said only those that the keywords are about.
 *
 * Threads    none.
 * Errors     of grammar.h, and -ENOTSUP for what is refused. Sentences say where, as a JSON
 * pointer.
 */
#ifndef ENGINE_TEXT_SCHEMA_H
#define ENGINE_TEXT_SCHEMA_H

#include "engine/text/grammar.h"

int schema_compile(const char *text, size_t len, struct grammar **ret, struct why *why);

#endif
