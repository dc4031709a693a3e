/* engine/text/chat.h - chat messages to text by the model's own template.
 *
 * A GGUF carries a Jinja template. We run none: the template's text decides which of three known
 * families it is (ChatML as SmolLM2 and Qwen2 use it, Llama 3 headers), and what the family leaves
 * open (the default system message) is taken from the template. Any other is refused: the client
 * may send plain text instead.
 *
 * The text is rendered in pieces, because what a client wrote must never be read as a special
 * token and what the template wrote must: each piece says which it is.
 *
 * Llama 3.1 and 3.2 write a date into the system message: the template's own default, always the
 * same, so that a conversation's tokens do not depend on the day.
 *
 * Tools are messages, too. Before all others one of role tools lists what may be called, a line of
 * JSON each, as OpenAI's `tools` have them. What an assistant calls is a message of role calls,
 * behind what it says beside it, if anything: a line of its name, a space and its arguments, as
 * JSON, for each. Role tool has what came of a call. chat_tools.h says what templates make of it.
 *
 * Threads    immutable after chat_open.
 */
#ifndef ENGINE_TEXT_CHAT_H
#define ENGINE_TEXT_CHAT_H

#include "engine/file/gguf.h"

enum chat_family { CHAT_NONE, CHAT_CHATML, CHAT_LLAMA3 };

/* How calls look in an answer: not at all that the template knew, between tags, bare. */
enum chat_tools { CHAT_TOOLS_NONE, CHAT_TOOLS_TAGGED, CHAT_TOOLS_BARE };

struct chat;

struct chat_message {
    const char *role;
    const char *text;
    size_t text_len;
};

/* special: a special token's text, to be read as that token. All else is plain, the client's text
 * and what the template puts beside it: neighbours that are plain are one text, and should be
 * encoded as one, as they would be in the whole rendered string. text is there only while emit is
 * called. */
struct chat_piece {
    const char *text;
    size_t len;
    bool special;
};

/* -ENOENT: the file has no template; -ENOTSUP: one that we don't know, with a sentence. */
int chat_open(const struct gguf *g, struct chat **ret, struct why *why);
void chat_close(struct chat *c);
enum chat_family chat_family(const struct chat *c);
enum chat_tools chat_tools(const struct chat *c);

/* Where in the conversation the messages come. */
enum chat_at {
    CHAT_AT_START,    /* nothing before: begin-of-text and a default system message may come */
    CHAT_AT_NEXT,     /* after a finished turn */
    CHAT_AT_OPEN_TURN /* after a generated answer whose end-of-turn token was not kept */
};

/* Calls emit for each piece, in order. open_answer: end with the head of an assistant turn. Roles
 * are system, user, assistant, tools, calls and tool; others are -EINVAL, and tools that are not
 * the first at the start, or lines that are not what they should be, -EPROTO. No messages at the
 * start are -ENODATA for a template that looks at the first one; others write what they write
 * around their messages, without a default system message. A non-zero return of emit ends the
 * rendering and is returned. */
int chat_render(const struct chat *c, const struct chat_message *msgs, size_t n_msgs,
                enum chat_at at, bool open_answer,
                int (*emit)(void *arg, const struct chat_piece *p), void *arg);

#endif
