/* engine/text/template.h - a Jinja template's source in one canonical spelling, to be searched.
 *
 * We run no Jinja. To know a template is to find its expressions, and the same expression is
 * written in many ways: quotes, spaces, message['role'] or message.role, 'a' + 'b' or 'ab',
 * escapes. In the canonical form
 *
 *     a string literal    \1 ... \1, escapes decoded; literals joined by + are one
 *     {{ }}  {% %}        \2 \3  \4 \5, without their - and + signs
 *     x['name']           x.name
 *     spaces              none outside of literals; comments neither
 *
 * A template that has text outside of its tags (other than white space) is not one of ours:
 * -ENOTSUP.
 *
 * Threads    none.
 * Errors     -ENOMEM; -ENOTSUP: not a template, or one with text of its own.
 */
#ifndef ENGINE_TEXT_TEMPLATE_H
#define ENGINE_TEXT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

/* *ret is NUL-terminated, of one allocation; free() it. */
int template_canonical(const char *source, size_t len, char **ret);

#endif
