/* base/json_escape.h - how bytes stand in a JSON text: the short escape where JSON has one, and
 * only what has to be escaped. A '/' stays a '/': escaped it is the same JSON, and not what anybody
 * would write.
 *
 * Threads    none; a pure function.
 */
#ifndef BASE_JSON_ESCAPE_H
#define BASE_JSON_ESCAPE_H

#include <stdbool.h>
#include <stdio.h>

#define JSON_ESCAPE_MAX 7u /* with its NUL */

/* False: c stands there as it is. */
static inline bool json_escape(unsigned char c, char ret[JSON_ESCAPE_MAX])
{
    static const char letters[] = "btn-fr"; /* of \b, 8, to \r, 13; \v has none */

    if (c >= ' ' && c != '"' && c != '\\')
        return false;
    if (c >= ' ')
        (void)snprintf(ret, JSON_ESCAPE_MAX, "\\%c", c);
    else if (c >= '\b' && c <= '\r' && c != '\v')
        (void)snprintf(ret, JSON_ESCAPE_MAX, "\\%c", letters[c - '\b']);
    else
        (void)snprintf(ret, JSON_ESCAPE_MAX, "\\u%04x", c);
    return true;
}

#endif
