/* engine/text/chat_tools.h - tools in a chat: those that may be called, and calls, as templates
 * write them.
 *
 * Two forms are known. Qwen2.5's, which many models have from Hermes, lists tools in the system
 * message and marks a call:
 *
 *     <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>
 *
 * Llama 3.1's lists them, indented, in the first user message; an answer that is nothing but
 * {"name": "f", "parameters": {"x": 1}} is a call. A template that knows no tools gets the former,
 * as text: what a model makes of it nobody knows.
 *
 * Threads    none.
 */
#ifndef ENGINE_TEXT_CHAT_TOOLS_H
#define ENGINE_TEXT_CHAT_TOOLS_H

#include "engine/text/chat_put.h"

/* What the template, in the spelling of template.h, knows. */
enum chat_tools chat_tools_know(const char *template);

/* Whether the text of a message of role tools or calls is what chat.h says. */
bool chat_tools_valid(const struct chat_message *m);

/* What stands in a system message behind its text (`after`: there is one), or in a user message
 * before it. */
void chat_put_tools(struct chat_out *o, enum chat_tools form, const struct chat_message *tools,
                    bool after);

/* The calls from *at on, a place in the text of a valid message, that go into one assistant's
 * message in this form; *at is behind them then. */
void chat_put_calls(struct chat_out *o, enum chat_tools form, const struct chat_message *calls,
                    size_t *at);

#endif
