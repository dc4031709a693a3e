/* http/calls.h - calls of tools in an answer, told apart from its text while it comes.
 *
 * A call is {"name": .., "arguments": {..}} (or "parameters") of a tool that was offered, between
 * <tool_call> and </tool_call>, of which the last may be missing; or the whole answer is calls,
 * bare, or in a block ```json of Markdown, as smaller models have it. What only
 * looks like one (another name, JSON that is none, arguments that are no object) stays text, to the
 * byte. Text is passed on as soon as it can't be part of a call.
 *
 *            '{' or ``` first                                      the end
 *   START --------------------> WHOLE ------------------------------------------> calls, or text
 *     | anything else
 *     v           <tool_call>            </tool_call>, outside of a string
 *   TEXT ----------------------> TAG -------------------------> a call, or text
 *     ^                                                             |
 *     +-------------------------------------------------------------+
 *
 * An answer that is held to calls or a format (gist.h, GIST_CALLS) is told apart by how it begins:
 *
 *   HELD -- {"name": "f", "parameters": --> WHOLE
 *     |---- <tool_call> --> TAG
 *     +---- anything else --> PLAIN, where nothing is a call
 *
 * Threads    one at a time.
 * Ownership  borrows the tools; on_call takes arguments over. calls_fini frees the rest; zeros are
 * a new object.
 * Errors     memory that is short shows in `held.lost`.
 */
#ifndef HTTP_CALLS_H
#define HTTP_CALLS_H

#include "http/ask.h"

enum calls_state { CALLS_START, CALLS_TEXT, CALLS_TAG, CALLS_WHOLE, CALLS_HELD, CALLS_PLAIN };

struct calls {
    const struct ask_tool *tools;
    size_t n_tools;
    void (*on_text)(void *arg, const char *text, size_t len);
    void (*on_call)(void *arg, const char *name, struct json_object *arguments);
    void *arg;

    enum calls_state state;
    enum gist_tools form; /* of calls, in HELD */
    size_t at; /* of the answer's bytes: the first that is held, or told by on_text just now */
    struct text held;
    size_t n; /* calls so far */
};

/* A new answer. whole: it is a call, and nothing else is to come. */
void calls_begin(struct calls *c, bool whole);
/* It is calls in this form, or has a format. */
void calls_begin_held(struct calls *c, enum gist_tools form);
void calls_add(struct calls *c, const char *text, size_t len);
void calls_end(struct calls *c);
void calls_fini(struct calls *c);

#endif
