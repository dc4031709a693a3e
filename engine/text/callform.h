/* engine/text/callform.h - grammars of answers that may call tools: calls as a template writes
 * them, or an answer in a format.
 *
 * The text is a JSON object:
 *
 *     form     "tagged" or "bare", as chat_tools.h has them
 *     tools    [{"name": "f", "parameters": {...}}, ...]; the schema that the arguments satisfy, or
 *              without one any object
 *     one      true: one call at most. Else as many as come, where they are tagged
 *     schema   that an answer satisfies which is no call; or
 *     grammar  GBNF that it is a text of; without both it is calls
 *
 *     tagged   <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>
 *              and further ones, each on a line of its own
 *     bare     {"name": "f", "parameters": {"x": 1}}
 *
 * Tags are written as the vocabulary's tokens (trie.h) or as text. Who reads an answer knows from
 * its first bytes what it is: a text that begins with <tool_call>, or with {"name": "f",
 * "parameters": of one of the tools, is calls. A format that has such a text is refused.
 *
 * Threads    none.
 * Errors     of schema.h and gbnf.h; -ENOTSUP also for such a format.
 */
#ifndef ENGINE_TEXT_CALLFORM_H
#define ENGINE_TEXT_CALLFORM_H

#include "engine/text/grammar.h"

#define CALLFORM_TOOLS_MAX 128u

int callform_compile(const char *text, size_t len, struct grammar **ret, struct why *why);

#endif
